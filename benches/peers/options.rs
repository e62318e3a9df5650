//! The command line of this bench.

use std::{path::PathBuf, time::Instant};

use clap::Parser;
use rhash_harness::{Options, Report, Result, find_program, take_turns};

use crate::stores::Side;

/// Run the same work against rhash and what one would pick instead.
///
/// Workloads: build, build-large, build-logged, entries, text. Sides: rhash-memory, rhash-1/8, rhash-1/32,
/// redis, memcached, extstore-1/8, fjall-1/8, fjall-1/32, hashmap-pipe, combining-alone; of
/// text: rhash-index and tantivy. redis-server and memcached are taken from the path; where they
/// are missing, the bench says so.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench peers --", max_term_width = 100)]
pub(crate) struct Peers {
    #[command(flatten)]
    pub(crate) options: Options,

    /// Postings of the index build; build-large has four times as many.
    #[arg(long, value_name = "COUNT")]
    postings: Option<usize>,

    /// Entries of 16 + 100 bytes.
    #[arg(long, value_name = "COUNT")]
    entries: Option<u64>,

    /// Work for about so many seconds and stop after a side; the same command then goes on where
    /// this one ended.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) in_pieces: Option<u64>,

    #[arg(skip = Instant::now())]
    begin: Instant,

    /// Documents for `rhash index` and tantivy. Default: the toolchain's documentation and the
    /// crate sources.
    #[arg(long, value_name = "DIR")]
    pub(crate) documents: Vec<PathBuf>,
}

impl Peers {
    pub(crate) fn postings(&self) -> usize {
        let default = self.options.pick(31_300_000, 4_000_000);
        self.postings.unwrap_or(default)
    }

    pub(crate) fn entries(&self) -> u64 {
        let default = self.options.pick(10_000_000, 500_000);
        self.entries.unwrap_or(default)
    }

    /// Lets every side run in turn, as often as is asked for, what earlier pieces did left out.
    pub(crate) fn take_turns(
        &self,
        workload: &str,
        sides: &[Side],
        report: &mut Report,
        mut run: impl FnMut(u32, Side, &mut Report) -> Result<()>,
    ) -> Result<()> {
        if self.in_pieces.is_some() {
            report.go_on(workload);
        }
        take_turns(self.options.runs(), sides, |round, &side| {
            let is_over = self
                .in_pieces
                .is_some_and(|seconds| self.begin.elapsed().as_secs() >= seconds);
            if is_over || report.figures().runs(workload, &side.name()) > round {
                return Ok(());
            }
            run(round, side, report)
        })
    }

    /// Those of the sides that are asked for and can take part; says who cannot.
    pub(crate) fn present(&self, sides: &[Side], workload: &str, report: &mut Report) -> Vec<Side> {
        let wanted = sides
            .iter()
            .copied()
            .filter(|side| self.options.wants_side(&side.name()));
        wanted
            .filter(|side| match side.program() {
                Some(program) if find_program(program).is_none() => {
                    let text = format!("{program} is not installed: {} is left out", side.name());
                    report.note(workload, text);
                    false
                }
                _ => true,
            })
            .collect()
    }
}
