//! Where disks under test lie: in memory, where there is such a directory, so that thousands take little time.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::place;

/// A file system in memory, on Linux.
const IN_MEMORY: &str = "/dev/shm";

/// A directory that is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Stage {
    path: PathBuf,
}

impl Stage {
    /// Makes it, empty.
    pub(crate) fn new(name: &str) -> Result<Self, Failure> {
        let above = match Path::new(IN_MEMORY).is_dir() {
            true => PathBuf::from(IN_MEMORY),
            false => place::target_directory()?,
        };
        let path = above.join(format!("rhash-{name}-{}", std::process::id()));
        place::empty_directory(&path)?;
        Ok(Self {
            path: place::absolute(&path)?,
        })
    }

    /// An empty directory in it, without links in its path.
    pub(crate) fn empty(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        place::empty_directory(&path)?;
        Ok(path)
    }

    /// Where something in it is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Whoever looks for what is left finds it there.
        std::fs::remove_dir_all(&self.path).ok();
    }
}
