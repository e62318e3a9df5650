//! Reads of one key, and of the table as a whole.

use std::sync::Arc;

use bytes::Bytes;
use rhash_protocol::{
    Keys, Request, Response, Slot,
    packed::{Malformed, Presence, push_bytes},
};

use super::TableCore;
use crate::{
    cache::{Look, ReadMark, SLOT_BYTES},
    config::CachePolicy,
    error::{Error, ErrorKind, Result},
    pipeline,
};

/// Values up to this share of the cache are kept in it.
const KEPT_SHARE: usize = 8;

/// Which answers to a read the cache keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All: they will be asked for soon.
    All,
    /// Those for which it has room, or whose keys were read before of late.
    IfWorth,
}

/// What the cache alone can say.
#[derive(Debug)]
pub(crate) enum Cached {
    /// The value is this, or there is none.
    Known(Option<Bytes>),
    /// The server must be asked.
    Unknown,
}

impl TableCore {
    /// What the cache alone says about a key.
    pub(crate) fn get_cached(&self, key: &[u8]) -> Result<Cached> {
        self.check()?;
        Ok(match self.client.cache.look(self.slot, key) {
            Look::Value(value) => Cached::Known(value),
            Look::Fragments | Look::Miss(_) => Cached::Unknown,
        })
    }

    /// The value of a key.
    pub(crate) async fn get(self: &Arc<Self>, key: Vec<u8>) -> Result<Option<Bytes>> {
        self.check()?;
        match self.look_synced(&key).await? {
            Look::Value(value) => Ok(value),
            Look::Fragments => self.get_remote(key, None).await,
            Look::Miss(mark) => self.get_remote(key, Some(mark)).await,
        }
    }

    /// What the cache says, after fragments of the key were flushed. If it has fragments again
    /// after that, somebody else writes them at this moment, and the read may come before them.
    async fn look_synced(self: &Arc<Self>, key: &[u8]) -> Result<Look> {
        let look = self.client.cache.look(self.slot, key);
        if !matches!(look, Look::Fragments) {
            return Ok(look);
        }
        self.sync_key(key).await?;
        Ok(self.client.cache.look(self.slot, key))
    }

    async fn get_remote(
        self: &Arc<Self>,
        key: Vec<u8>,
        mark: Option<ReadMark>,
    ) -> Result<Option<Bytes>> {
        let mut packed = Vec::with_capacity(key.len() + 4);
        push_bytes(&mut packed, without_slot(&key));
        let request = Request::Get {
            table: self.id,
            keys: Keys::new(1, &packed),
        };
        let reply = self.call(request).await?;
        let slot = match reply.response()? {
            Response::Values(values) => match values.iter().next() {
                Some(slot) => slot.map_err(malformed)?,
                None => return Err(malformed(Malformed("no value for a key"))),
            },
            other => return Err(pipeline::unexpected(&other)),
        };
        let value = match slot {
            Slot::Absent => None,
            Slot::Value(value) => Some(reply.slice(value)),
            Slot::Large(_) => self.fetch_whole(without_slot(&key)).await?,
        };
        self.keep(&key, value.as_ref(), mark, Keep::All);
        Ok(value)
    }

    /// Keeps what the server said about a key, if that is worth it.
    pub(super) fn keep(
        &self,
        key: &[u8],
        value: Option<&Bytes>,
        mark: Option<ReadMark>,
        keep: Keep,
    ) {
        let bytes = value.map_or(0, Bytes::len);
        if let Some(mark) = mark
            && self.policy != CachePolicy::None
            && bytes <= self.client.cache_bytes / KEPT_SHARE
            && (keep == Keep::All || self.client.cache.admits(key, bytes))
        {
            // A value that came with others would keep the whole answer in memory.
            let value = value.map(|value| Bytes::copy_from_slice(value));
            self.client
                .cache
                .install(self.slot, key.into(), value, mark);
        }
    }

    /// Whether there is an entry.
    pub(crate) async fn contains(self: &Arc<Self>, key: Vec<u8>) -> Result<bool> {
        self.check()?;
        match self.client.cache.look(self.slot, &key) {
            Look::Value(value) => return Ok(value.is_some()),
            // An append or an addition makes the entry if there is none.
            Look::Fragments => return Ok(true),
            Look::Miss(_) => {}
        }
        let mut packed = Vec::with_capacity(key.len() + 4);
        push_bytes(&mut packed, without_slot(&key));
        let request = Request::Contains {
            table: self.id,
            keys: Keys::new(1, &packed),
        };
        let reply = self.call(request).await?;
        match reply.response()? {
            Response::Present(presence) => first_present(presence),
            other => Err(pipeline::unexpected(&other)),
        }
    }

    /// Counts the entries.
    pub(crate) async fn len(self: &Arc<Self>) -> Result<u64> {
        self.check()?;
        self.flush().await?;
        let reply = self.call(Request::Len { table: self.id }).await?;
        match reply.response()? {
            Response::Count(count) => Ok(count),
            other => Err(pipeline::unexpected(&other)),
        }
    }

    /// Whether there is no entry.
    pub(crate) async fn is_empty(self: &Arc<Self>) -> Result<bool> {
        self.check()?;
        self.flush().await?;
        let reply = self.call(Request::IsEmpty { table: self.id }).await?;
        match reply.response()? {
            Response::Empty(empty) => Ok(empty),
            other => Err(pipeline::unexpected(&other)),
        }
    }
}

fn first_present(presence: Presence<'_>) -> Result<bool> {
    match presence.iter().next() {
        Some(present) => present.map_err(malformed),
        None => Err(malformed(Malformed("no answer for a key"))),
    }
}

pub(super) fn malformed(error: Malformed) -> Error {
    Error::with_source(ErrorKind::Protocol, error.to_string(), error)
}

pub(super) fn without_slot(key: &[u8]) -> &[u8] {
    key.get(SLOT_BYTES..).unwrap_or_default()
}
