//! `cargo xtask cuts`: clients and connections end in the middle of what they write, and nothing is there in part
//! or twice.

mod options;
mod proxy;
mod rig;
mod batch;
mod crowd;
mod index;
mod command;

use std::time::Duration;

use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::place;
use options::Options;
use rig::Rig;

pub(crate) use crowd::{TASK as CLIENT_TASK, client};

/// No build takes longer, nor does the whole task.
const BUILD_DEADLINE: Duration = Duration::from_secs(30 * 60);
const DEADLINE: Duration = Duration::from_secs(3 * 60 * 60);

/// Cuts.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        say!("{}", options::HELP);
        return Ok(());
    };
    if options.bin_dir.is_none() && !options.debug && cfg!(debug_assertions) {
        return place::run_released("cuts", arguments, BUILD_DEADLINE, DEADLINE);
    }
    let given = options.bin_dir.as_deref();
    let binaries = place::binaries_of(options.debug, given, BUILD_DEADLINE)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start threads", error))?;
    let mut checks = Checklist::default();
    for level in &options.levels {
        let stage = place::target_directory()?.join("cuts").join(level);
        place::empty_directory(&stage)?;
        let rig = Rig {
            options: &options,
            level,
            binaries: &binaries,
            stage: &stage,
            runtime: &runtime,
        };
        say!(
            "xtask: cuts: {level}: {} clients are cut off, seed {} …",
            options.clients,
            options.seed
        );
        crowd::run(&rig, &mut checks)?;
        say!("xtask: cuts: {level}: an index, {} cuts …", options.cuts);
        index::run(&rig, &mut checks)?;
        say!("xtask: cuts: {level}: `rhash index` …");
        command::run(&rig, &mut checks)?;
        place::empty_directory(&stage)?;
    }
    checks.outcome("cuts")
}
