//! What was answered to requests that change something, for as long as they may be sent again.

use std::collections::{BTreeMap, VecDeque};

use crate::log::OwnedReply;

/// The most answers that a client may leave unsettled.
pub(crate) const UNSETTLED_MAX: usize = 1024;

/// Beyond this many bytes of unsettled answers nothing more is applied: the client is told to
/// settle some first. One answer alone may be longer.
pub(crate) const UNSETTLED_BYTES_MAX: usize = 1 << 20;

/// No client comes to numbers beyond this, so none is skipped to.
const SKIPPED_TO_MAX: u64 = u64::MAX / 2;

/// What is to be done about a sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is the next: apply it, and remember its answer.
    Apply,
    /// It is the next, and must not be applied: remembered answers take too much already. Its
    /// answer is an error, remembered like any other.
    Crowded,
    /// It was applied before: this was the answer.
    Repeat(OwnedReply),
}

/// A sequence number that a client of this protocol would not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SequenceError {
    /// Numbers before it are missing.
    #[error("sequence number {given} where {expected} was expected")]
    Gap { given: u64, expected: u64 },
    /// The client said that it has this answer.
    #[error("sequence number {given} again, after all up to {settled} were settled")]
    Settled { given: u64, settled: u64 },
    /// What was never sent cannot have been answered.
    #[error("sequence numbers up to {given} settled, where {taken} was the last one sent")]
    Ahead { given: u64, taken: u64 },
    /// The client leaves too many answers unsettled.
    #[error("more than {UNSETTLED_MAX} answers unsettled")]
    TooMany,
}

/// The answers of one session: each number is applied once, in order, and its answer is kept
/// until the client says that it has it.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    /// The last number that was answered.
    taken: u64,
    /// The last number whose answer the client has.
    settled: u64,
    /// The answers between the two, in order.
    unsettled: VecDeque<OwnedReply>,
    /// The bytes of these.
    bytes: usize,
    /// The session is one of an earlier server, which answered more than its log tells of: this stands for what
    /// is lost of that. IMPORTANT: kept for good. What the log does not tell of may lie between requests that
    /// are sent again, not only behind what it tells of.
    lost: Option<OwnedReply>,
}

impl Replies {
    /// The answers that an earlier server's log tells of; `lost` stands for those between them that it does
    /// not tell of.
    pub(crate) fn restored(
        taken: u64,
        settled: u64,
        mut kept: BTreeMap<u64, OwnedReply>,
        lost: &OwnedReply,
    ) -> Self {
        let settled = settled.max(taken.saturating_sub(UNSETTLED_MAX as u64));
        let mut replies = Self {
            taken: settled,
            settled,
            lost: Some(lost.clone()),
            ..Self::default()
        };
        for number in settled + 1..=taken {
            replies.remember(kept.remove(&number).unwrap_or_else(|| lost.clone()));
        }
        replies
    }

    /// What the answers take that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the session is one of an earlier server.
    pub(crate) fn are_restored(&self) -> bool {
        self.lost.is_some()
    }

    /// The last number that was answered, and the last one whose answer the client has.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        (self.taken, self.settled)
    }

    /// Forgets the answers up to `settled`; tells how many bytes these had. A number that was settled before
    /// changes nothing: a request may be sent again as it first was.
    pub(crate) fn settle(&mut self, settled: u64) -> Result<usize, SequenceError> {
        let bytes_before = self.bytes;
        let may_skip = self.lost.is_some() && settled <= SKIPPED_TO_MAX;
        if settled > self.taken && may_skip {
            // An earlier server answered these: they were of temporary tables, or its machine failed.
            self.unsettled.clear();
            self.bytes = 0;
            (self.taken, self.settled) = (settled, settled);
        }
        if settled > self.taken {
            return Err(SequenceError::Ahead {
                given: settled,
                taken: self.taken,
            });
        }
        while self.settled < settled {
            let reply = self.unsettled.pop_front();
            self.bytes -= reply.map_or(0, |reply| reply.bytes().len());
            self.settled += 1;
        }
        Ok(bytes_before - self.bytes)
    }

    /// What is to be done about a number. Numbers before it that an earlier server answered are skipped: a
    /// client sends again in order, and leaves out only what it has an answer to.
    pub(crate) fn turn(&mut self, given: u64) -> Result<Turn, SequenceError> {
        let expected = self.taken + 1;
        if given > expected {
            let Some(lost) = self.lost.clone() else {
                return Err(SequenceError::Gap { given, expected });
            };
            if given - self.settled > UNSETTLED_MAX as u64 {
                return Err(SequenceError::TooMany);
            }
            (expected..given).for_each(|_| self.remember(lost.clone()));
        }
        if given == self.taken + 1 {
            return match () {
                () if self.unsettled.len() >= UNSETTLED_MAX => Err(SequenceError::TooMany),
                () if self.bytes > UNSETTLED_BYTES_MAX => Ok(Turn::Crowded),
                () => Ok(Turn::Apply),
            };
        }
        // What is unsettled begins right after what is settled, so that the number is an index.
        given
            .checked_sub(self.settled + 1)
            .and_then(|index| self.unsettled.get(usize::try_from(index).ok()?))
            .map(|reply| Turn::Repeat(reply.clone()))
            .ok_or(SequenceError::Settled {
                given,
                settled: self.settled,
            })
    }

    /// Keeps the answer to the next number, which was applied, or failed for good.
    pub(crate) fn remember(&mut self, reply: OwnedReply) {
        self.taken += 1;
        self.bytes += reply.bytes().len();
        self.unsettled.push_back(reply);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn body(bytes: impl Into<Bytes>) -> OwnedReply {
        OwnedReply::Body(bytes.into())
    }

    fn after(count: u64) -> Replies {
        let mut replies = Replies::default();
        for number in 1..=count {
            assert_eq!(replies.turn(number), Ok(Turn::Apply));
            replies.remember(body(vec![number as u8]));
        }
        replies
    }

    fn repeat(number: u8) -> Result<Turn, SequenceError> {
        Ok(Turn::Repeat(body(vec![number])))
    }

    #[test]
    fn each_number_is_applied_once_and_its_answer_repeated() {
        let mut replies = after(3);
        for number in 1..=3 {
            assert_eq!(replies.turn(u64::from(number)), repeat(number));
        }
        assert_eq!(replies.turn(4), Ok(Turn::Apply));
    }

    #[test]
    fn a_gap_is_an_error_and_takes_nothing() {
        let mut replies = after(2);
        assert_eq!(
            replies.turn(4),
            Err(SequenceError::Gap {
                given: 4,
                expected: 3
            })
        );
        assert_eq!(replies.turn(3), Ok(Turn::Apply));
    }

    #[test]
    fn what_is_settled_is_forgotten_and_never_applied_again() {
        let mut replies = after(5);
        replies.settle(3).unwrap();
        assert_eq!(
            replies.turn(3),
            Err(SequenceError::Settled {
                given: 3,
                settled: 3
            })
        );
        assert_eq!(
            replies.turn(0),
            Err(SequenceError::Settled {
                given: 0,
                settled: 3
            })
        );
        assert_eq!(replies.turn(4), repeat(4));
        replies.settle(2).unwrap();
        assert_eq!(
            replies.turn(4),
            repeat(4),
            "settling less than before changes nothing"
        );
        assert_eq!(
            replies.settle(6),
            Err(SequenceError::Ahead { given: 6, taken: 5 })
        );
        replies.settle(5).unwrap();
        assert_eq!((replies.bytes, replies.unsettled.len()), (0, 0));
        assert_eq!(replies.turn(6), Ok(Turn::Apply));
    }

    #[test]
    fn restored_answers_are_repeated_and_numbers_that_nobody_logged_are_skipped() {
        let lost = body(b"lost".as_slice());
        let kept = BTreeMap::from([(4, body(b"four".as_slice())), (6, body(Bytes::new()))]);
        let mut replies = Replies::restored(6, 3, kept, &lost);
        assert_eq!(replies.turn(4), Ok(Turn::Repeat(body(b"four".as_slice()))));
        assert_eq!(replies.turn(5), Ok(Turn::Repeat(lost)));
        assert_eq!(replies.turn(7), Ok(Turn::Apply));
        replies.settle(9).unwrap();
        assert_eq!(replies.turn(10), Ok(Turn::Apply));
        replies.remember(body(Bytes::new()));
        replies.settle(12).unwrap();
        assert_eq!(replies.turn(13), Ok(Turn::Apply));
        assert_eq!(
            replies.turn(12),
            Err(SequenceError::Settled {
                given: 12,
                settled: 12
            }),
            "what was skipped is never applied"
        );
    }

    #[test]
    fn what_an_earlier_server_answered_between_requests_that_are_sent_again_is_skipped() {
        let lost = body(b"lost".as_slice());
        // 11 was one of a temporary table, and answered; 12 was not.
        let mut replies = Replies::restored(10, 10, BTreeMap::new(), &lost);
        replies.settle(10).unwrap();
        assert_eq!(replies.turn(12), Ok(Turn::Apply));
        replies.remember(body(b"12".as_slice()));
        assert_eq!(replies.turn(11), Ok(Turn::Repeat(lost.clone())));
        assert_eq!(replies.turn(12), repeat_of(b"12"));

        // 10 was not answered either.
        let mut replies = Replies::restored(9, 9, BTreeMap::new(), &lost);
        for number in [10, 12, 13] {
            replies.settle(9).unwrap();
            assert_eq!(replies.turn(number), Ok(Turn::Apply));
            replies.remember(body(Bytes::new()));
        }
        replies.settle(12).unwrap();
        assert_eq!(replies.turn(14), Ok(Turn::Apply));
        replies.remember(body(Bytes::new()));
        assert_eq!(replies.turn(13), repeat_of(b""));
    }

    #[test]
    fn no_more_is_skipped_than_may_be_unsettled() {
        let mut replies = Replies::restored(5, 5, BTreeMap::new(), &body(Bytes::new()));
        let most = 5 + UNSETTLED_MAX as u64;
        assert_eq!(replies.turn(most + 1), Err(SequenceError::TooMany));
        assert_eq!(replies.turn(u64::MAX), Err(SequenceError::TooMany));
        assert!(replies.settle(u64::MAX).is_err());
        assert_eq!(replies.numbers(), (5, 5), "nothing was skipped");
        assert_eq!(replies.turn(most), Ok(Turn::Apply));
    }

    fn repeat_of(reply: &'static [u8]) -> Result<Turn, SequenceError> {
        Ok(Turn::Repeat(body(reply)))
    }

    #[test]
    fn answers_are_bounded_by_number() {
        let mut replies = Replies::default();
        for _ in 0..UNSETTLED_MAX {
            replies.remember(body(Bytes::new()));
        }
        let next = UNSETTLED_MAX as u64 + 1;
        assert_eq!(replies.turn(next), Err(SequenceError::TooMany));
        replies.settle(1).unwrap();
        assert_eq!(replies.turn(next), Ok(Turn::Apply));
    }

    #[test]
    fn answers_are_bounded_by_bytes_without_a_gap() {
        let mut replies = Replies::default();
        replies.remember(body(vec![0; UNSETTLED_BYTES_MAX + 1]));
        assert_eq!(replies.turn(2), Ok(Turn::Crowded));
        replies.remember(body(b"busy".as_slice()));
        assert_eq!(replies.turn(2), Ok(Turn::Repeat(body(b"busy".as_slice()))));
        replies.settle(1).unwrap();
        assert_eq!(replies.turn(3), Ok(Turn::Apply));
    }
}
