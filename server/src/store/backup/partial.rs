//! A backup's directory until it is whole: under another name, and removed if it does not get there.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use rhash_protocol::WireError;

use super::{refusal, stopping};
use crate::{
    cold::{ColdError, RUNS_DIR},
    data_dir::replace_file,
    shared::cold_error,
    store::checkpoint::LOG_DIR,
};

/// What the name ends with until all is there and on stable storage.
const SUFFIX: &str = ".partial";
/// A copy holds what the tables hold, and the secrets of sessions.
const MODE: u32 = 0o700;

/// A directory that is being filled.
#[derive(Debug)]
pub(super) struct Partial {
    /// What it is called now.
    path: PathBuf,
    /// What it will be called.
    dir: PathBuf,
    parent: PathBuf,
    is_whole: bool,
}

impl Partial {
    /// Makes the directory.
    ///
    /// # Errors
    /// `dir` is no absolute path, exists, or lies inside of the data directory; it cannot be made.
    pub(super) fn begin(data_dir: &Path, dir: &Path) -> Result<Self, WireError> {
        let shown = dir.display();
        let (Some(parent), Some(name), true) = (dir.parent(), dir.file_name(), dir.is_absolute())
        else {
            let text = format!(
                "{shown} is not the absolute path of a directory that could be made on the server's host"
            );
            return Err(refusal(&text));
        };
        let real = |path: &Path| {
            fs::canonicalize(path).map_err(|error| failed("find the directory", path, error))
        };
        // IMPORTANT: a start takes what it finds there for its own.
        if real(parent)?.starts_with(real(data_dir)?) {
            let text = format!(
                "{shown} lies inside of the server's data directory {}; name a place beside it",
                data_dir.display()
            );
            return Err(refusal(&text));
        }
        let mut partial_name = OsString::from(name);
        partial_name.push(SUFFIX);
        let path = parent.join(partial_name);
        if exists(dir)? {
            let text = format!("{shown} exists; a backup makes a directory of its own");
            return Err(refusal(&text));
        }
        let made = DirBuilder::new().mode(MODE).create(&path);
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => refusal(&format!(
                "{} exists: a backup that was cut short left it, or another server is making one; remove it, or \
                 name another directory",
                path.display()
            )),
            _ => failed("make the directory", &path, error),
        })?;
        let partial = Self {
            dir: parent.join(name),
            parent: parent.to_owned(),
            path,
            is_whole: false,
        };
        for inside in [partial.runs_dir(), partial.log_dir()] {
            let made = DirBuilder::new().mode(MODE).create(&inside);
            made.map_err(|error| failed("make the directory", &inside, error))?;
        }
        Ok(partial)
    }

    /// The directory of run files.
    pub(super) fn runs_dir(&self) -> PathBuf {
        self.path.join(RUNS_DIR)
    }

    /// The directory of the log.
    pub(super) fn log_dir(&self) -> PathBuf {
        self.path.join(LOG_DIR)
    }

    /// Writes a file, on stable storage.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), WireError> {
        let path = self.path.join(name);
        replace_file(&path, bytes)
            .map(drop)
            .map_err(|error| failed("write", &path, error))
    }

    /// Gives the directory its name, once all of it is on stable storage.
    pub(super) fn complete(&mut self) -> Result<(), WireError> {
        // IMPORTANT: what is whole is called so only when a power cut could take nothing of it.
        for dir in [&self.runs_dir(), &self.log_dir(), &self.path] {
            sync(dir)?;
        }
        // A directory that was made meanwhile stays, unless it is empty.
        if exists(&self.dir)? {
            let text = format!("{} was made by somebody else meanwhile", self.dir.display());
            return Err(refusal(&text));
        }
        fs::rename(&self.path, &self.dir)
            .map_err(|error| failed("give its name to", &self.dir, error))?;
        // From here on a failure must remove what has its name.
        self.path.clone_from(&self.dir);
        sync(&self.parent)?;
        self.is_whole = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_whole
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "a backup that was given up stays behind");
        }
    }
}

/// Brings all files of a directory to stable storage.
pub(super) fn sync_files(dir: &Path, goes_on: &dyn Fn() -> bool) -> Result<(), WireError> {
    let entries = fs::read_dir(dir).map_err(|error| failed("list", dir, error))?;
    for entry in entries {
        if !goes_on() {
            return Err(stopping());
        }
        sync(&entry.map_err(|error| failed("list", dir, error))?.path())?;
    }
    Ok(())
}

/// Whether there is anything of this name.
fn exists(path: &Path) -> Result<bool, WireError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look for", path, error)),
    }
}

fn sync(path: &Path) -> Result<(), WireError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| failed("sync", path, error))
}

/// An error of the file system, with a full disk told apart.
fn failed(action: &'static str, path: &Path, error: io::Error) -> WireError {
    cold_error(&ColdError::io(action, path, error))
}
