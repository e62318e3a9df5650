//! What the cache says: to readers, to writers, and to the flusher.

use std::time::Instant;

use bytes::Bytes;

use super::{CachedOp, ReadMark, Slot};

/// What the cache says about a key.
#[derive(Debug)]
pub(crate) enum Look {
    /// The value is this, or there is none.
    Value(Option<Bytes>),
    /// Fragments are pending; their key must be flushed before the server can say the value.
    Fragments,
    /// The server must be asked; keep the answer under this mark.
    Miss(ReadMark),
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// It is in the cache.
    Cached,
    /// It is in the cache, and there is enough for the flusher.
    FlushNow,
    /// There is no room until something pending is flushed.
    NoRoom(CachedOp),
    /// It would grow what waits for this key beyond one operation; flush the key first.
    Behind(CachedOp),
    /// It is so large that it should go to the server by itself.
    TooLarge(CachedOp),
}

/// What the flusher should do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send a batch of this table.
    Table(Slot),
    /// Look again at this time, or when woken.
    Later(Option<Instant>),
}
