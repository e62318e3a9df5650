//! A memory group of the kernel (cgroup v1): what is in it has so much memory, page cache, sockets
//! and dirty pages included, so that reads of large data really go to the disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Result, say};

const HOME: &str = "/sys/fs/cgroup/memory";

/// A group; it goes when this is dropped, after the processes in it.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes a group with this much memory.
    ///
    /// # Errors
    /// This machine has no cgroup v1, or this user may make no groups.
    pub fn create(name: &str, bytes: u64) -> Result<Self> {
        let path = Path::new(HOME).join(format!("rhash-bench-{}-{name}", std::process::id()));
        let why = |error| format!("no memory group here: {}: {error}", path.display());
        fs::create_dir(&path).map_err(why)?;
        let group = Self { path };
        group
            .set("memory.limit_in_bytes", bytes)
            .map_err(|error| format!("no memory group here: {error}"))?;
        Ok(group)
    }

    /// Makes a group; where that is impossible, says so once for this name and goes on without.
    pub fn create_or_say(name: &str, bytes: u64) -> Option<Self> {
        match Self::create(name, bytes) {
            Ok(group) => Some(group),
            Err(error) => {
                say(format_args!(
                    "{error}; {name} runs without, and may read from the page cache"
                ));
                None
            }
        }
    }

    /// The file that takes the ids of processes.
    pub(crate) fn members(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Processes that the kernel has killed for want of memory.
    pub fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.path.join("memory.oom_control")).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The most that was ever in use, page cache included.
    pub fn peak_bytes(&self) -> u64 {
        let text = fs::read_to_string(self.path.join("memory.max_usage_in_bytes"));
        text.unwrap_or_default().trim().parse().unwrap_or(0)
    }

    /// Drops what is cached of the files that the group has read and written.
    pub fn forget_pages(&self) {
        // Without it, reads are as quick as the cache makes them, and the figures show that.
        drop(self.set("memory.force_empty", 0));
    }

    fn set(&self, name: &str, value: u64) -> Result<()> {
        let path = self.path.join(name);
        fs::write(&path, value.to_string()).map_err(|error| {
            let path = path.display();
            format!("{path}: {error}").into()
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.forget_pages();
        if let Err(error) = fs::remove_dir(&self.path) {
            say(format_args!(
                "cannot remove {}: {error}",
                self.path.display()
            ));
        }
    }
}
