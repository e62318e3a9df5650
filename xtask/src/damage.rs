//! `cargo xtask damage`: whatever becomes of the files of a data directory, nothing wrong is read from it.
//!
//! `base` builds directories whose `content` is known, `harm` says what is done to a file of a copy, `case` starts
//! on it, and `judge` holds what a `reader` finds against the content; `log_file` knows what may be gone, and `repaired`
//! holds what a repair leaves against it. Cases run in processes of their own (`worker`), and `tally` counts them.

mod options;
mod content;
mod base;
mod harm;
mod log_file;
mod reader;
mod judge;
mod panics;
mod repaired;
mod case;
mod worker;
mod tally;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::place;
use content::History;
use options::Options;
use tally::Tally;
use worker::{Said, Setting};

pub(crate) use worker::{TASK as WORKER_TASK, work};

/// No build takes longer, nor do all cases.
const DEADLINE: Duration = Duration::from_secs(30 * 60);
const CASES_DEADLINE: Duration = Duration::from_secs(6 * 60 * 60);
/// Copies of small files are quick to make here.
const MEMORY: &str = "/dev/shm";

/// Runs the cases.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        say!("{}", options::HELP);
        return Ok(());
    };
    if options.bin_dir.is_none() && !options.debug && cfg!(debug_assertions) {
        return place::run_released("damage", arguments, DEADLINE, CASES_DEADLINE);
    }
    let given = options.bin_dir.as_deref();
    let binaries = place::binaries_of(options.debug, given, DEADLINE)?;
    let binary = binaries.join("rhash-server");
    let work = match &options.work {
        Some(work) => work.clone(),
        None => work_directory()?,
    };
    place::empty_directory(&work)?;
    let done = run_in(&options, &work, &binary);
    std::fs::remove_dir_all(&work).map_err(|error| Failure::new(work.display(), error))?;
    done
}

/// Where copies go if nothing is said.
fn work_directory() -> Result<PathBuf, Failure> {
    let name = format!("rhash-damage-{}", std::process::id());
    let below = match Path::new(MEMORY).is_dir() {
        true => PathBuf::from(MEMORY),
        false => place::target_directory()?.join("damage"),
    };
    Ok(below.join(name))
}

fn run_in(options: &Options, work: &Path, binary: &Path) -> Result<(), Failure> {
    let seed = options.seed;
    let kept = place::target_directory()?.join(format!("damage/bases-{seed}"));
    if options.case.is_none() || !kept.is_dir() {
        say!("xtask: damage: building the directories, seed {seed} …");
        build_bases(binary, &kept, seed)?;
    }
    // Links need all on one file system.
    let bases = work.join("bases");
    base::copy_all(&kept, &bases)?;
    let setting = Setting {
        bases,
        work: work.to_owned(),
        binary: binary.to_owned(),
        checks: has_check(binary)?,
        seed,
    };
    for base in worker::open_bases(&setting.bases, seed)? {
        say!("xtask: damage: {}", base.describe());
    }
    if let Some(number) = options.case {
        return run_one(&setting, number);
    }
    let before = base::digest(&setting.bases)?;
    let began = Instant::now();
    let written = kept.with_extension("violations");
    let tally = Tally::with_file(&written)?;
    let tally = worker::run_all(&setting, 0..options.cases, options.jobs, tally)?;
    let seconds = began.elapsed().as_secs_f64();
    tally.say();
    let mut checks = Checklist::default();
    let (cases, violated) = tally.counts();
    checks.check(
        "whatever is damaged, each key is right or an error",
        violated == 0,
        format!(
            "{violated} of {cases} cases violate that (see {}), {seconds:.0} s, seed {seed}",
            written.display()
        ),
    );
    checks.check(
        "damage is noticed",
        tally.noticed() * 3 > cases,
        format!("in {} of {cases} cases", tally.noticed()),
    );
    checks.check(
        "the directories that were copied are as they were",
        base::digest(&setting.bases)? == before,
        String::from("by their contents"),
    );
    if !setting.checks {
        say!("xtask: damage: this rhash-server has no --check, which was left out");
    }
    checks.outcome("damage")
}

fn build_bases(binary: &Path, bases: &Path, seed: u64) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start a runtime", error))?;
    base::build(binary, bases, &History::new(seed), &runtime)
}

/// Whether a server can look through a directory without serving it.
fn has_check(binary: &Path) -> Result<bool, Failure> {
    let help = Command::new(binary)
        .arg("--help")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(binary.display(), error))?;
    Ok(String::from_utf8_lossy(&help.stdout).contains("--check"))
}

/// Runs one case in this process, and says all of it.
fn run_one(setting: &Setting, number: u64) -> Result<(), Failure> {
    let mut violations = 0;
    worker::run_here(setting, number..number + 1, |said| {
        if let Said::Done(_, outcome) = said {
            let ending = worker::name_of(outcome.ending);
            say!("xtask: damage: case {number}: {}", outcome.story);
            say!("xtask: damage:     it ended: {ending}");
            if let Some(said) = outcome.said {
                say!("xtask: damage:     the server said: {said}");
            }
            for violation in &outcome.violations {
                say!("xtask: damage:     VIOLATION: {violation}");
            }
            violations = outcome.violations.len();
        }
    })?;
    match violations {
        0 => Ok(()),
        count => Err(Failure::Failed(format!(
            "case {number}: {count} violations"
        ))),
    }
}
