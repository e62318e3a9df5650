//! Answers that are kept since they may be asked for again: what they take, and what they may.
//!
//! Sessions and the log's ledger keep the same bytes, which are charged once, from when there is room for them
//! until the last that keeps them lets go. So this account needs nobody to tell it that they are settled.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use rhash_protocol::{ErrorCode, WireError};

/// What an answer takes beyond its bytes: counts, the account, an entry with its session and one in the ledger.
const KEPT_BYTES: usize = 192;
/// An answer of so many bytes is kept in any case: sessions have a bound for how many they leave unsettled.
const SHORT_BYTES: usize = 256;
/// While less than this part is taken, a session that has nothing unsettled may overdraw, so that any value can
/// be an answer.
const ALONE_SHARE: usize = 2;

/// The account of all answers of a server that are kept.
#[derive(Debug, Clone)]
pub(crate) struct KeptAccount {
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Room for an answer, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct KeptRoom {
    account: KeptAccount,
    bytes: usize,
}

/// An answer's bytes, and their room.
struct Kept {
    bytes: Bytes,
    _room: KeptRoom,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Default for KeptAccount {
    /// An account without a bound.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl KeptAccount {
    /// An account that long answers do not take beyond `bytes_max`, but for one.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Arc::default(),
            bytes_max,
        }
    }

    /// What they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Takes room for an answer of at most so many bytes, for a session of whose answers so many are kept. A
    /// session takes no more than it leaves, so that a crowd that settles nothing leaves room for those who do.
    ///
    /// # Errors
    /// `Busy` if there is none now.
    pub(crate) fn take(&self, bytes: usize, session_bytes: usize) -> Result<KeptRoom, WireError> {
        let mut taken = self.bytes();
        loop {
            let left = self.bytes_max.saturating_sub(taken);
            let fits = bytes.saturating_mul(2).saturating_add(session_bytes) <= left;
            let alone = session_bytes == 0 && taken <= self.bytes_max / ALONE_SHARE;
            if bytes > SHORT_BYTES && !fits && !alone {
                return Err(self.refusal(bytes, taken));
            }
            let next = taken.saturating_add(bytes);
            match self
                .bytes
                .compare_exchange_weak(taken, next, Relaxed, Relaxed)
            {
                Ok(_) => {
                    return Ok(KeptRoom {
                        account: self.clone(),
                        bytes,
                    });
                }
                Err(now) => taken = now,
            }
        }
    }

    /// Keeps an answer for which nobody can be refused.
    pub(crate) fn keep(&self, bytes: Bytes) -> Bytes {
        let room = KeptRoom {
            account: self.clone(),
            bytes: 0,
        };
        room.keep(bytes)
    }

    fn refusal(&self, bytes: usize, taken: usize) -> WireError {
        WireError {
            code: ErrorCode::Busy,
            text: format!(
                "an answer of up to {bytes} bytes cannot be kept: answers that are not settled take {taken} \
                 of {} bytes; try again, or give the server a larger --mem-limit",
                self.bytes_max
            ),
        }
    }
}

impl KeptRoom {
    /// Keeps an answer, and gives back what it does not need.
    pub(crate) fn keep(mut self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let needed = bytes.len() + KEPT_BYTES;
        if needed > self.bytes {
            self.account.bytes.fetch_add(needed - self.bytes, Relaxed);
        } else {
            self.account.bytes.fetch_sub(self.bytes - needed, Relaxed);
        }
        self.bytes = needed;
        Bytes::from_owner(Kept { bytes, _room: self })
    }
}

impl Drop for KeptRoom {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    /// A session that keeps what it is answered.
    fn fill(account: &KeptAccount, answer_bytes: usize) -> Vec<Bytes> {
        let (mut kept, mut kept_bytes) = (Vec::new(), 0);
        while let Ok(room) = account.take(answer_bytes, kept_bytes) {
            kept.push(room.keep(Bytes::from(vec![7; answer_bytes])));
            kept_bytes += answer_bytes;
            assert!(kept.len() <= LIMIT / answer_bytes + 1, "it ends");
        }
        kept
    }

    #[test]
    fn many_sessions_with_long_unsettled_answers_stay_within_the_limit() {
        for answer_bytes in [1000, 10_000, LIMIT / 8, LIMIT / 2] {
            let account = KeptAccount::new(LIMIT);
            let sessions: Vec<_> = (0..2000).map(|_| fill(&account, answer_bytes)).collect();
            let kept: usize = sessions.iter().flatten().map(Bytes::len).sum();
            assert!(kept > LIMIT / 4, "{kept} of {answer_bytes} each");
            assert!(account.bytes() >= kept && account.bytes() <= LIMIT + LIMIT / 4);
            assert!(
                sessions[0].len() * answer_bytes <= LIMIT / 2 + answer_bytes,
                "one leaves as much as it takes"
            );
            let refused = account.take(answer_bytes.max(LIMIT / 8), 1).err();
            assert!(refused.is_some_and(|error| error.code == ErrorCode::Busy));
            account.take(SHORT_BYTES, LIMIT).expect("short ones go on");
            drop(sessions);
            assert_eq!(account.bytes(), 0, "all is given back");
        }
    }

    #[test]
    fn an_answer_is_charged_once_until_the_last_that_keeps_it_lets_go() {
        let account = KeptAccount::new(LIMIT);
        let room = account.take(LIMIT / 2, 0).expect("room");
        assert_eq!(account.bytes(), LIMIT / 2);
        let answer = room.keep(Bytes::from_static(b"shorter than it might have been"));
        assert_eq!(account.bytes(), answer.len() + KEPT_BYTES);
        let ledger = answer.clone();
        assert_eq!(ledger.as_ptr(), answer.as_ptr());
        drop(answer);
        assert_eq!(account.bytes(), ledger.len() + KEPT_BYTES);
        drop(ledger);
        assert_eq!(account.bytes(), 0);
        drop(account.take(10, 0).expect("room").keep(Bytes::new()));
        assert_eq!(account.bytes(), 0, "what has no bytes takes none");
    }

    #[test]
    fn an_answer_longer_than_all_is_kept_where_little_is() {
        let account = KeptAccount::new(LIMIT);
        let long = account.take(3 * LIMIT, 0).expect("alone");
        assert!(account.take(3 * LIMIT, 0).is_err(), "one at a time");
        drop(long);
        assert!(
            account.take(3 * LIMIT, 1).is_err(),
            "not beside others of its session"
        );
    }
}
