//! Picking entries: all alike, or some far more often than others.

use fastrand::Rng;

/// Multiplies ranks so that neighbours in rank are no neighbours in number; a prime over any count
/// of entries here, so that every number keeps its one rank.
const SPREAD: u128 = 0x1fff_ffff_ffff_ffff;

/// Draws from 1 to a count so that the n-th is drawn in proportion to n to the power of minus the
/// exponent: rejection-inversion (Hörmann and Derflinger), which needs no table.
#[derive(Debug, Clone, Copy)]
pub struct Zipf {
    count: f64,
    exponent: f64,
    first: f64,
    last: f64,
    shortcut: f64,
}

impl Zipf {
    /// Over 1 to `count`, with an exponent above 0.
    pub fn new(count: u64, exponent: f64) -> Self {
        let mut zipf = Self {
            count: count.max(1) as f64,
            exponent,
            first: 0.0,
            last: 0.0,
            shortcut: 0.0,
        };
        zipf.first = zipf.integral(1.5) - 1.0;
        zipf.last = zipf.integral(zipf.count + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.height(2.0));
        zipf
    }

    /// Draws one.
    pub fn draw(&self, random: &mut Rng) -> u64 {
        loop {
            let area = self.last + random.f64() * (self.first - self.last);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.shortcut || area >= self.integral(rank + 0.5) - self.height(rank) {
                return rank as u64;
            }
        }
    }

    fn height(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let slope = 1.0 - self.exponent;
        if slope.abs() < 1e-9 {
            log
        } else {
            (slope * log).exp_m1() / slope
        }
    }

    fn inverse(&self, area: f64) -> f64 {
        let slope = 1.0 - self.exponent;
        if slope.abs() < 1e-9 {
            area.exp()
        } else {
            // Rounding may lead below the domain.
            ((area * slope).max(-1.0).ln_1p() / slope).exp()
        }
    }
}

/// Which entries are asked for.
#[derive(Debug, Clone, Copy)]
pub enum Pick {
    /// All alike.
    Uniform {
        /// Numbers go from 0 to below this.
        count: u64,
    },
    /// By Zipf's law, those in demand being anywhere among the numbers.
    Zipf {
        /// Draws ranks.
        ranks: Zipf,
        /// Numbers go from 0 to below this.
        count: u64,
    },
}

impl Pick {
    /// All alike.
    pub fn uniform(count: u64) -> Self {
        Self::Uniform { count }
    }

    /// With an exponent of 0.99, as is customary.
    pub fn zipf(count: u64) -> Self {
        Self::Zipf {
            ranks: Zipf::new(count, 0.99),
            count,
        }
    }

    /// Draws a number.
    pub fn draw(&self, random: &mut Rng) -> u64 {
        match self {
            Self::Uniform { count } => random.u64(0..*count),
            Self::Zipf { ranks, count } => {
                let rank = u128::from(ranks.draw(random));
                (rank * SPREAD % u128::from(*count)) as u64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn draws_follow_the_law() {
        for exponent in [0.7, 0.99, 1.0, 1.3] {
            let count = 1_000;
            let zipf = Zipf::new(count, exponent);
            let mut random = Rng::with_seed(3);
            let draws = 200_000;
            let mut seen = HashMap::new();
            for _ in 0..draws {
                *seen.entry(zipf.draw(&mut random)).or_insert(0_u32) += 1;
            }
            let weight: f64 = (1..=count).map(|n| (n as f64).powf(-exponent)).sum();
            for rank in [1, 2, 3, 10] {
                let expected = f64::from(draws) * (rank as f64).powf(-exponent) / weight;
                let found = f64::from(seen[&rank]);
                assert!(
                    (found - expected).abs() < 5.0 * expected.sqrt(),
                    "{exponent}, {rank}: {found}, not {expected}"
                );
            }
            assert!(seen.keys().all(|rank| (1..=count).contains(rank)));
        }
    }

    #[test]
    fn numbers_of_the_first_ranks_differ_and_are_in_range() {
        let count = 10_000_000_u64;
        let mut numbers: Vec<_> = (1..=1000_u128)
            .map(|rank| (rank * SPREAD % u128::from(count)) as u64)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 1000);
        assert!(numbers.iter().all(|&number| number < count));
    }
}
