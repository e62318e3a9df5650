//! Writing past the cache, blocking.

use std::{fmt, sync::Arc};

use super::Driver;
use crate::{
    codec::{Codec, Counter, Element, EncodeAs, Item, List, Stored},
    error::Result,
    hash::Bulk as AsyncBulk,
    pipeline,
};

/// Writes many entries past the cache; see [`crate::Bulk`].
#[must_use = "what is not finished is not known to be written"]
pub struct Bulk<K, V, C> {
    /// None only if the client's thread ended during a call.
    bulk: Option<AsyncBulk<K, V, C>>,
    driver: Arc<Driver>,
}

impl<K, V, C> fmt::Debug for Bulk<K, V, C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bulk.fmt(out)
    }
}

impl<K: Item<C>, V: Stored<C>, C: Codec> Bulk<K, V, C> {
    pub(super) fn new(bulk: AsyncBulk<K, V, C>, driver: Arc<Driver>) -> Self {
        Self {
            bulk: Some(bulk),
            driver,
        }
    }

    /// Sets a value.
    ///
    /// # Errors
    /// As for [`crate::Bulk::insert`].
    pub fn insert(&mut self, key: impl EncodeAs<K, C>, value: impl EncodeAs<V, C>) -> Result<()> {
        self.inner()?.insert(key, value)
    }

    /// Removes an entry, if there is one.
    ///
    /// # Errors
    /// As for [`crate::Bulk::discard`].
    pub fn discard(&mut self, key: impl EncodeAs<K, C>) -> Result<()> {
        self.inner()?.discard(key)
    }

    /// Whether the batch should be sent before more is written.
    pub fn is_full(&self) -> bool {
        self.bulk.as_ref().is_some_and(AsyncBulk::is_full)
    }

    /// Hands the batch to the pipeline; waits until there is room for it in flight.
    ///
    /// # Errors
    /// As for [`crate::Bulk::send`].
    pub fn send(&mut self) -> Result<()> {
        let mut bulk = self.bulk.take().ok_or_else(pipeline::shut_down)?;
        let (bulk, sent) = self.driver.wait(async move {
            let sent = bulk.send().await;
            (bulk, sent)
        })?;
        self.bulk = Some(bulk);
        sent
    }

    /// Sends the rest and waits for all answers; returns how many writes there were.
    ///
    /// # Errors
    /// As for [`crate::Bulk::finish`].
    pub fn finish(mut self) -> Result<u64> {
        let bulk = self.bulk.take().ok_or_else(pipeline::shut_down)?;
        self.driver.run(async move { bulk.finish().await })
    }

    fn inner(&mut self) -> Result<&mut AsyncBulk<K, V, C>> {
        self.bulk.as_mut().ok_or_else(pipeline::shut_down)
    }
}

impl<K: Item<C>, T: Element<C>, C: Codec> Bulk<K, List<T>, C>
where
    List<T>: Stored<C>,
{
    /// Adds items to the end of a list.
    ///
    /// # Errors
    /// As for [`crate::Bulk::append`].
    pub fn append(
        &mut self,
        key: impl EncodeAs<K, C>,
        items: impl EncodeAs<List<T>, C>,
    ) -> Result<()> {
        self.inner()?.append(key, items)
    }
}

impl<K: Item<C>, C: Codec> Bulk<K, Counter, C> {
    /// Adds to a counter.
    ///
    /// # Errors
    /// As for [`crate::Bulk::add`].
    pub fn add(&mut self, key: impl EncodeAs<K, C>, delta: i64) -> Result<()> {
        self.inner()?.add(key, delta)
    }
}
