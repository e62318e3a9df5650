//! The options of `cargo xtask power`.

use std::path::PathBuf;

use crate::failure::Failure;
use crate::words::Words;

pub(super) const HELP: &str = "\
Cut the power of a server's disk, and see that what was promised is there

Usage: cargo xtask power [OPTIONS]

A library before the C library writes down all that a loaded server does to its files, sled's included. From
that trace, disks are made as they might be after a power cut: what was not synced is dropped, torn
or reordered. A server is started on each; what it has is held against the clients' journals.
Needs Linux and a C compiler.

Options:
  --points COUNT    Power cuts, for each level [default: 2000]
  --level LEVEL     always, everysec or both [default: both]
  --seconds COUNT   How long the server is loaded [default: 7]
  --seed NUMBER     Where random draws begin [default: 1]
  --debug           Take the build of the tests
  --bin-dir DIR     Take binaries that are there
  -h, --help        Print this help";

/// What was asked for.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) points: usize,
    pub(super) levels: Vec<&'static str>,
    pub(super) seconds: u64,
    pub(super) seed: u64,
    pub(super) debug: bool,
    pub(super) bin_dir: Option<PathBuf>,
}

impl Options {
    /// Reads them; none if help was asked for.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            points: 2000,
            levels: vec!["always", "everysec"],
            seconds: 7,
            seed: 1,
            debug: false,
            bin_dir: None,
        };
        let mut words = Words::of(arguments);
        while let Some(option) = words.next_option() {
            match option {
                "-h" | "--help" => return Ok(None),
                "--debug" => options.debug = true,
                "--points" => options.points = words.number()?,
                "--seconds" => options.seconds = words.number()?,
                "--seed" => options.seed = words.number()?,
                "--bin-dir" => options.bin_dir = Some(PathBuf::from(words.value()?)),
                "--level" => {
                    options.levels = match words.value()? {
                        "always" => vec!["always"],
                        "everysec" => vec!["everysec"],
                        "both" => options.levels,
                        other => {
                            let text = format!("--level {other} is none of always, everysec, both");
                            return Err(Failure::Usage(text));
                        }
                    };
                }
                other => return Err(Failure::Usage(format!("power has no option `{other}`"))),
            }
        }
        Ok(Some(options))
    }
}
