//! A bound on how many run files are open at once, however many runs there are.
//!
//! A run's file is opened when it is read, and closed again when enough others were opened after it. Reads past the page
//! cache need a file of their own, in a slot of its own.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::error::ColdError;

/// The files that are open, in the order in which they were opened.
#[derive(Debug)]
pub(super) struct OpenFiles {
    /// The most that are open at once, those of reads in flight aside.
    files_max: usize,
    /// Each slot that has a file is here once. Never held while a slot is locked.
    queue: Mutex<VecDeque<Weak<FileSlot>>>,
}

/// A file that may be open.
#[derive(Debug)]
pub(super) struct FileSlot {
    pub(super) path: PathBuf,
    open: fn(&Path) -> io::Result<File>,
    file: Mutex<Option<Arc<File>>>,
}

impl FileSlot {
    /// A slot for a file that `open` opens when it is needed.
    pub(super) fn closed(path: PathBuf, open: fn(&Path) -> io::Result<File>) -> Arc<Self> {
        Arc::new(Self {
            path,
            open,
            file: Mutex::default(),
        })
    }

    /// The slot's file, if it is open.
    pub(super) fn if_open(&self) -> Option<Arc<File>> {
        self.file.lock().clone()
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
            open: |path| File::open(path),
            file: Mutex::new(Some(Arc::new(file))),
        });
        self.admit(&slot);
        slot
    }

    /// The slot's file, opened if it is not.
    pub(super) fn get(&self, slot: &Arc<FileSlot>) -> Result<Arc<File>, ColdError> {
        let mut held = slot.file.lock();
        if let Some(file) = &*held {
            return Ok(Arc::clone(file));
        }
        let file = (slot.open)(&slot.path);
        let file = Arc::new(file.map_err(|error| ColdError::io("open", &slot.path, error))?);
        *held = Some(Arc::clone(&file));
        drop(held);
        self.admit(slot);
        Ok(file)
    }

    /// Takes note that the slot has a file now, and closes the oldest if there are too many.
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
            *oldest.file.lock() = None;
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let is_open = |slot: &Weak<FileSlot>| {
            slot.upgrade()
                .is_some_and(|slot| slot.file.lock().is_some())
        };
        let slots: Vec<_> = self.queue.lock().iter().cloned().collect();
        slots.iter().filter(|slot| is_open(slot)).count()
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
            assert!(files.count() <= FILES_MAX);
        }
        assert_eq!(files.count(), FILES_MAX);
        drop(slots);
        assert_eq!(files.count(), 0);
    }
}
