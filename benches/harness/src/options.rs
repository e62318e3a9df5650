//! What every bench can be told on its command line.

use std::path::PathBuf;

use clap::Args;

/// Runs of everything if nothing else is said.
const RUNS_DEFAULT: u32 = 5;

/// Options of all benches; a bench flattens them into its own.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Run everything this often and tell medians. Default: 5, with --quick 1.
    #[arg(long, value_name = "COUNT")]
    runs: Option<u32>,

    /// A short form with little data, to see that all works; its figures say little.
    #[arg(long)]
    pub quick: bool,

    /// Only these workloads, by name.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Only these sides, by name.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub sides: Vec<String>,

    /// Draw workloads from this seed.
    #[arg(long, value_name = "NUMBER", default_value_t = 2010)]
    pub seed: u64,

    /// Keep data here while the bench runs. Default: in the target directory.
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,

    /// Write results here. Default: benches/results/BENCH, with --quick in the target directory.
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,

    /// Use the binaries in this directory. Default: build them.
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,

    /// Cargo says so; it means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// How often everything runs.
    pub fn runs(&self) -> u32 {
        let default = if self.quick { 1 } else { RUNS_DEFAULT };
        self.runs.unwrap_or(default).max(1)
    }

    /// Whether a workload is asked for.
    pub fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == workload)
    }

    /// Whether a side is asked for.
    pub fn wants_side(&self, side: &str) -> bool {
        self.sides.is_empty() || self.sides.iter().any(|name| name == side)
    }

    /// One number in a full run, another in a short one.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(words: &[&str]) -> Options {
        Line::try_parse_from([&["bench"], words].concat())
            .unwrap()
            .options
    }

    #[test]
    fn a_short_form_runs_once_unless_told_otherwise() {
        assert_eq!(parse(&["--bench"]).runs(), 5);
        assert_eq!(parse(&["--quick"]).runs(), 1);
        assert_eq!(parse(&["--quick", "--runs", "3"]).runs(), 3);
    }

    #[test]
    fn nothing_named_is_everything_wanted() {
        let all = parse(&[]);
        assert!(all.wants("build") && all.wants_side("redis"));
        let some = parse(&["--only", "build,gets", "--sides", "redis"]);
        assert!(some.wants("gets") && !some.wants("scan"));
        assert!(some.wants_side("redis") && !some.wants_side("fjall"));
    }
}
