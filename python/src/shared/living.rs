//! Live values: kept, found, and written back if they changed.

use pyo3::prelude::*;

use super::Shared;
use crate::{
    live::{Live, LiveEntry, Print},
    trail::Trail,
};

impl Shared {
    /// Makes an object live.
    pub(super) fn keep(
        &self,
        py: Python<'_>,
        live: &Live,
        key: &[u8],
        object: &Bound<'_, PyAny>,
        print: Print,
        cost: usize,
    ) -> PyResult<()> {
        let entry = LiveEntry {
            object: object.clone().unbind(),
            print,
            epoch: self.table(py)?.epoch(),
            cost,
        };
        for (key, gone) in live.put(key, entry) {
            self.write_back(py, live, &key, &gone)?;
        }
        Ok(())
    }

    /// Writes a live value if it changed; gives whether it did.
    pub(super) fn write_back(
        &self,
        py: Python<'_>,
        live: &Live,
        key: &[u8],
        entry: &LiveEntry,
    ) -> PyResult<bool> {
        let encoded = self.encode(entry.object.bind(py))?;
        let print = Print::of(&encoded.bytes);
        if print == entry.print {
            return Ok(false);
        }
        self.put_encoded(py, self.raw_key(py, key)?, encoded.bytes)?;
        live.agreed(key, &entry.object, print, self.table(py)?.epoch());
        Ok(true)
    }

    /// Writes what changed in live values.
    pub(crate) fn settle(&self, py: Python<'_>) -> PyResult<()> {
        let Some(live) = &self.live else {
            return Ok(());
        };
        if live.is_empty() || !self.is_ours() {
            return Ok(());
        }
        for (key, entry) in live.all(py) {
            self.write_back(py, live, &key, &entry)?;
        }
        Ok(())
    }

    /// Writes what changed in the live value of a key, and forgets it: what follows goes past it.
    pub(super) fn settle_key(&self, py: Python<'_>, key: &[u8]) -> PyResult<()> {
        if let Some(live) = &self.live
            && let Some(entry) = live.remove(key)
        {
            self.write_back(py, live, key, &entry)?;
        }
        Ok(())
    }

    /// The live value of a key, unless the table's may be another by now.
    pub(super) fn look_live<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(live) = &self.live else {
            return Ok(None);
        };
        let Some(entry) = live.get(py, key) else {
            return Ok(None);
        };
        let is_current = entry.epoch.is_some() && entry.epoch == self.table(py)?.epoch();
        // What this process changed is its own write, which it reads.
        if is_current || self.write_back(py, live, key, &entry)? {
            return Ok(Some(entry.object.into_bound(py)));
        }
        live.remove(key);
        Ok(None)
    }

    /// Forgets what was read ahead or is live.
    pub(crate) fn forget(&self, _py: Python<'_>) {
        if let Some(live) = &self.live {
            live.clear();
        }
        self.pops.lock().clear();
        *self.trail.lock() = Trail::default();
    }
}
