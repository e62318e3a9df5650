//! The tables that a client has open, by their ids.
//!
//! Two handles on one named table share one [`TableCore`], so that a write through one is seen
//! through the other. A table leaves when its last handle does.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use parking_lot::Mutex;
use rhash_protocol::TableId;

use crate::{cache::Slot, table::TableCore};

/// Opening and letting go of one name exclude each other; names share these locks.
const NAME_LOCKS: usize = 64;

#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
    name_locks: [tokio::sync::Mutex<()>; NAME_LOCKS],
    name_hash: RandomState,
}

#[derive(Debug, Default)]
struct State {
    tables: HashMap<TableId, Open>,
    by_slot: HashMap<Slot, TableId>,
    slot_last: Slot,
    /// Sessions so far: a table that was opened in an earlier one is lost.
    session: u64,
    /// Opens under way, and what was said about tables before their opening was known here.
    opening: usize,
    early_sole: HashMap<TableId, bool>,
}

#[derive(Debug)]
struct Open {
    core: Arc<TableCore>,
    handles: usize,
}

/// An open under way; ends when dropped.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    registry: &'a Registry,
    session: u64,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            name_locks: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            name_hash: RandomState::new(),
        }
    }

    /// The lock under which a named table is opened and let go of.
    pub(crate) fn name_lock(&self, name: &str) -> &tokio::sync::Mutex<()> {
        &self.name_locks[self.name_hash.hash_one(name) as usize % NAME_LOCKS]
    }

    pub(crate) fn begin_open(&self) -> Opening<'_> {
        let mut state = self.state.lock();
        state.opening += 1;
        Opening {
            registry: self,
            session: state.session,
        }
    }

    pub(crate) fn by_slot(&self, slot: Slot) -> Option<Arc<TableCore>> {
        let state = self.state.lock();
        let id = state.by_slot.get(&slot)?;
        state.tables.get(id).map(|open| Arc::clone(&open.core))
    }

    /// The tables that have handles.
    pub(crate) fn in_use(&self) -> Vec<Arc<TableCore>> {
        let state = self.state.lock();
        let in_use = state.tables.values().filter(|open| open.handles > 0);
        in_use.map(|open| Arc::clone(&open.core)).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<TableCore>> {
        self.state
            .lock()
            .tables
            .values()
            .map(|open| Arc::clone(&open.core))
            .collect()
    }

    /// A notice that came before its table is known here is kept for it.
    pub(crate) fn sole(&self, id: TableId, sole: bool) -> Option<Arc<TableCore>> {
        let mut state = self.state.lock();
        match state.tables.get(&id) {
            Some(open) => Some(Arc::clone(&open.core)),
            None => {
                if state.opening > 0 {
                    state.early_sole.insert(id, sole);
                }
                None
            }
        }
    }

    /// A handle is gone; whether it was the last one.
    pub(crate) fn drop_handle(&self, core: &TableCore) -> bool {
        let mut state = self.state.lock();
        match state.tables.get_mut(&core.id) {
            Some(open) if open.core.slot == core.slot => {
                open.handles -= 1;
                open.handles == 0
            }
            _ => false,
        }
    }

    /// Whether no handle is left, as when the last one was dropped.
    pub(crate) fn is_unused(&self, core: &TableCore) -> bool {
        let state = self.state.lock();
        let open = state
            .tables
            .get(&core.id)
            .filter(|open| open.core.slot == core.slot);
        open.is_none_or(|open| open.handles == 0)
    }

    pub(crate) fn remove(&self, core: &TableCore) {
        let mut state = self.state.lock();
        if state.by_slot.remove(&core.slot).is_some() {
            state.tables.remove(&core.id);
        }
    }

    /// The session is over: gives all its tables and forgets them.
    pub(crate) fn expire(&self) -> Vec<Arc<TableCore>> {
        let mut state = self.state.lock();
        state.session += 1;
        state.by_slot.clear();
        state.early_sole.clear();
        state.tables.drain().map(|(_, open)| open.core).collect()
    }
}

impl Opening<'_> {
    /// The table is open: gives the core that is there already, or the one that `make` makes for
    /// a new slot and for whether this client is alone. None if the session ended meanwhile.
    pub(crate) fn register(
        &self,
        id: TableId,
        sole: bool,
        make: impl FnOnce(Slot, bool) -> Arc<TableCore>,
    ) -> Option<Arc<TableCore>> {
        let mut guard = self.registry.state.lock();
        let state = &mut *guard;
        if state.session != self.session {
            return None;
        }
        if let Some(open) = state.tables.get_mut(&id) {
            open.handles += 1;
            return Some(Arc::clone(&open.core));
        }
        state.slot_last += 1;
        let slot = state.slot_last;
        let core = make(slot, state.early_sole.remove(&id).unwrap_or(sole));
        state.by_slot.insert(slot, id);
        state.tables.insert(
            id,
            Open {
                core: Arc::clone(&core),
                handles: 1,
            },
        );
        Some(core)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut state = self.registry.state.lock();
        state.opening -= 1;
        if state.opening == 0 {
            state.early_sole.clear();
        }
    }
}
