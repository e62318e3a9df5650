//! `cargo xtask main-job`: the proof of the main job.
//!
//! It indexes real text through a real server whose memory limit is far smaller than the index, and
//! holds the answers for thousands of sampled terms against a count made by an independent program.
//! Then it does the same with a second start on the same data, and with a server that keeps all in
//! memory. Meanwhile each server's memory is sampled from outside.
//!
//! This file owns the order of things; what each part does is below it.

mod options;
mod workplace;
mod counter;
mod ask;
mod verdict;

use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::sampler::Sampler;
use crate::server::Server;
use crate::sizes::mebibytes;
use ask::{Asker, Hits};
use counter::Counts;
use options::Options;
use verdict::{PhaseResult, Verdict};
use workplace::Workplace;

/// A differing answer is shown this often, then only counted.
const DIFFERENCES_SHOWN: usize = 5;

/// One server's turn: how it is started and what is done with it.
struct Phase<'a> {
    name: &'static str,
    limit: &'a str,
    limit_bytes: u64,
    memory_only: bool,
    builds_index: bool,
}

/// Runs the proof.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        say!("{}", options::HELP);
        return Ok(());
    };
    let workplace = Workplace::prepare(&options)?;
    say!("xtask: counting {} terms independently …", options.sample);
    let counts = Counts::make(&options, &workplace)?;
    say!(
        "xtask: {} terms of {} documents ({} files skipped) counted in {:.1} s",
        counts.terms.len(),
        counts.documents,
        counts.skipped,
        counts.seconds
    );
    if !counts.newer.is_empty() {
        let newer = &counts.newer;
        say!(
            "xtask: {} terms beyond Python's Unicode tables set apart: {newer:?}",
            newer.len()
        );
    }

    let mut verdict = Verdict::default();
    let phases = phases(&options);
    let mut first_hits = None;
    for phase in &phases {
        let hits = run_phase(phase, &options, &workplace, &counts, &mut verdict)?;
        match &first_hits {
            None => first_hits = Some(hits),
            Some(first) => {
                let differing = hits.differing(first);
                verdict.check(
                    &format!("{}: searches equal the first server's", phase.name),
                    differing.is_empty() && hits.len() > 0,
                    describe(&differing, hits.len()),
                );
            }
        }
    }
    verdict.write(&options, &workplace, &counts)?;
    workplace.clean_up(&options);
    verdict.outcome()
}

fn phases(options: &Options) -> Vec<Phase<'_>> {
    let mut phases = vec![
        Phase {
            name: "limited",
            limit: &options.mem_limit,
            limit_bytes: options.mem_limit_bytes,
            memory_only: false,
            builds_index: true,
        },
        Phase {
            name: "restarted",
            limit: &options.mem_limit,
            limit_bytes: options.mem_limit_bytes,
            memory_only: false,
            builds_index: false,
        },
    ];
    if !options.skip_memory_only {
        phases.push(Phase {
            name: "memory-only",
            limit: &options.memory_only_limit,
            limit_bytes: options.memory_only_limit_bytes,
            memory_only: true,
            builds_index: true,
        });
    }
    phases
}

/// Starts the phase's server, builds the index if asked, asks for all terms, and stops the server.
fn run_phase(
    phase: &Phase<'_>,
    options: &Options,
    workplace: &Workplace,
    counts: &Counts,
    verdict: &mut Verdict,
) -> Result<Hits, Failure> {
    let name = phase.name;
    say!(
        "xtask: {name}: starting the server, limit {} …",
        phase.limit
    );
    let began = Instant::now();
    let mut server = start_server(phase, workplace)?;
    server.wait_until_ready(QUICK)?;
    let start_seconds = began.elapsed().as_secs_f64();
    let output = workplace.work.join(name);
    let mut sampler = Sampler::start(server.id(), phase.limit_bytes, &output)?;
    let asker = Asker::new(workplace, name, server.address(), options.deadline);

    let mut result = PhaseResult {
        name,
        start_seconds,
        ..PhaseResult::default()
    };
    if phase.builds_index {
        say!("xtask: {name}: indexing …");
        result.index_seconds = Some(asker.index()?);
    }
    result.stats_before = asker.stats()?;

    say!("xtask: {name}: asking for {} terms …", counts.terms.len());
    let began = Instant::now();
    let answers = asker.terms(counts.terms.keys())?;
    result.ask_seconds = began.elapsed().as_secs_f64();
    result.asked = counts.terms.len();
    let differing = counts.differing(&answers);
    result.differing = differing.len();
    verdict.check(
        &format!("{name}: every sampled term equals the independent count"),
        differing.is_empty() && !counts.terms.is_empty(),
        describe(&differing, counts.terms.len()),
    );
    let began = Instant::now();
    let hits = asker.searches(&counts.queries())?;
    result.search_seconds = began.elapsed().as_secs_f64();
    result.searches = hits.len();
    result.stats_after = asker.stats()?;

    let began = Instant::now();
    let status = server.stop(options.deadline)?;
    result.stop_seconds = began.elapsed().as_secs_f64();
    verdict.check(
        &format!("{name}: SIGTERM stops it cleanly"),
        status.success(),
        status.to_string(),
    );
    result.memory = sampler.finish()?;
    let chart = workplace.results.join(format!("memory-{name}.svg"));
    std::fs::copy(sampler.chart(), &chart).map_err(|e| Failure::new(chart.display(), e))?;
    judge(phase, &result, verdict);
    verdict.add(result);
    Ok(hits)
}

/// Starts the phase's server.
fn start_server(phase: &Phase<'_>, workplace: &Workplace) -> Result<Server, Failure> {
    let mut command = workplace.binary("rhash-server");
    command.args(["--mem-limit", phase.limit]);
    if phase.memory_only {
        command.arg("--memory-only");
    } else {
        // As `rhash index` does it by itself: an index is built again after a crash.
        command.args(["--durability", "none"]);
        command.arg("--data").arg(workplace.data());
    }
    let log = workplace.log_path(&format!("{}-server.err", phase.name));
    Server::start(&mut command, &log)
}

/// The checks on a phase's figures.
fn judge(phase: &Phase<'_>, result: &PhaseResult, verdict: &mut Verdict) {
    let name = phase.name;
    let limit = phase.limit_bytes;
    let own_max = result.memory["own_bytes_max"].as_u64().unwrap_or(u64::MAX);
    verdict.check(
        &format!("{name}: RssAnon + RssShmem stay under the limit"),
        own_max < limit && result.memory["samples"].as_u64() > Some(0),
        format!("at most {} of {}", mebibytes(own_max), mebibytes(limit)),
    );
    let told_limit = result.stats_before["mem_limit_bytes"].as_u64();
    verdict.check(
        &format!("{name}: the server knows its limit"),
        told_limit == Some(limit),
        format!("asked {limit}, told {told_limit:?}"),
    );
    let cold_bytes = ask::cold_bytes(&result.stats_before);
    if phase.memory_only {
        verdict.check(
            &format!("{name}: nothing is cold"),
            cold_bytes == Some(0),
            format!("cold bytes {cold_bytes:?}"),
        );
    } else {
        verdict.check(
            &format!("{name}: live cold bytes are over the limit"),
            cold_bytes > Some(limit),
            format!(
                "{} cold",
                cold_bytes.map_or("none told".to_owned(), mebibytes)
            ),
        );
    }
}

/// How many of `all` differ, and the first of them.
fn describe(differing: &[String], all: usize) -> String {
    let mut text = format!("{} of {all} differ", differing.len());
    for difference in differing.iter().take(DIFFERENCES_SHOWN) {
        text.push_str("; ");
        text.push_str(difference);
    }
    text
}

/// How long a program that should be quick may take.
const QUICK: Duration = Duration::from_secs(60);
