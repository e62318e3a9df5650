//! Writes: blind ones through the cache, conditional ones on the server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rhash_protocol::{Op, Ops, Outcome as WireOutcome, Request, Response, packed::push_op};

use super::{
    TableCore,
    read::{malformed, without_slot},
};
use crate::{
    cache::{CachedOp, Written},
    config::CachePolicy,
    error::{ErrorKind, Result},
    pipeline::{self, Reply},
};

/// The waits before a write that found the server busy is sent again.
const BUSY_WAIT_MIN: Duration = Duration::from_millis(2);
const BUSY_WAIT_MAX: Duration = Duration::from_millis(250);

/// A write that the server decides on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    PutIfAbsent(Bytes),
    Replace(Bytes),
    CompareAndSwap {
        expected: Option<Bytes>,
        new: Option<Bytes>,
    },
    Remove,
    AddAndGet(i64),
}

/// What the server decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Absent,
    Value(Bytes),
    Swapped,
}

impl TableCore {
    /// A blind write into the cache, if it can take it without waiting; else gives it back.
    pub(crate) fn write_cached(&self, key: &[u8], op: CachedOp) -> Result<Option<CachedOp>> {
        self.check()?;
        if self.policy != CachePolicy::WriteBack {
            return Ok(Some(op));
        }
        match self.client.cache.write(self.slot, key, op) {
            Written::Cached => Ok(None),
            Written::FlushNow => {
                self.client.cache.flush_wanted.notify_one();
                Ok(None)
            }
            Written::NoRoom(op) | Written::Behind(op) | Written::TooLarge(op) => Ok(Some(op)),
        }
    }

    /// A blind write.
    pub(crate) async fn write(self: &Arc<Self>, key: Vec<u8>, op: CachedOp) -> Result<()> {
        self.check()?;
        if self.policy != CachePolicy::WriteBack {
            return self.write_direct(key, op).await;
        }
        let mut op = Some(op);
        loop {
            let Some(next) = op.take() else { return Ok(()) };
            match self.client.cache.write(self.slot, &key, next) {
                Written::Cached => {}
                Written::FlushNow => self.client.cache.flush_wanted.notify_one(),
                Written::Behind(back) => {
                    self.sync_key(&key).await?;
                    op = Some(back);
                }
                Written::TooLarge(back) => return self.write_direct(key, back).await,
                Written::NoRoom(back) => {
                    let mut waiting = Some(back);
                    op = self
                        .wait_for_room(|| self.try_room(&key, &mut waiting))
                        .await?;
                }
            }
        }
    }

    /// Tries again to write what found no room: `None` if there is still none, else what is left
    /// to be written in another way.
    fn try_room(&self, key: &[u8], waiting: &mut Option<CachedOp>) -> Option<Option<CachedOp>> {
        match self.client.cache.write(self.slot, key, waiting.take()?) {
            Written::NoRoom(back) => {
                *waiting = Some(back);
                None
            }
            Written::Behind(back) | Written::TooLarge(back) => Some(Some(back)),
            Written::Cached | Written::FlushNow => {
                self.client.cache.flush_wanted.notify_one();
                Some(None)
            }
        }
    }

    /// A blind write past the cache, which waits for the server.
    async fn write_direct(self: &Arc<Self>, key: Vec<u8>, op: CachedOp) -> Result<()> {
        self.check_gone()?;
        self.sync_key(&key).await?;
        let mut packed = Vec::new();
        let count = op.push(without_slot(&key), self.client.value_bytes_max, &mut packed);
        let cache = &self.client.cache;
        let mark = cache.touch(self.slot, &key);
        let written = self.send_write(Ops::new(count, &packed)).await;
        let keeps = self.policy == CachePolicy::WriteThrough && written.is_ok();
        match op.known() {
            Some(value) if keeps => {
                cache.install_written(self.slot, key.into(), value.cloned(), mark);
            }
            _ => drop(cache.touch(self.slot, &key)),
        }
        match written?.response()? {
            Response::Written(_) => Ok(()),
            other => Err(pipeline::unexpected(&other)),
        }
    }

    /// Sends a batch by itself. A server that is busy has not applied it and says so for good, so
    /// that it can go again under a new number.
    async fn send_write(&self, ops: Ops<'_>) -> Result<Reply> {
        let begun = Instant::now();
        let mut wait = BUSY_WAIT_MIN;
        loop {
            let request = Request::Write {
                table: self.id,
                ops,
            };
            match self.call(request).await {
                Err(error)
                    if error.kind() == ErrorKind::Busy
                        && begun.elapsed() < self.client.retry_deadline =>
                {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BUSY_WAIT_MAX);
                }
                result => return result,
            }
        }
    }

    /// A write that the server decides on.
    pub(crate) async fn decide(
        self: &Arc<Self>,
        key: Vec<u8>,
        condition: Condition,
    ) -> Result<Outcome> {
        self.check()?;
        self.sync_key(&key).await?;
        let mut packed = Vec::new();
        push_op(&mut packed, &condition.op(without_slot(&key)));
        let cache = &self.client.cache;
        let mark = cache.touch(self.slot, &key);
        let outcome = match self.send_write(Ops::new(1, &packed)).await {
            Ok(reply) => match reply.response()? {
                Response::Written(outcomes) => match outcomes.iter().next() {
                    Some(Ok(WireOutcome::Absent)) => Ok(Outcome::Absent),
                    Some(Ok(WireOutcome::Value(value))) => Ok(Outcome::Value(reply.slice(value))),
                    Some(Ok(WireOutcome::Swapped)) => Ok(Outcome::Swapped),
                    Some(Err(error)) => Err(malformed(error)),
                    None => Err(malformed(rhash_protocol::packed::Malformed("no outcome"))),
                },
                other => Err(pipeline::unexpected(&other)),
            },
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(decided) if self.policy != CachePolicy::None => {
                let value = condition.value_after(decided);
                cache.install_written(self.slot, key.into(), value, mark);
            }
            _ => drop(cache.touch(self.slot, &key)),
        }
        outcome
    }

    /// Removes all entries.
    pub(crate) async fn clear(self: &Arc<Self>) -> Result<()> {
        self.check()?;
        self.flush().await?;
        self.client.cache.forget_clean(self.slot);
        let cleared = self.done(Request::Clear { table: self.id }).await;
        self.client.cache.forget_clean(self.slot);
        cleared
    }
}

impl Condition {
    fn op<'a>(&'a self, key: &'a [u8]) -> Op<'a> {
        match self {
            Self::PutIfAbsent(value) => Op::PutIfAbsent { key, value },
            Self::Replace(value) => Op::Replace { key, value },
            Self::CompareAndSwap { expected, new } => Op::CompareAndSwap {
                key,
                expected: expected.as_deref(),
                new: new.as_deref(),
            },
            Self::Remove => Op::Remove { key },
            Self::AddAndGet(delta) => Op::AddAndGet { key, delta: *delta },
        }
    }

    /// The entry's value after this outcome.
    fn value_after(self, outcome: &Outcome) -> Option<Bytes> {
        match (self, outcome) {
            (Self::PutIfAbsent(value), Outcome::Absent) => Some(value),
            (Self::Replace(value), Outcome::Value(_)) => Some(value),
            (Self::CompareAndSwap { new, .. }, Outcome::Swapped) => new,
            (Self::Remove, _) | (_, Outcome::Absent | Outcome::Swapped) => None,
            (_, Outcome::Value(found)) => Some(found.clone()),
        }
    }
}
