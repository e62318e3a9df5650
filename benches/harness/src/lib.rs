//! What the benches have in common: workloads, servers and what they use, runs that take turns,
//! and what is told of them.
//!
//! In the order of a bench: [`Options`] says what to run, [`Place`] where; [`workload`] makes what
//! goes in, the same for everybody; [`Launch`] and [`RhashServer`] start processes, if need be in
//! a memory [`Group`], and [`Meter`] says what they used; [`take_turns`] runs all sides one after
//! the other, again and again; [`Report`] gathers figures and writes a table, JSON and a chart,
//! with the [`Machine`] and its [`Floors`] beside them.

mod options;
mod place;
pub mod workload;
mod process;
mod server;
mod group;
mod meter;
mod turns;
mod figures;
mod machine;
mod floors;
mod report;
mod table;
mod chart;

pub use self::{
    chart::{Bars, Lines, Series},
    figures::{Figure, Figures, Latencies, Summary, Unit},
    floors::{Disk, Floors},
    group::Group,
    machine::Machine,
    meter::{Meter, Usage},
    options::Options,
    place::Place,
    process::{Launch, Process, find_program},
    report::Report,
    server::{RhashServer, ServerOptions},
    turns::take_turns,
};

/// Whatever goes wrong ends a bench, with a sentence.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What nearly everything here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says how far a bench is, on standard error.
pub fn say(text: impl std::fmt::Display) {
    use std::io::Write as _;
    // Progress that nobody can see is no reason to stop.
    drop(writeln!(std::io::stderr(), "{text}"));
}
