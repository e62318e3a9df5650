//! Random draws from a seed.

/// Draws numbers by SplitMix64; enough to choose what a disk keeps and what clients do.
#[derive(Debug, Clone)]
pub(crate) struct Draws(u64);

impl Draws {
    /// Draws that depend on a seed, and on a number that tells them from others of that seed.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut draws = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.rotate_left(32));
        draws.any();
        draws
    }

    /// Any number.
    pub(crate) fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is above 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.any() % limit.max(1)
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A moment among `moments + 1`: often the first or the last.
    pub(crate) fn moment(&mut self, moments: usize) -> usize {
        match self.below(3) {
            0 => 0,
            1 => moments,
            _ => self.below(moments as u64 + 1) as usize,
        }
    }
}
