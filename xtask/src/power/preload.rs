//! The library that stands between a server and its disk (tests/preload/disk.c), compiled on the fly.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::failure::Failure;
use crate::step;

/// Compiling one file takes no longer.
const COMPILE_LIMIT: Duration = Duration::from_secs(120);

/// What the library is compiled from, below the workspace's root.
const SOURCE: &str = "tests/preload/disk.c";

/// The compiled library.
#[derive(Debug)]
pub(crate) struct Preload {
    library: PathBuf,
}

impl Preload {
    /// Compiles it into a directory.
    pub(crate) fn build(stage: &Path) -> Result<Self, Failure> {
        let library = stage.join("disk.so");
        let mut compile = Command::new("cc");
        compile
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o"])
            .arg(&library)
            .arg(step::root().join(SOURCE))
            .args(["-ldl", "-lpthread"]);
        step::run("the disk's library", &mut compile, COMPILE_LIMIT)?;
        Ok(Self { library })
    }

    /// Puts it before a command, which must lie in the root and be named without links.
    pub(crate) fn put_before(&self, command: &mut Command, root: &Path) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("RHASH_DISK_ROOT", root);
    }

    /// Has it append a trace to a file, and make each sync take so much longer.
    pub(crate) fn trace(command: &mut Command, trace: &Path, sync_us: u64) {
        command
            .env("RHASH_DISK_TRACE", trace)
            .env("RHASH_DISK_SYNC_US", sync_us.to_string());
    }

    /// Has it fail what a control file says.
    pub(crate) fn control(command: &mut Command, control: &Path) {
        command.env("RHASH_DISK_CONTROL", control);
    }
}
