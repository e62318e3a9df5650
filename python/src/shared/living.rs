//! Live values: kept, found, and written back if they changed.

use pyo3::prelude::*;
use rhash_client::blocking::encoded::Moment;

use super::Shared;
use crate::{
    errors,
    live::{Live, LiveEntry, Oldest, Print},
    trail::Trail,
};

/// Entries that one eviction lets stay at most, since the program holds them.
const RENEWED_MAX: usize = 8;

impl Shared {
    /// Makes an object live.
    pub(super) fn keep(
        &self,
        py: Python<'_>,
        live: &Live,
        key: &[u8],
        entry: LiveEntry,
    ) -> PyResult<()> {
        live.put(key, entry);
        let mut renewed = 0;
        while let Some(oldest) = live.oldest(py) {
            let Oldest {
                key: old,
                entry,
                may_stay,
            } = &oldest;
            // What was just handed out is about to be changed.
            if **old == *key {
                break;
            }
            if *may_stay && entry.is_held(py)? {
                renewed += 1;
                if renewed > RENEWED_MAX {
                    break;
                }
                live.renew(old);
                continue;
            }
            if let Err(error) = self.let_go(py, live, old, entry) {
                // What cannot be written stays, but not in the way of all others.
                live.renew(old);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes a live value if it changed, and only then forgets it: whoever asks for the key while
    /// the write waits is given the object.
    fn let_go(&self, py: Python<'_>, live: &Live, key: &[u8], entry: &LiveEntry) -> PyResult<()> {
        if self.write_back(py, live, key, entry)? {
            // It may have changed again while the write waited.
            let again = live.get(py, key);
            if let Some(again) = again.filter(|again| again.object.is(&entry.object)) {
                self.write_back(py, live, key, &again)?;
            }
        }
        live.remove_same(key, &entry.object);
        Ok(())
    }

    /// Writes a live value if it changed; gives whether it did.
    fn write_back(
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
    /// Gives the object, and what it was encoded to.
    pub(super) fn settle_key(
        &self,
        py: Python<'_>,
        key: &[u8],
    ) -> PyResult<Option<(Py<PyAny>, Print)>> {
        let Some(live) = &self.live else {
            return Ok(None);
        };
        let Some(entry) = live.get(py, key) else {
            return Ok(None);
        };
        self.write_back(py, live, key, &entry)?;
        let settled = live.remove(key);
        Ok(settled.map(|entry| (entry.object, entry.print)))
    }

    /// Forgets the live value of a key, which is written by other means.
    pub(super) fn forget_key(&self, key: &[u8]) {
        if let Some(live) = &self.live {
            drop(live.remove(key));
        }
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
        Ok(None)
    }

    /// The live value of a key of which a read that began at `moment` gave `bytes`, or that there is
    /// no entry. None if there is none, or another client has changed the entry since.
    pub(super) fn reconcile<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
        bytes: Option<&[u8]>,
        moment: Moment,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(live) = &self.live else {
            return Ok(None);
        };
        let Some(entry) = live.get(py, key) else {
            return Ok(None);
        };
        let table = self.table(py)?;
        let is_current = entry.epoch.is_some() && entry.epoch == table.epoch();
        let agrees = bytes.is_some_and(|bytes| Print::of(bytes) == entry.print);
        if agrees && !is_current {
            // Whoever holds the object and changes it later means this entry.
            let epoch = table.epoch_since(moment);
            live.agreed(key, &entry.object, entry.print, epoch);
        }
        if agrees || is_current || self.write_back(py, live, key, &entry)? {
            return Ok(Some(entry.object.into_bound(py)));
        }
        live.remove_same(key, &entry.object);
        Ok(None)
    }

    /// The object of `bytes`, which a read gave that began at `moment`; live from now on if it can
    /// change.
    pub(crate) fn given<'py>(
        &self,
        py: Python<'py>,
        key: &[u8],
        bytes: &[u8],
        moment: Moment,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(object) = self.reconcile(py, key, Some(bytes), moment)? {
            return Ok(object);
        }
        let (mut object, mut decoder) = self.decode(py, bytes)?;
        let Some(live) = self.live.as_ref().filter(|_| decoder.is_mutable) else {
            return Ok(object);
        };
        let table = self.table(py)?;
        let now = table.moment();
        let cached = table.get_cached(&self.raw_key(py, key)?);
        let cached = cached.map_err(|error| errors::of_client(py, &error))?;
        let (newest, epoch) = match &cached {
            // Another thread has removed it meanwhile, and this object with it.
            Some(None) => return Ok(object),
            Some(Some(newest)) => (&**newest, now.epoch()),
            None => (bytes, table.epoch_since(moment)),
        };
        if newest != bytes {
            (object, decoder) = self.decode(py, newest)?;
        }
        if decoder.is_mutable {
            let entry = LiveEntry {
                object: object.clone().unbind(),
                print: Print::of(newest),
                epoch,
                cost: LiveEntry::cost(key.len(), newest.len(), decoder.objects),
            };
            self.keep(py, live, key, entry)?;
        }
        Ok(object)
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
