//! The options of `cargo xtask soak`.

use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;
use crate::words::Words;

pub(super) const HELP: &str = "\
Load a server for a long time, and see that nothing grows and nothing slows down

Usage: cargo xtask soak [OPTIONS]

It has four times the data that its memory holds. Some clients overwrite, read and append, others
come and go, some without a word. At the end, throughput is that of the beginning within a fifth;
descriptors, threads and memory have not grown, and the disk holds what live entries explain. A sixth
of the time goes by before it is watched, so that a run takes a sixth longer.

Options:
  --minutes COUNT     How long [default: 30]
  --mem-limit SIZE    The server's memory limit [default: 32M]
  --seed NUMBER       Where random draws begin [default: 1]
  --debug             Take the build of the tests
  --bin-dir DIR       Take binaries that are there
  -h, --help          Print this help";

/// What was asked for.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) time: Duration,
    pub(super) mem_limit_bytes: u64,
    pub(super) seed: u64,
    pub(super) debug: bool,
    pub(super) bin_dir: Option<PathBuf>,
}

impl Options {
    /// Reads them; none if help was asked for.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            time: Duration::from_secs(30 * 60),
            mem_limit_bytes: 32 << 20,
            seed: 1,
            debug: false,
            bin_dir: None,
        };
        let mut words = Words::of(arguments);
        while let Some(option) = words.next_option() {
            match option {
                "-h" | "--help" => return Ok(None),
                "--debug" => options.debug = true,
                "--minutes" => {
                    let minutes: u64 = words.number()?;
                    options.time = Duration::from_secs(minutes.clamp(1, 7 * 24 * 60) * 60);
                }
                "--mem-limit" => options.mem_limit_bytes = words.size()?,
                "--seed" => options.seed = words.number()?,
                "--bin-dir" => options.bin_dir = Some(PathBuf::from(words.value()?)),
                other => return Err(Failure::Usage(format!("soak has no option `{other}`"))),
            }
        }
        Ok(Some(options))
    }
}
