//! The calls that wait for an answer: their numbers, their order, and what is sent again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use rhash_protocol::{Call, Request, codec};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::error::{Error, ErrorKind, Result};

/// Names a call on the wire.
pub(super) type CallId = u64;

/// Where the answer to a call goes.
#[derive(Debug)]
pub(super) enum Answer {
    /// One message.
    Message(oneshot::Sender<Result<Bytes>>),
    /// The bytes of one value, part by part.
    Stream(StreamAnswer),
    /// Nowhere: whoever asked is gone, or was told an error.
    Nowhere,
}

/// The receiving end of a stream, and how far it is.
#[derive(Debug)]
pub(super) struct StreamAnswer {
    pub(super) parts: mpsc::Sender<StreamPart>,
    /// Bytes of the value that were passed on.
    pub(super) passed: u64,
    /// Bytes still to come that were passed on before a reconnect.
    pub(super) skip: u64,
}

/// What a stream's reader gets. Where the channel closes without `End` or `Failed`, the reader was
/// too slow while others waited, and asks again from where it is.
#[derive(Debug)]
pub(crate) enum StreamPart {
    /// Whether there is a value; comes first.
    Present(bool),
    /// Its next bytes.
    Bytes(Bytes),
    /// That was all.
    End,
    /// It ends too early.
    Failed(Error),
}

/// What becomes of a call when the connection is lost before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is sent again over the next one, unless the server stays away for too long.
    Resent,
    /// It is sent again, however long the server is away.
    Kept,
    /// Its caller is told, and nobody sends it again.
    Failed,
}

/// A call that is not answered.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its number among those that change something; 0 for others.
    pub(super) sequence: u64,
    body: Bytes,
    pub(super) answer: Answer,
    fate: Fate,
    /// Its share of the bytes in flight.
    _room: OwnedSemaphorePermit,
}

/// All calls of a session.
#[derive(Debug, Default)]
pub(super) struct Calls {
    id_last: CallId,
    sequence_last: u64,
    /// Sequence numbers that are not answered.
    open_sequences: BTreeSet<u64>,
    /// In the order in which they were made, which is the order of their sequence numbers too.
    waiting: BTreeMap<CallId, Waiting>,
    to_send: VecDeque<CallId>,
}

impl Calls {
    /// All sequence numbers up to and with this one are answered.
    pub(super) fn settled(&self) -> u64 {
        self.open_sequences
            .first()
            .map_or(self.sequence_last, |first| first - 1)
    }

    /// Whether another sequenced call keeps the answers that the server must remember within
    /// `unsettled_max`.
    pub(super) fn has_window(&self, unsettled_max: u64) -> bool {
        self.sequence_last - self.settled() < unsettled_max
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Gives a call its numbers and puts it at the end of what is to be sent.
    pub(super) fn push(
        &mut self,
        request: Request<'_>,
        answer: Answer,
        fate: Fate,
        room: OwnedSemaphorePermit,
    ) -> Result<CallId> {
        let settled = self.settled();
        let sequence = if request.is_sequenced() {
            self.sequence_last + 1
        } else {
            0
        };
        let mut body = Vec::new();
        if let Request::Write { ops, .. } = &request {
            body.reserve(ops.bytes().len() + CALL_BYTES);
        }
        codec::encode(
            &Call {
                sequence,
                settled,
                request,
            },
            &mut body,
        )
        .map_err(|error| Error::with_source(ErrorKind::Protocol, error.to_string(), error))?;
        if sequence > 0 {
            self.sequence_last = sequence;
            self.open_sequences.insert(sequence);
        }
        self.id_last += 1;
        let waiting = Waiting {
            sequence,
            body: body.into(),
            answer,
            fate,
            _room: room,
        };
        self.waiting.insert(self.id_last, waiting);
        self.to_send.push_back(self.id_last);
        Ok(self.id_last)
    }

    /// The next call to send.
    pub(super) fn next_to_send(&mut self) -> Option<(CallId, Bytes)> {
        loop {
            let id = self.to_send.pop_front()?;
            if let Some(waiting) = self.waiting.get(&id) {
                return Some((id, waiting.body.clone()));
            }
        }
    }

    pub(super) fn has_to_send(&self) -> bool {
        !self.to_send.is_empty()
    }

    /// The call was answered, whole.
    pub(super) fn finish(&mut self, id: CallId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.open_sequences.remove(&waiting.sequence);
        Some(waiting)
    }

    pub(super) fn answer_mut(&mut self, id: CallId) -> Option<&mut Answer> {
        self.waiting.get_mut(&id).map(|waiting| &mut waiting.answer)
    }

    /// The connection was lost and there is another: all that is not answered goes out again, in
    /// its order and under its numbers, apart from reads that nobody waits for.
    pub(super) fn resend(&mut self) {
        self.waiting
            .retain(|_, waiting| waiting.sequence > 0 || !waiting.is_abandoned());
        for waiting in self.waiting.values_mut() {
            if let Answer::Stream(stream) = &mut waiting.answer {
                stream.skip = stream.passed;
            }
        }
        self.to_send = self.waiting.keys().copied().collect();
    }

    /// The session is over: gives all its calls, and begins the numbers of the next one.
    pub(super) fn expire(&mut self) -> Vec<Waiting> {
        let id_last = self.id_last;
        let old = std::mem::take(self);
        self.id_last = id_last;
        old.waiting.into_values().collect()
    }

    /// The connection was lost: gives the calls that are not to be sent again.
    pub(super) fn lost(&mut self) -> Vec<Waiting> {
        let is_lost =
            |(id, waiting): (&CallId, &Waiting)| (waiting.fate == Fate::Failed).then_some(*id);
        let lost: Vec<CallId> = self.waiting.iter().filter_map(is_lost).collect();
        lost.into_iter().filter_map(|id| self.finish(id)).collect()
    }

    /// Whoever is not patient is to be told that the server is away. Calls that change something
    /// stay, to be sent again under their numbers: nobody knows whether they were applied.
    pub(super) fn impatient(&mut self) -> Vec<Answer> {
        let mut told = Vec::new();
        self.waiting.retain(|_, waiting| {
            if waiting.fate == Fate::Kept {
                return true;
            }
            told.push(std::mem::replace(&mut waiting.answer, Answer::Nowhere));
            waiting.sequence > 0
        });
        told
    }
}

/// What a write's envelope takes at most.
const CALL_BYTES: usize = 64;

impl Waiting {
    fn is_abandoned(&self) -> bool {
        match &self.answer {
            Answer::Message(sender) => sender.is_closed(),
            Answer::Stream(stream) => stream.parts.is_closed(),
            Answer::Nowhere => true,
        }
    }
}

impl Answer {
    /// Tells whoever waits that there will be no answer.
    pub(super) fn fail(self, error: Error) {
        // A receiver that is gone needs no answer.
        match self {
            Self::Message(sender) => drop(sender.send(Err(error))),
            Self::Stream(stream) => drop(stream.parts.try_send(StreamPart::Failed(error))),
            Self::Nowhere => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    fn push(calls: &mut Calls, request: Request<'_>) -> (CallId, oneshot::Receiver<Result<Bytes>>) {
        let (sender, receiver) = oneshot::channel();
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (
            calls
                .push(request, Answer::Message(sender), Fate::Resent, room)
                .unwrap(),
            receiver,
        )
    }

    const CLEAR: Request<'_> = Request::Clear { table: 1 };

    #[test]
    fn settled_stops_below_the_first_open_number() {
        let mut calls = Calls::default();
        let (first, _first) = push(&mut calls, CLEAR);
        let (_, _read) = push(&mut calls, Request::Ping);
        let (second, _second) = push(&mut calls, CLEAR);
        assert_eq!(calls.settled(), 0);
        assert!(calls.has_window(3) && !calls.has_window(2));
        calls.finish(second).unwrap();
        assert_eq!(calls.settled(), 0, "the first is still open");
        calls.finish(first).unwrap();
        assert_eq!(calls.settled(), 2);
    }

    #[test]
    fn a_resend_keeps_order_and_numbers_and_drops_abandoned_reads() {
        let mut calls = Calls::default();
        let (_, _kept) = push(&mut calls, CLEAR);
        let (_, abandoned_read) = push(&mut calls, Request::Ping);
        let (_, abandoned_write) = push(&mut calls, CLEAR);
        let (_, _read) = push(&mut calls, Request::Ping);
        drop((abandoned_read, abandoned_write));
        let drain =
            |calls: &mut Calls| -> Vec<_> { std::iter::from_fn(|| calls.next_to_send()).collect() };
        let sent = drain(&mut calls);
        calls.resend();
        let again = drain(&mut calls);
        assert_eq!(again, [sent[0].clone(), sent[2].clone(), sent[3].clone()]);
    }
}
