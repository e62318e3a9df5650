//! A memory control group around a server: page cache, sockets and dirty pages count there.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::failure::Failure;

/// Where the kernel shows groups of the first version.
const ROOT: &str = "/sys/fs/cgroup/memory";
/// Beyond 1.25 times the limit, for page cache and sockets.
const EXTRA_BYTES: u64 = 32 << 20;

/// A group, removed when it is dropped, after its processes have ended.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    limit_bytes: u64,
}

impl Cgroup {
    /// Makes the group of a server with this limit.
    pub(super) fn make(name: &str, mem_limit_bytes: u64) -> Result<Self, Failure> {
        let path = Path::new(ROOT).join(format!("rhash-limits-{}-{name}", std::process::id()));
        let limit_bytes = mem_limit_bytes / 4 * 5 + EXTRA_BYTES;
        std::fs::create_dir(&path).map_err(|error| {
            let what = format!("cannot make the control group {}", path.display());
            Failure::new(what, error)
        })?;
        let group = Self { path, limit_bytes };
        group.write("memory.limit_in_bytes", limit_bytes)?;
        Ok(group)
    }

    /// The program, to be run in the group: a shell enters it and becomes the program.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$1\" && shift && exec \"$@\"", "sh"])
            .arg(self.path.join("cgroup.procs"))
            .arg(program);
        command
    }

    /// What the kernel has counted.
    pub(super) fn figures(&self) -> Value {
        let control = self.read("memory.oom_control");
        let killed = control
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|count| count.trim().parse::<u64>().ok());
        json!({
            "limit_bytes": self.limit_bytes,
            "used_bytes_max": self.number("memory.max_usage_in_bytes"),
            "times_at_the_limit": self.number("memory.failcnt"),
            "killed": killed,
        })
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.read(file).trim().parse().ok()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }

    fn write(&self, file: &str, number: u64) -> Result<(), Failure> {
        let path = self.path.join(file);
        std::fs::write(&path, number.to_string()).map_err(|e| Failure::new(path.display(), e))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It only fails while a process is left in it, which its owner has been told of.
        std::fs::remove_dir(&self.path).ok();
    }
}
