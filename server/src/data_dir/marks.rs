//! Marks: how far the runs of a table say what the log does, place by place.
//!
//! A spill takes all that is dirty of an interval of places, so its run has, with those below it, every write
//! to these places up to the last one that the table had applied by then. That one's number is the interval's
//! *mark*: a replay applies a record to a place only if its number is above the mark. So nothing is applied
//! twice, and records in runs need no numbers.

use std::collections::BTreeMap;

use rhash_protocol::packed::{Malformed, push_number, take_number};

use crate::log::Lsn;

/// An interval of places, and how far its runs say what the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// All writes to these places up to this record are in runs.
    pub(crate) lsn: Lsn,
}

impl Mark {
    /// The mark of no place: it says only that a run has something of the log up to this record, so that the log must
    /// have it.
    pub(crate) fn of_no_place(lsn: Lsn) -> Self {
        Self {
            first: 1,
            last: 0,
            lsn,
        }
    }
}

/// The marks of a table. Where nothing was spilled since the last checkpoint there is none, which is
/// number 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// By the first place from which each holds, up to the next one's.
    steps: BTreeMap<u64, Lsn>,
}

impl Marks {
    /// The mark of a place.
    pub(crate) fn at(&self, place: u64) -> Lsn {
        let step = self.steps.range(..=place).next_back();
        step.map_or(0, |(_, lsn)| *lsn)
    }

    /// The highest one; 0 if there is none.
    pub(crate) fn highest(&self) -> Lsn {
        self.steps.values().copied().max().unwrap_or(0)
    }

    /// Takes a mark in; where the runs say more already, they still do.
    pub(crate) fn raise(&mut self, mark: &Mark) {
        let Mark { first, last, lsn } = *mark;
        if first > last {
            return;
        }
        let ends = [Some(first), last.checked_add(1)];
        for from in ends.into_iter().flatten() {
            let here = self.at(from);
            self.steps.insert(from, here);
        }
        // IMPORTANT: never lowered. A spill that comes with a replay has the mark of the record at hand, also for
        // places whose runs say what comes later: a next start would apply that once more.
        for (_, there) in self.steps.range_mut(first..=last) {
            *there = lsn.max(*there);
        }
        self.join();
    }

    /// Takes in what others say of these places.
    pub(crate) fn raise_within(&mut self, others: &Self, first: u64, last: u64) {
        let mut steps = others.steps.iter().peekable();
        while let Some((&from, &lsn)) = steps.next() {
            let to = steps.peek().map_or(u64::MAX, |(next, _)| **next - 1);
            let (first, last) = (from.max(first), to.min(last));
            if lsn > 0 {
                self.raise(&Mark { first, last, lsn });
            }
        }
    }

    /// Forgets marks up to a record that no replay will see again.
    pub(crate) fn forget(&mut self, through: Lsn) {
        for lsn in self.steps.values_mut() {
            if *lsn <= through {
                *lsn = 0;
            }
        }
        self.join();
    }

    /// Joins neighbours that say the same.
    fn join(&mut self) {
        let mut before = 0;
        self.steps
            .retain(|_, lsn| std::mem::replace(&mut before, *lsn) != *lsn);
    }

    /// Appends them to the payload of an edit.
    pub(super) fn push(&self, payload: &mut Vec<u8>) {
        push_number(payload, self.steps.len() as u64);
        for (from, lsn) in &self.steps {
            push_number(payload, *from);
            push_number(payload, *lsn);
        }
    }

    /// Takes them from the payload of an edit.
    pub(super) fn take(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let count = take_number(bytes)?;
        // Each takes two bytes at least, so a count beyond the bytes ends with an error.
        let steps = (0..count).map(|_| Ok((take_number(bytes)?, take_number(bytes)?)));
        Ok(Self {
            steps: steps.collect::<Result<_, Malformed>>()?,
        })
    }
}

/// Appends an interval's marks to the payload of an edit.
pub(super) fn push_marks(payload: &mut Vec<u8>, marks: &[Mark]) {
    push_number(payload, marks.len() as u64);
    for Mark { first, last, lsn } in marks {
        for number in [first, last, lsn] {
            push_number(payload, *number);
        }
    }
}

/// Takes an interval's marks from the payload of an edit.
pub(super) fn take_marks(bytes: &mut &[u8]) -> Result<Vec<Mark>, Malformed> {
    let count = take_number(bytes)?;
    let marks = (0..count).map(|_| {
        Ok(Mark {
            first: take_number(bytes)?,
            last: take_number(bytes)?,
            lsn: take_number(bytes)?,
        })
    });
    marks.collect()
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    #[test]
    fn marks_are_what_an_array_of_places_would_say() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        for _ in 0..200 {
            let (mut marks, mut places) = (Marks::default(), [0; 64]);
            for _ in 1..30 {
                let lsn = rng.u64(1..40);
                let first = rng.usize(..64);
                let last = rng.usize(first..64);
                // The last of these places stands for the last there is.
                let end = if last == 63 { u64::MAX } else { last as u64 };
                marks.raise(&Mark {
                    first: first as u64,
                    last: end,
                    lsn,
                });
                for place in &mut places[first..=last] {
                    *place = lsn.max(*place);
                }
                if rng.u8(..10) == 0 {
                    let through = rng.u64(..lsn);
                    marks.forget(through);
                    for mark in places.iter_mut().filter(|mark| **mark <= through) {
                        *mark = 0;
                    }
                }
                for (place, lsn) in places.iter().enumerate() {
                    assert_eq!(marks.at(place as u64), *lsn, "{marks:?}");
                }
                assert_eq!(marks.at(u64::MAX), places[63]);
                let mut within = Marks::default();
                within.raise_within(&marks, 5, 40);
                for (place, lsn) in places.iter().enumerate() {
                    let there = (5..=40).contains(&place).then_some(*lsn);
                    assert_eq!(within.at(place as u64), there.unwrap_or(0));
                }
                let mut payload = Vec::new();
                marks.push(&mut payload);
                assert_eq!(Marks::take(&mut payload.as_slice()), Ok(marks.clone()));
            }
            marks.forget(100);
            assert_eq!(
                marks,
                Marks::default(),
                "nothing is left of what is forgotten"
            );
        }
    }
}
