//! What tables of counters have.

use crate::{
    cache::CachedOp,
    codec::{Codec, Counter, EncodeAs, Item},
    error::Result,
    hash::{RemoteHash, found},
    table::Condition,
};

impl<K: Item<C>, C: Codec> RemoteHash<K, Counter, C> {
    /// Adds to a key's counter; blind. A missing counter is 0, and one that overflows wraps.
    /// Additions to one key are summed in the cache and go to the server as one.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub async fn add(&self, key: impl EncodeAs<K, C>, delta: i64) -> Result<()> {
        let key = self.encode_key(key)?;
        self.write(key, CachedOp::Add(delta)).await
    }

    /// Adds to a key's counter on the server and returns what it is after that.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert), and those of the connection.
    pub async fn add_and_get(&self, key: impl EncodeAs<K, C>, delta: i64) -> Result<i64> {
        let key = self.encode_key(key)?;
        let outcome = self.core().decide(key, Condition::AddAndGet(delta)).await?;
        Ok(found::<Counter, C>(outcome)?.unwrap_or(delta))
    }

    /// Adds to many counters past the cache; returns how many pairs there were when the server has
    /// them all.
    ///
    /// # Errors
    /// As for [`Bulk::finish`](crate::Bulk::finish).
    pub async fn add_batch<Q: EncodeAs<K, C>>(
        &self,
        pairs: impl IntoIterator<Item = (Q, i64)>,
    ) -> Result<u64> {
        let mut bulk = self.bulk();
        for (key, delta) in pairs {
            bulk.add(key, delta)?;
            if bulk.is_full() {
                bulk.send().await?;
            }
        }
        bulk.finish().await
    }
}
