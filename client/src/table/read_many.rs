//! Reads of many keys, in two steps: asked for, and taken. Between the two a caller can do other
//! things, such as asking for more keys, while the server works. What is taken at once is asked for in
//! pieces, some of them ahead.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;
use rhash_protocol::{
    Keys, Request, Response, Slot,
    limits::{BATCH_BYTES_TARGET, BATCH_ENTRIES_MAX},
    packed::{Malformed, push_bytes},
};

use super::{
    TableCore,
    pieces::{PIECES_UNDER_WAY_MAX, Pieces},
    read::{Keep, malformed, without_slot},
};
use crate::{
    cache::{Look, ReadMark},
    error::Result,
    pipeline::{self, Patience, PendingReply},
};

/// Keys as the cache has them, each with its value.
pub(crate) type Values = Vec<(Vec<u8>, Option<Bytes>)>;

/// A read of many keys that was begun.
#[derive(Debug)]
pub(crate) struct ManyRead {
    /// The keys, with what is known of them so far.
    values: Values,
    /// The numbers of those keys that the server must be asked for, in order, with the marks under
    /// which the cache may keep what it says.
    missing: VecDeque<(usize, Option<ReadMark>)>,
    /// What the server was asked: about the first of these, about those behind them, and so on.
    asked: VecDeque<Asked>,
    /// How many it is asked for at once.
    pieces: Pieces,
}

/// What one request asks.
#[derive(Debug)]
struct Asked {
    keys: usize,
    at: Instant,
    reply: PendingReply,
}

impl ManyRead {
    /// What the cache says, if that is all.
    pub(crate) fn into_known(self) -> Result<Values, Self> {
        if self.missing.is_empty() {
            Ok(self.values)
        } else {
            Err(self)
        }
    }

    /// How many of those that are missing the server was asked for.
    fn asked_keys(&self) -> usize {
        self.asked.iter().map(|asked| asked.keys).sum()
    }

    /// Keys that are missing, from this one on: so many, or as many as one request takes.
    fn pack_missing(&self, from: usize, keys_max: usize) -> (u32, Vec<u8>) {
        let mut packed = Vec::new();
        let mut count = 0;
        let missing = self.missing.range(from..);
        let keys = missing.map(|&(at, _)| &self.values[at].0);
        for key in keys.take(keys_max.min(BATCH_ENTRIES_MAX)) {
            if count > 0 && packed.len() + key.len() > BATCH_BYTES_TARGET {
                break;
            }
            push_bytes(&mut packed, without_slot(key));
            count += 1;
        }
        (count, packed)
    }
}

impl TableCore {
    /// How a read of so many keys is best cut into pieces.
    pub(crate) fn pieces(&self, keys: Option<usize>) -> Pieces {
        Pieces::of(keys, &self.pace)
    }

    /// What the cache says of keys, and which of them it does not know. Never waits.
    pub(crate) fn look_many(&self, keys: Vec<Vec<u8>>) -> Result<ManyRead> {
        self.check()?;
        let looks = self.client.cache.look_many(self.slot, &keys);
        let mut read = ManyRead {
            values: Vec::with_capacity(keys.len()),
            missing: VecDeque::new(),
            asked: VecDeque::new(),
            pieces: Pieces::longest(),
        };
        for (at, (key, look)) in keys.into_iter().zip(looks).enumerate() {
            let known = match look {
                Look::Value(known) => known,
                Look::Fragments => {
                    read.missing.push_back((at, None));
                    None
                }
                Look::Miss(mark) => {
                    read.missing.push_back((at, Some(mark)));
                    None
                }
            };
            read.values.push((key, known));
        }
        Ok(read)
    }

    /// Asks the server for what the cache does not know, and does not wait for its answer.
    pub(crate) async fn begin_many(self: &Arc<Self>, mut read: ManyRead) -> Result<ManyRead> {
        if read.missing.iter().any(|(_, mark)| mark.is_none()) {
            self.flush().await?;
            let keys = read.values.into_iter().map(|(key, _)| key).collect();
            let pieces = read.pieces;
            read = self.look_many(keys)?;
            read.pieces = pieces;
        }
        self.ask_ahead(&mut read).await?;
        Ok(read)
    }

    /// The values of keys that were asked for, in their order.
    pub(crate) async fn finish_many(
        self: &Arc<Self>,
        mut read: ManyRead,
        keep: Keep,
    ) -> Result<Values> {
        loop {
            self.ask_ahead(&mut read).await?;
            let Some(Asked { keys, at, reply }) = read.asked.pop_front() else {
                return Ok(read.values);
            };
            let reply = self.client.pipeline.wait(reply, Patience::Bounded).await;
            self.pace.note(keys, at.elapsed());
            let reply = self.take_note(reply)?;
            let answered = self.take_answer(&mut read, keys, &reply, keep).await?;
            if answered < keys {
                // The answer is shorter than the question: the rest comes before what was asked for since.
                let again = self.ask_for(&read, 0, keys - answered).await?;
                read.asked.push_front(again);
            }
        }
    }

    /// The values of keys, in their order; of many, in pieces that overlap.
    pub(crate) async fn get_many(
        self: &Arc<Self>,
        keys: Vec<Vec<u8>>,
        keep: Keep,
    ) -> Result<Vec<Option<Bytes>>> {
        let mut read = self.look_many(keys)?;
        read.pieces = self.pieces(Some(read.missing.len()));
        let read = self.begin_many(read).await?;
        let values = self.finish_many(read, keep).await?;
        Ok(values.into_iter().map(|(_, value)| value).collect())
    }

    /// Takes an answer about the first keys that are missing, of which it was asked for so many; says how many it is about.
    async fn take_answer(
        self: &Arc<Self>,
        read: &mut ManyRead,
        keys: usize,
        reply: &pipeline::Reply,
        keep: Keep,
    ) -> Result<usize> {
        let Response::Values(slots) = reply.response()? else {
            return Err(pipeline::unexpected(&reply.response()?));
        };
        let mut answered = 0;
        for slot in slots.iter() {
            let slot = slot.map_err(malformed)?;
            let is_asked = answered < keys;
            let Some((at, mark)) = is_asked.then(|| read.missing.pop_front()).flatten() else {
                return Err(malformed(Malformed("more values than keys")));
            };
            let (key, value) = &mut read.values[at];
            *value = match slot {
                Slot::Absent => None,
                Slot::Value(value) => Some(reply.slice(value)),
                Slot::Large(_) => self.fetch_whole(without_slot(key)).await?,
            };
            self.keep(key, value.as_ref(), mark, keep);
            answered += 1;
        }
        if answered == 0 {
            return Err(malformed(Malformed("no value for the first key")));
        }
        Ok(answered)
    }

    /// Asks for the next pieces, of which some may be under way.
    async fn ask_ahead(&self, read: &mut ManyRead) -> Result<()> {
        while read.asked.len() < PIECES_UNDER_WAY_MAX {
            let from = read.asked_keys();
            if from >= read.missing.len() {
                break;
            }
            let asked = self.ask_for(read, from, read.pieces.keys()).await?;
            read.asked.push_back(asked);
            read.pieces.next();
        }
        Ok(())
    }

    async fn ask_for(&self, read: &ManyRead, from: usize, keys_max: usize) -> Result<Asked> {
        let (count, packed) = read.pack_missing(from, keys_max);
        let request = Request::Get {
            table: self.id,
            keys: Keys::new(count, &packed),
        };
        let reply = self.client.pipeline.send(request, Patience::Bounded);
        Ok(Asked {
            keys: count as usize,
            at: Instant::now(),
            reply: reply.await?,
        })
    }
}
