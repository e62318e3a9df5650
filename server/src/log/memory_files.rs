//! A directory of segments in RAM that can fill up, fail at any call, and lose what was not synced.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, MutexGuard, PoisonError},
};

use super::{
    Lsn,
    files::{LogFile, LogFiles},
};

/// What is torn is torn in units of this.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    allocated: usize,
    /// Its name is on stable storage.
    named: bool,
}

#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<Lsn, Content>,
    capacity: Option<usize>,
    /// The call, counted down to 1, that fails, and how; all after it fail as well.
    fails: Option<(u64, io::ErrorKind)>,
    /// It knows nothing of allocation.
    is_simple: bool,
    calls: u64,
    syncs: u64,
}

/// A directory in RAM.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryFiles(Arc<std::sync::Mutex<Disk>>);

impl MemoryFiles {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the `nth` change from now, and all after it, fail.
    pub(crate) fn fail_from(&self, nth: u64, kind: io::ErrorKind) {
        self.disk().fails = Some((nth, kind));
    }

    /// Lets all files together have so many bytes.
    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.disk().capacity = bytes;
    }

    /// Knows nothing of allocation from now on.
    pub(crate) fn set_simple(&self) {
        self.disk().is_simple = true;
    }

    pub(crate) fn used(&self) -> usize {
        self.disk().used()
    }

    /// An empty disk again.
    pub(crate) fn disk_reset(&self) {
        *self.disk() = Disk::default();
    }

    /// How many changes were asked for.
    pub(crate) fn calls(&self) -> u64 {
        self.disk().calls
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// The files as they are when the process is killed now.
    pub(crate) fn after_kill(&self) -> Self {
        let disk = self.disk();
        let files = disk.files.clone();
        Self::with(files)
    }

    /// The files as they may be when the power is cut now: of what was not synced some sectors are there.
    pub(crate) fn after_power_cut(&self, rng: &mut fastrand::Rng) -> Self {
        let mut files = self.disk().files.clone();
        files.retain(|_, content| content.named || rng.bool());
        for content in files.values_mut() {
            let mut survived = content.synced.clone();
            survived.resize(
                rng.usize(survived.len()..=content.bytes.len().max(survived.len())),
                0,
            );
            for at in (0..survived.len()).step_by(SECTOR_BYTES) {
                let end = (at + SECTOR_BYTES)
                    .min(survived.len())
                    .min(content.bytes.len());
                if rng.bool() && at < end {
                    survived[at..end].copy_from_slice(&content.bytes[at..end]);
                }
            }
            content.bytes = survived;
        }
        Self::with(files)
    }

    fn with(mut files: BTreeMap<Lsn, Content>) -> Self {
        for content in files.values_mut() {
            content.synced = content.bytes.clone();
            content.allocated = 0;
        }
        Self(Arc::new(std::sync::Mutex::new(Disk {
            files,
            ..Disk::default()
        })))
    }

    /// Changes a segment's bytes behind the log's back.
    pub(crate) fn edit(&self, first: Lsn, edit: impl FnOnce(&mut Vec<u8>)) {
        if let Some(content) = self.disk().files.get_mut(&first) {
            edit(&mut content.bytes);
        }
    }
}

impl Disk {
    fn used(&self) -> usize {
        let contents = self.files.values();
        contents
            .map(|content| content.bytes.len().max(content.allocated))
            .sum()
    }

    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        if let Some((left, kind)) = &mut self.fails {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Err(io::Error::from(*kind));
            }
        }
        Ok(())
    }

    fn file(&mut self, first: Lsn) -> io::Result<&mut Content> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        self.files.get_mut(&first).ok_or_else(gone)
    }

    /// How far the file may reach.
    fn end_max(&mut self, first: Lsn) -> io::Result<usize> {
        let (used, capacity) = (self.used(), self.capacity);
        let content = self.file(first)?;
        let own = content.bytes.len().max(content.allocated);
        Ok(capacity.map_or(usize::MAX, |capacity| own + capacity.saturating_sub(used)))
    }
}

impl LogFiles for MemoryFiles {
    fn list(&self) -> io::Result<Vec<Lsn>> {
        Ok(self.disk().files.keys().copied().collect())
    }

    fn create(&self, first: Lsn) -> io::Result<Arc<dyn LogFile>> {
        let mut disk = self.disk();
        disk.call()?;
        if disk.files.insert(first, Content::default()).is_some() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        drop(disk);
        self.open(first)
    }

    fn open(&self, first: Lsn) -> io::Result<Arc<dyn LogFile>> {
        self.disk().file(first)?;
        Ok(Arc::new(MemoryFile {
            first,
            files: self.clone(),
        }))
    }

    fn remove(&self, first: Lsn) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        disk.files.remove(&first);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        disk.files
            .values_mut()
            .for_each(|content| content.named = true);
        Ok(())
    }

    fn path(&self, first: Lsn) -> PathBuf {
        PathBuf::from(format!("memory/{first:020}.log"))
    }
}

#[derive(Debug)]
struct MemoryFile {
    first: Lsn,
    files: MemoryFiles,
}

impl LogFile for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.files.disk().file(self.first)?.bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.files.disk();
        let content = disk.file(self.first)?;
        let rest = content.bytes.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.files.disk();
        let failed = disk.call();
        let end_max = disk.end_max(self.first)?;
        let content = disk.file(self.first)?;
        let offset = offset as usize;
        // What fails leaves a part behind.
        let room = end_max.saturating_sub(offset).min(bytes.len());
        let written = if failed.is_err() { room / 2 } else { room };
        let end = content.bytes.len().max(offset + written);
        content.bytes.resize(end, 0);
        content.bytes[offset..offset + written].copy_from_slice(&bytes[..written]);
        failed?;
        if written < bytes.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.files.disk();
        if disk.is_simple {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        let end_max = disk.end_max(self.first)?;
        if bytes as usize > end_max {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let content = disk.file(self.first)?;
        content.allocated = content.allocated.max(bytes as usize);
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.files.disk();
        disk.call()?;
        let content = disk.file(self.first)?;
        content.bytes.truncate(bytes as usize);
        content.allocated = 0;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.files.disk();
        disk.syncs += 1;
        disk.call()?;
        let content = disk.file(self.first)?;
        content.synced = content.bytes.clone();
        Ok(())
    }
}
