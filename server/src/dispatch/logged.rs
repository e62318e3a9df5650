//! Answers that are held back until the log is as safe as their tables ask, and what sessions log of themselves.
//!
//! A connection goes on with its next request while the answer to a write waits: so a client that has many
//! on the way waits for one sync, not for each.

use std::sync::Arc;

use bytes::Bytes;
use rhash_protocol::{Durability, ErrorCode, OpenMode, Ops, Response, TableId, WireError};
use tokio::sync::mpsc;

use super::{Numbers, encode, only_discards};
use crate::{
    connection::{Clerk, End, Outgoing},
    hub::Hub,
    log::{Admit, Holding, LogRoom, Lsn, OwnedReply, Record, SessionRecord},
    table::Table,
};

/// The most answers of a connection that are held back at a time.
const HELD_BACK_MAX: usize = 1024;

/// An answer that waits for the log.
#[derive(Debug)]
pub(crate) struct HeldBack {
    awaited: Awaited,
    outgoing: Outgoing,
}

/// The record of the log that an answer waits for, and how safe that is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Awaited {
    /// 0 for none.
    pub(super) lsn: Lsn,
    pub(super) durability: Durability,
}

impl Awaited {
    /// Of an answer that waits for nothing.
    pub(super) const NOTHING: Self = Self {
        lsn: 0,
        durability: Durability::None,
    };
}

impl Clerk {
    /// Waits for room in the log for a write to a table that has one.
    pub(super) async fn admit_to_log(
        &self,
        table: &Arc<Table>,
        ops: Ops<'_>,
    ) -> Result<Result<Option<LogRoom>, WireError>, End> {
        let Some(log) = table.log() else {
            return Ok(Ok(None));
        };
        let (bytes, durability) = (ops.bytes().len(), table.durability());
        let admitted = self
            .unless_ended(log.admit(bytes, durability, Admit::Any))
            .await?;
        let admitted = match admitted {
            // What gives room back goes in where nothing else does.
            Err(error) if error.code == ErrorCode::DiskFull && only_discards(ops) => {
                self.unless_ended(log.admit(bytes, durability, Admit::Discards))
                    .await?
            }
            admitted => admitted,
        };
        Ok(admitted.map(Some))
    }

    /// Logs the answer to a request that is in no batch, if the session is one that the log tells of.
    pub(super) fn log_reply(
        &self,
        numbers: Numbers,
        reply: OwnedReply,
        holding: Holding,
    ) -> Awaited {
        match self.hub.store.log() {
            Some(log) if self.desk.logged => {
                let by = self.by(numbers);
                let durability = self.desk.durability;
                let record = Record::Reply { by, reply, holding };
                // Where the log has failed nothing is promised any more.
                let lsn = log.append_at(durability, &record).unwrap_or(0);
                Awaited { lsn, durability }
            }
            _ => Awaited::NOTHING,
        }
    }

    /// Tells the log that the client has the answers up to this number.
    pub(super) fn tell_settled(&self, settled: u64) {
        if let Some(log) = self.hub.store.log().filter(|_| self.desk.logged) {
            log.settle(self.session.id(), settled);
        }
    }

    /// Begins to log the session before it may make a named table that is logged; returns the record that
    /// tells of the session, 0 if one did before, or none does.
    pub(super) fn begin_opening(
        &mut self,
        name: Option<&str>,
        mode: OpenMode,
        durability: Option<Durability>,
    ) -> Lsn {
        let durability = durability.unwrap_or(self.hub.store.durability());
        if name.is_none() || mode == OpenMode::Existing || durability == Durability::None {
            return 0;
        }
        self.begin_session()
    }

    /// Begins to log the session with the first named table that it opens and that is logged; says how it
    /// holds the table now.
    pub(super) fn begin_holding(&mut self, table: TableId) -> Holding {
        let Some(held) = self.desk.tables.get(&table) else {
            return Holding::Same;
        };
        if held.table.log().is_none() {
            // IMPORTANT: the log tells nothing of it, or the session would have it open after a restart, too, and
            // a write that is sent again then could be applied twice.
            let is_named = held.table.name().is_some();
            self.desk.has_unlogged |= is_named;
            return Holding::Same;
        }
        let (opens, durability) = (held.opens, held.table.durability());
        self.desk.durability = self.desk.durability.max(durability);
        self.begin_session();
        Holding::Opens(table, opens)
    }

    fn begin_session(&mut self) -> Lsn {
        let Some(log) = self.hub.store.log().filter(|_| !self.desk.logged) else {
            return 0;
        };
        let record = || {
            let ticket = self.session.ticket();
            let grant = self.session.grant();
            let (taken, settled) = self.desk.replies.numbers();
            SessionRecord {
                id: ticket.id,
                secret: ticket.secret,
                token: (grant.name.clone(), grant.hash.map(|hash| hash.bytes())),
                taken,
                settled,
                tables: Vec::new(),
                replies: Vec::new(),
            }
        };
        let begun = log.begin_session(self.session.id(), record);
        self.desk.logged = begun.is_ok();
        begun.unwrap_or(0)
    }

    /// Sends an answer once its record is as safe as its table asks.
    pub(super) async fn send_logged(
        &mut self,
        request_id: u64,
        body: Bytes,
        awaited: Awaited,
    ) -> Result<(), End> {
        let Awaited { lsn, durability } = awaited;
        let is_safe = match self.hub.store.log() {
            Some(log) if lsn > 0 => log.reached(durability, lsn),
            _ => true,
        };
        // Answers to writes leave in the order of the writes.
        if is_safe && self.held_back.is_none() {
            return self.send_answer(request_id, body).await;
        }
        self.hold_back(request_id, body, awaited).await
    }

    /// What the answer to a request waits for that was answered before: all that there is, as safe as the
    /// safest table asks that the session had.
    pub(super) fn awaited_again(&self) -> Awaited {
        let durability = self.desk.durability;
        let lsn = match (durability, self.hub.store.log()) {
            // What this server answered is of tables that are not logged. What it read in the log is safe.
            (Durability::None, _) | (_, None) => 0,
            (_, Some(log)) => log.last(),
        };
        Awaited { lsn, durability }
    }

    /// Answers once all that was written before is on stable storage.
    pub(super) async fn sync(&mut self, request_id: u64) -> Result<(), End> {
        let done = encode(&Response::Done);
        if !self.session.grant().rights.write {
            // It has written nothing, and shall not keep the disk busy.
            return self.send_answer(request_id, done).await;
        }
        if let Some(log) = self.hub.store.log() {
            let awaited = Awaited {
                lsn: log.last(),
                durability: Durability::Always,
            };
            if self.desk.has_unlogged {
                let written = self.hub.blocking(|hub| hub.store.write_down_unlogged());
                if let Err(error) = written.await {
                    return self.refuse(request_id, error).await;
                }
            }
            return self.hold_back(request_id, done, awaited).await;
        }
        let synced = self.hub.blocking(|hub| hub.store.checkpoint()).await;
        let body = match synced {
            Ok(()) => done,
            Err(error) => encode(&Response::Error(error)),
        };
        self.send_answer(request_id, body).await
    }

    async fn hold_back(
        &mut self,
        request_id: u64,
        body: Bytes,
        awaited: Awaited,
    ) -> Result<(), End> {
        let room = self
            .unless_taken_away(self.window.reserve(body.len()))
            .await?;
        let held_back = HeldBack {
            awaited,
            outgoing: Outgoing::answer(request_id, body, room),
        };
        let (hub, outbox) = (&self.hub, &self.outbox);
        let sender = self.held_back.get_or_insert_with(|| {
            let (sender, waiting) = mpsc::channel(HELD_BACK_MAX);
            tokio::spawn(let_go(Arc::clone(hub), waiting, outbox.clone()));
            sender
        });
        let sender = sender.clone();
        let sent = self.unless_taken_away(sender.send(held_back)).await?;
        sent.map_err(|_writer_is_gone| End::Closed)
    }
}

/// Sends answers as the log comes by them, to the end of those of a connection.
async fn let_go(
    hub: Arc<Hub>,
    mut waiting: mpsc::Receiver<HeldBack>,
    outbox: mpsc::Sender<Outgoing>,
) {
    while let Some(HeldBack {
        awaited: Awaited { lsn, durability },
        mut outgoing,
    }) = waiting.recv().await
    {
        if let Some(log) = hub.store.log()
            && let Err(error) = log.wait(durability, lsn).await
        {
            hub.count_error(&error);
            outgoing.body = encode(&Response::Error(error));
        }
        if outbox.send(outgoing).await.is_err() {
            return;
        }
    }
}
