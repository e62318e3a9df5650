//! The directories that sled lives in, one after the other: `sled`, `sled-1`, `sled-2`, …
//!
//! sled gives no disk back, so from time to time what is live is moved to a new directory and the
//! old one is removed. A directory that is being filled lacks the file `COMPLETE`; of those that
//! have it the last one counts, and a start removes all others. The first one needs none.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use super::{error::ColdError, file_home::sync_dir};
use crate::aside::Aside;

/// The first directory, inside the data directory; later ones have `-` and a number after it.
const FIRST: &str = "sled";
/// What the first one is called until it can be opened whatever happens.
const FIRST_BEGUN: &str = "sled.new";
/// What is read at a time of files that are only looked at.
const READ_BYTES: usize = 128 * 1024;
/// Says that a directory has all that the one before it had.
const COMPLETE: &str = "COMPLETE";

/// Whether there is any.
pub(super) fn any(data_dir: &Path) -> Result<bool, ColdError> {
    Ok(!numbers(data_dir)?.is_empty())
}

/// Where the first directory is filled, if there is none at all; it is then empty.
pub(super) fn begin_first(data_dir: &Path) -> Result<Option<PathBuf>, ColdError> {
    if any(data_dir)? {
        return Ok(None);
    }
    let path = data_dir.join(FIRST_BEGUN);
    removed(&path, fs::remove_dir_all(&path))?;
    fs::create_dir(&path).map_err(|error| ColdError::io("create", &path, error))?;
    Ok(Some(path))
}

/// Gives the first directory its name, once all that is in it was synced; the name is not yet.
pub(super) fn finish_first(data_dir: &Path) -> Result<(), ColdError> {
    let path = data_dir.join(FIRST_BEGUN);
    fs::rename(&path, data_dir.join(FIRST)).map_err(|error| ColdError::io("rename", &path, error))
}

/// One of the directories. When the last who uses it is done, it stays, or goes.
#[derive(Debug)]
pub(super) struct SledDir {
    data_dir: PathBuf,
    number: u64,
    path: PathBuf,
    goes: Mutex<Option<Goes>>,
}

/// Where a directory goes that is out of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goes {
    /// It is removed.
    Away,
    /// It is set aside.
    Aside,
}

impl SledDir {
    /// The directory that counts; all others are removed.
    pub(super) fn current(data_dir: &Path) -> Result<Self, ColdError> {
        let mut current = 0;
        let numbers = numbers(data_dir)?;
        for &number in &numbers {
            if number > current && path(data_dir, number).join(COMPLETE).exists() {
                current = number;
            }
        }
        for number in numbers {
            if number != current {
                remove(&path(data_dir, number))?;
            }
        }
        let dir = Self::numbered(data_dir, current);
        fs::create_dir_all(&dir.path).map_err(|error| ColdError::io("create", &dir.path, error))?;
        Ok(dir)
    }

    /// A new one after this one, which does not count before it is complete.
    pub(super) fn begin_next(&self) -> Result<Self, ColdError> {
        let next = Self::numbered(&self.data_dir, self.number.saturating_add(1));
        remove(&next.path)?;
        fs::create_dir(&next.path).map_err(|error| ColdError::io("create", &next.path, error))?;
        *next.goes.lock() = Some(Goes::Away);
        Ok(next)
    }

    /// Lets it count in the place of the one before. All that is in it must have been synced.
    pub(super) fn complete(&self) -> Result<(), ColdError> {
        // IMPORTANT: its name first, or after a power cut the mark of a directory that nobody finds
        // might be all that says where the runs are.
        sync_dir(&self.data_dir)?;
        let mark = self.path.join(COMPLETE);
        let made = File::create(&mark).and_then(|file| file.sync_all());
        made.map_err(|error| ColdError::io("create", &mark, error))?;
        sync_dir(&self.path)?;
        *self.goes.lock() = None;
        Ok(())
    }

    /// Has it go once nobody uses it.
    pub(super) fn retire(&self, goes: Goes) {
        *self.goes.lock() = Some(goes);
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn numbered(data_dir: &Path, number: u64) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            number,
            path: path(data_dir, number),
            goes: Mutex::new(None),
        }
    }
}

impl Drop for SledDir {
    fn drop(&mut self) {
        let gone = match self.goes.get_mut().take() {
            None => Ok(()),
            Some(Goes::Away) => remove(&self.path),
            Some(Goes::Aside) => Aside::of(&self.data_dir)
                .move_here(&self.path)
                .map_err(|error| ColdError::io("set aside", &self.path, error)),
        };
        if let Err(error) = gone {
            tracing::warn!(%error, "a directory of sled that is out of use stays until the next start");
        }
    }
}

/// The files of a directory that sled makes anew where they are gone.
pub(crate) fn sled_extras(dir: &Path) -> Result<Vec<PathBuf>, ColdError> {
    let fail = |error| ColdError::io("list", dir, error);
    let mut extras = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name == "conf" || name.starts_with("snap.")) {
            extras.push(path);
        }
    }
    Ok(extras)
}

/// sled does not open when it stopped while it wrote a snapshot; it does not need the torn one.
pub(super) fn remove_torn_snapshots(dir: &Path) -> Result<(), ColdError> {
    let fail = |error| ColdError::io("list", dir, error);
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path).map_err(|error| ColdError::io("remove", &path, error))?;
        }
    }
    Ok(())
}

/// Reads all files in a directory. IMPORTANT: sled takes what it cannot read for the end of what there is, and
/// writes over the rest.
pub(super) fn read_through(dir: &Path) -> Result<(), ColdError> {
    let fail = |error| ColdError::io("list", dir, error);
    let mut buffer = vec![0; READ_BYTES];
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_dir() {
            continue;
        }
        let mut read_all = || {
            let mut file = File::open(&path)?;
            while file.read(&mut buffer)? > 0 {}
            Ok(())
        };
        read_all().map_err(|error| ColdError::io("read", &path, error))?;
    }
    Ok(())
}

/// Brings all files below a directory to stable storage.
pub(super) fn sync_files(dir: &Path) -> Result<(), ColdError> {
    let fail = |error| ColdError::io("list", dir, error);
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_dir() {
            sync_files(&path)?;
            continue;
        }
        match File::open(&path).and_then(|file| file.sync_all()) {
            // sled removes old snapshots whenever it likes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            synced => synced.map_err(|error| ColdError::io("sync", &path, error))?,
        }
    }
    sync_dir(dir)
}

fn path(data_dir: &Path, number: u64) -> PathBuf {
    match number {
        0 => data_dir.join(FIRST),
        number => data_dir.join(format!("{FIRST}-{number}")),
    }
}

/// The numbers of the directories that are there.
fn numbers(data_dir: &Path) -> Result<Vec<u64>, ColdError> {
    let fail = |error| ColdError::io("list", data_dir, error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(data_dir).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(FIRST)) else {
            continue;
        };
        match rest.strip_prefix('-') {
            None if rest.is_empty() => numbers.push(0),
            Some(number) => numbers.extend(number.parse::<u64>().ok().filter(|&number| number > 0)),
            None => {}
        }
    }
    Ok(numbers)
}

/// All directories that sled lives in, lived in, or is to live in.
pub(crate) fn sled_directories(data_dir: &Path) -> Result<Vec<PathBuf>, ColdError> {
    let numbers = numbers(data_dir)?;
    Ok(numbers
        .into_iter()
        .map(|number| path(data_dir, number))
        .collect())
}

fn remove(dir: &Path) -> Result<(), ColdError> {
    // IMPORTANT: the mark first, or what a failure leaves of the directory might count.
    removed(dir, fs::remove_file(dir.join(COMPLETE)))?;
    removed(dir, fs::remove_dir_all(dir))
}

fn removed(dir: &Path, result: io::Result<()>) -> Result<(), ColdError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ColdError::io("remove", dir, error))
        }
        _ => Ok(()),
    }
}
