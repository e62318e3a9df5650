//! The clients of a server whose disk fails: one writes, one reads what was there before.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rhash_protocol::{
    ErrorCode, Keys, Op, Ops, Request, Response, Slot, Stats, TableId, WireError, packed,
};

use super::ledger::{BALLAST_BEFORE, KEYS_BEFORE, Ledger};
use crate::failure::Failure;
use crate::power::draws::Draws;
use crate::power::found::brief;
use crate::power::journal::{BALLAST, OWN, VALUES, key_bytes, table_name};
use crate::power::load::{check_outcomes, kind_of};
use crate::power::peer::{Peer, now_ns, unexpected};
use crate::power::plan::Batch;

/// An answer that takes longer is as bad as none.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// After an answer that is an error, a client waits so long.
const PAUSE: Duration = Duration::from_millis(15);
/// Keys of a get.
const KEYS_READ: u64 = 8;
/// After so many batches what was written is read back.
const READ_BACK_EVERY: u64 = 5;
/// A client that there is not.
const NOBODY: u64 = 99;
/// Errors that are kept, of each code one.
const TEXT_BYTES_MAX: usize = 300;

/// What clients and their director share.
#[derive(Debug, Default)]
pub(super) struct Board {
    stop: AtomicBool,
    /// Writes that were sent after this count as new.
    cleared_ns: AtomicU64,
    /// When the first of those was acknowledged.
    resumed_ns: AtomicU64,
    pub(super) acked: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) reads_failed: AtomicU64,
    /// By what was asked and the code of the error, the first text.
    errors: Mutex<BTreeMap<String, String>>,
    /// What must not be.
    wrong: Mutex<Vec<String>>,
}

impl Board {
    /// From now on a write that is acknowledged means that writes go on.
    pub(super) fn cleared(&self) {
        self.resumed_ns.store(0, Relaxed);
        self.cleared_ns.store(now_ns(), Relaxed);
    }

    /// How long after that one was.
    pub(super) fn resumed_after(&self) -> Option<Duration> {
        let resumed_ns = self.resumed_ns.load(Relaxed);
        let after_ns = resumed_ns.checked_sub(self.cleared_ns.load(Relaxed))?;
        Some(Duration::from_nanos(after_ns))
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Something that must not be.
    pub(super) fn wrong(&self, what: String) {
        if let Ok(mut wrong) = self.wrong.lock() {
            wrong.push(what);
        }
    }

    pub(super) fn all_wrong(&self) -> Vec<String> {
        let wrong = self.wrong.lock();
        wrong.map(|wrong| wrong.clone()).unwrap_or_default()
    }

    /// The errors that clients were told.
    pub(super) fn errors(&self) -> BTreeMap<String, String> {
        let errors = self.errors.lock();
        errors.map(|errors| errors.clone()).unwrap_or_default()
    }

    fn error(&self, what: &str, error: &WireError) {
        let known = matches!(
            error.code,
            ErrorCode::Storage | ErrorCode::DiskFull | ErrorCode::Busy | ErrorCode::Damaged
        );
        if !known || error.text.is_empty() {
            self.wrong(format!("{what} was told {:?}: {}", error.code, error.text));
        }
        if what == "a read" && error.code == ErrorCode::Damaged {
            self.wrong(format!(
                "a read is told that data are damaged: {}",
                error.text
            ));
        }
        if let Ok(mut errors) = self.errors.lock() {
            let key = format!("{what}: {:?}", error.code);
            errors.entry(key).or_insert_with(|| {
                let end = error.text.floor_char_boundary(TEXT_BYTES_MAX);
                error.text[..end].to_owned()
            });
        }
    }

    fn took(&self, what: &str, began: Instant) {
        if began.elapsed() > ANSWER_MAX {
            self.wrong(format!(
                "{what} took {:.1} s",
                began.elapsed().as_secs_f64()
            ));
        }
    }
}

/// A client with the tables open.
pub(super) struct Hand {
    pub(super) peer: Peer,
    tables: [TableId; OWN],
}

impl Hand {
    pub(super) async fn connect(address: &str) -> Result<Self, Failure> {
        let mut peer = Peer::connect(address).await?;
        let mut tables = [0; OWN];
        for (table, id) in tables.iter_mut().enumerate() {
            *id = peer.open(&table_name(table, 0), kind_of(table)).await?;
        }
        Ok(Self { peer, tables })
    }

    /// Writes a planned batch; an error of the server is none of this.
    pub(super) async fn write(
        &mut self,
        batch: &Batch,
        ledger: &mut Ledger,
    ) -> Result<Option<WireError>, Failure> {
        let step = ledger.sent();
        let write = Request::Write {
            table: self.tables[batch.table],
            ops: Ops::new(batch.count, &batch.ops),
        };
        let answered = self.peer.call(write).await;
        let answer = match answered {
            Ok(answer) => answer,
            Err(failure) => {
                ledger.doubt(step, batch);
                return Err(failure);
            }
        };
        match answer.response()? {
            Response::Written(is) => {
                check_outcomes(&batch.outcomes, is.iter().flatten())?;
                ledger.done(step);
                Ok(None)
            }
            Response::Error(error) => {
                ledger.doubt(step, batch);
                Ok(Some(error))
            }
            other => Err(unexpected("a write", &other)),
        }
    }

    /// Reads keys, and holds what comes against the ledger.
    async fn read(
        &mut self,
        table: usize,
        keys: &[u32],
        ledger: &Ledger,
        board: &Board,
    ) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        for key in keys {
            packed::push_bytes(&mut bytes, &key_bytes(0, *key));
        }
        let get = Request::Get {
            table: self.tables[table],
            keys: Keys::new(keys.len() as u32, &bytes),
        };
        let began = Instant::now();
        let answer = self.peer.call(get).await?;
        board.took("a read", began);
        let values = match answer.response()? {
            Response::Values(values) => values,
            Response::Error(error) => {
                board.reads_failed.fetch_add(1, Relaxed);
                board.error("a read", &error);
                tokio::time::sleep(PAUSE).await;
                return Ok(());
            }
            other => return Err(unexpected("a get", &other)),
        };
        board.reads.fetch_add(1, Relaxed);
        for (slot, key) in values.iter().zip(keys) {
            let is = match slot {
                Ok(Slot::Value(value)) => Some(value.to_vec()),
                Ok(Slot::Absent) => None,
                other => return Err(Failure::Failed(format!("a slot of a get: {other:?}"))),
            };
            if let Some(must) = ledger.content(table, *key)
                && must != is
            {
                let text = |value: &Option<Vec<u8>>| {
                    value.as_deref().map_or_else(|| "nothing".to_owned(), brief)
                };
                let (is, must) = (text(&is), text(&must));
                let table = table_name(table, 0);
                board.wrong(format!(
                    "a read of {table}, key {key}, gave {is}, not {must}"
                ));
            }
        }
        Ok(())
    }

    /// Discards a key that nobody wrote.
    pub(super) async fn discard_nothing(
        &mut self,
        number: u32,
    ) -> Result<Option<WireError>, Failure> {
        let mut bytes = Vec::new();
        let key = key_bytes(NOBODY, number);
        packed::push_op(&mut bytes, &Op::Discard { key: &key });
        let write = Request::Write {
            table: self.tables[VALUES],
            ops: Ops::new(1, &bytes),
        };
        match self.peer.call(write).await?.response()? {
            Response::Written(_) => Ok(None),
            Response::Error(error) => Ok(Some(error)),
            other => Err(unexpected("a discard", &other)),
        }
    }

    /// The server's figures.
    pub(super) async fn stats(&mut self) -> Result<Stats, Failure> {
        match self.peer.call(Request::Stats).await?.response()? {
            Response::Stats(stats) => Ok(*stats),
            other => Err(unexpected("stats", &other)),
        }
    }
}

/// Writes until it is told to stop; returns what it wrote.
pub(super) async fn write(
    hand: &mut Hand,
    ledger: &mut Ledger,
    board: &Board,
    draws: &mut Draws,
) -> Result<(), Failure> {
    let mut number = 0;
    while !board.stopped() {
        number += 1;
        let batch = ledger.plan(draws);
        let (sent_ns, began) = (now_ns(), Instant::now());
        match hand.write(&batch, ledger).await? {
            None => {
                board.acked.fetch_add(1, Relaxed);
                if sent_ns > board.cleared_ns.load(Relaxed) {
                    let resumed = board
                        .resumed_ns
                        .compare_exchange(0, now_ns(), Relaxed, Relaxed);
                    // Only the first counts.
                    resumed.ok();
                }
                if number % READ_BACK_EVERY == 0 {
                    hand.read(batch.table, &batch.keys, ledger, board).await?;
                }
            }
            Some(error) => {
                board.refused.fetch_add(1, Relaxed);
                board.error("a write", &error);
                tokio::time::sleep(PAUSE).await;
            }
        }
        board.took("a write", began);
    }
    Ok(())
}

/// Reads what was there before until it is told to stop.
pub(super) async fn read(
    hand: &mut Hand,
    ledger: &Ledger,
    board: &Board,
    draws: &mut Draws,
) -> Result<(), Failure> {
    while !board.stopped() {
        read_some(hand, ledger, board, draws).await?;
    }
    Ok(())
}

/// Reads a few keys of what was there before.
pub(super) async fn read_some(
    hand: &mut Hand,
    ledger: &Ledger,
    board: &Board,
    draws: &mut Draws,
) -> Result<(), Failure> {
    let table = draws.below(OWN as u64) as usize;
    let keys_max = match table {
        BALLAST => BALLAST_BEFORE,
        _ => KEYS_BEFORE,
    };
    let keys: Vec<u32> = (0..1 + draws.below(KEYS_READ))
        .map(|_| draws.below(u64::from(keys_max)) as u32)
        .collect();
    hand.read(table, &keys, ledger, board).await
}

/// Discards keys; an error if that is refused.
pub(super) async fn discard(
    hand: &mut Hand,
    ledger: &mut Ledger,
    draws: &mut Draws,
) -> Result<Option<WireError>, Failure> {
    let batch = ledger.plan_discards(draws);
    hand.write(&batch, ledger).await
}
