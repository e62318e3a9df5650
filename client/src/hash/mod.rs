//! The remote hash: a table's handle with a `HashMap`'s methods.
//!
//! Here is what all tables have; `values`, `lists` and `counters` add what one kind has, `stream`
//! holds the streams that they return and `bulk` the way past the cache.

use std::{fmt, marker::PhantomData, sync::Arc};

use bytes::Bytes;
use rhash_protocol::{ScanWhat, TableKind};

use crate::{
    cache::{CachedOp, SLOT_BYTES},
    client::Client,
    codec::{BincodeCodec, Codec, CodecError, EncodeAs, Item, Stored},
    error::{Error, ErrorKind, Result},
    table::{Cached, Condition, Handle, Keep, Outcome, TableCore},
};

mod values;
mod lists;
mod counters;
mod stream;
mod bulk;

pub(crate) use self::stream::Decoder;
pub use self::{
    bulk::Bulk,
    stream::{Entries, Keys, ListStream, Values},
    values::Swap,
};

/// Types that a handle is for and does not hold: it is `Send` whatever they are.
pub(crate) type Types<K, V, C> = PhantomData<fn() -> (K, V, C)>;

/// A hash that lives on a server.
///
/// `V` is a plain type for a table of values, [`List<T>`](crate::List) for a table of lists, or
/// [`Counter`](crate::Counter). `C` is the codec, by default that of serde types.
///
/// Writes that return nothing (`insert`, `discard`, `append`, `add`) are blind: they go to the
/// cache, and to the server later, in batches. This client reads its own writes at once; others
/// see them after a flush. Writes that return what was there are decided on the server.
///
/// A handle is cheap to clone. When the last one is dropped, what is cached is sent in the
/// background, and then a temporary table is freed and a named one let go of.
pub struct RemoteHash<K, V, C = BincodeCodec> {
    client: Client,
    handle: Arc<Handle>,
    types: Types<K, V, C>,
}

impl<K, V, C> Clone for RemoteHash<K, V, C> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            handle: Arc::clone(&self.handle),
            types: PhantomData,
        }
    }
}

impl<K, V, C> fmt::Debug for RemoteHash<K, V, C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.handle.core();
        out.debug_struct("RemoteHash")
            .field("name", &core.name)
            .field("table", &core.id)
            .finish()
    }
}

impl<K, V, C> RemoteHash<K, V, C> {
    pub(crate) fn new(client: Client, handle: Handle, types: Types<K, V, C>) -> Self {
        Self {
            client,
            handle: Arc::new(handle),
            types,
        }
    }

    pub(crate) fn core(&self) -> &Arc<TableCore> {
        self.handle.core()
    }

    /// The client that the table was opened through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The table's name; none if it is temporary.
    pub fn name(&self) -> Option<&str> {
        self.core().name.as_deref()
    }

    /// The table's number on its server, as `stats` shows it.
    pub fn table_id(&self) -> u64 {
        self.core().id
    }

    /// What the table holds.
    pub fn kind(&self) -> TableKind {
        self.core().kind
    }

    /// Counts the entries, exactly. The server looks at the keys of what is on disk for that.
    ///
    /// # Errors
    /// [`ErrorKind::FlushFailed`], or those of the connection.
    pub async fn len(&self) -> Result<u64> {
        self.core().len().await
    }

    /// Whether there is no entry.
    ///
    /// # Errors
    /// [`ErrorKind::FlushFailed`], or those of the connection.
    pub async fn is_empty(&self) -> Result<bool> {
        self.core().is_empty().await
    }

    /// Removes all entries.
    ///
    /// # Errors
    /// [`ErrorKind::FlushFailed`], or those of the connection.
    pub async fn clear(&self) -> Result<()> {
        self.core().clear().await
    }

    /// Sends what is cached and waits until the server has it.
    ///
    /// # Errors
    /// [`ErrorKind::FlushFailed`] with the keys that did not get there; they stay in the cache.
    pub async fn flush(&self) -> Result<()> {
        self.core().flush().await
    }

    /// Frees the table in RAM and on disk, for everybody; other handles on it err with
    /// [`ErrorKind::TableClosed`] from then on.
    ///
    /// # Errors
    /// [`ErrorKind::FlushFailed`] if earlier writes had failed and nobody was told, or those of the
    /// connection.
    pub async fn close(self) -> Result<()> {
        self.core().close().await
    }

    /// Sends what is cached, and lets go of the table if this is its last handle: a named table
    /// stays, a temporary one is freed. Like a drop, but waits for it and says what went wrong.
    ///
    /// # Errors
    /// [`ErrorKind::FlushFailed`], or those of the connection.
    pub async fn detach(self) -> Result<()> {
        match Arc::try_unwrap(self.handle) {
            Ok(handle) => handle.detach().await,
            Err(shared) => shared.core().flush().await,
        }
    }
}

impl<K: Item<C>, V: Stored<C>, C: Codec> RemoteHash<K, V, C> {
    /// Connects, and makes a temporary table: the one-line way to a hash.
    ///
    /// # Errors
    /// Those of [`Client::connect`].
    pub async fn connect(address: &str) -> Result<Self> {
        Client::connect(address).await?.temporary().open().await
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] if the value is of another type, or those of the connection.
    pub async fn get(&self, key: impl EncodeAs<K, C>) -> Result<Option<V::Read>> {
        let key = self.encode_key(key)?;
        let value = match self.core().get_cached(&key)? {
            Cached::Known(value) => value,
            Cached::Unknown => self.core().get(key).await?,
        };
        value.map(|value| decode_read::<V, C>(&value)).transpose()
    }

    /// The values of several keys, in their order; of many, in a few requests that overlap.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn get_many<Q: EncodeAs<K, C>>(
        &self,
        keys: impl IntoIterator<Item = Q>,
    ) -> Result<Vec<Option<V::Read>>> {
        let keys = keys
            .into_iter()
            .map(|key| self.encode_key(key))
            .collect::<Result<_>>()?;
        let values = self.core().get_many(keys, Keep::IfWorth).await?;
        let decode = |value: Option<Bytes>| value.map(|value| decode_read::<V, C>(&value));
        values
            .into_iter()
            .map(|value| decode(value).transpose())
            .collect()
    }

    /// Whether there is an entry.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn contains_key(&self, key: impl EncodeAs<K, C>) -> Result<bool> {
        let key = self.encode_key(key)?;
        self.core().contains(key).await
    }

    /// Sets the value of a key; blind.
    ///
    /// # Errors
    /// [`ErrorKind::KeyTooLarge`], [`ErrorKind::ValueTooLarge`], [`ErrorKind::Encode`];
    /// [`ErrorKind::FlushFailed`] if earlier writes failed.
    pub async fn insert(&self, key: impl EncodeAs<K, C>, value: impl EncodeAs<V, C>) -> Result<()> {
        let key = self.encode_key(key)?;
        let value = self.encode_value(value)?;
        self.write(key, CachedOp::Put(value)).await
    }

    /// Sets the values of several keys; blind.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert); the pairs before the one that fails are written.
    pub async fn insert_many<Q: EncodeAs<K, C>, W: EncodeAs<V, C>>(
        &self,
        pairs: impl IntoIterator<Item = (Q, W)>,
    ) -> Result<()> {
        for (key, value) in pairs {
            let key = self.encode_key(key)?;
            let value = self.encode_value(value)?;
            self.write(key, CachedOp::Put(value)).await?;
        }
        Ok(())
    }

    /// Sets the values of several keys, as [`insert_many`](Self::insert_many) does.
    ///
    /// # Errors
    /// As for [`insert_many`](Self::insert_many).
    pub async fn extend<Q: EncodeAs<K, C>, W: EncodeAs<V, C>>(
        &self,
        pairs: impl IntoIterator<Item = (Q, W)>,
    ) -> Result<()> {
        self.insert_many(pairs).await
    }

    /// Removes an entry, if there is one; blind.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub async fn discard(&self, key: impl EncodeAs<K, C>) -> Result<()> {
        let key = self.encode_key(key)?;
        self.write(key, CachedOp::Discard).await
    }

    /// Removes an entry and returns the value that was there.
    ///
    /// # Errors
    /// As for [`get`](Self::get), and [`ErrorKind::FlushFailed`].
    pub async fn remove(&self, key: impl EncodeAs<K, C>) -> Result<Option<V::Read>> {
        let key = self.encode_key(key)?;
        found::<V, C>(self.core().decide(key, Condition::Remove).await?)
    }

    /// The keys, in the order of the server's hashes. Every entry that lives throughout comes
    /// exactly once.
    pub fn keys(&self) -> Keys<K, C> {
        Keys::new(self.core().scan(ScanWhat::Keys))
    }

    /// The values, in the order of the server's hashes.
    pub fn values(&self) -> Values<V, C> {
        Values::new(self.core().scan(ScanWhat::Values))
    }

    /// The entries, in the order of the server's hashes.
    pub fn iter(&self) -> Entries<K, V, C> {
        Entries::new(self.core().scan(ScanWhat::Items))
    }

    /// Removes the entries for which `keep` is false, and counts them. An entry that changes while
    /// it is judged is left as it is.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn retain(&self, mut keep: impl FnMut(&K, &V::Read) -> bool) -> Result<u64> {
        let mut scan = self.core().scan(ScanWhat::Items);
        let mut removed = 0;
        while let Some(piece) = scan.pieces.recv().await {
            for entry in piece? {
                let key = decode_key::<K, C>(&entry.key)?;
                let value = decode_read::<V, C>(&entry.value)?;
                if keep(&key, &value) {
                    continue;
                }
                let condition = Condition::CompareAndSwap {
                    expected: Some(entry.value),
                    new: None,
                };
                let mut slot_key = self.core().key_buffer();
                slot_key.extend_from_slice(&entry.key);
                if self.core().decide(slot_key, condition).await? == Outcome::Swapped {
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Begins to write past the cache.
    pub fn bulk(&self) -> Bulk<K, V, C> {
        Bulk::new(self)
    }

    pub(crate) fn encode_key(&self, key: impl EncodeAs<K, C>) -> Result<Vec<u8>> {
        let mut buffer = self.core().key_buffer();
        key.encode_key(&mut buffer).map_err(encode_failed)?;
        let (bytes, limit) = (buffer.len() - SLOT_BYTES, self.client.core.key_bytes_max);
        if bytes > limit {
            let text = format!("a key of {bytes} bytes is over the limit of {limit}");
            return Err(Error::new(ErrorKind::KeyTooLarge, text));
        }
        Ok(buffer)
    }

    pub(crate) fn encode_value(&self, value: impl EncodeAs<V, C>) -> Result<Bytes> {
        let mut buffer = Vec::new();
        value.encode_value(&mut buffer).map_err(encode_failed)?;
        let (bytes, limit) = (buffer.len(), self.client.core.value_bytes_max);
        if bytes > limit {
            let text = format!("a value of {bytes} bytes is over the limit of {limit}");
            return Err(Error::new(ErrorKind::ValueTooLarge, text));
        }
        Ok(buffer.into_boxed_slice().into())
    }

    /// Writes through the cache; waits only where it has no room.
    pub(crate) async fn write(&self, key: Vec<u8>, op: CachedOp) -> Result<()> {
        match self.core().write_cached(&key, op)? {
            None => Ok(()),
            Some(op) => self.core().write(key, op).await,
        }
    }
}

/// The value of an outcome, if it has one.
pub(crate) fn found<V: Stored<C>, C>(outcome: Outcome) -> Result<Option<V::Read>> {
    match outcome {
        Outcome::Value(value) => decode_read::<V, C>(&value).map(Some),
        Outcome::Absent | Outcome::Swapped => Ok(None),
    }
}

pub(crate) fn decode_key<K: Item<C>, C>(bytes: &[u8]) -> Result<K> {
    K::decode(bytes).map_err(|error| decode_failed("key", &error))
}

pub(crate) fn decode_read<V: Stored<C>, C>(bytes: &[u8]) -> Result<V::Read> {
    V::decode_read(bytes).map_err(|error| decode_failed("value", &error))
}

pub(crate) fn decode_failed(what: &str, error: &CodecError) -> Error {
    let text = format!("a {what} cannot be decoded: {error}");
    Error::with_source(ErrorKind::Decode, text, error.clone())
}

pub(crate) fn encode_failed(error: CodecError) -> Error {
    Error::with_source(
        ErrorKind::Encode,
        format!("cannot be encoded: {error}"),
        error,
    )
}
