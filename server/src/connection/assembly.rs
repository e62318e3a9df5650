//! Room for what a connection is receiving: a long frame before its body is read, and the parts of
//! a long request as they come. It is taken from the commons, so that all connections together
//! stay within a bound.
//!
//! Who takes much must also move much, once others wait for it: a long request that trickles in
//! would hold its room for hours.

use std::sync::Arc;

use rhash_protocol::limits::FRAME_BYTES_MAX;

use super::{
    commons::{Charge, Commons, Share},
    pace::{SPELL_BYTES_MIN, SPELL_SHARE},
};

/// What a byte of a half-received request is charged: its buffer doubles as it grows, and is
/// copied while both are there; then its value is copied once more, into its table.
const CHARGE_FACTOR: usize = 4;

/// One that overdraws keeps all those waiting who do as well, and is asked for more.
const OVERDRAFT_SPELL_BYTES_MIN: u64 = 64 * 1024;

/// What a connection is about to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A request that is one frame, of this many bytes.
    Frame(usize),
    /// A part of a longer request; so many bytes with all parts before.
    Parts(usize),
}

/// What one connection has taken.
#[derive(Debug)]
pub(crate) struct AssemblyRoom {
    shares: Vec<Share>,
    /// What they cover.
    bytes: usize,
    charge: Charge,
}

impl AssemblyRoom {
    /// Nothing yet.
    pub(crate) fn new(commons: Arc<Commons>) -> Self {
        Self {
            shares: Vec::new(),
            bytes: 0,
            charge: Charge::none(commons),
        }
    }

    /// Waits until there is room for all that is being received. Cancel safe.
    pub(crate) async fn cover(&mut self, incoming: Incoming) {
        let (bytes, factor) = match incoming {
            Incoming::Frame(bytes) => (bytes, 1),
            Incoming::Parts(bytes) => (bytes, CHARGE_FACTOR),
        };
        let missing = bytes.saturating_sub(self.bytes);
        if missing > 0 {
            if !self.overdraws() {
                let commons = self.charge.commons();
                let share = match incoming {
                    Incoming::Frame(_) => commons.take(missing).await,
                    Incoming::Parts(_) => commons.take_part(self.bytes, missing).await,
                };
                self.shares.push(share);
            }
            self.bytes = bytes;
        }
        self.charge.set(self.bytes.saturating_mul(factor));
        self.charge.make_room().await;
    }

    /// Keeps the room for the buffer of a frame, of this many bytes, for the next frame; says
    /// whether it may: nobody else needs it.
    pub(crate) fn keep(&mut self, buffer_bytes: usize) -> bool {
        let commons = self.charge.commons();
        let may = buffer_bytes <= self.bytes
            && self.bytes <= 2 * FRAME_BYTES_MAX
            && !self.overdraws()
            && !commons.is_wanted()
            && commons.is_roomy();
        if may {
            self.charge.set(self.bytes);
        }
        may
    }

    /// How much must move in a spell if others wait for the room that this connection has.
    pub(crate) fn spell_bytes_min(&self) -> u64 {
        let least = if self.overdraws() {
            OVERDRAFT_SPELL_BYTES_MIN
        } else {
            SPELL_BYTES_MIN
        };
        least.max(self.bytes as u64 / SPELL_SHARE)
    }

    fn overdraws(&self) -> bool {
        matches!(self.shares.last(), Some(Share::Overdraft { .. }))
    }

    /// Whether this connection has room that others wait for.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.shares.is_empty() && self.charge.commons().is_wanted()
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        self.shares.clear();
        self.bytes = 0;
        self.charge.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::BufferAccount;

    fn rooms(bytes: u64) -> [AssemblyRoom; 4] {
        let commons = Arc::new(Commons::new(bytes, BufferAccount::of_nothing()));
        [(); 4].map(|()| AssemblyRoom::new(Arc::clone(&commons)))
    }

    #[tokio::test]
    async fn one_that_overdraws_gets_its_request_whole() {
        let [mut first, mut second, mut third, _] = rooms(1);
        first.cover(Incoming::Frame(10)).await;
        second.cover(Incoming::Parts(10)).await;
        second.cover(Incoming::Parts(100 << 20)).await;
        assert_eq!(second.shares.len(), 1);
        let mut waiting = Box::pin(third.cover(Incoming::Parts(10)));
        let pending = tokio::select! { biased; () = &mut waiting => false, () = async {} => true };
        assert!(pending);
        second.release();
        waiting.await;
        assert!(!third.keep(10), "it overdraws");
    }

    #[tokio::test]
    async fn who_holds_much_must_move_much_and_who_overdraws_most() {
        let [mut little, mut much, mut more, mut short] = rooms(4 << 20);
        assert_eq!(little.spell_bytes_min(), SPELL_BYTES_MIN);
        little.cover(Incoming::Frame(50_000)).await;
        assert_eq!(little.spell_bytes_min(), SPELL_BYTES_MIN);
        much.cover(Incoming::Parts(1_000_000)).await;
        assert_eq!(much.spell_bytes_min(), 50_000);
        more.cover(Incoming::Parts(2_000_000)).await;
        assert_eq!(more.spell_bytes_min(), 100_000, "it overdraws");
        assert!(!little.is_wanted());
        let mut next = Box::pin(much.cover(Incoming::Parts(3_000_000)));
        let pending = tokio::select! { biased; () = &mut next => false, () = async {} => true };
        assert!(pending && little.is_wanted() && more.is_wanted());
        // What is short waits neither for the one nor for the other.
        let one_frame = short.cover(Incoming::Frame(FRAME_BYTES_MAX));
        assert!(tokio::select! { biased; () = one_frame => true, () = async {} => false });
        drop(more);
        next.await;
        assert_eq!(much.spell_bytes_min(), 150_000);
        drop((little, short));
    }

    #[tokio::test]
    async fn room_that_is_given_back_is_there_for_others() {
        let [mut first, mut second, _, _] = rooms(1 << 20);
        first.cover(Incoming::Frame(100_000)).await;
        first.cover(Incoming::Frame(90_000)).await;
        assert_eq!(first.shares.len(), 1, "what is covered is not taken twice");
        assert!(first.keep(100_000) && !first.keep(100_001));
        second.cover(Incoming::Frame(450_000)).await;
        assert!(!first.keep(100_000), "less than half is left");
        second.release();
        assert!(first.keep(100_000));
    }
}
