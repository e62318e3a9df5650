//! A bound on how many run files are open at once, however many runs there are.
//!
//! A run's file is opened when it is read, and closed again when enough others were opened after it. Reads past the page
//! cache need one of their own, which goes with it.

use std::{
    collections::VecDeque,
    fs::File,
    path::PathBuf,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::{direct, error::ColdError};

/// The files that are open, in the order in which they were opened.
#[derive(Debug)]
pub(super) struct OpenFiles {
    /// The most that are open at once, those of reads in flight aside.
    files_max: usize,
    /// Each slot is here as often as it has files. Never held while a slot is locked.
    queue: Mutex<VecDeque<Weak<FileSlot>>>,
}

/// A file that may be open.
#[derive(Debug)]
pub(super) struct FileSlot {
    pub(super) path: PathBuf,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    file: Option<Arc<File>>,
    direct: Option<Arc<File>>,
}

impl FileSlot {
    /// The slot's file, if it is open.
    pub(super) fn if_open(&self) -> Option<Arc<File>> {
        self.files.lock().file.clone()
    }
}

impl OpenFiles {
    /// Keeps at most so many files open.
    pub(super) fn new(files_max: usize) -> Arc<Self> {
        Arc::new(Self {
            files_max,
            queue: Mutex::default(),
        })
    }

    /// A slot for a file that is open already.
    pub(super) fn insert(&self, path: PathBuf, file: File) -> Arc<FileSlot> {
        let slot = Arc::new(FileSlot {
            path,
            files: Mutex::new(Files {
                file: Some(Arc::new(file)),
                direct: None,
            }),
        });
        self.admit(&slot);
        slot
    }

    /// The slot's file, opened if it is not.
    pub(super) fn get(&self, slot: &Arc<FileSlot>) -> Result<Arc<File>, ColdError> {
        let mut held = slot.files.lock();
        if let Some(file) = &held.file {
            return Ok(Arc::clone(file));
        }
        let file = File::open(&slot.path);
        let file = Arc::new(file.map_err(|error| ColdError::io("open", &slot.path, error))?);
        held.file = Some(Arc::clone(&file));
        drop(held);
        self.admit(slot);
        Ok(file)
    }

    /// The slot's file for reads past the page cache, opened if it is not; none where that cannot be.
    pub(super) fn get_direct(&self, slot: &Arc<FileSlot>) -> Option<Arc<File>> {
        let mut held = slot.files.lock();
        if let Some(file) = &held.direct {
            return Some(Arc::clone(file));
        }
        let file = Arc::new(direct::open(&slot.path).ok()?);
        held.direct = Some(Arc::clone(&file));
        drop(held);
        self.admit(slot);
        Some(file)
    }

    /// Takes note that the slot has one more file now, and closes those of the oldest if there are too many.
    fn admit(&self, slot: &Arc<FileSlot>) {
        let mut queue = self.queue.lock();
        queue.push_back(Arc::downgrade(slot));
        let oldest = if queue.len() > self.files_max {
            queue.pop_front()
        } else {
            None
        };
        drop(queue);
        if let Some(oldest) = oldest.and_then(|oldest| oldest.upgrade()) {
            *oldest.files.lock() = Files::default();
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let mut slots: Vec<_> = self.queue.lock().iter().cloned().collect();
        slots.sort_by_key(Weak::as_ptr);
        slots.dedup_by_key(|slot| slot.as_ptr());
        let files = |slot: Arc<FileSlot>| {
            let files = slot.files.lock();
            usize::from(files.file.is_some()) + usize::from(files.direct.is_some())
        };
        slots.iter().filter_map(Weak::upgrade).map(files).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    const FILES_MAX: usize = 40;

    #[test]
    fn more_files_than_may_be_open_are_all_readable() {
        let dir = tempfile::tempdir().unwrap();
        let files = OpenFiles::new(FILES_MAX);
        let slots: Vec<_> = (0..FILES_MAX * 2)
            .map(|number| {
                let path = dir.path().join(number.to_string());
                std::fs::write(&path, number.to_le_bytes()).unwrap();
                files.insert(path.clone(), File::open(&path).unwrap())
            })
            .collect();
        for (number, slot) in slots.iter().enumerate() {
            let mut bytes = [0; 8];
            files
                .get(slot)
                .unwrap()
                .read_exact_at(&mut bytes, 0)
                .unwrap();
            assert_eq!(bytes, number.to_le_bytes());
            // Not every file system has such files.
            drop(files.get_direct(slot));
            assert!(files.count() <= FILES_MAX);
        }
        assert!(files.count() > FILES_MAX / 2);
        drop(slots);
        assert_eq!(files.count(), 0);
    }
}
