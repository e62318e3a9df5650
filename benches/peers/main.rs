//! rhash beside what one would pick instead: Redis, memcached, fjall, a map behind a pipe, tantivy.
//! The same work, the same seed, all answers checked.

use std::process::ExitCode;

use clap::Parser as _;
use rhash_harness::{Place, Report, Result, say};

mod options;
mod stores;
mod build;
mod entries;
mod text;

use self::{
    build::Build,
    options::Peers,
    stores::{Level, Side},
};

fn main() -> ExitCode {
    let first = std::env::args().nth(1);
    let done = match first.as_deref() {
        // This program is also the far end of a pipe, and the process in which tantivy works.
        Some(stores::PIPE_ARGUMENT) => stores::serve_pipe(),
        Some(text::TANTIVY_ARGUMENT) => text::be_tantivy(),
        _ => run(&Peers::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("peers: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Without a log, and with one at each level.
fn logged_sides() -> Vec<Side> {
    let levels = [Level::EverySec, Level::Always];
    let ours = levels.map(|level| Side::RhashLogged { part: 8, level });
    let others = levels.map(|level| Side::RedisLogged { level });
    let mut sides = vec![Side::Rhash { part: 8 }, Side::Redis];
    sides.splice(1..1, ours);
    sides.extend(others);
    sides
}

fn run(peers: &Peers) -> Result<()> {
    let place = Place::prepare("peers", &peers.options)?;
    let mut report = Report::begin("peers", &peers.options, &place)?;
    let builds = [
        Build {
            workload: "build",
            postings: peers.postings(),
            sides: vec![
                Side::Combine,
                Side::RhashMemory,
                Side::Rhash { part: 8 },
                Side::Redis,
                Side::Memcached,
                Side::Extstore { part: 8 },
                Side::Fjall { part: 8 },
                Side::Pipe,
            ],
        },
        Build {
            workload: "build-large",
            postings: peers.postings() * 4,
            sides: vec![
                Side::Combine,
                Side::RhashMemory,
                Side::Rhash { part: 8 },
                Side::Rhash { part: 32 },
                Side::Redis,
                Side::Fjall { part: 32 },
            ],
        },
        Build {
            workload: "build-logged",
            postings: peers.postings(),
            sides: logged_sides(),
        },
    ];
    for build in &builds {
        if peers.options.wants(build.workload) {
            build.run(peers, &place, &mut report)?;
        }
    }
    if peers.options.wants("entries") {
        entries::run(peers, &place, &mut report)?;
    }
    if peers.options.wants("text") {
        text::run(peers, &place, &mut report)?;
    }
    Ok(())
}
