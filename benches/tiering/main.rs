//! What spilling costs: the same data in a server that keeps all in memory and in one with a limit
//! far below, and under that limit with runs in files, in sled, or each where it belongs.

use std::{process::ExitCode, time::Instant};

use clap::Parser as _;
use rhash_harness::{Disk, Place, Report, Result, say};

mod options;
mod side;
mod table;
mod earlier;
mod floor;
mod build;
mod entries;
mod beside;

use self::{
    options::Tiering,
    side::{Placement, Served, Side},
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
    let begin = Instant::now();
    let options = &tiering.options;
    let place = Place::prepare("tiering", options)?;
    let mut report = Report::begin("tiering", options, &place)?;
    report.fact("limit", tiering.limit.to_string());
    report.fact("memory_group", tiering.group());
    let disk = Disk::prepare(place.work(), options.quick)?;
    let ratios = options.pick(&RATIOS[..], &RATIOS_QUICK[..]);
    for &ratio in ratios {
        let sides = sides(tiering, ratio);
        if sides.is_empty() {
            continue;
        }
        let job = Job {
            tiering,
            place: &place,
            disk: &disk,
            ratio,
            sides,
            begin,
        };
        if options.wants(&job.name("build")) {
            build::run(&job, &mut report)?;
        }
        if options.wants(&job.name("entries")) {
            entries::run(&job, &mut report)?;
        }
        // Where all fits, and where the homes of runs are compared, nobody would learn more.
        if ratio > PLACEMENTS_AT && options.wants(&job.name("beside")) {
            beside::run(&job, &mut report)?;
        }
    }
    Ok(())
}

/// The work on so much data.
#[derive(Debug)]
struct Job<'a> {
    tiering: &'a Tiering,
    place: &'a Place,
    disk: &'a Disk,
    /// How many times the limit the data are.
    ratio: u64,
    sides: Vec<Side>,
    /// When the bench began.
    begin: Instant,
}

impl Job<'_> {
    fn name(&self, work: &str) -> String {
        format!("{work}-{}x", self.ratio)
    }

    /// Keys and values, or postings.
    fn data_bytes(&self) -> u64 {
        self.tiering.limit.0 * self.ratio
    }

    /// Runs every side once, then every side again, each round beginning with another, until there
    /// are as many runs as asked for, those of earlier calls included, or this one has had its time.
    fn take_turns(
        &self,
        workload: &str,
        size: &str,
        report: &mut Report,
        mut run: impl FnMut(u32, Side, &Served, &mut Report) -> Result<()>,
    ) -> Result<()> {
        let options = &self.tiering.options;
        report.fact(workload, size);
        let (limit, group) = (self.tiering.limit.to_string(), self.tiering.group());
        let facts = [
            (workload, size),
            ("limit", &limit),
            ("memory_group", &group),
        ];
        let path = self.place.results().join(format!("{workload}.json"));
        let done = match self.tiering.in_pieces {
            Some(_) => earlier::add(&path, options.seed, &facts, report),
            None => 0,
        };
        for round in done..options.runs() {
            if let Some(time) = self.tiering.in_pieces
                && self.begin.elapsed() > time
            {
                let text = format!(
                    "{round} of {} runs so far: the same command goes on",
                    options.runs()
                );
                report.note(workload, text);
                break;
            }
            say(format_args!(
                "{workload}: {size}, run {} of {}",
                round + 1,
                options.runs()
            ));
            for turn in 0..self.sides.len() {
                let side = self.sides[(turn + round as usize) % self.sides.len()];
                let served = side.start(self)?;
                match run(round, side, &served, report) {
                    Err(error) if served.kills() > 0 => {
                        let name = side.name();
                        let text = format!("{name}: killed in its memory group ({error})");
                        report.note(workload, text);
                    }
                    done => done?,
                }
            }
        }
        Ok(())
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
