//! What one client did, step by step, and what its part of the tables was after each step.
//!
//! A step is one request, applied whole or not at all. Each client has keys of its own, of which one a table is its mark:
//! every step that writes to the table writes there, in the same batch, which step it is. So what is found
//! in the tables says which step was the last, and then all of it must be as it was after that one.

use std::collections::HashMap;
use std::ops::RangeInclusive;

/// The tables of a client, by number.
pub(crate) const VALUES: usize = 0;
pub(crate) const LISTS: usize = 1;
pub(crate) const COUNTERS: usize = 2;
/// More than RAM holds, so that entries are spilled.
pub(crate) const BALLAST: usize = 3;
/// The client's alone, which it clears and closes.
pub(crate) const OWN: usize = 4;
pub(crate) const TABLES: usize = 5;

/// The key that says which step was the last one.
pub(crate) const MARK: u32 = u32::MAX;

/// What values begin with; behind it the client and the step.
pub(crate) const TOKEN: &[u8; 8] = b"POWERCUT";

/// A step's number, from 1; 0 is before the first.
pub(crate) type StepNumber = u32;

/// How a table of a client is called.
pub(crate) fn table_name(table: usize, client: u64) -> String {
    match table {
        VALUES => "values".to_owned(),
        LISTS => "lists".to_owned(),
        COUNTERS => "counters".to_owned(),
        BALLAST => "ballast".to_owned(),
        _ => format!("own-{client}"),
    }
}

/// A key as it is sent.
pub(crate) fn key_bytes(client: u64, key: u32) -> [u8; 8] {
    ((client << 32) | u64::from(key)).to_be_bytes()
}

/// The client and the number of a key; none if nobody here made it.
pub(crate) fn key_of(bytes: &[u8]) -> Option<(u64, u32)> {
    let both = u64::from_be_bytes(bytes.try_into().ok()?);
    Some((both >> 32, both as u32))
}

/// A value that says who wrote it and when.
pub(crate) fn value(client: u64, step: StepNumber, length: usize) -> Vec<u8> {
    let mut value = TOKEN.to_vec();
    value.extend_from_slice(&client.to_le_bytes());
    value.extend_from_slice(&u64::from(step).to_le_bytes());
    let mut word = client ^ u64::from(step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while value.len() < length {
        word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(1);
        value.extend_from_slice(&word.to_le_bytes());
    }
    value
}

/// The step that a value says wrote it.
pub(crate) fn step_of(value: &[u8]) -> Option<StepNumber> {
    let step = value.strip_prefix(TOKEN)?.get(8..16)?;
    StepNumber::try_from(u64::from_le_bytes(step.try_into().ok()?)).ok()
}

/// What a step did to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyChange {
    Set(Vec<u8>),
    Append(Vec<u8>),
    Gone,
}

/// What can be seen of a table without reading all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// There is no such table.
    Missing,
    /// It has no mark.
    Empty,
    /// Its mark is of this step.
    Marked(StepNumber),
}

#[derive(Debug, Default, Clone)]
struct TableHistory {
    keys: HashMap<u32, Vec<(StepNumber, KeyChange)>>,
    /// How many keys there are, after each step that changed that.
    counts: Vec<(StepNumber, usize)>,
    signs: Vec<(StepNumber, Sign)>,
}

/// When a step was on its way.
#[derive(Debug, Clone, Copy)]
struct Times {
    sent_ns: u64,
    acked_ns: Option<u64>,
}

/// The journal of a client.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    pub(crate) client: u64,
    steps: Vec<Times>,
    tables: [TableHistory; TABLES],
    /// When it was told that all up to a step is on stable storage.
    synced: Vec<(u64, StepNumber)>,
}

impl Journal {
    pub(crate) fn new(client: u64) -> Self {
        Self {
            client,
            steps: Vec::new(),
            tables: Default::default(),
            synced: Vec::new(),
        }
    }

    /// The step that is being planned: one behind the last.
    pub(crate) fn next_step(&self) -> StepNumber {
        self.steps.len() as StepNumber + 1
    }

    /// The planned step leaves now.
    pub(crate) fn sent(&mut self, now_ns: u64) {
        self.steps.push(Times {
            sent_ns: now_ns,
            acked_ns: None,
        });
    }

    /// A step was answered.
    pub(crate) fn acked(&mut self, step: StepNumber, now_ns: u64) {
        if let Some(times) = self.steps.get_mut(step as usize - 1) {
            times.acked_ns = Some(now_ns);
        }
    }

    /// All steps so far are on stable storage, the client was told.
    pub(crate) fn synced(&mut self, now_ns: u64) {
        self.synced.push((now_ns, self.steps.len() as StepNumber));
    }

    /// The steps that were answered, with the time.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (StepNumber, u64)> {
        (1..)
            .zip(&self.steps)
            .filter_map(|(step, times)| Some((step, times.acked_ns?)))
    }

    /// The planned step changes a key.
    pub(crate) fn change(&mut self, table: usize, key: u32, change: KeyChange) {
        let step = self.next_step();
        let was_there = self.exists(table, key);
        let is_there = change != KeyChange::Gone;
        let history = &mut self.tables[table];
        history.keys.entry(key).or_default().push((step, change));
        let before = history.counts.last().map_or(0, |(_, count)| *count);
        let after = before + usize::from(is_there) - usize::from(was_there);
        if after != before {
            history.counts.push((step, after));
        }
    }

    /// The planned step leaves this sign on a table.
    pub(crate) fn sign(&mut self, table: usize, sign: Sign) {
        let step = self.next_step();
        self.tables[table].signs.push((step, sign));
    }

    /// The planned step empties a table.
    pub(crate) fn empty(&mut self, table: usize, sign: Sign) {
        let keys: Vec<u32> = self.tables[table].keys.keys().copied().collect();
        for key in keys {
            if self.exists(table, key) {
                self.change(table, key, KeyChange::Gone);
            }
        }
        self.sign(table, sign);
    }

    /// What a key has now, the planned step included.
    pub(crate) fn content(&self, table: usize, key: u32) -> Option<Vec<u8>> {
        self.content_after(table, key, StepNumber::MAX)
    }

    /// All keys of a table that there ever were.
    pub(crate) fn keys(&self, table: usize) -> impl Iterator<Item = u32> {
        self.tables[table].keys.keys().copied()
    }

    fn exists(&self, table: usize, key: u32) -> bool {
        let changes = self.tables[table].keys.get(&key);
        let last = changes.and_then(|changes| changes.last());
        last.is_some_and(|(_, change)| *change != KeyChange::Gone)
    }

    /// What a key had after a step.
    pub(crate) fn content_after(
        &self,
        table: usize,
        key: u32,
        step: StepNumber,
    ) -> Option<Vec<u8>> {
        let changes = self.tables[table].keys.get(&key)?;
        let changes = &changes[..changes.partition_point(|(at, _)| *at <= step)];
        let is_base = |change: &KeyChange| !matches!(change, KeyChange::Append(_));
        let base = changes.iter().rposition(|(_, change)| is_base(change));
        let mut content = None;
        for (_, change) in &changes[base.unwrap_or(0)..] {
            match change {
                KeyChange::Set(value) => content = Some(value.clone()),
                KeyChange::Append(bytes) => {
                    content
                        .get_or_insert_with(Vec::new)
                        .extend_from_slice(bytes);
                }
                KeyChange::Gone => content = None,
            }
        }
        content
    }

    /// How many keys a table had after a step.
    pub(crate) fn count_after(&self, table: usize, step: StepNumber) -> usize {
        let counts = &self.tables[table].counts;
        let before = counts.partition_point(|(at, _)| *at <= step);
        before.checked_sub(1).map_or(0, |last| counts[last].1)
    }

    /// The sign of a table after a step.
    pub(crate) fn sign_after(&self, table: usize, step: StepNumber) -> Sign {
        let signs = &self.tables[table].signs;
        let before = signs.partition_point(|(at, _)| *at <= step);
        let never = if table == OWN {
            Sign::Missing
        } else {
            Sign::Empty
        };
        before.checked_sub(1).map_or(never, |last| signs[last].1)
    }

    /// The steps of which the last one can be that survives a cut at `cut_ns`: from the last that was
    /// answered before `safe_ns`, or told to be safe before the cut, to the last that had left.
    pub(crate) fn last_steps(&self, safe_ns: u64, cut_ns: u64) -> RangeInclusive<StepNumber> {
        let answered = self.answers().take_while(|(_, at_ns)| *at_ns < safe_ns);
        let answered = answered.last().map_or(0, |(step, _)| step);
        let told = self.synced.iter().take_while(|(at_ns, _)| *at_ns < cut_ns);
        let told = told.last().map_or(0, |(_, step)| *step);
        let left = self.steps.partition_point(|times| times.sent_ns < cut_ns);
        answered.max(told)..=left as StepNumber
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        let mut journal = Journal::new(3);
        for (sent_ns, change) in [
            (10, KeyChange::Set(b"a".to_vec())),
            (20, KeyChange::Append(b"b".to_vec())),
            (30, KeyChange::Gone),
            (40, KeyChange::Append(b"c".to_vec())),
        ] {
            journal.change(LISTS, 7, change);
            let step = journal.next_step();
            journal.sign(LISTS, Sign::Marked(step));
            journal.sent(sent_ns);
            journal.acked(step, sent_ns + 5);
        }
        journal
    }

    #[test]
    fn a_key_has_what_the_steps_so_far_made_of_it() {
        let journal = journal();
        let after = |step| journal.content_after(LISTS, 7, step);
        assert_eq!(after(0), None);
        assert_eq!(after(1), Some(b"a".to_vec()));
        assert_eq!(after(2), Some(b"ab".to_vec()));
        assert_eq!(after(3), None);
        assert_eq!(after(4), Some(b"c".to_vec()));
        let counts: Vec<usize> = (0..5)
            .map(|step| journal.count_after(LISTS, step))
            .collect();
        assert_eq!(counts, [0, 1, 1, 0, 1]);
        assert_eq!(journal.sign_after(LISTS, 0), Sign::Empty);
        assert_eq!(journal.sign_after(OWN, 4), Sign::Missing);
        assert_eq!(journal.sign_after(LISTS, 2), Sign::Marked(2));
    }

    #[test]
    fn what_was_answered_in_time_must_survive_and_what_had_left_may() {
        let mut journal = journal();
        assert_eq!(journal.last_steps(9, 9), 0..=0);
        assert_eq!(journal.last_steps(26, 26), 2..=2);
        assert_eq!(journal.last_steps(26, 35), 2..=3);
        assert_eq!(journal.last_steps(0, 100), 0..=4);
        journal.synced(50);
        assert_eq!(journal.last_steps(0, 100), 4..=4);
        assert_eq!(journal.last_steps(0, 50), 0..=4);
    }

    #[test]
    fn a_value_tells_its_step() {
        let value = value(5, 77, 100);
        assert_eq!(step_of(&value), Some(77));
        assert!(value.len() >= 100);
        assert_eq!(step_of(b"POWERCUT short"), None);
        assert_eq!(key_of(&key_bytes(5, MARK)), Some((5, MARK)));
    }
}
