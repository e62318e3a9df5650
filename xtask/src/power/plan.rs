//! What a client does next: batches of all kinds of operations, tables cleared, closed and made again.

use rhash_protocol::{Op, Outcome, packed};

use super::draws::Draws;
use super::journal::{
    BALLAST, COUNTERS, Journal, KeyChange, LISTS, MARK, OWN, Sign, VALUES, key_bytes, value,
};

/// Keys of a client and table.
const KEYS: u64 = 300;
/// Of the ballast there are these many, so that all of it is more than a server with 24 MiB holds hot.
pub(crate) const BALLAST_KEYS: u64 = 480;
/// Values are at most so long, …
const VALUE_BYTES_MAX: u64 = 1500;
/// … but for one of so many, which is up to …
const LONG_ONE_IN: u64 = 40;
/// … so long.
const LONG_BYTES_MAX: u64 = 20_000;
/// Values of the ballast are at least so long, and less than twice.
const BALLAST_BYTES: u64 = 4_000;
/// Operations of a batch, at most.
const OPS_MAX: u64 = 6;
/// An own table is emptied by one of so many steps that concern it.
const EMPTIED_ONE_IN: u64 = 20;

/// What the step that was planned asks for.
#[derive(Debug)]
pub(crate) enum Planned {
    /// A batch.
    Batch(Batch),
    /// Make the own table.
    Open,
    /// Clear it.
    Clear,
    /// Close it.
    Close,
}

/// Operations on one table, and what they must come to.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) table: usize,
    pub(crate) count: u32,
    pub(crate) ops: Vec<u8>,
    pub(crate) outcomes: Vec<Expected>,
    /// The keys that it changes.
    pub(crate) keys: Vec<u32>,
}

/// What a conditional operation must come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    Absent,
    Value(Vec<u8>),
    Swapped,
}

impl Expected {
    /// Whether an outcome is this one.
    pub(crate) fn is(&self, outcome: &Outcome<'_>) -> bool {
        match (self, outcome) {
            (Self::Absent, Outcome::Absent) | (Self::Swapped, Outcome::Swapped) => true,
            (Self::Value(must), Outcome::Value(is)) => must == is,
            _ => false,
        }
    }

    fn was(content: Option<Vec<u8>>) -> Self {
        content.map_or(Self::Absent, Self::Value)
    }
}

/// Plans the next step of a client, whose own table must be there from its first step on.
pub(crate) fn plan(journal: &mut Journal, draws: &mut Draws) -> Planned {
    let step = journal.next_step();
    if journal.sign_after(OWN, step) == Sign::Missing {
        journal.sign(OWN, Sign::Empty);
        return Planned::Open;
    }
    let table = match draws.below(20) {
        0..8 => VALUES,
        8..12 => LISTS,
        12..15 => COUNTERS,
        15..18 => BALLAST,
        _ => OWN,
    };
    if table == OWN && draws.once_in(EMPTIED_ONE_IN) {
        let clears = draws.once_in(2);
        let sign = if clears { Sign::Empty } else { Sign::Missing };
        journal.empty(OWN, sign);
        return match clears {
            true => Planned::Clear,
            false => Planned::Close,
        };
    }
    let keys_max = if table == BALLAST { BALLAST_KEYS } else { KEYS };
    let count = 1 + draws.below(OPS_MAX);
    let keys: Vec<u32> = (0..count).map(|_| draws.below(keys_max) as u32).collect();
    Planned::Batch(Planner::plan(journal, table, &keys, Ends::Marked, draws))
}

/// Plans a batch on these keys of a table that leaves no mark.
pub(crate) fn plan_on(
    journal: &mut Journal,
    table: usize,
    keys: &[u32],
    draws: &mut Draws,
) -> Batch {
    Planner::plan(journal, table, keys, Ends::Plain, draws)
}

/// Plans to put these keys of the ballast.
pub(crate) fn plan_ballast(journal: &mut Journal, keys: std::ops::Range<u32>) -> Batch {
    let mut planner = Planner::new(journal, BALLAST);
    for key in keys {
        let length = BALLAST_BYTES as usize;
        planner.put(key, length);
    }
    planner.mark();
    planner.batch
}

/// Plans to discard these keys of a table.
pub(crate) fn plan_discards(journal: &mut Journal, table: usize, keys: &[u32]) -> Batch {
    let mut planner = Planner::new(journal, table);
    for &key in keys {
        planner.discard(key);
    }
    planner.batch
}

/// Whether a batch says at its end which step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Marked,
    Plain,
}

/// Plans a batch on a table, and writes into the journal what it will do.
struct Planner<'a> {
    journal: &'a mut Journal,
    batch: Batch,
}

impl<'a> Planner<'a> {
    fn plan(
        journal: &'a mut Journal,
        table: usize,
        keys: &[u32],
        ends: Ends,
        draws: &mut Draws,
    ) -> Batch {
        let mut planner = Self::new(journal, table);
        for &key in keys {
            match table {
                LISTS => planner.draw_on_list(key, draws),
                COUNTERS => planner.draw_on_counter(key, draws),
                BALLAST => {
                    let length = BALLAST_BYTES + draws.below(BALLAST_BYTES);
                    planner.put(key, length as usize);
                }
                _ => planner.draw_on_value(key, draws),
            }
        }
        if ends == Ends::Marked {
            planner.mark();
        }
        planner.batch
    }

    fn new(journal: &'a mut Journal, table: usize) -> Self {
        Self {
            journal,
            batch: Batch {
                table,
                count: 0,
                ops: Vec::new(),
                outcomes: Vec::new(),
                keys: Vec::new(),
            },
        }
    }

    fn push(&mut self, op: &Op<'_>) {
        packed::push_op(&mut self.batch.ops, op);
        self.batch.count += 1;
    }

    fn change(&mut self, key: u32, change: KeyChange) {
        self.journal.change(self.batch.table, key, change);
        self.batch.keys.push(key);
    }

    fn now(&self, key: u32) -> Option<Vec<u8>> {
        self.journal.content(self.batch.table, key)
    }

    fn key(&self, key: u32) -> [u8; 8] {
        key_bytes(self.journal.client, key)
    }

    fn value(&self, length: usize) -> Vec<u8> {
        value(self.journal.client, self.journal.next_step(), length)
    }

    fn put(&mut self, key: u32, length: usize) {
        let value = self.value(length);
        let sent_key = self.key(key);
        self.push(&Op::Put {
            key: &sent_key,
            value: &value,
        });
        self.change(key, KeyChange::Set(value));
    }

    fn discard(&mut self, key: u32) {
        let sent_key = self.key(key);
        self.push(&Op::Discard { key: &sent_key });
        self.change(key, KeyChange::Gone);
    }

    fn draw_on_value(&mut self, key: u32, draws: &mut Draws) {
        let length = match draws.once_in(LONG_ONE_IN) {
            true => draws.below(LONG_BYTES_MAX),
            false => draws.below(VALUE_BYTES_MAX),
        };
        let sent_key = self.key(key);
        match draws.below(12) {
            0..7 => self.put(key, length as usize),
            7 | 8 => self.discard(key),
            9 => self.swap(key, length as usize, draws),
            10 => {
                let was = self.now(key);
                self.push(&Op::Remove { key: &sent_key });
                self.batch.outcomes.push(Expected::was(was));
                self.change(key, KeyChange::Gone);
            }
            _ => {
                let (was, value) = (self.now(key), self.value(length as usize));
                let is_there = was.is_some();
                self.batch.outcomes.push(Expected::was(was));
                let (key_of_op, value_of_op) = (&sent_key[..], &value[..]);
                let replaces = draws.once_in(2);
                self.push(&match replaces {
                    true => Op::Replace {
                        key: key_of_op,
                        value: value_of_op,
                    },
                    false => Op::PutIfAbsent {
                        key: key_of_op,
                        value: value_of_op,
                    },
                });
                if is_there == replaces {
                    self.change(key, KeyChange::Set(value));
                }
            }
        }
    }

    /// A compare-and-swap that mostly expects what is there.
    fn swap(&mut self, key: u32, length: usize, draws: &mut Draws) {
        let (was, value) = (self.now(key), self.value(length));
        let sent_key = self.key(key);
        let expected = match draws.once_in(4) {
            true => Some(b"never there".to_vec()),
            false => was.clone(),
        };
        self.push(&Op::CompareAndSwap {
            key: &sent_key,
            expected: expected.as_deref(),
            new: Some(&value),
        });
        if expected == was {
            self.batch.outcomes.push(Expected::Swapped);
            self.change(key, KeyChange::Set(value));
        } else {
            self.batch.outcomes.push(Expected::was(was));
        }
    }

    fn draw_on_list(&mut self, key: u32, draws: &mut Draws) {
        match draws.below(30) {
            0 => self.discard(key),
            1 => self.put(key, 30),
            _ => {
                // Tells a lost element, or one that came twice, from all others.
                let step = u64::from(self.journal.next_step());
                let bytes = [step.to_le_bytes(), draws.any().to_le_bytes()].concat();
                let sent_key = self.key(key);
                self.push(&Op::Append {
                    key: &sent_key,
                    bytes: &bytes,
                });
                self.change(key, KeyChange::Append(bytes));
            }
        }
    }

    fn draw_on_counter(&mut self, key: u32, draws: &mut Draws) {
        let sent_key = self.key(key);
        if draws.once_in(15) {
            return self.discard(key);
        }
        let delta = draws.below(1000) as i64 - 300;
        let sum = self.sum(key).wrapping_add(delta);
        if draws.once_in(6) {
            self.push(&Op::AddAndGet {
                key: &sent_key,
                delta,
            });
            let sum = Expected::Value(sum.to_le_bytes().to_vec());
            self.batch.outcomes.push(sum);
        } else {
            self.push(&Op::Add {
                key: &sent_key,
                delta,
            });
        }
        self.change(key, KeyChange::Set(sum.to_le_bytes().to_vec()));
    }

    fn sum(&self, key: u32) -> i64 {
        let now = self.now(key).and_then(|now| now.try_into().ok());
        now.map_or(0, i64::from_le_bytes)
    }

    /// Says which step it is.
    fn mark(&mut self) {
        let step = self.journal.next_step();
        if self.batch.table == COUNTERS {
            let delta = i64::from(step) - self.sum(MARK);
            let sent_key = self.key(MARK);
            self.push(&Op::Add {
                key: &sent_key,
                delta,
            });
            let sum = i64::from(step).to_le_bytes().to_vec();
            self.change(MARK, KeyChange::Set(sum));
        } else {
            self.put(MARK, 0);
        }
        self.journal.sign(self.batch.table, Sign::Marked(step));
    }
}

#[cfg(test)]
mod tests {
    use rhash_protocol::Ops;

    use super::*;

    #[test]
    fn a_plan_is_what_the_journal_says_and_can_be_read_again() {
        let mut journal = Journal::new(2);
        let mut draws = Draws::new(1, 2);
        let mut kinds = [0; 4];
        for _ in 0..2000 {
            let step = journal.next_step();
            match plan(&mut journal, &mut draws) {
                Planned::Batch(batch) => {
                    let ops = Ops::new(batch.count, &batch.ops);
                    ops.check().unwrap();
                    let conditional = ops.iter().filter(|op| op.unwrap().is_conditional());
                    assert_eq!(conditional.count(), batch.outcomes.len());
                    assert_eq!(journal.sign_after(batch.table, step), Sign::Marked(step));
                    kinds[0] += 1;
                }
                Planned::Open => kinds[1] += 1,
                Planned::Clear => kinds[2] += 1,
                Planned::Close => {
                    assert_eq!(journal.count_after(OWN, step), 0);
                    kinds[3] += 1;
                }
            }
            journal.sent(u64::from(step));
        }
        assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
    }
}
