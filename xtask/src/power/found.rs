//! What a server has in its tables after a power cut, and whether that is what it may have.

use std::collections::HashMap;

use rhash_protocol::{Keys, Request, Response, ScanWhat, Slot, TableId, packed};

use super::journal::{
    BALLAST, COUNTERS, Journal, MARK, OWN, Sign, StepNumber, TABLES, key_bytes, key_of, step_of,
    table_name,
};
use super::load::Done;
use super::peer::{Peer, unexpected};
use super::plan::BALLAST_KEYS;
use crate::failure::Failure;

/// Of the ballast one value in so many is read.
const SAMPLED_ONE_IN: u32 = 16;

/// What a table has of each key; none for a value that was not read.
type Entries = HashMap<(u64, u32), Option<Vec<u8>>>;

/// All that was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    tables: HashMap<String, Entries>,
}

/// What the disk's power was lost in the middle of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// What was answered before is as safe as the level says, …
    pub(crate) at_ns: u64,
    /// … and what was answered before this must be there.
    pub(crate) safe_ns: u64,
}

impl Found {
    /// Reads all that there is; of the ballast all keys, and a sample of values that `turn` chooses.
    pub(crate) async fn read(peer: &mut Peer, turn: u32) -> Result<Self, Failure> {
        let mut found = Self::default();
        for name in peer.names().await? {
            let table = peer.open_existing(&name).await?;
            let is_ballast = name == table_name(BALLAST, 0);
            let what = match is_ballast {
                true => ScanWhat::Keys,
                false => ScanWhat::Items,
            };
            let mut entries = Entries::new();
            peer.scan(table, what, |key, value| {
                let Some(key) = key_of(key) else {
                    let text = format!("table {name}: a key that nobody wrote: {key:?}");
                    return Err(Failure::Failed(text));
                };
                match entries.insert(key, value.map(<[u8]>::to_vec)) {
                    None => Ok(()),
                    Some(_) => {
                        let text = format!("table {name}: key {key:?} came twice in a scan");
                        Err(Failure::Failed(text))
                    }
                }
            })
            .await?;
            if is_ballast {
                sample(peer, table, &mut entries, turn).await?;
            }
            found.tables.insert(name, entries);
        }
        Ok(found)
    }

    /// Holds what was found against what the clients did before the cut.
    ///
    /// # Errors
    /// What is lost, doubled or made up.
    pub(crate) fn check(&self, done: &Done, cut: Cut) -> Result<(), String> {
        for (name, there_ns) in &done.shared {
            if *there_ns < cut.safe_ns && !self.tables.contains_key(name) {
                return Err(format!("table {name} was made and is not there"));
            }
        }
        for journal in &done.journals {
            self.check_client(journal, cut)
                .map_err(|why| format!("client {}: {why}", journal.client))?;
        }
        let is_known = |name: &String| {
            (0..TABLES).any(|table| {
                let mut journals = done.journals.iter();
                journals.any(|journal| table_name(table, journal.client) == *name)
            })
        };
        match self.tables.keys().find(|name| !is_known(name)) {
            Some(name) => Err(format!("table {name}, which nobody made")),
            None => Ok(()),
        }
    }

    fn check_client(&self, journal: &Journal, cut: Cut) -> Result<(), String> {
        let steps = journal.last_steps(cut.safe_ns, cut.at_ns);
        let signs: Vec<Sign> = (0..TABLES).map(|table| self.sign(journal, table)).collect();
        let mut why = None;
        for step in steps.clone() {
            let fits = |(table, sign): (usize, &Sign)| self.fits(journal, table, *sign, step);
            if signs.iter().enumerate().all(fits) {
                match self.check_after(journal, step) {
                    Ok(()) => return Ok(()),
                    Err(wrong) => why = Some(format!("after step {step}: {wrong}")),
                }
            }
        }
        Err(why.unwrap_or_else(|| {
            format!(
                "its tables have the signs {signs:?}, which no step of {steps:?} left; {} left {:?}, {} left {:?}",
                steps.start(),
                signs_after(journal, *steps.start()),
                steps.end(),
                signs_after(journal, *steps.end())
            )
        }))
    }

    fn fits(&self, journal: &Journal, table: usize, sign: Sign, step: StepNumber) -> bool {
        let must = journal.sign_after(table, step);
        // The manifest has a new table before the log has what was written before it; it is empty then.
        sign == must || (must == Sign::Missing && sign == Sign::Empty)
    }

    fn entries(&self, journal: &Journal, table: usize) -> Option<&Entries> {
        self.tables.get(&table_name(table, journal.client))
    }

    fn sign(&self, journal: &Journal, table: usize) -> Sign {
        let Some(entries) = self.entries(journal, table) else {
            // A shared one is made before all steps, perhaps after the cut.
            return match table {
                OWN => Sign::Missing,
                _ => Sign::Empty,
            };
        };
        let mark = entries.get(&(journal.client, MARK)).cloned().flatten();
        match mark {
            None => Sign::Empty,
            Some(mark) => Sign::Marked(marked_step(table, &mark)),
        }
    }

    /// Whether all is as it was after this step.
    fn check_after(&self, journal: &Journal, step: StepNumber) -> Result<(), String> {
        for table in 0..TABLES {
            let name = table_name(table, journal.client);
            let none = Entries::new();
            let entries = self.entries(journal, table).unwrap_or(&none);
            let mut count = 0;
            for (&(client, key), value) in entries {
                if client != journal.client {
                    continue;
                }
                count += 1;
                let must = journal.content_after(table, key, step);
                match (must, value) {
                    (Some(must), Some(is)) if must != *is => {
                        return Err(format!(
                            "table {name}, key {key}: {}, not {}",
                            brief(is),
                            brief(&must)
                        ));
                    }
                    (None, _) => {
                        return Err(format!("table {name}, key {key} is there, and was not"));
                    }
                    _ => {}
                }
            }
            let must = journal.count_after(table, step);
            if count != must {
                return Err(format!("table {name}: {count} of {must} keys"));
            }
        }
        Ok(())
    }
}

fn signs_after(journal: &Journal, step: StepNumber) -> Vec<Sign> {
    (0..TABLES)
        .map(|table| journal.sign_after(table, step))
        .collect()
}

/// The step that a mark says; one that nobody has made, if it is none.
fn marked_step(table: usize, mark: &[u8]) -> StepNumber {
    let step = match table {
        COUNTERS => {
            let step = mark.try_into().map(u64::from_le_bytes).ok();
            step.and_then(|step| StepNumber::try_from(step).ok())
        }
        _ => step_of(mark),
    };
    step.unwrap_or(StepNumber::MAX)
}

/// A value, short enough to be read.
pub(crate) fn brief(value: &[u8]) -> String {
    let head = &value[..value.len().min(24)];
    match step_of(value) {
        Some(step) => format!("{} bytes of step {step}", value.len()),
        None => format!("{} bytes {head:?}", value.len()),
    }
}

/// Reads a part of the ballast's values, and all marks.
async fn sample(
    peer: &mut Peer,
    table: TableId,
    entries: &mut Entries,
    turn: u32,
) -> Result<(), Failure> {
    let mut wanted: Vec<(u64, u32)> = entries.keys().copied().collect();
    wanted.retain(|(_, key)| *key == MARK || *key % SAMPLED_ONE_IN == turn % SAMPLED_ONE_IN);
    debug_assert!(wanted.len() as u64 <= BALLAST_KEYS * 4);
    while !wanted.is_empty() {
        let keys: Vec<(u64, u32)> = wanted.iter().rev().take(16).copied().collect();
        let mut bytes = Vec::new();
        for &(client, key) in &keys {
            packed::push_bytes(&mut bytes, &key_bytes(client, key));
        }
        let get = Request::Get {
            table,
            keys: Keys::new(keys.len() as u32, &bytes),
        };
        let answer = peer.call(get).await?;
        let values = match answer.response()? {
            Response::Values(values) => values,
            other => return Err(unexpected("a get", &other)),
        };
        for (slot, key) in values.iter().zip(&keys) {
            let Ok(Slot::Value(value)) = slot else {
                let text = format!("a get of (client, key) {key:?}, which a scan had: {slot:?}");
                return Err(Failure::Failed(text));
            };
            entries.insert(*key, Some(value.to_vec()));
            wanted.pop();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::journal::{KeyChange, VALUES, value};

    fn done() -> Done {
        let mut journal = Journal::new(1);
        for sent_ns in [10, 20, 30] {
            let step = journal.next_step();
            journal.change(VALUES, step, KeyChange::Set(value(1, step, 50)));
            journal.change(VALUES, MARK, KeyChange::Set(value(1, step, 0)));
            journal.sign(VALUES, Sign::Marked(step));
            journal.sent(sent_ns);
            journal.acked(step, sent_ns + 5);
        }
        Done {
            journals: vec![journal],
            shared: vec![(table_name(VALUES, 1), 5)],
            ended_ns: 100,
        }
    }

    fn found(keys: &[u32], mark: StepNumber) -> Found {
        let mut entries: Entries = keys
            .iter()
            .map(|&key| ((1, key), Some(value(1, key, 50))))
            .collect();
        entries.insert((1, MARK), Some(value(1, mark, 0)));
        Found {
            tables: HashMap::from([(table_name(VALUES, 1), entries)]),
        }
    }

    #[test]
    fn what_was_answered_is_there_and_what_had_left_may_be() {
        let done = done();
        let cut = |at_ns, safe_ns| Cut { at_ns, safe_ns };
        assert_eq!(found(&[1, 2], 2).check(&done, cut(27, 27)), Ok(()));
        assert_eq!(found(&[1, 2, 3], 3).check(&done, cut(31, 31)), Ok(()));
        // At everysec the end may be lost.
        assert_eq!(found(&[1], 1).check(&done, cut(100, 20)), Ok(()));
        let wrong = |found: Found, cut| found.check(&done, cut).unwrap_err();
        let lost = wrong(found(&[1], 1), cut(27, 27));
        assert!(lost.contains("no step of 2..=2 left"), "{lost}");
        let early = wrong(found(&[1, 2, 3], 3), cut(27, 27));
        assert!(early.contains("no step"), "{early}");
        let half = wrong(found(&[2], 2), cut(27, 27));
        assert!(half.contains("2 of 3 keys"), "{half}");
        let made_up = wrong(found(&[1, 2, 3], 2), cut(27, 27));
        assert!(made_up.contains("key 3 is there"), "{made_up}");
        let missing = wrong(Found::default(), cut(9, 9));
        assert!(missing.contains("was made"), "{missing}");
    }
}
