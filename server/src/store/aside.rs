//! Where damaged files go: they are not removed, for whoever can do more with them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::StoreError;
use crate::{
    cold::{ColdStore, RunId, sled_directories, sled_extras},
    data_dir::io_error,
};

/// Where damaged files go, inside the data directory.
const ASIDE: &str = "damaged";
/// What the directory of sled is called there.
const SLED: &str = "sled";

/// Where damaged files are put.
pub(super) struct Aside(PathBuf);

impl Aside {
    /// Those of a data directory.
    pub(super) fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(ASIDE))
    }

    /// The directory, if anything was ever put there.
    pub(super) fn existing(self) -> Option<PathBuf> {
        self.0.is_dir().then_some(self.0)
    }

    /// The directory, made if need be.
    pub(super) fn make(&self) -> Result<&Path, StoreError> {
        let made = fs::create_dir_all(&self.0);
        made.map_err(io_error("make the directory", &self.0))?;
        Ok(&self.0)
    }

    /// Where a file of this name goes; one that is there already stays.
    fn place_for(&self, name: &str) -> Result<PathBuf, StoreError> {
        let dir = self.make()?;
        let free = (0..u32::MAX)
            .map(|number| match number {
                0 => dir.join(name),
                number => dir.join(format!("{name}.{number}")),
            })
            .find(|path| !path.exists());
        Ok(free.unwrap_or_else(|| dir.join(name)))
    }

    fn place_for_file(&self, path: &Path) -> Result<PathBuf, StoreError> {
        self.place_for(&path.file_name().unwrap_or_default().to_string_lossy())
    }

    pub(super) fn move_here(&self, path: &Path) -> Result<(), StoreError> {
        let to = self.place_for_file(path)?;
        Ok(fs::rename(path, &to).map_err(io_error("set aside", path))?)
    }

    pub(super) fn copy_here(&self, path: &Path) -> Result<(), StoreError> {
        let to = self.place_for_file(path)?;
        fs::copy(path, &to).map_err(io_error("copy", path))?;
        Ok(())
    }
}

/// What of sled is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SledAside {
    /// What it makes anew from the rest: snapshots, and how it was configured.
    Extras,
    /// All of it.
    All,
}

/// Sets sled's files aside, in part or all of them; says which.
pub(super) fn set_sled_aside(
    data_dir: &Path,
    aside: &Aside,
    what: SledAside,
) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = Vec::new();
    for dir in sled_directories(data_dir)? {
        match what {
            SledAside::All => paths.push(dir),
            SledAside::Extras => paths.extend(sled_extras(&dir)?),
        }
    }
    for path in &paths {
        aside.move_here(path)?;
    }
    Ok(paths)
}

/// Where sled does not list all runs that were opened, writes what it holds anew, before anything is changed there, and
/// sets its directory aside; says which runs they were. All runs that matter must have been opened.
pub(super) fn mend_sled(cold: &ColdStore, aside: &Aside) -> Result<Vec<RunId>, StoreError> {
    let unlisted = cold.unlisted()?;
    if !unlisted.is_empty() {
        cold.make_sled_anew(&aside.place_for(SLED)?)?;
    }
    Ok(unlisted)
}
