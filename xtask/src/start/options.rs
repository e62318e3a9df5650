//! The options of `cargo xtask start`.

use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;
use crate::words::Words;

pub(super) const HELP: &str = "\
Kill a server with much cold data and a full log, and see how soon the next one answers

Usage: cargo xtask start [OPTIONS]

Entries of 1,016 bytes are loaded until there is as much cold data as asked for, and are stopped cleanly. Then small
entries are written, some of them over those, until the log is full; the server is killed, and started again. From the
first step of its process to the answer to a get it may take --within; then entries of both kinds are sampled and
counted. Its memory is sampled from outside, and keeps its limit.

Options:
  --cold SIZE         Cold data [default: 10G]
  --log SIZE          What the log holds when the server is killed: --log-limit of the one that starts [default: 1G]
  --mem-limit SIZE    The servers' memory limit [default: 256M]
  --within SECONDS    How long the start may take [default: 10]
  --sample COUNT      Entries of each kind that are looked at [default: 10000]
  --quick             --cold 300M --log 64M
  --seed NUMBER       Where random draws begin [default: 1]
  --work DIR          Where the data go [default: below the target directory]
  --keep              Leave the data there
  --debug             Take the build of the tests
  --bin-dir DIR       Take binaries that are there, and this build of the task
  -h, --help          Print this help";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) cold_bytes: u64,
    pub(super) log_bytes: u64,
    pub(super) mem_limit_bytes: u64,
    pub(super) within: Duration,
    pub(super) sample: u64,
    pub(super) seed: u64,
    pub(super) work: Option<PathBuf>,
    pub(super) keep: bool,
    pub(super) debug: bool,
    pub(super) bin_dir: Option<PathBuf>,
}

impl Options {
    /// Reads them; none if help was asked for.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            cold_bytes: 10 << 30,
            log_bytes: 1 << 30,
            mem_limit_bytes: 256 << 20,
            within: Duration::from_secs(10),
            sample: 10_000,
            seed: 1,
            work: None,
            keep: false,
            debug: false,
            bin_dir: None,
        };
        let mut words = Words::of(arguments);
        while let Some(option) = words.next_option() {
            match option {
                "-h" | "--help" => return Ok(None),
                "--debug" => options.debug = true,
                "--keep" => options.keep = true,
                "--quick" => (options.cold_bytes, options.log_bytes) = (300 << 20, 64 << 20),
                "--cold" => options.cold_bytes = words.size()?,
                "--log" => options.log_bytes = words.size()?,
                "--mem-limit" => options.mem_limit_bytes = words.size()?,
                "--within" => options.within = Duration::from_secs(words.number()?),
                "--sample" => options.sample = words.number()?,
                "--seed" => options.seed = words.number()?,
                "--work" => options.work = Some(PathBuf::from(words.value()?)),
                "--bin-dir" => options.bin_dir = Some(PathBuf::from(words.value()?)),
                other => return Err(Failure::Usage(format!("start has no option `{other}`"))),
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
        let options = parse(&["--quick", "--log", "32M", "--within", "3"]).unwrap();
        let options = options.unwrap();
        assert_eq!(
            (options.cold_bytes, options.log_bytes),
            (300 << 20, 32 << 20)
        );
        assert_eq!(options.within, Duration::from_secs(3));
        assert!(parse(&["--help"]).unwrap().is_none());
        for words in [&["--cold"][..], &["--cold", "much"], &["10G"]] {
            assert!(matches!(parse(words), Err(Failure::Usage(_))), "{words:?}");
        }
    }
}
