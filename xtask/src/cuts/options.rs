//! The options of `cargo xtask cuts`.

use std::path::PathBuf;

use crate::failure::Failure;
use crate::words::Words;

pub(super) const HELP: &str = "\
Cut clients off in the middle of what they write, and see that each batch is there whole or not at all

Usage: cargo xtask cuts [OPTIONS]

At each level of durability: processes of clients that are killed, and clients whose connection is cut hard by a
proxy, while they write batches of many keys to a named table; then the server is killed, too, and started again.
Each batch that was answered is there, each other one whole or not at all, and nothing else.
Then an index is built through a proxy that cuts its connection again and again, while the server is killed or
stopped, and started. It must equal, list by list, one that was built without any cut. Last, `rhash index` itself
does the same to the text of PATH.

Options:
  --clients COUNT       Clients that are cut off, for each level [default: 1000]
  --processes COUNT     How many of them are processes that are killed [default: 60]
  --cuts COUNT          Cuts while the index is built [default: 500]
  --restarts COUNT      Ends of the server while it is built [default: 20]
  --corpus PATH         What `rhash index` indexes [default: the crates that cargo has; with --quick the
                        sources of rhash]
  --quick               60 clients, 10 of them processes; 60 cuts and 4 restarts
  --durability LEVEL    everysec or always; both if nothing is said
  --mem-limit SIZE      The servers' memory limit [default: 24M]
  --seed NUMBER         Where random draws begin [default: 1]
  --debug               Take the build of the tests
  --bin-dir DIR         Take binaries that are there, and this build of the task
  -h, --help            Print this help";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) clients: u64,
    pub(super) processes: u64,
    pub(super) cuts: u64,
    pub(super) restarts: u64,
    pub(super) corpus: Option<PathBuf>,
    pub(super) quick: bool,
    pub(super) levels: Vec<String>,
    pub(super) mem_limit_bytes: u64,
    pub(super) seed: u64,
    pub(super) debug: bool,
    pub(super) bin_dir: Option<PathBuf>,
}

impl Options {
    /// Reads them; none if help was asked for.
    pub(super) fn parse(arguments: &[String]) -> Result<Option<Self>, Failure> {
        let mut options = Self {
            clients: 1000,
            processes: 60,
            cuts: 500,
            restarts: 20,
            corpus: None,
            quick: false,
            levels: vec!["everysec".to_owned(), "always".to_owned()],
            mem_limit_bytes: 24 << 20,
            seed: 1,
            debug: false,
            bin_dir: None,
        };
        let mut words = Words::of(arguments);
        while let Some(option) = words.next_option() {
            match option {
                "-h" | "--help" => return Ok(None),
                "--debug" => options.debug = true,
                "--quick" => {
                    options.quick = true;
                    (options.clients, options.processes) = (60, 10);
                    (options.cuts, options.restarts) = (60, 4);
                }
                "--clients" => options.clients = words.number()?,
                "--processes" => options.processes = words.number()?,
                "--cuts" => options.cuts = words.number()?,
                "--corpus" => options.corpus = Some(PathBuf::from(words.value()?)),
                "--restarts" => options.restarts = words.number()?,
                "--durability" => match words.value()? {
                    level @ ("everysec" | "always") => options.levels = vec![level.to_owned()],
                    other => {
                        let text = format!("--durability {other} is neither everysec nor always");
                        return Err(Failure::Usage(text));
                    }
                },
                "--mem-limit" => options.mem_limit_bytes = words.size()?,
                "--seed" => options.seed = words.number()?,
                "--bin-dir" => options.bin_dir = Some(PathBuf::from(words.value()?)),
                other => return Err(Failure::Usage(format!("cuts has no option `{other}`"))),
            }
        }
        options.processes = options.processes.min(options.clients);
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
        let options = parse(&["--quick", "--clients", "5", "--durability", "always"]);
        let options = options.unwrap().unwrap();
        assert_eq!(
            (options.clients, options.processes, options.cuts),
            (5, 5, 60)
        );
        assert_eq!(options.levels, ["always"]);
        assert!(parse(&["-h"]).unwrap().is_none());
        for words in [
            &["--durability", "none"][..],
            &["--cuts"],
            &["--clients", "x"],
        ] {
            assert!(matches!(parse(words), Err(Failure::Usage(_))), "{words:?}");
        }
    }
}
