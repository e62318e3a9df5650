//! The data directory: who may use it, which format it has, and its secret.
//!
//! ```text
//! LOCK       locked while a server uses the directory
//! IDENTITY   format number and the secret that keys are placed with
//! MANIFEST   the tables and their runs (see `manifest`)
//! log/       what was written to named tables since the last checkpoint (see `log`)
//! runs/      large runs, a file each
//! sled/      small runs (later `sled-1`, `sled-2`, …)
//! ```

mod marks;
mod edit;
pub(crate) mod manifest;
pub(crate) mod note;
pub(crate) mod rebuild;

pub(crate) use marks::{Mark, Marks};

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The format of everything in a data directory.
pub const DATA_FORMAT: u32 = 1;

const IDENTITY_MAGIC: &[u8; 8] = b"rhash-id";
const IDENTITY_BYTES: usize = 32;
const SECRET_BYTES: usize = 16;
/// What nobody can use without the secret.
const DATA: [&str; 4] = ["MANIFEST", "runs", "sled", "log"];

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server holds its lock.
    #[error(
        "data directory {dir} is in use by another server; stop that one, or give another --data"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// Something about it cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It was written by another version.
    #[error(
        "data directory {dir} has format {found}, and this server reads format {DATA_FORMAT} only; \
         use the rhash-server that wrote it, or give another --data"
    )]
    Format {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It holds what no server wrote.
    #[error("{path} is damaged ({what}); restore it from a copy, or give another --data")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// No server ever used it.
    #[error("{dir} is no data directory of rhash-server; give the one that it was started with")]
    None {
        /// The directory.
        dir: PathBuf,
    },
    /// It has runs but no manifest, and the runs do not say enough to make it anew.
    #[error(
        "data directory {dir} holds data but no MANIFEST, and {place} does not say which table it is of ({why}){}; \
         restore the directory from a copy, or let --repair keep what can be kept",
        match others { 0 => String::new(), _ => format!(", nor do {others} others") }
    )]
    Unclear {
        /// The directory.
        dir: PathBuf,
        /// The first run that does not say enough.
        place: String,
        /// Why it does not.
        why: String,
        /// How many more there are.
        others: usize,
    },
    /// It has runs, but not what is needed to read them.
    #[error(
        "data directory {dir} holds data but no {missing}; restore it from a copy, or give another --data"
    )]
    Incomplete {
        /// The directory.
        dir: PathBuf,
        /// The file that is not there.
        missing: &'static str,
    },
}

/// A locked data directory.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    secret: [u8; SECRET_BYTES],
    _lock: File,
}

impl DataDir {
    /// Locks the directory, which is made where there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let made = make_dir(path).map_err(io_error("make the directory", path))?;
        let lock = lock(path)?;
        let secret = match fs::read(path.join("IDENTITY")) {
            Ok(bytes) => read_identity(path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // IMPORTANT: before anything is promised, or after a power cut nobody finds the directory.
                for dir in made {
                    sync_name(&dir).map_err(io_error("sync the name of", &dir))?;
                }
                make_identity(path)?
            }
            Err(error) => return Err(io_error("read", &path.join("IDENTITY"))(error)),
        };
        Ok(Self {
            path: path.to_owned(),
            secret,
            _lock: lock,
        })
    }

    /// Locks a directory that a server made.
    pub(crate) fn open_existing(path: &Path) -> Result<Self, DataDirError> {
        let identity = path.join("IDENTITY");
        match fs::metadata(&identity) {
            Ok(_) => Self::open(path),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("read", &identity)(error))
            }
            Err(_) if DATA.iter().any(|data| path.join(data).exists()) => {
                Err(DataDirError::Incomplete {
                    dir: path.to_owned(),
                    missing: "IDENTITY",
                })
            }
            Err(_) => Err(DataDirError::None {
                dir: path.to_owned(),
            }),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of the file that says which directory it is, for a copy of it.
    pub(crate) fn identity(&self) -> Result<Vec<u8>, DataDirError> {
        let path = self.path.join("IDENTITY");
        fs::read(&path).map_err(io_error("read", &path))
    }

    /// What keys are placed with.
    pub(crate) fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }
}

/// Puts the cause of an I/O error into the error.
pub(crate) fn io_error<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Replaces a file as a whole: after a crash it is either the old or the new one.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // IMPORTANT: the content is synced before the name, or a crash could leave an empty file.
    fs::rename(&beside, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

/// Makes a directory with those above it, where there are none; returns it, and those that were made.
fn make_dir(path: &Path) -> io::Result<Vec<PathBuf>> {
    let above = path.ancestors().skip(1);
    let missing = above.take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
    let made = std::iter::once(path).chain(missing);
    let made = made.map(Path::to_owned).collect();
    fs::create_dir_all(path)?;
    Ok(made)
}

/// Brings the name of a directory to stable storage.
fn sync_name(dir: &Path) -> io::Result<()> {
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let lock_path = path.join("LOCK");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(io_error("write", &lock_path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse {
            dir: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error("lock", &lock_path)(error)),
    }
}

/// magic, format u32, secret, crc u32.
fn make_identity(path: &Path) -> Result<[u8; SECRET_BYTES], DataDirError> {
    for data in DATA {
        if path.join(data).exists() {
            return Err(DataDirError::Incomplete {
                dir: path.to_owned(),
                missing: "IDENTITY",
            });
        }
    }
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret)
        .map_err(|error| io_error("draw a secret for", path)(io::Error::other(error)))?;
    let mut bytes = Vec::with_capacity(IDENTITY_BYTES);
    bytes.extend_from_slice(IDENTITY_MAGIC);
    bytes.extend_from_slice(&DATA_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&secret);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let identity = path.join("IDENTITY");
    replace_file(&identity, &bytes).map_err(io_error("write", &identity))?;
    Ok(secret)
}

fn read_identity(path: &Path, bytes: &[u8]) -> Result<[u8; SECRET_BYTES], DataDirError> {
    let damaged = |what: &str| DataDirError::Damaged {
        path: path.join("IDENTITY"),
        what: what.to_owned(),
    };
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(damaged("it is too short"));
    };
    let Some((format, secret)) = body
        .strip_prefix(IDENTITY_MAGIC)
        .and_then(|rest| rest.split_first_chunk::<4>())
        .map(|(format, secret)| (u32::from_le_bytes(*format), secret))
    else {
        return Err(damaged("it does not begin as one"));
    };
    if format != DATA_FORMAT {
        return Err(DataDirError::Format {
            dir: path.to_owned(),
            found: format,
        });
    }
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(damaged("its checksum is wrong"));
    }
    secret
        .try_into()
        .map_err(|_wrong_length| damaged("its length is wrong"))
}
