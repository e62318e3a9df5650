//! The remote hash, blocking.

use std::{fmt, sync::Arc};

use rhash_protocol::{ScanWhat, TableKind};

use super::{Bulk, Bytes, Driver, Entries, Keys, ListItems, Values, iter::Pieces};
use crate::{
    cache::CachedOp,
    codec::{BincodeCodec, Codec, Counter, Element, EncodeAs, Item, List, Stored},
    error::Result,
    hash::{RemoteHash as AsyncHash, Swap, decode_key, decode_read, encode_failed, found},
    table::{Cached, Condition, Keep, Outcome, TableCore},
};

/// A hash that lives on a server; see [`crate::RemoteHash`], whose methods these are.
pub struct RemoteHash<K, V, C = BincodeCodec> {
    table: AsyncHash<K, V, C>,
    /// Dropped after `table`: its thread flushes what the table left.
    driver: Arc<Driver>,
}

impl<K, V, C> Clone for RemoteHash<K, V, C> {
    fn clone(&self) -> Self {
        Self {
            table: self.table.clone(),
            driver: Arc::clone(&self.driver),
        }
    }
}

impl<K, V, C> fmt::Debug for RemoteHash<K, V, C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(out)
    }
}

impl<K: Item<C>, V: Stored<C>, C: Codec> RemoteHash<K, V, C> {
    pub(super) fn new(table: AsyncHash<K, V, C>, driver: Arc<Driver>) -> Self {
        Self { table, driver }
    }

    /// Connects, and makes a temporary table.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::connect`].
    pub fn connect(address: &str) -> Result<Self> {
        super::Client::connect(address)?.temporary().open()
    }

    /// The table's name; none if it is temporary.
    pub fn name(&self) -> Option<&str> {
        self.table.name()
    }

    /// The table's number on its server.
    pub fn table_id(&self) -> u64 {
        self.table.table_id()
    }

    /// What the table holds.
    pub fn kind(&self) -> TableKind {
        self.table.kind()
    }

    /// The value of a key.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::get`].
    pub fn get(&self, key: impl EncodeAs<K, C>) -> Result<Option<V::Read>> {
        let key = self.table.encode_key(key)?;
        let value = match self.core().get_cached(&key)? {
            Cached::Known(value) => value,
            Cached::Unknown => self.ask(|core| async move { core.get(key).await })?,
        };
        value.map(|value| decode_read::<V, C>(&value)).transpose()
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::get_many`].
    pub fn get_many<Q: EncodeAs<K, C>>(
        &self,
        keys: impl IntoIterator<Item = Q>,
    ) -> Result<Vec<Option<V::Read>>> {
        let keys: Result<Vec<_>> = keys
            .into_iter()
            .map(|key| self.table.encode_key(key))
            .collect();
        let keys = keys?;
        let values = self.ask(|core| async move { core.get_many(keys, Keep::IfWorth).await })?;
        let decode = |value: bytes::Bytes| decode_read::<V, C>(&value);
        values
            .into_iter()
            .map(|value| value.map(decode).transpose())
            .collect()
    }

    /// Whether there is an entry.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::contains_key`].
    pub fn contains_key(&self, key: impl EncodeAs<K, C>) -> Result<bool> {
        let key = self.table.encode_key(key)?;
        self.ask(|core| async move { core.contains(key).await })
    }

    /// Sets the value of a key; blind.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::insert`].
    pub fn insert(&self, key: impl EncodeAs<K, C>, value: impl EncodeAs<V, C>) -> Result<()> {
        let key = self.table.encode_key(key)?;
        let value = self.table.encode_value(value)?;
        self.write(key, CachedOp::Put(value))
    }

    /// Sets the values of several keys; blind.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::insert_many`].
    pub fn insert_many<Q: EncodeAs<K, C>, W: EncodeAs<V, C>>(
        &self,
        pairs: impl IntoIterator<Item = (Q, W)>,
    ) -> Result<()> {
        pairs
            .into_iter()
            .try_for_each(|(key, value)| self.insert(key, value))
    }

    /// Sets the values of several keys; blind.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::extend`].
    pub fn extend<Q: EncodeAs<K, C>, W: EncodeAs<V, C>>(
        &self,
        pairs: impl IntoIterator<Item = (Q, W)>,
    ) -> Result<()> {
        self.insert_many(pairs)
    }

    /// Removes an entry, if there is one; blind.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::discard`].
    pub fn discard(&self, key: impl EncodeAs<K, C>) -> Result<()> {
        let key = self.table.encode_key(key)?;
        self.write(key, CachedOp::Discard)
    }

    /// Removes an entry and returns the value that was there.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::remove`].
    pub fn remove(&self, key: impl EncodeAs<K, C>) -> Result<Option<V::Read>> {
        let key = self.table.encode_key(key)?;
        found::<V, C>(self.decide(key, Condition::Remove)?)
    }

    /// Sets the value of a key that has one, and returns the old one.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::replace`].
    pub fn replace(
        &self,
        key: impl EncodeAs<K, C>,
        value: impl EncodeAs<V, C>,
    ) -> Result<Option<V::Read>> {
        let key = self.table.encode_key(key)?;
        let value = self.table.encode_value(value)?;
        found::<V, C>(self.decide(key, Condition::Replace(value))?)
    }

    /// The value of a key, which is set to `value` first if there is none.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::get_or_insert`].
    pub fn get_or_insert(
        &self,
        key: impl EncodeAs<K, C>,
        value: impl EncodeAs<V, C>,
    ) -> Result<V::Read> {
        let key = self.table.encode_key(key)?;
        let value = self.table.encode_value(value)?;
        match self.decide(key, Condition::PutIfAbsent(value.clone()))? {
            Outcome::Value(there) => decode_read::<V, C>(&there),
            Outcome::Absent | Outcome::Swapped => decode_read::<V, C>(&value),
        }
    }

    /// Sets the value of a key to `new` if it is now `expected`.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::compare_and_swap`].
    pub fn compare_and_swap(
        &self,
        key: impl EncodeAs<K, C>,
        expected: Option<impl EncodeAs<V, C>>,
        new: Option<impl EncodeAs<V, C>>,
    ) -> Result<Swap<V::Read>> {
        let key = self.table.encode_key(key)?;
        let expected = expected
            .map(|value| self.table.encode_value(value))
            .transpose()?;
        let new = new
            .map(|value| self.table.encode_value(value))
            .transpose()?;
        match self.decide(key, Condition::CompareAndSwap { expected, new })? {
            Outcome::Swapped => Ok(Swap::Done),
            outcome => found::<V, C>(outcome).map(Swap::Found),
        }
    }

    /// Removes the entries for which `keep` is false, and counts them.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::retain`].
    pub fn retain(&self, mut keep: impl FnMut(&K, &V::Read) -> bool) -> Result<u64> {
        let mut removed = 0;
        for entry in self.pieces(ScanWhat::Items) {
            let entry = entry?;
            let key = decode_key::<K, C>(&entry.key)?;
            if keep(&key, &decode_read::<V, C>(&entry.value)?) {
                continue;
            }
            let mut slot_key = self.core().key_buffer();
            slot_key.extend_from_slice(&entry.key);
            let condition = Condition::CompareAndSwap {
                expected: Some(entry.value),
                new: None,
            };
            if self.decide(slot_key, condition)? == Outcome::Swapped {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Counts the entries, exactly.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::len`].
    pub fn len(&self) -> Result<u64> {
        self.run(|core| async move { core.len().await })
    }

    /// Whether there is no entry.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::is_empty`].
    pub fn is_empty(&self) -> Result<bool> {
        self.run(|core| async move { core.is_empty().await })
    }

    /// Removes all entries.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::clear`].
    pub fn clear(&self) -> Result<()> {
        self.run(|core| async move { core.clear().await })
    }

    /// The keys.
    pub fn keys(&self) -> Keys<K, C> {
        Keys::new(self.pieces(ScanWhat::Keys))
    }

    /// The values.
    pub fn values(&self) -> Values<V, C> {
        Values::new(self.pieces(ScanWhat::Values))
    }

    /// The entries.
    pub fn iter(&self) -> Entries<K, V, C> {
        Entries::new(self.pieces(ScanWhat::Items))
    }

    /// Sends what is cached and waits until the server has it.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::flush`].
    pub fn flush(&self) -> Result<()> {
        self.run(|core| async move { core.flush().await })
    }

    /// Frees the table for everybody.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::close`].
    pub fn close(self) -> Result<()> {
        let table = self.table;
        self.driver.run(async move { table.close().await })
    }

    /// Sends what is cached, and lets go of the table.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::detach`].
    pub fn detach(self) -> Result<()> {
        let table = self.table;
        self.driver.run(async move { table.detach().await })
    }

    /// Writes many entries past the cache.
    pub fn bulk(&self) -> Bulk<K, V, C> {
        Bulk::new(self.table.bulk(), Arc::clone(&self.driver))
    }

    fn pieces(&self, what: ScanWhat) -> Pieces {
        Pieces::new(self.core().scan(what), Arc::clone(&self.driver))
    }

    fn core(&self) -> &Arc<TableCore> {
        self.table.core()
    }

    fn write(&self, key: Vec<u8>, op: CachedOp) -> Result<()> {
        match self.core().write_cached(&key, op)? {
            None => Ok(()),
            Some(op) => self.run(|core| async move { core.write(key, op).await }),
        }
    }

    fn decide(&self, key: Vec<u8>, condition: Condition) -> Result<Outcome> {
        self.ask(|core| async move { core.decide(key, condition).await })
    }

    /// A short question.
    fn ask<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(Arc<TableCore>) -> F,
    ) -> Result<T> {
        self.driver.ask(work(Arc::clone(self.core())))
    }

    fn run<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(Arc<TableCore>) -> F,
    ) -> Result<T> {
        self.driver.run(work(Arc::clone(self.core())))
    }
}

impl<K: Item<C>, T: Element<C>, C: Codec> RemoteHash<K, List<T>, C>
where
    List<T>: Stored<C>,
{
    /// Adds an item to the end of a key's list; blind.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::append`].
    pub fn append(&self, key: impl EncodeAs<K, C>, item: T) -> Result<()> {
        self.append_many(key, [item])
    }

    /// Adds items to the end of a key's list; blind.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::append_many`].
    pub fn append_many(
        &self,
        key: impl EncodeAs<K, C>,
        items: impl EncodeAs<List<T>, C>,
    ) -> Result<()> {
        let key = self.table.encode_key(key)?;
        let mut bytes = Vec::new();
        items.encode_value(&mut bytes).map_err(encode_failed)?;
        let limit = self.table.client().core.value_bytes_max;
        if bytes.len() <= limit {
            return self.write(key, CachedOp::Append(bytes));
        }
        bytes
            .chunks(limit)
            .try_for_each(|part| self.write(key.clone(), CachedOp::Append(part.to_vec())))
    }

    /// Appends to many lists past the cache.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::append_batch`].
    pub fn append_batch<Q: EncodeAs<K, C>, W: EncodeAs<List<T>, C>>(
        &self,
        pairs: impl IntoIterator<Item = (Q, W)>,
    ) -> Result<u64> {
        let mut bulk = self.bulk();
        for (key, items) in pairs {
            bulk.append(key, items)?;
            if bulk.is_full() {
                bulk.send()?;
            }
        }
        bulk.finish()
    }

    /// A key's list, element by element, however long it is.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::stream`].
    pub fn stream(&self, key: impl EncodeAs<K, C>) -> Result<Option<ListItems<T, C>>> {
        Ok(self.chunks(key)?.map(ListItems::new))
    }

    /// A key's list as its encoded bytes, part by part, however long it is.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::chunks`].
    pub fn chunks(&self, key: impl EncodeAs<K, C>) -> Result<Option<Bytes>> {
        let key = self.table.encode_key(key)?;
        let bytes = self.run(|core| async move { core.chunks(key).await })?;
        Ok(bytes.map(|bytes| Bytes::new(bytes, Arc::clone(&self.driver))))
    }
}

impl<K: Item<C>, C: Codec> RemoteHash<K, Counter, C> {
    /// Adds to a key's counter; blind.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::add`].
    pub fn add(&self, key: impl EncodeAs<K, C>, delta: i64) -> Result<()> {
        let key = self.table.encode_key(key)?;
        self.write(key, CachedOp::Add(delta))
    }

    /// Adds to a key's counter and returns what it is after that.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::add_and_get`].
    pub fn add_and_get(&self, key: impl EncodeAs<K, C>, delta: i64) -> Result<i64> {
        let key = self.table.encode_key(key)?;
        let outcome = self.decide(key, Condition::AddAndGet(delta))?;
        Ok(found::<Counter, C>(outcome)?.unwrap_or(delta))
    }

    /// Adds to many counters past the cache.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::add_batch`].
    pub fn add_batch<Q: EncodeAs<K, C>>(
        &self,
        pairs: impl IntoIterator<Item = (Q, i64)>,
    ) -> Result<u64> {
        let mut bulk = self.bulk();
        for (key, delta) in pairs {
            bulk.add(key, delta)?;
            if bulk.is_full() {
                bulk.send()?;
            }
        }
        bulk.finish()
    }
}
