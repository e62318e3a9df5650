//! Writing past the cache: straight into full batches, which follow each other without waiting.

use std::{collections::VecDeque, fmt, marker::PhantomData};

use rhash_protocol::{
    Op, Ops, Request, Response,
    limits::{BATCH_BYTES_TARGET, BATCH_ENTRIES_MAX},
    packed::push_op,
};

use super::{RemoteHash, Types, encode_failed};
use crate::{
    client::Client,
    codec::{Codec, Counter, Element, EncodeAs, Item, List, Stored},
    error::{Error, ErrorKind, FailedKeys, Result},
    pipeline::{self, Patience, PendingReply},
};

/// Batches of one bulk that may wait for their answers.
const BATCHES_IN_FLIGHT_MAX: usize = 64;

/// Room in a batch's buffer for the operation that closes it.
const BATCH_SLACK_BYTES: usize = 4 * 1024;

/// Writes many entries past the cache.
///
/// The writing methods only encode; [`send`](Self::send) hands a batch over when
/// [`is_full`](Self::is_full) says so, and waits for room only; [`finish`](Self::finish) waits for
/// all answers. Batches are applied in their order, each whole or not at all. Reads see what was
/// sent and answered. Several bulks, one a thread, can feed one table.
///
/// What is written and not yet sent when a bulk is dropped is lost.
#[must_use = "what is not finished is not known to be written"]
pub struct Bulk<K, V, C> {
    table: RemoteHash<K, V, C>,
    batch: Vec<u8>,
    count: u32,
    key: Vec<u8>,
    value: Vec<u8>,
    in_flight: VecDeque<(PendingReply, Vec<u8>, u32)>,
    /// Buffers of answered batches.
    spare: Vec<Vec<u8>>,
    written: u64,
    types: Types<K, V, C>,
}

impl<K, V, C> fmt::Debug for Bulk<K, V, C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Bulk")
            .field("table", &self.table)
            .field("count", &self.count)
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}

impl<K: Item<C>, V: Stored<C>, C: Codec> Bulk<K, V, C> {
    pub(crate) fn new(table: &RemoteHash<K, V, C>) -> Self {
        Self {
            table: table.clone(),
            batch: Vec::with_capacity(BATCH_BYTES_TARGET + BATCH_SLACK_BYTES),
            count: 0,
            key: Vec::new(),
            value: Vec::new(),
            in_flight: VecDeque::new(),
            spare: Vec::new(),
            written: 0,
            types: PhantomData,
        }
    }

    fn client(&self) -> &Client {
        self.table.client()
    }

    /// Sets a value.
    ///
    /// # Errors
    /// [`ErrorKind::KeyTooLarge`], [`ErrorKind::ValueTooLarge`] or [`ErrorKind::Encode`]; the batch
    /// is as before.
    pub fn insert(&mut self, key: impl EncodeAs<K, C>, value: impl EncodeAs<V, C>) -> Result<()> {
        self.encode_key(&key)?;
        self.encode_value(&value)?;
        push_op(
            &mut self.batch,
            &Op::Put {
                key: &self.key,
                value: &self.value,
            },
        );
        self.count += 1;
        Ok(())
    }

    /// Removes an entry, if there is one.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub fn discard(&mut self, key: impl EncodeAs<K, C>) -> Result<()> {
        self.encode_key(&key)?;
        push_op(&mut self.batch, &Op::Discard { key: &self.key });
        self.count += 1;
        Ok(())
    }

    /// Whether the batch should be sent before more is written.
    pub fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_BYTES_TARGET || self.count as usize >= BATCH_ENTRIES_MAX
    }

    /// Hands the batch to the pipeline; waits until there is room for it in flight.
    ///
    /// # Errors
    /// Why an earlier batch was refused, with the first of its keys; what was written since is not
    /// sent then.
    pub async fn send(&mut self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        while self.in_flight.len() >= BATCHES_IN_FLIGHT_MAX {
            self.take_answer().await?;
        }
        let core = self.table.core();
        core.check()?;
        let cache = &core.client.cache;
        if !cache.settled_up_to(core.slot, u64::MAX) {
            // What was written through the cache before comes before.
            core.flush().await?;
        }
        cache.forget_clean(core.slot);
        let ops = Ops::new(self.count, &self.batch);
        let request = Request::Write {
            table: core.id,
            ops,
        };
        let reply = core
            .client
            .pipeline
            .send(request, Patience::Bounded)
            .await?;
        let empty = self.spare.pop().unwrap_or_default();
        let batch = std::mem::replace(&mut self.batch, empty);
        self.in_flight.push_back((reply, batch, self.count));
        self.count = 0;
        Ok(())
    }

    /// Sends the rest and waits for all answers; returns how many writes there were.
    ///
    /// # Errors
    /// Why a batch was refused, with the first of its keys: batches before it are applied, those
    /// after it may be. [`ErrorKind::SessionExpired`] and [`ErrorKind::Timeout`] leave it open
    /// whether it was applied.
    pub async fn finish(mut self) -> Result<u64> {
        self.send().await?;
        while !self.in_flight.is_empty() {
            self.take_answer().await?;
        }
        Ok(self.written)
    }

    async fn take_answer(&mut self) -> Result<()> {
        let Some((reply, mut batch, count)) = self.in_flight.pop_front() else {
            return Ok(());
        };
        let core = self.table.core();
        let answer = core.client.pipeline.wait(reply, Patience::Bounded).await;
        core.client.cache.forget_clean(core.slot);
        let result = match &answer {
            Ok(reply) => match reply.response() {
                Ok(Response::Written(_)) => Ok(()),
                Ok(other) => Err(pipeline::unexpected(&other)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = result {
            core.note(&error);
            let ops = Ops::new(count, &batch);
            let keys: FailedKeys = ops.iter().flatten().map(|op| op.key()).collect();
            return Err(error.about(keys));
        }
        self.written += u64::from(count);
        batch.clear();
        self.spare.push(batch);
        Ok(())
    }

    fn encode_key(&mut self, key: &impl EncodeAs<K, C>) -> Result<()> {
        self.key.clear();
        key.encode_key(&mut self.key).map_err(encode_failed)?;
        let (bytes, limit) = (self.key.len(), self.client().core.key_bytes_max);
        if bytes > limit {
            let text = format!("a key of {bytes} bytes is over the limit of {limit}");
            return Err(Error::new(ErrorKind::KeyTooLarge, text));
        }
        Ok(())
    }

    fn encode_value<W>(&mut self, value: &impl EncodeAs<W, C>) -> Result<()> {
        self.value.clear();
        value.encode_value(&mut self.value).map_err(encode_failed)?;
        let (bytes, limit) = (self.value.len(), self.client().core.value_bytes_max);
        if bytes > limit {
            let text = format!("a value of {bytes} bytes is over the limit of {limit}");
            return Err(Error::new(ErrorKind::ValueTooLarge, text));
        }
        Ok(())
    }
}

impl<K: Item<C>, T: Element<C>, C: Codec> Bulk<K, List<T>, C>
where
    List<T>: Stored<C>,
{
    /// Adds items to the end of a list.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub fn append(
        &mut self,
        key: impl EncodeAs<K, C>,
        items: impl EncodeAs<List<T>, C>,
    ) -> Result<()> {
        self.encode_key(&key)?;
        self.encode_value::<List<T>>(&items)?;
        push_op(
            &mut self.batch,
            &Op::Append {
                key: &self.key,
                bytes: &self.value,
            },
        );
        self.count += 1;
        Ok(())
    }
}

impl<K: Item<C>, C: Codec> Bulk<K, Counter, C> {
    /// Adds to a counter.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert).
    pub fn add(&mut self, key: impl EncodeAs<K, C>, delta: i64) -> Result<()> {
        self.encode_key(&key)?;
        push_op(
            &mut self.batch,
            &Op::Add {
                key: &self.key,
                delta,
            },
        );
        self.count += 1;
        Ok(())
    }
}
