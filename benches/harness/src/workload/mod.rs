//! What goes into a store: made from a seed, the same for every side.

mod entries;
mod pick;
mod postings;
mod words;

pub use self::{
    entries::{Entries, KEY_BYTES, VALUE_BYTES},
    pick::{Pick, Zipf},
    postings::{Batch, POSTING_BYTES, Postings, PostingsShape, Truth},
};

/// A bijection of all 64-bit numbers that leaves nothing of their order (splitmix64).
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
