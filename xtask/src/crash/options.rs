//! The options of `cargo xtask crash`.

use std::path::PathBuf;

use crate::failure::Failure;
use crate::words::Words;

pub(super) const HELP: &str = "\
Kill a server again and again under load, and see that nothing is lost, doubled or made up

Usage: cargo xtask crash [OPTIONS]

Clients append, add, put, discard and compare-and-swap on named tables under a memory limit that the data
does not fit, and keep a journal of their own. The server is killed at random moments, while it starts as well,
or stopped, and started again; the clients come back by themselves. Their every answer is held against
the journal as it comes, and in the end all that is in the tables.

Options:
  --kills COUNT         How often, for each level [default: 300]
  --durability LEVEL    everysec, always, or own: tables with levels of their own, on servers whose level
                        changes from start to start; all three if nothing is said
  --mem-limit SIZE      The server's memory limit [default: 24M]
  --log-limit SIZE      What its log may take: small ones are cut often [default: 8M]
  --seed NUMBER         Where random draws begin [default: 1]
  --debug               Take the build of the tests
  --bin-dir DIR         Take binaries that are there
  -h, --help            Print this help";

/// In the place of a level: tables have their own.
pub(super) const OWN: &str = "own";

/// What was asked for.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) kills: u64,
    pub(super) levels: Vec<String>,
    pub(super) mem_limit_bytes: u64,
    pub(super) log_limit_bytes: u64,
    pub(super) seed: u64,
    pub(super) debug: bool,
    pub(super) bin_dir: Option<PathBuf>,
}

impl Options {
    /// Reads them; none if help was asked for.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            kills: 300,
            levels: ["everysec", "always", OWN].map(str::to_owned).to_vec(),
            mem_limit_bytes: 24 << 20,
            log_limit_bytes: 8 << 20,
            seed: 1,
            debug: false,
            bin_dir: None,
        };
        let mut words = Words::of(arguments);
        while let Some(option) = words.next_option() {
            match option {
                "-h" | "--help" => return Ok(None),
                "--debug" => options.debug = true,
                "--kills" => options.kills = words.number()?,
                "--durability" => match words.value()? {
                    level @ ("everysec" | "always" | OWN) => {
                        options.levels = vec![level.to_owned()];
                    }
                    other => {
                        let text = format!("--durability {other} is not everysec, always or own");
                        return Err(Failure::Usage(text));
                    }
                },
                "--mem-limit" => options.mem_limit_bytes = words.size()?,
                "--log-limit" => options.log_limit_bytes = words.size()?,
                "--seed" => options.seed = words.number()?,
                "--bin-dir" => options.bin_dir = Some(PathBuf::from(words.value()?)),
                other => return Err(Failure::Usage(format!("crash has no option `{other}`"))),
            }
        }
        Ok(Some(options))
    }
}
