//! `cargo xtask faults`: a server whose disk fails, in every way, at the first, a later and every call.
//! It says so, and nothing that it acknowledged is lost.
//!
//! A library before the C library fails what a control file says (`control`, tests/preload/disk.c). Each case
//! (`cases`) is a server of its own that is loaded meanwhile (`running`, `client`), or that starts (`starting`), or whose
//! disk then loses its power, too; what it acknowledged (`ledger`) is looked for on a healthy disk.

mod control;
mod cases;
mod ledger;
mod client;
mod template;
mod outcome;
mod running;
mod starting;
mod options;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::place;
use crate::power::preload::Preload;
use crate::power::stage::Stage;
use crate::power::trial::DEADLINE;
use cases::{Case, Phase};
use options::Options;
use outcome::Outcome;
use running::Bench;

/// Cases that are tried at the same time; they mostly wait.
const WORKERS: usize = 3;

/// It says how far it is after so many cases.
const SAY_EVERY: usize = 50;

/// Runs the faults.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        say!("{}", options::HELP);
        return Ok(());
    };
    let given = options.bin_dir.as_deref();
    let binaries = place::binaries_of(options.debug, given, DEADLINE * 30)?;
    let target = place::target_directory()?.join("faults");
    place::empty_directory(&target)?;
    let preload = Preload::build(&target)?;
    let stage = Stage::new("faults")?;
    let binary = binaries.join("rhash-server");
    let (stopped, killed) = template::make(&stage, &binary, options.seed)?;
    let bench = Bench {
        binary: &binary,
        preload: &preload,
        stage: &stage,
        stopped: &stopped,
        killed: &killed,
        seed: options.seed,
    };
    let mut cases = cases::cases(options.quick);
    if let Some(only) = &options.only {
        cases.retain(|case| case.name.contains(only));
    }
    say!(
        "xtask: faults: {} cases, seed {} …",
        cases.len(),
        options.seed
    );
    let began = Instant::now();
    let outcomes = try_all(&bench, &cases)?;
    let seconds = began.elapsed().as_secs();
    let report = target.join("cases.txt");
    write_report(&report, &outcomes)?;
    say!(
        "xtask: faults: {} cases in {seconds} s; each one in {}",
        outcomes.len(),
        report.display()
    );
    let mut checks = Checklist::default();
    check_groups(&outcomes, &mut checks);
    checks.outcome("faults")
}

/// Tries all cases.
fn try_all(bench: &Bench<'_>, cases: &[Case]) -> Result<Vec<Outcome>, Failure> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    let worked: Result<(), Failure> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (next, outcomes) = (&next, &outcomes);
                scope.spawn(move || try_some(bench, cases, worker, next, outcomes))
            })
            .collect();
        for worker in workers {
            let ended = worker.join();
            ended.map_err(|_panic| Failure::Failed("a worker panicked".to_owned()))??;
        }
        Ok(())
    });
    worked?;
    Ok(outcomes.into_inner().unwrap_or_default())
}

fn try_some(
    bench: &Bench<'_>,
    cases: &[Case],
    worker: usize,
    next: &AtomicUsize,
    outcomes: &Mutex<Vec<Outcome>>,
) -> Result<(), Failure> {
    loop {
        let index = next.fetch_add(1, Relaxed);
        let Some(case) = cases.get(index) else {
            return Ok(());
        };
        let number = index as u64;
        let tried = match case.phase {
            Phase::Starting => bench.run_start(case, worker, number),
            _ => bench.run(case, worker, number),
        };
        let outcome = tried.map_err(|failure| Failure::new(&case.name, failure))?;
        if !outcome.wrong.is_empty() {
            say!("xtask: faults: {}", outcome.lines());
        }
        if let Ok(mut outcomes) = outcomes.lock() {
            outcomes.push(outcome);
            if outcomes.len().is_multiple_of(SAY_EVERY) {
                say!("xtask: faults: {} cases", outcomes.len());
            }
        }
    }
}

fn write_report(path: &Path, outcomes: &[Outcome]) -> Result<(), Failure> {
    let mut lines: Vec<String> = outcomes.iter().map(Outcome::lines).collect();
    lines.sort();
    let written = std::fs::write(path, lines.join("\n") + "\n");
    written.map_err(|error| Failure::new(path.display(), error))
}

/// Says for each group of cases what came of it.
fn check_groups(outcomes: &[Outcome], checks: &mut Checklist) {
    let mut groups: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        groups.entry(&outcome.group).or_default().push(outcome);
    }
    for (group, outcomes) in groups {
        let sum = |figure: fn(&Outcome) -> u64| outcomes.iter().map(|one| figure(one)).sum::<u64>();
        let count = |holds: fn(&Outcome) -> bool| outcomes.iter().filter(|one| holds(one)).count();
        let mut detail = format!(
            "{} cases, {} reached, {} calls failed; {} writes acknowledged, {} refused, {} reads, {} failed",
            outcomes.len(),
            count(|one| one.hits > 0),
            sum(|one| one.hits),
            sum(|one| one.acked),
            sum(|one| one.refused),
            sum(|one| one.reads),
            sum(|one| one.reads_failed)
        );
        let failed = count(|one| one.log_failed);
        if failed > 0 {
            write!(detail, "; the log failed in {failed}").ok();
        }
        let slowest = outcomes.iter().filter_map(|one| one.resumed).max();
        if let Some(slowest) = slowest {
            let ms = slowest.as_millis();
            write!(detail, "; writes again after {ms} ms at most").ok();
        }
        let wrong = outcomes.iter().find(|one| !one.wrong.is_empty());
        if let Some(wrong) = wrong {
            let count = count(|one| !one.wrong.is_empty());
            write!(
                detail,
                "; {count} wrong, as {}: {}",
                wrong.name,
                wrong.wrong.join("; ")
            )
            .ok();
        }
        checks.check(group, wrong.is_none(), detail);
    }
}
