//! Runs in RAM, for tests.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::Mutex;

use super::{
    error::ColdError,
    home::{Home, RunBytes, RunSink, Shape},
    store::RunId,
};

/// Runs by their ids.
#[derive(Debug, Default)]
pub(super) struct MemoryHome {
    runs: Arc<Mutex<HashMap<RunId, Arc<Vec<u8>>>>>,
    live_bytes: AtomicU64,
}

impl MemoryHome {
    /// Changes a run's bytes in place, as a disk that forgets would.
    #[cfg(test)]
    pub(super) fn edit(&self, id: RunId, edit: impl FnOnce(&mut Vec<u8>)) {
        edit(Arc::make_mut(self.runs.lock().get_mut(&id).unwrap()));
    }
}

impl Home for MemoryHome {
    fn shape(&self) -> Shape {
        Shape {
            block_bytes: 512,
            section_bytes: 16 * 1024,
            aligned: false,
        }
    }

    fn place_of(&self, id: RunId) -> String {
        format!("run {id} in memory")
    }

    fn create(&self, id: RunId) -> Result<Box<dyn RunSink>, ColdError> {
        Ok(Box::new(MemorySink {
            id,
            runs: Arc::clone(&self.runs),
            bytes: Vec::new(),
        }))
    }

    fn open(&self, id: RunId) -> Result<Box<dyn RunBytes>, ColdError> {
        let bytes = self.runs.lock().get(&id).cloned();
        Ok(Box::new(MemoryBytes {
            id,
            bytes: bytes.ok_or(ColdError::Missing { run: id })?,
        }))
    }

    fn list(&self) -> Result<Vec<(RunId, u64)>, ColdError> {
        Ok(self
            .runs
            .lock()
            .iter()
            .map(|(id, bytes)| (*id, bytes.len() as u64))
            .collect())
    }

    fn remove(&self, id: RunId) -> Result<(), ColdError> {
        self.runs.lock().remove(&id);
        Ok(())
    }

    fn sync(&self) -> Result<(), ColdError> {
        Ok(())
    }

    fn live_bytes(&self) -> &AtomicU64 {
        &self.live_bytes
    }

    fn disk_bytes(&self) -> Result<u64, ColdError> {
        Ok(0)
    }
}

/// A run in RAM being written.
#[derive(Debug)]
struct MemorySink {
    id: RunId,
    runs: Arc<Mutex<HashMap<RunId, Arc<Vec<u8>>>>>,
    bytes: Vec<u8>,
}

impl RunSink for MemorySink {
    fn append(&mut self, piece: &[u8]) -> Result<(), ColdError> {
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn finish(self: Box<Self>, _sync: bool) -> Result<Box<dyn RunBytes>, ColdError> {
        let bytes = Arc::new(self.bytes);
        self.runs.lock().insert(self.id, Arc::clone(&bytes));
        Ok(Box::new(MemoryBytes { id: self.id, bytes }))
    }
}

/// A run in RAM.
#[derive(Debug)]
struct MemoryBytes {
    id: RunId,
    bytes: Arc<Vec<u8>>,
}

impl RunBytes for MemoryBytes {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ColdError> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.bytes.get(start..)?.get(..buffer.len()))
            .ok_or(ColdError::Damaged {
                what: "the run is cut",
                run: self.id,
                offset,
            })?;
        buffer.copy_from_slice(found);
        Ok(())
    }
}
