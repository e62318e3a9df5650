//! What a client wrote while the disk failed: what was acknowledged, and what may have happened or not.
//!
//! A batch that was answered by an error may be there or not, but whole. Its keys are not written again, so
//! that in the end each is as before it or as after it.

use std::collections::{HashMap, HashSet};

use rhash_protocol::ScanWhat;

use crate::failure::Failure;
use crate::power::draws::Draws;
use crate::power::found::brief;
use crate::power::journal::{
    BALLAST, COUNTERS, Journal, LISTS, OWN, StepNumber, VALUES, key_of, table_name,
};
use crate::power::peer::{Peer, now_ns};
use crate::power::plan::{Batch, plan_discards, plan_on};

/// Keys below this were written before the disk failed, and are only read since.
pub(super) const KEYS_BEFORE: u32 = 400;
/// The same of the ballast.
pub(super) const BALLAST_BEFORE: u32 = 1500;
/// Later keys begin here, …
const KEYS_FROM: u32 = 10_000;
/// … and are drawn from so many, besides new ones.
const KEYS_DRAWN: u64 = 200;
/// Operations of a batch, at most.
const OPS_MAX: u64 = 5;

/// All entries of the tables.
pub(super) type Contents = HashMap<(usize, u32), Vec<u8>>;

/// What one client wrote.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    journal: Journal,
    doubtful: Vec<Doubtful>,
    /// The keys of doubtful batches.
    frozen: HashSet<(usize, u32)>,
    next_key: u32,
}

/// A batch that was answered by an error.
#[derive(Debug, Clone)]
struct Doubtful {
    step: StepNumber,
    table: usize,
    keys: Vec<u32>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            journal: Journal::new(0),
            doubtful: Vec::new(),
            frozen: HashSet::new(),
            next_key: KEYS_FROM + KEYS_DRAWN as u32,
        }
    }

    /// Plans a batch of what is there before the disk fails.
    pub(super) fn plan_before(&mut self, table: usize, keys: &[u32], draws: &mut Draws) -> Batch {
        plan_on(&mut self.journal, table, keys, draws)
    }

    /// Plans a batch of later keys.
    pub(super) fn plan(&mut self, draws: &mut Draws) -> Batch {
        let table = match draws.below(6) {
            0 => VALUES,
            1 => LISTS,
            2 => COUNTERS,
            // More of it, so that the log and RAM grow.
            _ => BALLAST,
        };
        let count = 1 + draws.below(OPS_MAX);
        let mut keys = Vec::new();
        for _ in 0..count {
            let key = KEYS_FROM + draws.below(KEYS_DRAWN) as u32;
            if table == BALLAST || self.frozen.contains(&(table, key)) {
                keys.push(self.next_key);
                self.next_key += 1;
            } else {
                keys.push(key);
            }
        }
        plan_on(&mut self.journal, table, &keys, draws)
    }

    /// Plans to discard a few keys that were acknowledged.
    pub(super) fn plan_discards(&mut self, draws: &mut Draws) -> Batch {
        let mut keys: Vec<u32> = (0..3)
            .map(|_| KEYS_FROM + draws.below(KEYS_DRAWN) as u32)
            .collect();
        keys.retain(|key| !self.frozen.contains(&(VALUES, *key)));
        if keys.is_empty() {
            keys.push(self.next_key);
            self.next_key += 1;
        }
        plan_discards(&mut self.journal, VALUES, &keys)
    }

    /// The planned batch leaves; returns its step.
    pub(super) fn sent(&mut self) -> StepNumber {
        let step = self.journal.next_step();
        self.journal.sent(now_ns());
        step
    }

    /// A batch was acknowledged.
    pub(super) fn done(&mut self, step: StepNumber) {
        self.journal.acked(step, now_ns());
    }

    /// A batch was answered by an error, or not at all.
    pub(super) fn doubt(&mut self, step: StepNumber, batch: &Batch) {
        let (table, keys) = (batch.table, batch.keys.clone());
        self.frozen.extend(keys.iter().map(|key| (table, *key)));
        self.doubtful.push(Doubtful { step, table, keys });
    }

    /// What a key must have, if that is known.
    pub(super) fn content(&self, table: usize, key: u32) -> Option<Option<Vec<u8>>> {
        let known = !self.frozen.contains(&(table, key));
        known.then(|| self.journal.content(table, key))
    }

    /// Reads all tables.
    pub(super) async fn read_all(peer: &mut Peer) -> Result<Contents, Failure> {
        let mut contents = Contents::new();
        let names = peer.names().await?;
        for table in 0..OWN {
            let name = table_name(table, 0);
            if !names.contains(&name) {
                return Err(Failure::Failed(format!("table {name} is not there")));
            }
            let id = peer.open_existing(&name).await?;
            peer.scan(id, ScanWhat::Items, |key, value| {
                match (key_of(key), value) {
                    (Some((0, key)), Some(value)) => {
                        contents.insert((table, key), value.to_vec());
                        Ok(())
                    }
                    _ => Err(Failure::Failed(format!("table {name}: an odd key {key:?}"))),
                }
            })
            .await?;
        }
        Ok(contents)
    }

    /// Holds what is there against what was written.
    ///
    /// # Errors
    /// What is lost, doubled, made up or half there.
    pub(super) fn check(&self, contents: &Contents) -> Result<(), String> {
        for doubtful in &self.doubtful {
            self.check_doubtful(doubtful, contents)?;
        }
        for (&(table, key), is) in contents {
            if self.frozen.contains(&(table, key)) {
                continue;
            }
            match self.journal.content(table, key) {
                Some(must) if must == *is => {}
                must => return Err(difference(table, key, Some(is), must.as_deref())),
            }
        }
        for table in 0..OWN {
            for key in self.journal.keys(table) {
                let must = self.journal.content(table, key);
                let is_known = !self.frozen.contains(&(table, key));
                if is_known && must.is_some() && !contents.contains_key(&(table, key)) {
                    return Err(difference(table, key, None, must.as_deref()));
                }
            }
        }
        Ok(())
    }

    fn check_doubtful(&self, doubtful: &Doubtful, contents: &Contents) -> Result<(), String> {
        let Doubtful { step, table, keys } = doubtful;
        let is_as_after = |step: StepNumber| {
            keys.iter().all(|key| {
                let must = self.journal.content_after(*table, *key, step);
                contents.get(&(*table, *key)) == must.as_ref()
            })
        };
        match is_as_after(*step) || is_as_after(step - 1) {
            true => Ok(()),
            false => Err(format!(
                "the refused batch {step} on {} is half there, or its keys {keys:?} have something else",
                table_name(*table, 0)
            )),
        }
    }
}

fn difference(table: usize, key: u32, is: Option<&Vec<u8>>, must: Option<&[u8]>) -> String {
    let text = |value: Option<&[u8]>| value.map_or_else(|| "nothing".to_owned(), brief);
    format!(
        "table {}, key {key}: {}, not {}",
        table_name(table, 0),
        text(is.map(Vec::as_slice)),
        text(must)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_may_be_there_whole_or_not_at_all() {
        let mut ledger = Ledger::new();
        let mut draws = Draws::new(5, 5);
        let batch = ledger.plan_before(BALLAST, &[1, 2], &mut draws);
        let step = ledger.sent();
        ledger.done(step);
        let before: Contents = [1, 2]
            .map(|key| {
                (
                    (BALLAST, key),
                    ledger.content(BALLAST, key).unwrap().unwrap(),
                )
            })
            .into();
        assert_eq!(batch.keys, [1, 2]);
        assert_eq!(ledger.check(&before), Ok(()));
        assert!(ledger.check(&Contents::new()).is_err(), "lost");
        let refused = ledger.plan_before(BALLAST, &[2, 3], &mut draws);
        let step = ledger.sent();
        let after: Contents = [1, 2, 3]
            .map(|key| {
                (
                    (BALLAST, key),
                    ledger.content(BALLAST, key).unwrap().unwrap(),
                )
            })
            .into();
        ledger.doubt(step, &refused);
        assert_eq!(ledger.content(BALLAST, 2), None);
        assert_eq!(ledger.check(&before), Ok(()));
        assert_eq!(ledger.check(&after), Ok(()));
        let mut half = after.clone();
        half.remove(&(BALLAST, 3));
        assert!(ledger.check(&half).unwrap_err().contains("half there"));
        let mut made_up = after;
        made_up.insert((VALUES, 9), vec![1]);
        assert!(ledger.check(&made_up).is_err());
    }
}
