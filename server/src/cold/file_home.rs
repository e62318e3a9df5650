//! Runs as files: one each, written under another name until it is finished.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    direct::{self, BlockReads, Way},
    error::ColdError,
    home::{Home, RunBytes, RunSink, Shape},
    open_files::{FileSlot, OpenFiles},
    store::RunId,
};
use crate::{file_limit::run_files_max, mapped::Mapped, waiting};

/// The extension of a finished run.
const FINISHED: &str = "run";

/// The extension of a run that is being written.
const UNFINISHED: &str = "new";

/// Shorter files are not mapped: the kernel allows a process some 65,000 maps, and where there are many small
/// runs, as in the copy of what sled held, their indexes take less in RAM than a page each.
const MAPPED_BYTES_MIN: u64 = 8 * 1024;

/// Pieces are gathered until so many bytes can be written at once.
const WRITE_BYTES: usize = 128 * 1024;

/// A directory of run files.
#[derive(Debug)]
pub(super) struct FileHome {
    dir: PathBuf,
    shared: Arc<Shared>,
}

/// What all files of a directory share.
#[derive(Debug)]
struct Shared {
    open_files: Arc<OpenFiles>,
    live_bytes: AtomicU64,
    way: Way,
}

impl FileHome {
    /// Opens the directory, makes it if need be, and removes files that were never finished.
    pub(super) fn open(dir: PathBuf, block_reads: BlockReads) -> Result<Self, ColdError> {
        fs::create_dir_all(&dir).map_err(|error| ColdError::io("create", &dir, error))?;
        let home = Self {
            dir,
            shared: Arc::new(Shared {
                open_files: OpenFiles::new(run_files_max()),
                live_bytes: AtomicU64::new(0),
                way: Way::new(block_reads),
            }),
        };
        for (path, _) in home.files(UNFINISHED)? {
            fs::remove_file(&path).map_err(|error| ColdError::io("remove", &path, error))?;
        }
        Ok(home)
    }

    fn path(&self, id: RunId, extension: &str) -> PathBuf {
        self.dir.join(name(id, extension))
    }

    /// The files with this extension that are named like runs.
    fn files(&self, extension: &str) -> Result<Vec<(PathBuf, RunId)>, ColdError> {
        let fail = |error| ColdError::io("list", &self.dir, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let id = stem.and_then(|stem| RunId::from_str_radix(stem, 16).ok());
            if let (Some(id), true) = (id, path.extension().is_some_and(|end| end == extension)) {
                found.push((path, id));
            }
        }
        Ok(found)
    }
}

impl Home for FileHome {
    fn shape(&self) -> Shape {
        Shape {
            block_bytes: 4096,
            section_bytes: 1 << 20,
            aligned: true,
        }
    }

    fn set_aside(&self, id: RunId, dir: &Path) -> Result<(), ColdError> {
        let path = self.path(id, FINISHED);
        let Some(name) = path.file_name() else {
            return Ok(());
        };
        match fs::rename(&path, dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => moved.map_err(|error| ColdError::io("set aside", &path, error)),
        }
    }

    fn place_of(&self, id: RunId) -> String {
        self.path(id, FINISHED).display().to_string()
    }

    fn create(&self, id: RunId) -> Result<Box<dyn RunSink>, ColdError> {
        let path = self.path(id, UNFINISHED);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| ColdError::io("create", &path, error))?;
        Ok(Box::new(FileSink {
            id,
            shared: Arc::clone(&self.shared),
            file: Some(file),
            finished_path: self.path(id, FINISHED),
            path,
            buffer: Vec::with_capacity(WRITE_BYTES),
        }))
    }

    fn open(&self, id: RunId) -> Result<Box<dyn RunBytes>, ColdError> {
        let path = self.path(id, FINISHED);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ColdError::Missing { run: id },
            _ => ColdError::io("open", &path, error),
        })?;
        Ok(Box::new(FileBytes::new(id, path, file, &self.shared)?))
    }

    fn list(&self) -> Result<Vec<(RunId, u64)>, ColdError> {
        let length = |(path, id): (PathBuf, RunId)| {
            let metadata = fs::metadata(&path);
            Ok((
                id,
                metadata
                    .map_err(|error| ColdError::io("open", &path, error))?
                    .len(),
            ))
        };
        self.files(FINISHED)?.into_iter().map(length).collect()
    }

    fn remove(&self, id: RunId) -> Result<(), ColdError> {
        let path = self.path(id, FINISHED);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ColdError::io("remove", &path, error))
            }
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), ColdError> {
        sync_dir(&self.dir)
    }

    fn live_bytes(&self) -> &AtomicU64 {
        &self.shared.live_bytes
    }

    fn disk_bytes(&self) -> Result<u64, ColdError> {
        Ok(self.shared.live_bytes.load(Ordering::Relaxed))
    }
}

fn name(id: RunId, extension: &str) -> String {
    format!("{id:016x}.{extension}")
}

/// The name of a finished run's file.
pub(super) fn file_name(id: RunId) -> String {
    name(id, FINISHED)
}

/// Brings the names in a directory to stable storage.
pub(super) fn sync_dir(dir: &Path) -> Result<(), ColdError> {
    let sync = || File::open(dir)?.sync_all();
    sync().map_err(|error| ColdError::io("sync", dir, error))
}

/// A run file being written.
#[derive(Debug)]
struct FileSink {
    id: RunId,
    shared: Arc<Shared>,
    /// None once the run is finished.
    file: Option<File>,
    path: PathBuf,
    finished_path: PathBuf,
    buffer: Vec<u8>,
}

impl FileSink {
    fn write(&mut self, piece: Option<&[u8]>) -> Result<(), ColdError> {
        let bytes = piece.unwrap_or(&self.buffer);
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(bytes)
            .map_err(|error| ColdError::io("write", &self.path, error))?;
        if piece.is_none() {
            self.buffer.clear();
        }
        Ok(())
    }
}

impl RunSink for FileSink {
    fn append(&mut self, piece: &[u8]) -> Result<(), ColdError> {
        if self.buffer.len() + piece.len() > WRITE_BYTES {
            self.write(None)?;
        }
        if piece.len() >= WRITE_BYTES {
            return self.write(Some(piece));
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }

    fn finish(mut self: Box<Self>, sync: bool) -> Result<Box<dyn RunBytes>, ColdError> {
        self.write(None)?;
        let Some(file) = &self.file else {
            return Err(ColdError::Missing { run: self.id });
        };
        if sync {
            // IMPORTANT: before the rename, or a crash may leave a finished name with no bytes.
            file.sync_all()
                .map_err(|error| ColdError::io("sync", &self.path, error))?;
        }
        fs::rename(&self.path, &self.finished_path)
            .map_err(|error| ColdError::io("rename", &self.path, error))?;
        // From here on a failure must remove the finished file.
        self.path.clone_from(&self.finished_path);
        if sync && let Some(dir) = self.path.parent() {
            sync_dir(dir)?;
        }
        let reader = File::open(&self.path);
        let reader = reader.map_err(|error| ColdError::io("open", &self.path, error))?;
        let bytes = FileBytes::new(self.id, self.path.clone(), reader, &self.shared)?;
        self.file = None;
        Ok(Box::new(bytes))
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if self.file.take().is_some()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(run = self.id, %error, "an unfinished run file stays behind");
        }
    }
}

/// A finished run file.
#[derive(Debug)]
struct FileBytes {
    id: RunId,
    slot: Arc<FileSlot>,
    /// The same file, for reads past the page cache.
    direct_slot: Arc<FileSlot>,
    shared: Arc<Shared>,
    bytes: u64,
    map: Option<Mapped>,
}

impl FileBytes {
    fn new(id: RunId, path: PathBuf, file: File, shared: &Arc<Shared>) -> Result<Self, ColdError> {
        let metadata = file.metadata();
        let bytes = metadata
            .map_err(|error| ColdError::io("open", &path, error))?
            .len();
        let map = (bytes >= MAPPED_BYTES_MIN).then(|| Mapped::new(&file, &path));
        let map = map.transpose()?;
        let direct_slot = FileSlot::closed(path.clone(), direct::open);
        let slot = shared.open_files.insert(path, file);
        Ok(Self {
            id,
            slot,
            direct_slot,
            shared: Arc::clone(shared),
            bytes,
            map,
        })
    }

    /// Begins to read past the page cache what is not in it, if that is the way to go; says whether it did.
    fn begins_direct_read(&self, offset: u64, bytes: usize) -> bool {
        if !direct::is_open() {
            return false;
        }
        let run_bytes = self.shared.live_bytes.load(Ordering::Relaxed);
        let (Some(map), Ok(start)) = (&self.map, usize::try_from(offset)) else {
            return false;
        };
        let way = &self.shared.way;
        if !way.is_direct(run_bytes)
            || (map.are_resident(start, bytes) && !way.is_always_direct())
            || !direct::is_next()
        {
            return false;
        }
        match self.shared.open_files.get(&self.direct_slot) {
            Ok(file) => direct::begin(self.id, offset, bytes, &file),
            // If the file itself cannot be opened, the ordinary read says so.
            Err(_no_direct_reads) => {
                way.refuse();
                false
            }
        }
    }
}

/// Fills `buffer` if all of it lies in the page cache. Where the system cannot say, it does not.
pub(crate) fn is_read_at_once(file: &File, buffer: &mut [u8], offset: u64) -> bool {
    #[cfg(target_os = "linux")]
    {
        let length = buffer.len();
        let parts = &mut [io::IoSliceMut::new(buffer)];
        let read = rustix::io::preadv2(file, parts, offset, rustix::io::ReadWriteFlags::NOWAIT);
        read == Ok(length)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _nothing = (file, buffer, offset);
        false
    }
}

impl RunBytes for FileBytes {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ColdError> {
        let is_watched = waiting::is_watched();
        if is_watched {
            if direct::take(self.id, offset, buffer)? {
                return Ok(());
            }
            // Who may wait now has perhaps begun the same read through the page cache before.
            if waiting::is_forbidden() && self.begins_direct_read(offset, buffer.len()) {
                waiting::before_waiting()?;
            }
        }
        let file = self.shared.open_files.get(&self.slot)?;
        if is_watched {
            if is_read_at_once(&file, buffer, offset) {
                return Ok(());
            }
            waiting::before_waiting()?;
        }
        file.read_exact_at(buffer, offset)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => ColdError::Damaged {
                    what: "the file is cut",
                    run: self.id,
                    offset,
                },
                _ => ColdError::io("read", &self.slot.path, error),
            })
    }

    fn begin_to_fetch(&self, offset: u64, bytes: usize) {
        if let (Some(map), Ok(start)) = (&self.map, usize::try_from(offset)) {
            map.begin_to_fetch(start, bytes);
        }
    }

    fn note_use(&self, offset: u64) {
        // A file that was closed meanwhile is not opened for this.
        if let Some(file) = self.slot.if_open() {
            is_read_at_once(&file, &mut [0], offset);
        }
    }

    fn mapped(&self) -> Option<&[u8]> {
        self.map.as_ref().map(Mapped::bytes)
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.slot.path)
    }

    fn sync(&self) -> Result<(), ColdError> {
        let synced = self.shared.open_files.get(&self.slot)?.sync_all();
        synced.map_err(|error| ColdError::io("sync", &self.slot.path, error))
    }
}
