//! `cargo xtask limits`: servers under load keep their memory limit and give space back.
//!
//! It starts real servers, drives them through the client library, checks the answers, and has the
//! memory of each sampled from outside. This file owns the order of things; `scenario` says what
//! is done to a server, `trial` watches one, `report` keeps what came out.

mod options;
pub(crate) mod data;
mod cgroup;
mod trial;
mod report;
mod scenario;

use std::time::Instant;

use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::place;
use options::Options;
use report::{Report, Summary};
use trial::Stage;

/// Runs the scenarios that were asked for.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        say!("{}", options::HELP);
        return Ok(());
    };
    if options.bin_dir.is_none() && cfg!(debug_assertions) {
        // A driver that is slower than the server would prove little.
        let limit = options.deadline * (1 + options.scenarios.len() as u32);
        return place::run_released("limits", arguments, options.deadline, limit);
    }
    let stage = Stage::prepare(&options)?;
    let mut summary = Summary::open(&options, &stage.results)?;
    let mut checks = Checklist::default();
    for &scenario in &options.scenarios {
        let limit = &options.mem_limit;
        say!("xtask: {} under a limit of {limit} …", scenario.name());
        let began = Instant::now();
        let mut report = Report::new(scenario.name(), options.mem_limit_bytes);
        if let Err(failure) = scenario.run(&stage, &mut report) {
            report.check("it runs to its end", false, failure.to_string());
        }
        let seconds = began.elapsed().as_secs_f64();
        report.figure("seconds", seconds);
        say!(
            "xtask: {}: {seconds:.1} s {}",
            scenario.name(),
            report.figures()
        );
        summary.take(&report)?;
        checks.extend(report.into_checks());
        stage.clean_up(&options)?;
    }
    checks.outcome("limits")
}
