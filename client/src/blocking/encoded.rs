//! Tables in bytes, for bindings to other languages, which encode keys and values themselves.
//!
//! What is in the cache is answered at once, by methods that never wait: so a binding that has to
//! let go of a lock before it waits knows when to. All others may wait for the server.

use std::sync::Arc;

use bytes::Bytes;
use rhash_protocol::{Durability, OpenMode, ScanWhat, TableKind};

use super::{Client, Driver};
pub use crate::table::{PIECES_UNDER_WAY_MAX, Pieces, ScanEntry as EncodedEntry};
use crate::{
    cache::{CachedOp, SLOT_BYTES},
    error::{Error, ErrorKind, Result},
    table::{
        ByteStream, Cached, Condition, Handle, Keep, ManyRead, Outcome, PageStream, TableCore,
        TableSpec, Values,
    },
};

/// Which table to open, and how.
#[derive(Debug, Clone)]
pub struct EncodedSpec {
    /// The table's name; none makes a temporary one.
    pub name: Option<String>,
    /// What it holds.
    pub kind: TableKind,
    /// The name of the codec, which is the caller's.
    pub codec: String,
    /// What to do about a table that exists, or does not.
    pub mode: OpenMode,
    /// How safe a write to it is when the server answers it; none accepts what the table has.
    pub durability: Option<Durability>,
}

/// A key, encoded, in the form that the cache takes.
#[derive(Debug, Clone)]
pub struct EncodedKey {
    bytes: Vec<u8>,
}

impl EncodedKey {
    /// Its bytes as encoded.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(SLOT_BYTES..).unwrap_or_default()
    }
}

/// When a read began; see [`EncodedTable::moment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    epoch: Option<u64>,
    forgotten: u64,
}

impl Moment {
    /// As [`EncodedTable::epoch`] then.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }
}

/// A blind write of a key, encoded.
#[derive(Debug)]
pub struct EncodedWrite {
    op: CachedOp,
}

impl EncodedWrite {
    /// Sets the value.
    pub fn put(value: Vec<u8>) -> Self {
        let value = value.into_boxed_slice().into();
        Self {
            op: CachedOp::Put(value),
        }
    }

    /// Removes the entry, if there is one.
    pub fn discard() -> Self {
        Self {
            op: CachedOp::Discard,
        }
    }

    /// Adds these bytes to a list's end.
    pub fn append(bytes: Vec<u8>) -> Self {
        Self {
            op: CachedOp::Append(bytes),
        }
    }

    /// Adds to a counter.
    pub fn add(delta: i64) -> Self {
        Self {
            op: CachedOp::Add(delta),
        }
    }
}

/// A read of many keys that was begun; see [`EncodedTable::ask_many`].
#[derive(Debug)]
#[must_use = "what was asked for is there when it is taken"]
pub struct EncodedRead {
    state: State,
}

#[derive(Debug)]
enum State {
    /// The cache knew all.
    Known(Values),
    /// The server was asked.
    Asked(ManyRead),
}

/// An open table, in bytes.
#[derive(Debug)]
pub struct EncodedTable {
    handle: Handle,
    /// Dropped after `handle`: its thread flushes what the table left.
    client: Client,
}

impl Client {
    /// Opens a table whose keys and values the caller encodes.
    ///
    /// # Errors
    /// As for [`crate::TableBuilder::open`].
    pub fn open_encoded(&self, spec: EncodedSpec) -> Result<EncodedTable> {
        let EncodedSpec {
            name,
            kind,
            codec,
            mode,
            durability,
        } = spec;
        let spec = TableSpec {
            kind: Some(kind),
            codec: Some(codec),
            mode,
            durability,
        };
        let core = Arc::clone(&self.client.core);
        let policy = core.policy;
        let handle = self
            .driver
            .run(async move { core.open_table(name, spec, policy).await })?;
        Ok(EncodedTable {
            handle,
            client: self.clone(),
        })
    }
}

impl EncodedTable {
    /// The client that the table was opened through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The table's number on its server.
    pub fn table_id(&self) -> u64 {
        self.core().id
    }

    /// Whether the server is not connected at this moment.
    pub fn is_away(&self) -> bool {
        self.core().client.pipeline.away().is_some()
    }

    /// Whether cached writes of the table wait for the server.
    pub fn has_pending(&self) -> bool {
        let core = self.core();
        core.client.cache.pending_keys(core.slot).count() > 0
    }

    /// While this number stays the same, no other client has written to the table; none if another
    /// one has it open.
    pub fn epoch(&self) -> Option<u64> {
        self.moment().epoch
    }

    /// This moment, taken before a read so that [`epoch_since`](Self::epoch_since) can say
    /// whether its answer came to be old.
    pub fn moment(&self) -> Moment {
        let core = self.core();
        let (epoch, forgotten) = core.client.cache.moment(core.slot);
        Moment { epoch, forgotten }
    }

    /// The epoch, if a value that was read after `moment`, and of whose key the cache knows nothing
    /// now, is sure to be the newest; none if it may have been written since by this client or
    /// another.
    pub fn epoch_since(&self, moment: Moment) -> Option<u64> {
        moment.epoch.filter(|_| self.moment() == moment)
    }

    /// A key, in the form that the cache takes, from what `encode` appends.
    ///
    /// # Errors
    /// Those of `encode`, and [`ErrorKind::KeyTooLarge`].
    pub fn key<E: From<Error>>(
        &self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<EncodedKey, E> {
        let core = self.core();
        let mut bytes = core.key_buffer();
        encode(&mut bytes)?;
        let (length, limit) = (bytes.len() - SLOT_BYTES, core.client.key_bytes_max);
        if length > limit {
            let text = format!("a key of {length} bytes is over the limit of {limit}");
            return Err(Error::new(ErrorKind::KeyTooLarge, text).into());
        }
        Ok(EncodedKey { bytes })
    }

    /// Errs if a value of this length is over the server's limit.
    ///
    /// # Errors
    /// [`ErrorKind::ValueTooLarge`].
    pub fn check_value(&self, length: usize) -> Result<()> {
        let limit = self.core().client.value_bytes_max;
        if length > limit {
            let text = format!("a value of {length} bytes is over the limit of {limit}");
            return Err(Error::new(ErrorKind::ValueTooLarge, text));
        }
        Ok(())
    }

    /// What the cache says of a key: its value, or that there is none; or nothing. Never waits.
    ///
    /// # Errors
    /// The table is gone, or earlier writes failed.
    pub fn get_cached(&self, key: &EncodedKey) -> Result<Option<Option<Bytes>>> {
        Ok(match self.core().get_cached(&key.bytes)? {
            Cached::Known(value) => Some(value),
            Cached::Unknown => None,
        })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::get`].
    pub fn get(&self, key: EncodedKey) -> Result<Option<Bytes>> {
        self.ask(|core| async move { core.get(key.bytes).await })
    }

    /// How a read of so many keys, if that is known, is best cut into pieces that overlap.
    pub fn pieces(&self, keys: Option<usize>) -> Pieces {
        self.core().pieces(keys)
    }

    /// Asks for the values of keys, and does not wait for them: [`take_many`](Self::take_many) does.
    /// So a caller can prepare more keys, or use values that came before, while the server works.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::get_many`].
    pub fn ask_many(&self, keys: Vec<EncodedKey>) -> Result<EncodedRead> {
        let keys = keys.into_iter().map(|key| key.bytes).collect();
        let read = match self.core().look_many(keys)?.into_known() {
            Ok(known) => State::Known(known),
            Err(read) => State::Asked(self.ask(|core| async move { core.begin_many(read).await })?),
        };
        Ok(EncodedRead { state: read })
    }

    /// The values of keys that were asked for, in their order.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::get_many`].
    pub fn take_many(&self, read: EncodedRead) -> Result<Vec<(EncodedKey, Option<Bytes>)>> {
        let values = match read.state {
            State::Known(known) => known,
            State::Asked(read) => {
                self.ask(|core| async move { core.finish_many(read, Keep::IfWorth).await })?
            }
        };
        let key = |(bytes, value)| (EncodedKey { bytes }, value);
        Ok(values.into_iter().map(key).collect())
    }

    /// The values of keys that will be asked for again soon, so that the cache keeps them all.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::get_many`].
    pub fn get_ahead(&self, keys: Vec<EncodedKey>) -> Result<Vec<Option<Bytes>>> {
        let keys = keys.into_iter().map(|key| key.bytes).collect();
        self.ask(|core| async move { core.get_many(keys, Keep::All).await })
    }

    /// Whether there is an entry.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::contains_key`].
    pub fn contains(&self, key: EncodedKey) -> Result<bool> {
        self.ask(|core| async move { core.contains(key.bytes).await })
    }

    /// Writes into the cache if that has room at once; else gives the write back. Never waits.
    ///
    /// # Errors
    /// The table is gone, or earlier writes failed.
    pub fn write_cached(
        &self,
        key: &EncodedKey,
        write: EncodedWrite,
    ) -> Result<Option<EncodedWrite>> {
        let back = self.core().write_cached(&key.bytes, write.op)?;
        Ok(back.map(|op| EncodedWrite { op }))
    }

    /// Writes through the cache, and waits where that has no room.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::insert`].
    pub fn write(&self, key: EncodedKey, write: EncodedWrite) -> Result<()> {
        self.run(|core| async move { core.write(key.bytes, write.op).await })
    }

    /// Removes an entry and gives what was there.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::remove`].
    pub fn remove(&self, key: EncodedKey) -> Result<Option<Bytes>> {
        self.decide(key, Condition::Remove)
    }

    /// Sets the value of a key if it has none; gives the one that it has else.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::get_or_insert`].
    pub fn put_if_absent(&self, key: EncodedKey, value: Vec<u8>) -> Result<Option<Bytes>> {
        self.decide(key, Condition::PutIfAbsent(value.into()))
    }

    /// Adds to a counter and gives what it is after that.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::add_and_get`].
    pub fn add_and_get(&self, key: EncodedKey, delta: i64) -> Result<Option<Bytes>> {
        self.decide(key, Condition::AddAndGet(delta))
    }

    /// Sets the value of a key to `new` (none: removes it) if it is now `expected` (none: missing);
    /// gives whether it was, and if not, what is there.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::compare_and_swap`].
    pub fn compare_and_swap(
        &self,
        key: EncodedKey,
        expected: Option<Vec<u8>>,
        new: Option<Vec<u8>>,
    ) -> Result<Result<(), Option<Bytes>>> {
        let condition = Condition::CompareAndSwap {
            expected: expected.map(Bytes::from),
            new: new.map(Bytes::from),
        };
        let outcome = self.ask(|core| async move { core.decide(key.bytes, condition).await })?;
        Ok(match outcome {
            Outcome::Swapped => Ok(()),
            Outcome::Value(value) => Err(Some(value)),
            Outcome::Absent => Err(None),
        })
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

    /// Sends what is cached and waits until the server has it.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::flush`].
    pub fn flush(&self) -> Result<()> {
        self.run(|core| async move { core.flush().await })
    }

    /// Begins to go through the table.
    pub fn scan(&self, what: ScanWhat) -> EncodedPages {
        EncodedPages {
            pages: Some(self.core().scan(what)),
            driver: Arc::clone(&self.client.driver),
        }
    }

    /// The bytes of one value, however long it is, part by part.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::chunks`].
    pub fn parts(&self, key: EncodedKey) -> Result<Option<EncodedParts>> {
        let parts = self.run(|core| async move { core.chunks(key.bytes).await })?;
        Ok(parts.map(|parts| EncodedParts {
            parts: Some(parts),
            driver: Arc::clone(&self.client.driver),
        }))
    }

    /// Frees the table for everybody.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::close`].
    pub fn close(&self) -> Result<()> {
        self.run(|core| async move { core.close().await })
    }

    /// Sends what is cached, and lets go of the table: a temporary one is freed.
    ///
    /// # Errors
    /// As for [`crate::RemoteHash::detach`].
    pub fn detach(self) -> Result<()> {
        let Self { handle, client } = self;
        client.driver.run(async move { handle.detach().await })
    }

    fn decide(&self, key: EncodedKey, condition: Condition) -> Result<Option<Bytes>> {
        let outcome = self.ask(|core| async move { core.decide(key.bytes, condition).await })?;
        Ok(match outcome {
            Outcome::Value(value) => Some(value),
            Outcome::Absent | Outcome::Swapped => None,
        })
    }

    fn core(&self) -> &Arc<TableCore> {
        self.handle.core()
    }

    /// A short question.
    fn ask<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(Arc<TableCore>) -> F,
    ) -> Result<T> {
        self.client.driver.ask(work(Arc::clone(self.core())))
    }

    fn run<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(Arc<TableCore>) -> F,
    ) -> Result<T> {
        self.client.driver.run(work(Arc::clone(self.core())))
    }
}

/// The entries of a table, page by page.
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is read"]
pub struct EncodedPages {
    /// None after the end or an error.
    pages: Option<PageStream>,
    driver: Arc<Driver>,
}

impl Iterator for EncodedPages {
    type Item = Result<Vec<EncodedEntry>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut pages = self.pages.take()?;
        let taken = match pages.pieces.try_recv() {
            Ok(piece) => Ok((pages, Some(piece))),
            Err(_empty_or_ended) => self.driver.wait(async move {
                let piece = pages.pieces.recv().await;
                (pages, piece)
            }),
        };
        match taken {
            Ok((pages, Some(Ok(piece)))) => {
                self.pages = Some(pages);
                Some(Ok(piece.collect()))
            }
            Ok((_, Some(Err(error)))) | Err(error) => Some(Err(error)),
            Ok((_, None)) => None,
        }
    }
}

/// The bytes of one value, part by part.
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is read"]
pub struct EncodedParts {
    /// None after the end or an error.
    parts: Option<ByteStream>,
    driver: Arc<Driver>,
}

impl Iterator for EncodedParts {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut parts = self.parts.take()?;
        let taken = self.driver.wait(async move {
            let part = parts.next().await;
            (parts, part)
        });
        match taken {
            Ok((parts, Some(Ok(part)))) => {
                self.parts = Some(parts);
                Some(Ok(part))
            }
            Ok((_, Some(Err(error)))) | Err(error) => Some(Err(error)),
            Ok((_, None)) => None,
        }
    }
}
