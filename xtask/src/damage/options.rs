//! The options of `cargo xtask damage`.

use std::path::PathBuf;

use crate::failure::Failure;
use crate::words::Words;

pub(super) const HELP: &str = "\
Damage data directories in thousands of ways, and see that nothing wrong is ever read from one

Usage: cargo xtask damage [OPTIONS]

Real servers build three directories from a seed, and what is in them is known. Each case copies one, damages one
file (a bit, a cut, zeros, two pages in each other's place, an older copy, no file at all), starts on it, and reads
all: gets, counts, scans. Each key must be right, or an error that names the file; a start that refuses must
say which file is damaged. Nothing may be different, absent or made up, nothing may panic or hang. Every twentieth
case is a server in a process of its own; if it has --check, that has to find what a read or a start found. Every
third directory is also repaired: a check must then find nothing, and each key be what it once was, or gone.

What may be lost is what no file tells of any more: the end of the log behind the last byte that something later
says was safe. What is missing then must be a suffix of what was written.

Options:
  --flips COUNT     How many cases [default: 10000]
  --quick           300 cases
  --case NUMBER     This case alone, on the directories of the last run with this seed; it says what it did
  --seed NUMBER     Where random draws begin [default: 1]
  --jobs COUNT      Cases at the same time [default: one a core]
  --work DIR        Where copies go [default: below /dev/shm, else below the target directory]
  --debug           Take the build of the tests
  --bin-dir DIR     Take binaries that are there, and this build of the task
  -h, --help        Print this help";

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) cases: u64,
    pub(super) case: Option<u64>,
    pub(super) seed: u64,
    pub(super) jobs: usize,
    pub(super) work: Option<PathBuf>,
    pub(super) debug: bool,
    pub(super) bin_dir: Option<PathBuf>,
}

impl Options {
    /// Reads them; none if help was asked for.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            cases: 10_000,
            case: None,
            seed: 1,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            work: None,
            debug: false,
            bin_dir: None,
        };
        let mut words = Words::of(arguments);
        while let Some(option) = words.next_option() {
            match option {
                "-h" | "--help" => return Ok(None),
                "--debug" => options.debug = true,
                "--quick" => options.cases = 300,
                "--flips" => options.cases = words.number()?,
                "--case" => options.case = Some(words.number()?),
                "--seed" => options.seed = words.number()?,
                "--jobs" => options.jobs = words.number::<usize>()?.clamp(1, 64),
                "--work" => options.work = Some(PathBuf::from(words.value()?)),
                "--bin-dir" => options.bin_dir = Some(PathBuf::from(words.value()?)),
                other => return Err(Failure::Usage(format!("damage has no option `{other}`"))),
            }
        }
        Ok(Some(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_others_are_usage_errors() {
        let parse = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Options::parse(&words)
        };
        let options = parse(&["--quick", "--seed", "9", "--case", "12"]).unwrap();
        let options = options.unwrap();
        assert_eq!(
            (options.cases, options.seed, options.case),
            (300, 9, Some(12))
        );
        assert!(parse(&["--help"]).unwrap().is_none());
        for words in [&["--flips"][..], &["--flips", "many"], &["--bits"]] {
            assert!(matches!(parse(words), Err(Failure::Usage(_))), "{words:?}");
        }
    }
}
