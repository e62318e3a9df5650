//! What a table writes into each of its runs, so that the manifest can be made anew from runs alone.
//!
//! A manifest says which runs a range has, newest first. The numbers of runs do not: a merge makes a new run of
//! old ones. So each run says how old it is by the numbers of the spills that it came from, *oldest* to *newest*,
//! and the places for which it stands for all of that age. Where two runs overlap there, the one with the
//! higher number was made of the other, and stands for it.

use rhash_protocol::packed::{Malformed, push_number, take_number};

use super::{
    edit::{TableState, push_table, take_table},
    marks::Marks,
};
use crate::{cold::RunId, log::Lsn};

const TEMPORARY: u8 = 0;
const NAMED: u8 = 1;

/// What a run says of where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// To a temporary table, which ends with its server.
    Temporary,
    /// To a named one.
    Named(Box<Named>),
}

/// A run of a named table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// The table without its ranges; its marks are those of this run.
    pub(crate) table: TableState,
    /// All that the log said up to this record was in runs when this one was begun.
    pub(crate) checkpoint: Lsn,
    /// The places that it stands for, both inclusive.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The numbers of the spills that it came from; those of itself, if it is one.
    pub(crate) oldest: RunId,
    pub(crate) newest: RunId,
}

impl Note {
    /// The note as bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self::Named(named) = self else {
            return vec![TEMPORARY];
        };
        let mut bytes = vec![NAMED];
        let numbers = [
            named.checkpoint,
            named.first,
            named.last,
            named.oldest,
            named.newest,
        ];
        for number in numbers {
            push_number(&mut bytes, number);
        }
        push_table(&mut bytes, &named.table);
        bytes
    }

    /// Reads a note; none if the run's writer knew no notes.
    pub(crate) fn read(mut bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let bytes = &mut bytes;
        let Some((&tag, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        *bytes = rest;
        let note = match tag {
            TEMPORARY => Self::Temporary,
            NAMED => Self::Named(Box::new(Named {
                checkpoint: take_number(bytes)?,
                first: take_number(bytes)?,
                last: take_number(bytes)?,
                oldest: take_number(bytes)?,
                newest: take_number(bytes)?,
                table: take_table(bytes)?,
            })),
            _ => return Err(Malformed("an unknown kind of note")),
        };
        if bytes.is_empty() {
            Ok(Some(note))
        } else {
            Err(Malformed("bytes left over"))
        }
    }
}

impl Named {
    /// What a run says that is made of others, for these places. Those that say nothing are as old as their
    /// numbers.
    pub(crate) fn of_merged(
        table: TableState,
        checkpoint: Lsn,
        places: (u64, u64),
        inputs: &[(RunId, Option<Self>)],
    ) -> Self {
        let (first, last) = places;
        let mut marks = Marks::default();
        for (_, input) in inputs {
            if let Some(input) = input {
                marks.raise_within(&input.table.marks, first, last);
            }
        }
        marks.forget(checkpoint);
        let ages = |age: fn(&Self) -> RunId| {
            let of = move |(id, input): &(RunId, Option<Self>)| input.as_ref().map_or(*id, age);
            inputs.iter().map(of)
        };
        Self {
            table: TableState { marks, ..table },
            checkpoint,
            first,
            last,
            oldest: ages(|input| input.oldest).min().unwrap_or(0),
            newest: ages(|input| input.newest).max().unwrap_or(0),
        }
    }

    /// Whether a run with this number and note is one that was spilled, and not made of others.
    pub(crate) fn is_spill(&self, id: RunId) -> bool {
        self.oldest == id && self.newest == id
    }
}

/// Reads bytes as a note; that it returns is the point.
pub(crate) fn read_arbitrary(bytes: &[u8]) {
    drop(Note::read(bytes));
}

/// Notes as bytes.
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let mut marks = Marks::default();
    marks.raise(&super::Mark {
        first: 5,
        last: 500,
        lsn: 77,
    });
    let table = TableState {
        name: "sample".to_owned(),
        kind: rhash_protocol::TableKind::Counters,
        codec: "bytes".to_owned(),
        ranges: crate::ranges::Ranges::new(),
        marks,
        emptied: 9,
        durability: None,
        maker: None,
    };
    let named = Named {
        table,
        checkpoint: 70,
        first: 0,
        last: 1 << 40,
        oldest: 3,
        newest: 300,
    };
    vec![
        Note::Temporary.to_bytes(),
        Note::Named(Box::new(named)).to_bytes(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        for bytes in samples() {
            let note = Note::read(&bytes).expect("a note").expect("there is one");
            assert_eq!(note.to_bytes(), bytes);
            for length in 1..bytes.len() {
                assert!(Note::read(&bytes[..length]).is_err());
            }
        }
        assert_eq!(Note::read(&[]), Ok(None));
    }

    #[test]
    fn a_note_has_these_bytes() {
        assert_eq!(
            samples()[1],
            b"\x01\x46\x00\x80\x80\x80\x80\x80\x20\x03\xac\x02\x06sample\x02\x05bytes\x01\x00\x00\x09\x02\x05\x4d\xf5\x03\x00\x00\x00"
        );
    }

    #[test]
    fn a_merge_is_as_old_as_its_inputs_and_keeps_their_marks() {
        let input = |id: RunId| match Note::read(&samples()[1]) {
            Ok(Some(Note::Named(named))) => (id, Some(*named)),
            other => panic!("{other:?}"),
        };
        let table = input(0).1.expect("named").table.bare();
        let merged = Named::of_merged(table, 71, (100, 200), &[(400, None), input(350)]);
        assert_eq!((merged.oldest, merged.newest), (3, 400));
        assert_eq!(merged.table.marks.at(99), 0);
        assert_eq!(merged.table.marks.at(100), 77);
        assert_eq!(merged.table.marks.at(201), 0);
        assert!(!merged.is_spill(500));
    }
}
