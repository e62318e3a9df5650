//! The servers that are compared.

use std::time::{Duration, Instant};

use rhash_client::{Stats, blocking::Client};
use rhash_harness::{Group, Result, RhashServer, ServerOptions};

use crate::Job;

/// A server that keeps all in memory may use this much for data, as a multiple, and beside them.
const MEMORY_TIMES: u64 = 4;
const MEMORY_BYTES: u64 = 256 << 20;

/// All is still when nothing was spilled or merged for so long.
const STILL: Duration = Duration::from_millis(300);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What goes on for longer is not waited for.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

/// Where runs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Small ones into sled, others into files.
    Default,
    /// Each into a file.
    Files,
    /// All into sled.
    Sled,
}

/// A server that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// All in memory.
    Memory,
    /// Under the limit.
    Spill(Placement),
}

impl Side {
    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory-only",
            Self::Spill(Placement::Default) => "rhash-spill",
            Self::Spill(Placement::Files) => "rhash-files-only",
            Self::Spill(Placement::Sled) => "rhash-sled-only",
        }
    }

    /// Whether it reads from the disk.
    pub(crate) fn spills(self) -> bool {
        self != Self::Memory
    }

    /// Starts it with nothing in it.
    pub(crate) fn start(self, job: &Job<'_>) -> Result<Served> {
        let Self::Spill(placement) = self else {
            let options = ServerOptions {
                limit_bytes: job.data_bytes() * MEMORY_TIMES + MEMORY_BYTES,
                ..ServerOptions::default()
            };
            return Ok(Served {
                server: RhashServer::start(job.place, &options)?,
                group: None,
            });
        };
        let data = job.place.empty_directory(self.name())?;
        // In sled alone a server takes far more memory than its limit, and would be killed.
        let group_bytes = job.tiering.group_bytes();
        let group = group_bytes
            .filter(|_| placement != Placement::Sled)
            .and_then(|bytes| Group::create_or_say(self.name(), bytes));
        let all = u64::MAX.to_string();
        let more = match placement {
            Placement::Default => &[][..],
            Placement::Files => &["--small-run", "0"],
            Placement::Sled => &["--small-run", &all],
        };
        let options = ServerOptions {
            limit_bytes: job.tiering.limit.0,
            data: Some(&data),
            more,
            group: group.as_ref(),
            ..ServerOptions::default()
        };
        Ok(Served {
            server: RhashServer::start(job.place, &options)?,
            group,
        })
    }
}

/// A server that runs, in its group.
#[derive(Debug)]
pub(crate) struct Served {
    // Ends before its group.
    pub(crate) server: RhashServer,
    group: Option<Group>,
}

impl Served {
    /// Processes of it that the kernel has killed.
    pub(crate) fn kills(&self) -> u64 {
        self.group.as_ref().map_or(0, Group::kills)
    }

    /// Its figures.
    pub(crate) fn stats(&self) -> Result<Stats> {
        Ok(Client::connect(self.server.address())?.stats()?)
    }

    /// Waits until nothing is spilled or merged; tells the time until the last that was.
    pub(crate) fn settle(&self) -> Result<Duration> {
        let client = Client::connect(self.server.address())?;
        let marks = |stats: Stats| (stats.spilled_bytes, stats.merged_bytes, stats.merges);
        let begin = Instant::now();
        let mut seen = marks(client.stats()?);
        let mut moved = Duration::ZERO;
        while begin.elapsed() < SETTLE_DEADLINE && begin.elapsed() - moved < STILL {
            std::thread::park_timeout(LOOK);
            let now = marks(client.stats()?);
            if now != seen {
                (seen, moved) = (now, begin.elapsed());
            }
        }
        Ok(moved)
    }
}
