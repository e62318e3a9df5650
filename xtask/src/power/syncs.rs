//! Whether each answered write was on stable storage before its answer: by the syncs in the trace.

use std::collections::HashMap;

use super::journal::{Journal, StepNumber, TOKEN};
use super::points::Kinds;
use super::trace::{FileId, Trace, What};

/// The bytes behind a token: the client and the step.
const TOKEN_BYTES: usize = 24;

/// What was seen of the syncs of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Answered writes that were found in the log.
    pub(crate) writes: usize,
    /// Those of a client that waits for each answer.
    pub(crate) lone_writes: usize,
    /// Syncs of the log's files.
    pub(crate) syncs: usize,
    /// The first write that was answered too early, in words.
    pub(crate) early: Option<String>,
}

/// A sync of a file of the log: the event at which it began, and the time at which it had ended.
type Sync = (usize, u64);

/// Looks at each answered write: was there a sync that began after it was written and ended before its
/// answer came?
pub(crate) fn look(trace: &Trace, journals: &[Journal]) -> Seen {
    let kinds = Kinds::of(trace);
    let mut seen = Seen::default();
    let mut began: HashMap<u64, usize> = HashMap::new();
    let mut syncs: HashMap<FileId, Vec<Sync>> = HashMap::new();
    // The first time that a step was written is the one that its answer waited for.
    let mut written: HashMap<(u64, StepNumber), (FileId, usize)> = HashMap::new();
    for (index, event) in trace.events.iter().enumerate() {
        match &event.what {
            What::SyncBegan { file, sync } if kinds.logs.contains(file) => {
                began.insert(*sync, index);
            }
            What::SyncEnded { file, sync } => {
                if let Some(began) = began.remove(sync) {
                    let syncs = syncs.entry(*file).or_default();
                    syncs.push((began, event.at_ns));
                    seen.syncs += 1;
                }
            }
            What::Written { file, bytes, .. } if kinds.logs.contains(file) => {
                for step in steps_in(&trace.bytes[bytes.clone()]) {
                    written.entry(step).or_insert((*file, index));
                }
            }
            _ => {}
        }
    }
    for journal in journals {
        for (step, acked_ns) in journal.answers() {
            let Some((file, index)) = written.get(&(journal.client, step)) else {
                continue;
            };
            seen.writes += 1;
            seen.lone_writes += usize::from(journal.client == 0);
            let covers = |(began, ended_ns): &Sync| began > index && *ended_ns < acked_ns;
            let syncs = syncs.get(file);
            if !syncs.is_some_and(|syncs| syncs.iter().rev().any(covers)) {
                seen.early.get_or_insert_with(|| {
                    format!("step {step} of client {} was not synced", journal.client)
                });
            }
        }
    }
    seen
}

/// The steps whose values lie in bytes of the log.
fn steps_in(bytes: &[u8]) -> impl Iterator<Item = (u64, StepNumber)> {
    bytes.windows(TOKEN_BYTES).filter_map(|window| {
        let rest = window.strip_prefix(TOKEN)?;
        let (client, step) = rest.split_first_chunk::<8>()?;
        let step = u64::from_le_bytes(step.try_into().ok()?);
        Some((
            u64::from_le_bytes(*client),
            StepNumber::try_from(step).ok()?,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::journal::value;
    use crate::power::trace::Event;

    fn look_at(answered_ns: u64, sync_began_first: bool) -> Seen {
        let bytes = value(0, 1, 0);
        let path = "data/log/1.log".to_owned();
        let write = What::Written {
            file: 2,
            offset: 0,
            bytes: 0..bytes.len(),
        };
        let began = What::SyncBegan { file: 2, sync: 1 };
        let (second, third) = match sync_began_first {
            true => (began, write),
            false => (write, began),
        };
        let ended = What::SyncEnded { file: 2, sync: 1 };
        let whats = [What::Created { file: 2, path }, second, third, ended];
        let events = whats.into_iter().enumerate();
        let events = events.map(|(index, what)| Event {
            at_ns: index as u64 * 10,
            what,
        });
        let trace = Trace {
            bytes,
            events: events.collect(),
        };
        let mut journal = Journal::new(0);
        journal.sent(0);
        journal.acked(1, answered_ns);
        look(&trace, &[journal])
    }

    #[test]
    fn an_answer_counts_if_a_sync_began_after_the_write_and_ended_before_it() {
        let seen = look_at(31, false);
        assert_eq!((seen.writes, seen.syncs, seen.early), (1, 1, None));
        assert!(look_at(30, false).early.is_some(), "answered too early");
        assert!(look_at(31, true).early.is_some(), "the sync had begun");
    }
}
