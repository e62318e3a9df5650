//! The options of `cargo xtask faults`.

use std::path::PathBuf;

use crate::failure::Failure;
use crate::words::Words;

pub(super) const HELP: &str = "\
Let a server's disk fail in every way, and see that it says so and loses nothing

Usage: cargo xtask faults [OPTIONS]

A library before the C library lets writes, syncs, renames, reads and more fail, with EIO or ENOSPC, at the first, a
later or every call, of the log, of runs, of sled, of the manifest or of all files, while a server is loaded or
starts. Its answers, stats and log are looked at; then a server on a healthy disk must have all that
was acknowledged. Needs Linux and a C compiler.

Options:
  --quick           A few cases of each kind
  --only TEXT       Only cases whose name has this text
  --seed NUMBER     Where random draws begin [default: 1]
  --debug           Take the build of the tests
  --bin-dir DIR     Take binaries that are there
  -h, --help        Print this help";

/// What was asked for.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) quick: bool,
    pub(super) only: Option<String>,
    pub(super) seed: u64,
    pub(super) debug: bool,
    pub(super) bin_dir: Option<PathBuf>,
}

impl Options {
    /// Reads them; none if help was asked for.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            quick: false,
            only: None,
            seed: 1,
            debug: false,
            bin_dir: None,
        };
        let mut words = Words::of(arguments);
        while let Some(option) = words.next_option() {
            match option {
                "-h" | "--help" => return Ok(None),
                "--quick" => options.quick = true,
                "--debug" => options.debug = true,
                "--only" => options.only = Some(words.value()?.to_owned()),
                "--seed" => options.seed = words.number()?,
                "--bin-dir" => options.bin_dir = Some(PathBuf::from(words.value()?)),
                other => return Err(Failure::Usage(format!("faults has no option `{other}`"))),
            }
        }
        Ok(Some(options))
    }
}
