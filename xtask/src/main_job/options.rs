//! The command line of `cargo xtask main-job`.

use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;
use crate::sizes::size;
use crate::words::Words;

pub(super) const HELP: &str = "\
Prove the main job: index real text under a memory limit, and hold every answer against an
independent count

Usage: cargo xtask main-job [OPTIONS] [PATH]…

Builds the release binaries, then:
  1. counts documents and occurrences of a sample of terms with tests/independent/count_terms.py
  2. starts rhash-server with the limit, indexes the PATHs, asks for each sampled term
  3. stops it, starts it again on the same data, asks again
  4. does the same with a server that keeps all in memory
Each server's memory is sampled every 20 ms. Every answer must equal the count.

Without a PATH: the toolchain's HTML documentation and the crate sources.

Options:
  --mem-limit SIZE          Limit of the server that spills [32M]
  --memory-only-limit SIZE  Limit of the server that keeps all in memory [8G]
  --skip-memory-only        Leave that one out
  --sample N                Terms to sample [10000]
  --seed N                  Seed of the sample [2010]
  --deadline SECONDS        The most that any single program may take [3600]
  --work DIR                Where data and logs go [target/main-job]
  --results DIR             Where the summary goes [benches/results/main_job]
  --bin-dir DIR             Use the binaries in DIR instead of building them
  --keep                    Leave the data in the work directory
  -h, --help                Print this help

Exit status: 0 if every check passed, 1 if not, 2 if the command was not understood.";

/// What the proof was asked for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) mem_limit: String,
    pub(super) mem_limit_bytes: u64,
    pub(super) memory_only_limit: String,
    pub(super) memory_only_limit_bytes: u64,
    pub(super) skip_memory_only: bool,
    pub(super) sample: usize,
    pub(super) seed: u32,
    pub(super) deadline: Duration,
    pub(super) work: Option<PathBuf>,
    pub(super) results: Option<PathBuf>,
    pub(super) bin_dir: Option<PathBuf>,
    pub(super) keep: bool,
    pub(super) paths: Vec<PathBuf>,
}

impl Options {
    /// Reads the arguments; `None` if they ask for help.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            mem_limit: "32M".to_owned(),
            mem_limit_bytes: 32 << 20,
            memory_only_limit: "8G".to_owned(),
            memory_only_limit_bytes: 8 << 30,
            skip_memory_only: false,
            sample: 10_000,
            seed: 2010,
            deadline: Duration::from_secs(3600),
            work: None,
            results: None,
            bin_dir: None,
            keep: false,
            paths: Vec::new(),
        };
        let mut words = Words::of(arguments);
        while let Some(option) = words.next_option() {
            match option {
                "-h" | "--help" => return Ok(None),
                "--mem-limit" => {
                    words.value()?.clone_into(&mut options.mem_limit);
                    options.mem_limit_bytes = size(option, &options.mem_limit)?;
                }
                "--memory-only-limit" => {
                    words.value()?.clone_into(&mut options.memory_only_limit);
                    options.memory_only_limit_bytes = size(option, &options.memory_only_limit)?;
                }
                "--skip-memory-only" => options.skip_memory_only = true,
                "--sample" => options.sample = words.number()?,
                "--seed" => options.seed = words.number()?,
                "--deadline" => options.deadline = Duration::from_secs(words.number()?),
                "--work" => options.work = Some(words.value()?.into()),
                "--results" => options.results = Some(words.value()?.into()),
                "--bin-dir" => options.bin_dir = Some(words.value()?.into()),
                "--keep" => options.keep = true,
                other if other.starts_with('-') => {
                    return Err(Failure::Usage(format!("main-job has no option `{other}`")));
                }
                path => options.paths.push(path.into()),
            }
        }
        Ok(Some(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Option<Options>, Failure> {
        Options::parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn options_and_paths_may_be_mixed() {
        let options = parse(&[
            "one",
            "--mem-limit",
            "64M",
            "two",
            "--sample",
            "9",
            "--keep",
        ])
        .unwrap()
        .unwrap();
        assert_eq!(options.paths, [PathBuf::from("one"), PathBuf::from("two")]);
        assert_eq!(
            (options.mem_limit_bytes, options.sample, options.keep),
            (64 << 20, 9, true)
        );
    }

    #[test]
    fn what_is_not_understood_is_a_usage_error() {
        for words in [
            &["--nope"][..],
            &["--sample"],
            &["--sample", "x"],
            &["--mem-limit", "big"],
        ] {
            assert!(matches!(parse(words), Err(Failure::Usage(_))), "{words:?}");
        }
        assert!(parse(&["--help"]).unwrap().is_none());
    }
}
