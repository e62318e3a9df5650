//! The command line of `cargo xtask limits`.

use std::path::PathBuf;
use std::time::Duration;

use super::scenario::{ALL, Scenario};
use crate::failure::Failure;
use crate::sizes::size;
use crate::words::Words;

pub(super) const HELP: &str = "\
Drive servers hard, and see that they keep their memory limit, answer right and give space back

Usage: cargo xtask limits [OPTIONS]

Builds the release binaries and a release build of this task, which goes on. Each scenario starts
servers of its own on an empty directory, drives them through the client library, checks the
answers, and holds RssAnon + RssShmem, sampled every 20 ms, against the limit.

Scenarios of the limit:
  index        batches of appends, terms by Zipf's law; lists are read back
  entries      many entries of 16 + 100 bytes; some are read back, all are counted
  values       values from 0 bytes to the longest allowed
  lists        lists that grow to 256 MiB and are read back in whole
  tables       10,000 tables of all kinds, named and temporary
  connections  200 connections, each with writes, reads and scans of its own
  load         scans and merges while entries are overwritten and read
  start        starts on a large directory, after a stop and after a kill
Scenarios of space:
  rounds       1,000 rounds of open, fill past the limit, close: nothing is left behind
  overwrite    all is overwritten three times: disk settles at 1.5 times the live data
  close        closing a table of 5 GB takes under a second
  hot          RAM of an entry in memory beyond its payload (a server without a disk)
  cold         RAM of a cold key, mapped pages counted

Options:
  --mem-limit SIZE   The server's limit [32M]
  --only NAME,…      Only these scenarios [all of the limit]
  --quick            Short forms
  --cgroup           Run each server in a memory control group of 1.25 x limit + 32 MiB; it must not
                     be killed there (first version of control groups, as root)
  --volume SIZE      Bytes written by scenarios that count in bytes [8 limits, 512M to 3G]
  --entries N        Entries of `entries` [10000000]
  --list SIZE        The longest list of `lists` [256M]
  --tables N         Tables of `tables` [10000]
  --connections N    Connections of `connections` [200]
  --seconds N        How long `load` and `connections` go on [30]
  --rounds N         Rounds of `rounds` [1000]
  --close SIZE       The table that `close` closes [5G]
  --keys N           Keys of `cold` [50000000]
  --seed N           Seed of all that is random [2010]
  --deadline SECONDS The most that one scenario may take [1800]
  --work DIR         Where data and logs go [target/limits]
  --results DIR      Where figures and chart go [benches/results/limits]
  --bin-dir DIR      Use the binaries in DIR instead of building them, and this build of the task
  --keep             Leave the data in the work directory
  -h, --help         Print this help

Exit status: 0 if every check passed, 1 if not, 2 if the command was not understood.";

const MIB: u64 = 1 << 20;

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) mem_limit: String,
    pub(super) mem_limit_bytes: u64,
    pub(super) scenarios: Vec<Scenario>,
    pub(super) cgroup: bool,
    pub(super) amounts: Amounts,
    pub(super) seed: u64,
    pub(super) deadline: Duration,
    pub(super) work: Option<PathBuf>,
    pub(super) results: Option<PathBuf>,
    pub(super) bin_dir: Option<PathBuf>,
    pub(super) keep: bool,
}

/// How much each scenario does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) volume_bytes: u64,
    pub(super) entries: u64,
    pub(super) list_bytes: u64,
    pub(super) tables: u64,
    pub(super) connections: u64,
    pub(super) busy: Duration,
    pub(super) rounds: u64,
    pub(super) close_bytes: u64,
    pub(super) cold_keys: u64,
    pub(super) hot_entries: u64,
}

impl Amounts {
    fn full(limit: u64) -> Self {
        Self {
            volume_bytes: (8 * limit).clamp(512 * MIB, 3 << 30),
            entries: 10_000_000,
            list_bytes: 256 * MIB,
            tables: 10_000,
            connections: 200,
            busy: Duration::from_secs(30),
            rounds: 1000,
            close_bytes: 5 << 30,
            cold_keys: 50_000_000,
            hot_entries: 4_000_000,
        }
    }

    fn quick(limit: u64) -> Self {
        Self {
            volume_bytes: (3 * limit).clamp(64 * MIB, 512 * MIB),
            entries: 1_000_000,
            list_bytes: (2 * limit).clamp(32 * MIB, 256 * MIB),
            tables: 2000,
            connections: 200,
            busy: Duration::from_secs(5),
            rounds: 30,
            close_bytes: 512 * MIB,
            cold_keys: 2_000_000,
            hot_entries: 500_000,
        }
    }
}

/// Amounts that were given by name.
#[derive(Debug, Default)]
struct Given {
    volume_bytes: Option<u64>,
    entries: Option<u64>,
    list_bytes: Option<u64>,
    tables: Option<u64>,
    connections: Option<u64>,
    seconds: Option<u64>,
    rounds: Option<u64>,
    close_bytes: Option<u64>,
    cold_keys: Option<u64>,
}

impl Given {
    fn over(self, amounts: Amounts) -> Amounts {
        Amounts {
            volume_bytes: self.volume_bytes.unwrap_or(amounts.volume_bytes),
            entries: self.entries.unwrap_or(amounts.entries),
            list_bytes: self.list_bytes.unwrap_or(amounts.list_bytes),
            tables: self.tables.unwrap_or(amounts.tables),
            connections: self.connections.unwrap_or(amounts.connections),
            busy: self.seconds.map_or(amounts.busy, Duration::from_secs),
            rounds: self.rounds.unwrap_or(amounts.rounds),
            close_bytes: self.close_bytes.unwrap_or(amounts.close_bytes),
            cold_keys: self.cold_keys.unwrap_or(amounts.cold_keys),
            hot_entries: amounts.hot_entries,
        }
    }
}

impl Options {
    /// Reads the arguments; `None` if they ask for help.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, Failure> {
        let (mut limit, mut limit_bytes) = ("32M".to_owned(), 32 * MIB);
        let (mut only, mut quick, mut given) = (Vec::new(), false, Given::default());
        let mut options = Self {
            mem_limit: String::new(),
            mem_limit_bytes: 0,
            scenarios: Vec::new(),
            cgroup: false,
            amounts: Amounts::full(0),
            seed: 2010,
            deadline: Duration::from_secs(1800),
            work: None,
            results: None,
            bin_dir: None,
            keep: false,
        };
        let mut words = Words::of(arguments);
        while let Some(option) = words.next_option() {
            match option {
                "-h" | "--help" => return Ok(None),
                "--mem-limit" => {
                    words.value()?.clone_into(&mut limit);
                    limit_bytes = size(option, &limit)?;
                }
                "--only" => only.extend(scenarios(words.value()?)?),
                "--quick" => quick = true,
                "--cgroup" => options.cgroup = true,
                "--volume" => given.volume_bytes = Some(words.size()?),
                "--entries" => given.entries = Some(words.number()?),
                "--list" => given.list_bytes = Some(words.size()?),
                "--tables" => given.tables = Some(words.number()?),
                "--connections" => given.connections = Some(words.number()?),
                "--seconds" => given.seconds = Some(words.number()?),
                "--rounds" => given.rounds = Some(words.number()?),
                "--close" => given.close_bytes = Some(words.size()?),
                "--keys" => given.cold_keys = Some(words.number()?),
                "--seed" => options.seed = words.number()?,
                "--deadline" => options.deadline = Duration::from_secs(words.number()?),
                "--work" => options.work = Some(words.value()?.into()),
                "--results" => options.results = Some(words.value()?.into()),
                "--bin-dir" => options.bin_dir = Some(words.value()?.into()),
                "--keep" => options.keep = true,
                other => return Err(Failure::Usage(format!("limits takes no `{other}`"))),
            }
        }
        let amounts = if quick { Amounts::quick } else { Amounts::full };
        options.amounts = given.over(amounts(limit_bytes));
        (options.mem_limit, options.mem_limit_bytes) = (limit, limit_bytes);
        options.scenarios = if only.is_empty() {
            let of_limit = ALL.iter().filter(|scenario| scenario.is_of_the_limit());
            of_limit.copied().collect()
        } else {
            only
        };
        Ok(Some(options))
    }
}

fn scenarios(names: &str) -> Result<Vec<Scenario>, Failure> {
    let find = |name: &str| {
        let found = ALL.iter().find(|scenario| scenario.name() == name);
        let none = || Failure::Usage(format!("limits has no scenario `{name}`"));
        found.copied().ok_or_else(none)
    };
    names.split(',').map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Option<Options>, Failure> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Options::parse(&words)
    }

    #[test]
    fn amounts_follow_the_limit_unless_they_are_given() {
        let options = parse(&["--mem-limit", "1G"]).unwrap().unwrap();
        assert_eq!(options.amounts, Amounts::full(1 << 30));
        assert_eq!(options.scenarios.len(), 8);
        let options = parse(&["--quick", "--entries", "7", "--seconds", "2"]);
        let expected = Amounts {
            entries: 7,
            busy: Duration::from_secs(2),
            ..Amounts::quick(32 << 20)
        };
        assert_eq!(options.unwrap().unwrap().amounts, expected);
    }

    #[test]
    fn scenarios_are_named_in_a_list() {
        let options = parse(&["--only", "lists,rounds"]).unwrap().unwrap();
        assert_eq!(options.scenarios, [Scenario::Lists, Scenario::Rounds]);
    }

    #[test]
    fn what_is_not_understood_is_a_usage_error() {
        for words in [
            &["--nope"][..],
            &["--only", "all"],
            &["x"],
            &["--mem-limit"],
        ] {
            assert!(matches!(parse(words), Err(Failure::Usage(_))), "{words:?}");
        }
        assert!(parse(&["--help"]).unwrap().is_none());
    }
}
