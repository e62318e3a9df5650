//! What spilling costs: the same data in a server that keeps all in memory and in one with a limit
//! far below, and under that limit with runs in files, in sled, or each where it belongs.

use std::process::ExitCode;

use clap::Parser as _;
use rhash_harness::{Place, Report, Result, say};

mod options;
mod side;
mod table;
mod build;
mod entries;

use self::{
    options::Tiering,
    side::{Placement, Side},
};

/// How many times the limit the data are.
const RATIOS: [u64; 3] = [2, 8, 32];

/// In the short form the largest is left out.
const RATIOS_QUICK: [u64; 2] = [2, 8];

/// At this ratio the placements of runs are compared: in sled alone, larger data take minutes.
const PLACEMENTS_AT: u64 = 2;

fn main() -> ExitCode {
    match run(&Tiering::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("tiering: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(tiering: &Tiering) -> Result<()> {
    let options = &tiering.options;
    let place = Place::prepare("tiering", options)?;
    let mut report = Report::begin("tiering", options, &place)?;
    report.fact("limit", tiering.limit.to_string());
    report.fact("memory_group", tiering.group());
    let ratios = options.pick(&RATIOS[..], &RATIOS_QUICK[..]);
    for &ratio in ratios {
        let sides = sides(tiering, ratio);
        if sides.is_empty() {
            continue;
        }
        let job = Job {
            tiering,
            place: &place,
            ratio,
            sides,
        };
        if options.wants(&job.name("build")) {
            build::run(&job, &mut report)?;
        }
        if options.wants(&job.name("entries")) {
            entries::run(&job, &mut report)?;
        }
    }
    Ok(())
}

/// The work on so much data.
#[derive(Debug)]
struct Job<'a> {
    tiering: &'a Tiering,
    place: &'a Place,
    /// How many times the limit the data are.
    ratio: u64,
    sides: Vec<Side>,
}

impl Job<'_> {
    fn name(&self, work: &str) -> String {
        format!("{work}-{}x", self.ratio)
    }

    /// Keys and values, or postings.
    fn data_bytes(&self) -> u64 {
        self.tiering.limit.0 * self.ratio
    }
}

fn sides(tiering: &Tiering, ratio: u64) -> Vec<Side> {
    let mut sides = vec![Side::Memory, Side::Spill(Placement::Default)];
    if ratio == PLACEMENTS_AT {
        sides.push(Side::Spill(Placement::Files));
        sides.push(Side::Spill(Placement::Sled));
    }
    sides.retain(|side| tiering.options.wants_side(side.name()));
    sides
}
