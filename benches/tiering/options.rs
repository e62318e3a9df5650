//! The command line of this bench.

use std::time::Duration;

use clap::Parser;
use rhash_harness::Options;
use rhash_server::size::{ByteSize, parse_span};

/// What the kernel may hold for a server beside its limit: this part of it, and this much.
const GROUP_PART: u64 = 4;
const GROUP_BYTES: u64 = 32 << 20;

/// Compare memory only with spill, and the homes of runs with each other.
///
/// Workloads: build-2x, entries-2x, build-8x, entries-8x, beside-8x, build-32x, entries-32x, beside-32x. Sides:
/// memory-only, rhash-spill, and at 2x also rhash-files-only and rhash-sled-only.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench tiering --", max_term_width = 100)]
pub(crate) struct Tiering {
    #[command(flatten)]
    pub(crate) options: Options,

    /// The memory limit of servers that spill; data are 2, 8 and 32 times as much.
    #[arg(long, value_name = "SIZE", default_value = "24M")]
    pub(crate) limit: ByteSize,

    /// Let the kernel cache what servers read and write, as on a host with memory to spare. Without
    /// this a server that spills runs in a memory group of 1.25 times its limit and 32 MiB, but for
    /// rhash-sled-only, which would be killed in it.
    #[arg(long)]
    pub(crate) page_cache: bool,

    /// Measure each kind of get for so long.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_span)]
    pub(crate) get_time: Duration,

    /// Begin no run after this time. The same command goes on with the runs that are missing, and
    /// tells of all of them.
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub(crate) in_pieces: Option<Duration>,
}

impl Tiering {
    /// What the memory group of a spilling server may hold.
    pub(crate) fn group_bytes(&self) -> Option<u64> {
        let bytes = self.limit.0 + self.limit.0 / GROUP_PART + GROUP_BYTES;
        (!self.page_cache).then_some(bytes)
    }

    /// The same for readers.
    pub(crate) fn group(&self) -> String {
        self.group_bytes().map_or_else(
            || "none: reads may come from the page cache".to_owned(),
            |bytes| ByteSize(bytes).to_string(),
        )
    }
}
