//! The files under the log, behind a trait so that tests can lose, tear and refuse what is written.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{FallocateFlags, fallocate};

use super::{LogError, Lsn};

const EXTENSION: &str = "log";
/// Enough digits for any number, so that the names in order are the segments in order.
const NAME_DIGITS: usize = 20;

/// A directory of segments, each named by the number of its first record.
pub(crate) trait LogFiles: fmt::Debug + Send + Sync {
    /// The segments, in order.
    fn list(&self) -> io::Result<Vec<Lsn>>;
    /// Makes a segment, empty; an error if there is one.
    fn create(&self, first: Lsn) -> io::Result<Arc<dyn LogFile>>;
    /// Opens a segment.
    fn open(&self, first: Lsn) -> io::Result<Arc<dyn LogFile>>;
    /// Removes a segment.
    fn remove(&self, first: Lsn) -> io::Result<()>;
    /// Brings the names to stable storage.
    fn sync_names(&self) -> io::Result<()>;
    /// Where a segment is, for messages.
    fn path(&self, first: Lsn) -> PathBuf;
}

/// One segment's file.
pub(crate) trait LogFile: fmt::Debug + Send + Sync {
    /// How long it is.
    fn bytes(&self) -> io::Result<u64>;
    /// Reads as much as is there, up to the whole buffer.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Takes room on disk up to `bytes`, and leaves the length alone.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Cuts it.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Brings it to stable storage.
    fn sync(&self) -> io::Result<()>;
}

/// The directory of a server.
#[derive(Debug)]
pub(crate) struct DiskFiles {
    dir: PathBuf,
}

impl DiskFiles {
    /// The directory, made if it is not there.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        if !dir.is_dir() {
            fs::create_dir_all(&dir)?;
            if let Some(parent) = dir.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { dir })
    }
}

impl LogFiles for DiskFiles {
    fn list(&self) -> io::Result<Vec<Lsn>> {
        let mut firsts = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            firsts.extend(first_of(&entry?.path()));
        }
        firsts.sort_unstable();
        Ok(firsts)
    }

    fn create(&self, first: Lsn) -> io::Result<Arc<dyn LogFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        Ok(Arc::new(DiskFile(options.open(self.path(first))?)))
    }

    fn open(&self, first: Lsn) -> io::Result<Arc<dyn LogFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        Ok(Arc::new(DiskFile(options.open(self.path(first))?)))
    }

    fn remove(&self, first: Lsn) -> io::Result<()> {
        fs::remove_file(self.path(first))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn path(&self, first: Lsn) -> PathBuf {
        self.dir.join(format!("{first:0NAME_DIGITS$}.{EXTENSION}"))
    }
}

/// Segments that are read and left as they are, whatever the reader would cut or remove.
#[derive(Debug)]
pub(crate) struct ReadOnly(pub(crate) Arc<dyn LogFiles>);

impl ReadOnly {
    /// The number of the first record that there may be.
    pub(crate) fn oldest(&self) -> Result<Option<Lsn>, LogError> {
        let firsts = self.0.list().map_err(|source| LogError::Io {
            what: "list",
            path: self.0.path(0),
            source,
        })?;
        Ok(firsts.first().copied())
    }
}

impl LogFiles for ReadOnly {
    fn list(&self) -> io::Result<Vec<Lsn>> {
        self.0.list()
    }

    fn create(&self, _first: Lsn) -> io::Result<Arc<dyn LogFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, first: Lsn) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(ReadOnlyFile(self.0.open(first)?)))
    }

    fn remove(&self, _first: Lsn) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, first: Lsn) -> PathBuf {
        self.0.path(first)
    }
}

#[derive(Debug)]
struct ReadOnlyFile(Arc<dyn LogFile>);

impl LogFile for ReadOnlyFile {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The number in a segment's name; none for other files.
fn first_of(path: &Path) -> Option<Lsn> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    (name.len() == NAME_DIGITS).then(|| name.parse().ok())?
}

#[derive(Debug)]
struct DiskFile(File);

impl LogFile for DiskFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.0.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        Ok(fallocate(&self.0, FallocateFlags::KEEP_SIZE, 0, bytes)?)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
