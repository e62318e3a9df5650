//! What is done to servers, and what must come of it.

mod index;
mod entries;
mod values;
mod lists;
mod tables;
mod connections;
mod load;
mod start;
mod rounds;
mod overwrite;
mod close;
mod ram;

use super::report::Report;
use super::trial::Stage;
use crate::failure::Failure;

/// Batches of a driver that wait for their answers are the client's to bound; these are the keys
/// asked for at a time.
const KEYS_A_BATCH: u64 = 100;

/// One scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    Index,
    Entries,
    Values,
    Lists,
    Tables,
    Connections,
    Load,
    Start,
    Rounds,
    Overwrite,
    Close,
    Hot,
    Cold,
}

/// All of them, in the order in which they run.
pub(super) const ALL: [Scenario; 13] = [
    Scenario::Index,
    Scenario::Entries,
    Scenario::Values,
    Scenario::Lists,
    Scenario::Tables,
    Scenario::Connections,
    Scenario::Load,
    Scenario::Start,
    Scenario::Rounds,
    Scenario::Overwrite,
    Scenario::Close,
    Scenario::Hot,
    Scenario::Cold,
];

impl Scenario {
    /// How it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Entries => "entries",
            Self::Values => "values",
            Self::Lists => "lists",
            Self::Tables => "tables",
            Self::Connections => "connections",
            Self::Load => "load",
            Self::Start => "start",
            Self::Rounds => "rounds",
            Self::Overwrite => "overwrite",
            Self::Close => "close",
            Self::Hot => "hot",
            Self::Cold => "cold",
        }
    }

    /// Whether it is about the memory limit, and not about space.
    pub(super) fn is_of_the_limit(self) -> bool {
        !matches!(
            self,
            Self::Rounds | Self::Overwrite | Self::Close | Self::Hot | Self::Cold
        )
    }

    /// Runs it. What fails is in the report; an error means that it could not be run to its end.
    pub(super) fn run(self, stage: &Stage, report: &mut Report) -> Result<(), Failure> {
        match self {
            Self::Index => index::run(stage, report),
            Self::Entries => entries::run(stage, report),
            Self::Values => values::run(stage, report),
            Self::Lists => lists::run(stage, report),
            Self::Tables => tables::run(stage, report),
            Self::Connections => connections::run(stage, report),
            Self::Load => load::run(stage, report),
            Self::Start => start::run(stage, report),
            Self::Rounds => rounds::run(stage, report),
            Self::Overwrite => overwrite::run(stage, report),
            Self::Close => close::run(stage, report),
            Self::Hot => ram::hot(stage, report),
            Self::Cold => ram::cold(stage, report),
        }
    }
}
