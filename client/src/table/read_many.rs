//! Reads of many keys, in two steps: asked for, and taken. Between the two a caller can do other
//! things, such as asking for more keys, while the server works.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use rhash_protocol::{
    Keys, Request, Response, Slot,
    limits::{BATCH_BYTES_TARGET, BATCH_ENTRIES_MAX},
    packed::{Malformed, push_bytes},
};

use super::{
    TableCore,
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
    /// The answer about the first of these, when it comes.
    asked: Option<PendingReply>,
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

    /// As many keys as one request takes, of those that are missing.
    fn pack_missing(&self) -> (u32, Vec<u8>) {
        let mut packed = Vec::new();
        let mut count = 0;
        let keys = self.missing.iter().map(|&(at, _)| &self.values[at].0);
        for key in keys.take(BATCH_ENTRIES_MAX) {
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
    /// What the cache says of keys, and which of them it does not know. Never waits.
    pub(crate) fn look_many(&self, keys: Vec<Vec<u8>>) -> Result<ManyRead> {
        self.check()?;
        let looks = self.client.cache.look_many(self.slot, &keys);
        let mut read = ManyRead {
            values: Vec::with_capacity(keys.len()),
            missing: VecDeque::new(),
            asked: None,
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
            read = self.look_many(keys)?;
        }
        if !read.missing.is_empty() {
            read.asked = Some(self.ask_for(&read).await?);
        }
        Ok(read)
    }

    /// The values of keys that were asked for, in their order.
    pub(crate) async fn finish_many(
        self: &Arc<Self>,
        mut read: ManyRead,
        keep: Keep,
    ) -> Result<Values> {
        while !read.missing.is_empty() {
            let asked = match read.asked.take() {
                Some(asked) => asked,
                // The answer before was shorter than the question.
                None => self.ask_for(&read).await?,
            };
            let reply = self.client.pipeline.wait(asked, Patience::Bounded).await;
            self.take_answer(&mut read, &self.take_note(reply)?, keep)
                .await?;
        }
        Ok(read.values)
    }

    /// The values of keys, in their order.
    pub(crate) async fn get_many(
        self: &Arc<Self>,
        keys: Vec<Vec<u8>>,
        keep: Keep,
    ) -> Result<Vec<Option<Bytes>>> {
        let read = self.begin_many(self.look_many(keys)?).await?;
        let values = self.finish_many(read, keep).await?;
        Ok(values.into_iter().map(|(_, value)| value).collect())
    }

    /// Takes an answer about the first keys that are missing.
    async fn take_answer(
        self: &Arc<Self>,
        read: &mut ManyRead,
        reply: &pipeline::Reply,
        keep: Keep,
    ) -> Result<()> {
        let Response::Values(slots) = reply.response()? else {
            return Err(pipeline::unexpected(&reply.response()?));
        };
        let mut answered = 0;
        for slot in slots.iter() {
            let slot = slot.map_err(malformed)?;
            let Some((at, mark)) = read.missing.pop_front() else {
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
        Ok(())
    }

    async fn ask_for(&self, read: &ManyRead) -> Result<PendingReply> {
        let (count, packed) = read.pack_missing();
        let request = Request::Get {
            table: self.id,
            keys: Keys::new(count, &packed),
        };
        self.client.pipeline.send(request, Patience::Bounded).await
    }
}
