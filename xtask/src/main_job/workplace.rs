//! Where the proof happens: the binaries, the text, and directories for data, logs and results.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use super::options::Options;
use crate::failure::Failure;
use crate::place::{self, absolute};
use crate::step;

/// Paths that all parts of the proof share.
#[derive(Debug)]
pub(super) struct Workplace {
    pub(super) binaries: PathBuf,
    pub(super) work: PathBuf,
    pub(super) results: PathBuf,
    pub(super) corpus: Vec<PathBuf>,
}

impl Workplace {
    /// Builds the binaries and makes the directories, empty.
    pub(super) fn prepare(options: &Options) -> Result<Self, Failure> {
        let corpus = corpus(&options.paths)?;
        let binaries = place::binaries(options.bin_dir.as_deref(), options.deadline)?;
        let target = place::target_directory()?;
        let work = options
            .work
            .clone()
            .unwrap_or_else(|| target.join("main-job"));
        let results = options
            .results
            .clone()
            .unwrap_or_else(|| step::root().join("benches/results/main_job"));
        let workplace = Self {
            binaries,
            work,
            results,
            corpus,
        };
        for directory in [workplace.data(), workplace.work.join("logs")] {
            place::empty_directory(&directory)?;
        }
        place::directory(&workplace.results)?;
        Ok(workplace)
    }

    /// The data directory of the servers that spill.
    pub(super) fn data(&self) -> PathBuf {
        self.work.join("data")
    }

    /// The path of a log file.
    pub(super) fn log_path(&self, name: &str) -> PathBuf {
        self.work.join("logs").join(name)
    }

    /// Makes a log file that a program can write to.
    pub(super) fn log(&self, name: &str) -> Result<File, Failure> {
        let path = self.log_path(name);
        File::create(&path).map_err(|error| Failure::new(path.display(), error))
    }

    /// One of the binaries.
    pub(super) fn binary(&self, name: &str) -> Command {
        Command::new(self.binaries.join(name))
    }

    /// Removes the data, which may be large; logs stay.
    pub(super) fn clean_up(&self, options: &Options) {
        if !options.keep
            && let Err(error) = std::fs::remove_dir_all(self.data())
        {
            eprintln!("xtask: cannot remove {}: {error}", self.data().display());
        }
    }
}

/// The text to index: the paths asked for, or what a machine with Rust has.
fn corpus(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    if !paths.is_empty() {
        return paths.iter().map(|path| absolute(path)).collect();
    }
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = output
        .map_err(|error| Failure::new("cannot run rustc", error))?
        .stdout;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot).trim());
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let wanted = [
        sysroot.join("share/doc/rust/html"),
        cargo_home.join("registry/src"),
    ];
    let (found, missing): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|path| path.is_dir());
    for path in &missing {
        say!(
            "xtask: no {}, left out (rustup component add rust-docs?)",
            path.display()
        );
    }
    if found.is_empty() {
        return Err(Failure::Failed("no text to index; name a PATH".to_owned()));
    }
    found.iter().map(|path| absolute(path)).collect()
}
