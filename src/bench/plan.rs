//! What is to be measured: which servers, with how much data, and what work. Checked here, so that
//! a run that cannot end well does not begin.

use std::time::Duration;

use rhash_server::{config::MEM_LIMIT_BYTES_MIN, size::ByteSize};

use super::{
    data::{KEY_BYTES, POSTING_BYTES},
    machine,
};
use crate::{
    cli::{self, Place, WorkKind},
    failure::{Failure, Outcome},
    output::{count, size},
};

/// The spilling server may use this share of the data, unless it is told otherwise.
const LIMIT_SHARE: u64 = 8;

/// What a server may need for an entry or a list beside keys and values.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// What a server needs beside its entries.
const SERVER_BYTES: u64 = 128 << 20;

/// A server takes values up to this share of its limit.
const VALUE_SHARE: u64 = 8;

/// With fewer entries than this, no figure means anything.
const ENTRIES_MIN: u64 = 100;

/// The postings that a term has on average.
const POSTINGS_PER_TERM: u64 = 32;

/// The most terms, as many as a large text has.
const TERMS_MAX: u64 = 1 << 20;

/// The most sizes that one run compares.
const SIZES_MAX: usize = 8;

/// What one run measures.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) setups: Vec<Setup>,
    pub(crate) work: Work,
    pub(crate) rounds: u32,
}

/// One server with so much data: a line of each table, a colour of each chart.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) place: ServerPlace,
    /// Keys and values of each table.
    pub(crate) data_bytes: u64,
}

/// Where a server is, or what kind of server is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerPlace {
    /// Started here, with memory for all data.
    MemoryOnly { limit_bytes: u64 },
    /// Started here, with less memory than data.
    Spill { limit_bytes: u64 },
    /// A user's own.
    Elsewhere { address: String },
}

/// What is done on each server.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) lists: bool,
    pub(crate) values: bool,
    pub(crate) value_bytes: usize,
    /// Keys of a batched get.
    pub(crate) batch_keys: usize,
    pub(crate) zipf_exponent: f64,
    /// How long each step of gets goes on.
    pub(crate) get_time: Duration,
    pub(crate) seed: u64,
}

impl Work {
    /// The entries of a table of values.
    pub(crate) fn entries(&self, data_bytes: u64) -> u64 {
        data_bytes / (KEY_BYTES + self.value_bytes) as u64
    }

    /// The postings of a table of lists.
    pub(crate) fn postings(data_bytes: u64) -> u64 {
        data_bytes / POSTING_BYTES as u64
    }

    /// The terms that they belong to.
    pub(crate) fn terms(data_bytes: u64) -> u64 {
        (Self::postings(data_bytes) / POSTINGS_PER_TERM).clamp(1, TERMS_MAX)
    }

    /// What a server needs that keeps all of it in memory.
    fn memory_bytes(&self, data_bytes: u64) -> u64 {
        let entries = self.entries(data_bytes).max(Self::terms(data_bytes));
        data_bytes
            .saturating_mul(2)
            .saturating_add(entries.saturating_mul(ENTRY_OVERHEAD_BYTES))
            .saturating_add(SERVER_BYTES)
            .max(self.value_bytes as u64 * VALUE_SHARE)
    }
}

impl Plan {
    /// What a command line asks for.
    ///
    /// # Errors
    /// A usage error for what makes no sense, or does not fit this host.
    pub(crate) fn new(place: &Place, args: &cli::Bench) -> Outcome<Self> {
        let work = Work {
            lists: args.work.contains(&WorkKind::Lists),
            values: args.work.contains(&WorkKind::Values),
            value_bytes: usize::try_from(args.value.0).unwrap_or(usize::MAX),
            batch_keys: args.batch as usize,
            zipf_exponent: args.zipf,
            get_time: args.get_time,
            seed: args.seed,
        };
        check_sizes(&args.size, &work)?;
        let mut setups = Vec::new();
        for &ByteSize(data_bytes) in &args.size {
            for (kind, place) in places(place, &work, data_bytes)? {
                let name = match (kind, args.size.len()) {
                    (Some(kind), 1) => kind.to_owned(),
                    (Some(kind), _) => format!("{kind}, {}", size(data_bytes)),
                    (None, 1) => "server".to_owned(),
                    (None, _) => size(data_bytes),
                };
                setups.push(Setup {
                    name,
                    place,
                    data_bytes,
                });
            }
        }
        Ok(Self {
            setups,
            work,
            rounds: args.rounds,
        })
    }
}

/// The servers to compare with so much data, by the names of their kinds.
fn places(
    place: &Place,
    work: &Work,
    data_bytes: u64,
) -> Outcome<Vec<(Option<&'static str>, ServerPlace)>> {
    if let Some(address) = &place.server {
        let address = address.clone();
        return Ok(vec![(None, ServerPlace::Elsewhere { address })]);
    }
    let memory_bytes = work.memory_bytes(data_bytes).max(MEM_LIMIT_BYTES_MIN);
    if let Some(available) = machine::memory_available_bytes()
        && memory_bytes > available
    {
        return Err(Failure::Usage(format!(
            "to keep {} of data in memory a server may need {}, and this host has {} to spare; \
             choose a smaller --size",
            size(data_bytes),
            size(memory_bytes),
            size(available)
        )));
    }
    let limit_bytes = match place.mem_limit {
        Some(ByteSize(bytes)) if bytes < MEM_LIMIT_BYTES_MIN => {
            return Err(Failure::Usage(format!(
                "a memory limit of {} is too small; the server needs at least {}",
                ByteSize(bytes),
                ByteSize(MEM_LIMIT_BYTES_MIN)
            )));
        }
        Some(ByteSize(bytes)) => bytes,
        None => (data_bytes / LIMIT_SHARE)
            .max(work.value_bytes as u64 * VALUE_SHARE)
            .max(MEM_LIMIT_BYTES_MIN),
    };
    if work.value_bytes as u64 > limit_bytes / VALUE_SHARE {
        return Err(Failure::Usage(format!(
            "values of {} do not go into a server with a limit of {}, which takes an eighth of it \
             at most; choose a smaller --value or a larger --mem-limit",
            size(work.value_bytes as u64),
            size(limit_bytes)
        )));
    }
    Ok(vec![
        (
            Some("memory only"),
            ServerPlace::MemoryOnly {
                limit_bytes: memory_bytes,
            },
        ),
        (Some("spill"), ServerPlace::Spill { limit_bytes }),
    ])
}

fn check_sizes(sizes: &[ByteSize], work: &Work) -> Outcome {
    if sizes.len() > SIZES_MAX {
        return Err(Failure::Usage(format!(
            "--size names {} sizes; one run compares {SIZES_MAX} at most",
            sizes.len()
        )));
    }
    for &ByteSize(data_bytes) in sizes {
        let entries = work.entries(data_bytes);
        if entries < ENTRIES_MIN {
            return Err(Failure::Usage(format!(
                "--size {} holds {} entries of {}; {ENTRIES_MIN} are the least that tell anything",
                ByteSize(data_bytes),
                count(entries),
                size((KEY_BYTES + work.value_bytes) as u64),
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn plan(args: &[&str]) -> Outcome<Plan> {
        let args = ["rhash", "bench"].iter().chain(args);
        let cli = Cli::try_parse_from(args).unwrap();
        let Command::Bench(bench) = &cli.command else {
            panic!("not bench");
        };
        Plan::new(&cli.place, bench)
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.setups.iter().map(|setup| &*setup.name).collect()
    }

    #[test]
    fn without_a_server_memory_only_is_compared_with_an_eighth() {
        let plan = plan(&["--size", "256M"]).unwrap();
        assert_eq!(names(&plan), ["memory only", "spill"]);
        assert_eq!(
            plan.setups[1].place,
            ServerPlace::Spill {
                limit_bytes: 32 << 20
            }
        );
        let ServerPlace::MemoryOnly { limit_bytes } = plan.setups[0].place else {
            panic!("{plan:?}");
        };
        assert!(limit_bytes > 512 << 20, "{limit_bytes}");
    }

    #[test]
    fn a_server_elsewhere_is_measured_with_each_size() {
        let one = plan(&["--server", "a:1"]).unwrap();
        assert_eq!(names(&one), ["server"]);
        let two = plan(&["--server", "a:1", "--size", "1M,2G"]).unwrap();
        assert_eq!(names(&two), ["1.0 MiB", "2.0 GiB"]);
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_the_way_out() {
        for (args, part) in [
            (
                &["--size", "1K"][..],
                "--size 1 KiB holds 8 entries of 116 B",
            ),
            (&["--size", "1M", "--value", "64K"], "15 entries"),
            (&["--size", "1M,1M,1M,1M,1M,1M,1M,1M,1M"], "8 at most"),
            (&["--size", "1000000T"], "smaller --size"),
            (&["--mem-limit", "1M"], "at least 24 MiB"),
            (
                &["--mem-limit", "24M", "--value", "4M", "--size", "1G"],
                "smaller --value",
            ),
        ] {
            let failure = plan(args).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(part), "{args:?}: {failure}");
        }
    }

    #[test]
    fn long_values_raise_the_limit_that_they_need() {
        let plan = plan(&["--value", "8M", "--size", "1G"]).unwrap();
        assert_eq!(
            plan.setups[1].place,
            ServerPlace::Spill {
                limit_bytes: 128 << 20
            }
        );
    }
}
