//! Answers that are held back until the log is as safe as its level asks, and what sessions log of themselves.
//!
//! A connection goes on with its next request while the answer to a write waits: so a client that has many
//! on the way waits for one sync, not for each.

use std::sync::Arc;

use bytes::Bytes;
use rhash_protocol::{ErrorCode, Ops, Response, TableId, WireError};
use tokio::sync::mpsc;

use super::{Numbers, encode, only_discards};
use crate::{
    connection::{Clerk, End, Outgoing},
    hub::Hub,
    log::{Admit, Holding, Log, LogRoom, Lsn, Record, ReplyRef, SessionRecord},
    table::Table,
};

/// The most answers of a connection that are held back at a time.
const HELD_BACK_MAX: usize = 1024;

/// An answer that waits for the log.
#[derive(Debug)]
pub(crate) struct HeldBack {
    lsn: Lsn,
    needs: Needs,
    outgoing: Outgoing,
}

/// What an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// As safe as the level asks.
    Acked,
    /// On stable storage.
    Synced,
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
        let bytes = ops.bytes().len();
        let admitted = self.unless_stopped(log.admit(bytes, Admit::Any)).await?;
        let admitted = match admitted {
            // What gives room back goes in where nothing else does.
            Err(error) if error.code == ErrorCode::DiskFull && only_discards(ops) => {
                self.unless_stopped(log.admit(bytes, Admit::Discards))
                    .await?
            }
            admitted => admitted,
        };
        Ok(admitted.map(Some))
    }

    /// Logs the answer to a request that is in no batch, if the session is one that the log tells of.
    pub(super) fn log_reply(&self, numbers: Numbers, body: &Bytes, holding: Holding) -> Lsn {
        match self.hub.store.log() {
            Some(log) if self.desk.logged => {
                let by = self.by(numbers);
                let reply = ReplyRef::Body(body);
                // Where the log has failed nothing is promised any more.
                log.append(&Record::Reply { by, reply, holding })
                    .unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Begins to log the session with the first named table that it opens; says how it holds the table now.
    pub(super) fn begin_holding(&mut self, table: TableId) -> Holding {
        let (Some(log), Some(held)) = (self.hub.store.log(), self.desk.tables.get(&table)) else {
            return Holding::Same;
        };
        if held.table.log().is_none() {
            return Holding::Same;
        }
        let holding = Holding::Opens(table, held.opens);
        if !self.desk.logged {
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
            self.desk.logged = log.begin_session(self.session.id(), record).is_ok();
        }
        holding
    }

    /// Sends an answer once its record is as safe as the level asks.
    pub(super) async fn send_logged(
        &mut self,
        request_id: u64,
        body: Bytes,
        lsn: Lsn,
    ) -> Result<(), End> {
        let is_safe = match self.hub.store.log() {
            Some(log) if lsn > 0 => log.is_acked(lsn),
            _ => true,
        };
        // Answers to writes leave in the order of the writes.
        if is_safe && self.held_back.is_none() {
            return self.send_answer(request_id, body).await;
        }
        self.hold_back(request_id, body, lsn, Needs::Acked).await
    }

    /// Answers once all that was written before is on stable storage.
    pub(super) async fn sync(&mut self, request_id: u64) -> Result<(), End> {
        let done = encode(&Response::Done);
        if !self.session.grant().rights.write {
            // It has written nothing, and shall not keep the disk busy.
            return self.send_answer(request_id, done).await;
        }
        if let Some(log) = self.hub.store.log() {
            let lsn = log.last();
            return self.hold_back(request_id, done, lsn, Needs::Synced).await;
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
        lsn: Lsn,
        needs: Needs,
    ) -> Result<(), End> {
        let room = self.unless_stopped(self.window.reserve(body.len())).await?;
        let held_back = HeldBack {
            lsn,
            needs,
            outgoing: Outgoing::answer(request_id, body, room),
        };
        let (hub, outbox) = (&self.hub, &self.outbox);
        let sender = self.held_back.get_or_insert_with(|| {
            let (sender, waiting) = mpsc::channel(HELD_BACK_MAX);
            tokio::spawn(let_go(Arc::clone(hub), waiting, outbox.clone()));
            sender
        });
        let sender = sender.clone();
        let sent = self.unless_stopped(sender.send(held_back)).await?;
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
        lsn,
        needs,
        mut outgoing,
    }) = waiting.recv().await
    {
        if let Some(log) = hub.store.log()
            && let Err(error) = wait(log, lsn, needs).await
        {
            hub.count_error(&error);
            outgoing.body = encode(&Response::Error(error));
        }
        if outbox.send(outgoing).await.is_err() {
            return;
        }
    }
}

async fn wait(log: &Log, lsn: Lsn, needs: Needs) -> Result<(), WireError> {
    match needs {
        Needs::Acked => log.acked(lsn).await,
        Needs::Synced => log.synced(lsn).await,
    }
}
