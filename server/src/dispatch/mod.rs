//! Requests to calls of tables, and what these answer to responses.
//!
//! This file takes calls and applies those that change entries, each once; [`opens`] has those that
//! change which tables a session has open, [`reads`] those that change nothing, [`answers`]
//! what all of them are answered with, [`logged`] the answers that wait for the log, and [`backups`] those
//! that take minutes.

mod opens;
mod reads;
mod answers;
mod logged;
mod backups;

use std::sync::Arc;

use bytes::Bytes;
use rhash_protocol::{
    Call, Durability, ErrorCode, Op, Ops, Request, Response, TableId, WireError, codec,
};

pub(crate) use answers::encode;
pub(crate) use logged::HeldBack;

use crate::{
    connection::{Clerk, End},
    log::{By, Holding, Lsn, OwnedReply},
    session::Turn,
    store::Opening,
    table::{Answer, Asker},
};
use answers::body_of;
use logged::Awaited;

/// The log is told at once that so many bytes of answers are settled.
const SETTLED_BYTES_MIN: usize = 4 * 1024;

/// The numbers of a request that changes something.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    request_id: u64,
    /// Among those of its session.
    sequence: u64,
    /// The client has the answers up to this one.
    settled: u64,
}

impl Clerk {
    /// Answers one call, or sees to it that it will be answered.
    pub(crate) async fn take_call(&mut self, request_id: u64, body: &[u8]) -> Result<(), End> {
        let call = match codec::decode::<Call<'_>>(body) {
            Ok(call) => call,
            Err(error) => {
                return self
                    .refuse(request_id, bad_request(error.to_string()))
                    .await;
            }
        };
        match self.desk.replies.settle(call.settled) {
            // The next record would tell the log; but there may be none for long.
            Ok(bytes) if bytes >= SETTLED_BYTES_MIN => self.tell_settled(call.settled),
            Ok(_) => {}
            Err(error) => {
                return self
                    .refuse(request_id, bad_request(error.to_string()))
                    .await;
            }
        }
        match (call.request.is_sequenced(), call.sequence) {
            (true, 0) => {
                let text = "a request that changes something needs a sequence number";
                self.refuse(request_id, bad_request(text.to_owned())).await
            }
            (true, sequence) => {
                let turn = Numbers {
                    request_id,
                    sequence,
                    settled: call.settled,
                };
                self.take_turn(turn, call.request).await
            }
            (false, 0) => self.read(request_id, call.request).await,
            (false, _) => {
                let text = "a request that changes nothing has sequence number 0";
                self.refuse(request_id, bad_request(text.to_owned())).await
            }
        }
    }

    /// Applies a request that changes something, once.
    async fn take_turn(&mut self, numbers: Numbers, request: Request<'_>) -> Result<(), End> {
        let request_id = numbers.request_id;
        match self.desk.replies.turn(numbers.sequence) {
            Err(error) => {
                self.refuse(request_id, bad_request(error.to_string()))
                    .await
            }
            Ok(Turn::Repeat(reply)) => {
                let awaited = self.awaited_again();
                self.send_logged(request_id, body_of(&reply), awaited)
                    .await?;
                // A repeated answer to an open may say what is no longer so.
                for &table in self.desk.tables.keys() {
                    self.hub.holders.tell_again(table, self.session.id());
                }
                Ok(())
            }
            Ok(Turn::Crowded) => {
                let error = WireError {
                    code: ErrorCode::Busy,
                    text: "too many long answers are unsettled; read them, then try again"
                        .to_owned(),
                };
                self.remember_and_send(numbers, encode(&Response::Error(error)), Holding::Same)
                    .await
            }
            Ok(Turn::Apply) => match self.bound(&request).and_then(|()| self.permit(&request)) {
                // It takes the number all the same, or those that follow would leave a gap.
                Err(error) => self.remember_error(numbers, error).await,
                Ok(()) => self.apply(numbers, request).await,
            },
        }
    }

    async fn apply(&mut self, numbers: Numbers, request: Request<'_>) -> Result<(), End> {
        let (response, table) = match request {
            Request::Open {
                name,
                kind,
                codec,
                mode,
                durability,
            } => {
                let opening = Opening {
                    name,
                    kind,
                    codec,
                    mode,
                    durability,
                    by: Some(self.by(numbers)),
                    session_lsn: 0,
                };
                return self.open(numbers, opening).await;
            }
            Request::Write { table, ops } => {
                return match self.write(numbers, table, ops).await? {
                    Ok((reply, awaited)) => {
                        let body = body_of(&reply);
                        // Its record holds the answer, if there is one.
                        self.desk.replies.remember(reply);
                        self.send_logged(numbers.request_id, body, awaited).await
                    }
                    Err(error) => self.remember_error(numbers, error).await,
                };
            }
            Request::Clear { table } => {
                let cleared = self.clear(table, self.by(numbers)).await;
                return self.finish_emptied(numbers, table, cleared).await;
            }
            Request::Close { table } => {
                let closed = self.close(table, self.by(numbers)).await;
                return self.finish_emptied(numbers, table, closed).await;
            }
            Request::Detach { table } => (self.detach(table).await, table),
            _ => (
                Err(bad_request("this request is not sequenced".to_owned())),
                0,
            ),
        };
        match response {
            Ok(body) => {
                self.remember_and_send(numbers, body, self.holding(table))
                    .await
            }
            Err(error) => self.remember_error(numbers, error).await,
        }
    }

    /// Answers to a clear or a close.
    async fn finish_emptied(
        &mut self,
        numbers: Numbers,
        table: TableId,
        emptied: Result<Lsn, WireError>,
    ) -> Result<(), End> {
        let body = encode(&Response::Done);
        match emptied {
            Ok(0) => {
                self.remember_and_send(numbers, body, self.holding(table))
                    .await
            }
            // IMPORTANT: one record says that it was done and that it was answered. Between two, a kill would
            // let it be done again when it is sent again, over what others wrote meanwhile.
            Ok(lsn) => {
                let body = self.keep(body);
                self.desk.replies.remember(OwnedReply::Body(body.clone()));
                // It was brought to stable storage by whoever emptied the table.
                let durability = Durability::Always;
                let awaited = Awaited { lsn, durability };
                self.send_logged(numbers.request_id, body, awaited).await
            }
            Err(error) => self.remember_error(numbers, error).await,
        }
    }

    /// How the session holds a table now, as the log tells of it.
    fn holding(&self, table: TableId) -> Holding {
        match self.desk.tables.get(&table) {
            Some(held) if held.table.log().is_none() => Holding::Same,
            held => Holding::Opens(table, held.map_or(0, |held| held.opens)),
        }
    }

    /// Keeps an answer, which has an account.
    fn keep(&self, body: Bytes) -> Bytes {
        self.hub.store.keep(body)
    }

    /// Names a request in the log.
    fn by(&self, numbers: Numbers) -> By {
        By {
            session: self.session.id(),
            sequence: numbers.sequence,
            settled: numbers.settled,
        }
    }

    async fn remember_error(&mut self, numbers: Numbers, error: WireError) -> Result<(), End> {
        self.hub.count_error(&error);
        let body = encode(&Response::Error(error));
        self.remember_and_send(numbers, body, Holding::Same).await
    }

    async fn remember_and_send(
        &mut self,
        numbers: Numbers,
        body: Bytes,
        holding: Holding,
    ) -> Result<(), End> {
        // IMPORTANT: remembered before it is sent. A connection that is lost in between would
        // otherwise have applied what its client sends again.
        let body = self.keep(body);
        let reply = OwnedReply::Body(body.clone());
        self.desk.replies.remember(reply.clone());
        let awaited = self.log_reply(numbers, reply, holding);
        self.send_logged(numbers.request_id, body, awaited).await
    }

    async fn write(
        &self,
        numbers: Numbers,
        table: TableId,
        ops: Ops<'_>,
    ) -> Result<Result<(OwnedReply, Awaited), WireError>, End> {
        let table = match self.desk.table(&self.hub.store, table) {
            Ok(table) => table,
            Err(error) => return Ok(Err(error)),
        };
        // Waiting may be given up, since nothing is applied yet; what follows may not.
        let admitted = self
            .unless_ended(self.hub.store.admit(ops.bytes().len()))
            .await?;
        let admission = match admitted {
            // What gives room back goes in where nothing else does.
            Err(error) if only_discards(ops) => {
                self.hub.store.admit_discards(ops.bytes().len(), error)
            }
            admitted => admitted,
        };
        let admission = match admission {
            Ok(admission) => admission,
            Err(error) => return Ok(Err(error)),
        };
        let log_room = match self.admit_to_log(table, ops).await? {
            Ok(room) => room,
            Err(error) => return Ok(Err(error)),
        };
        let asker = Asker {
            by: self.by(numbers),
            kept_bytes: self.desk.replies.bytes(),
        };
        let written = match table.write_by(ops, Some(asker)) {
            Answer::Ready(written) => written,
            Answer::Pending(written) => written.await.unwrap_or_else(|_dropped| Err(stopping())),
        };
        drop((admission, log_room));
        self.hub.count_operations(ops.count());
        Ok(written.map(|reply| {
            let awaited = Awaited {
                lsn: reply.lsn,
                durability: table.durability(),
            };
            (OwnedReply::Written(reply.count, reply.bytes), awaited)
        }))
    }

    async fn clear(&self, table: TableId, by: By) -> Result<Lsn, WireError> {
        let table = Arc::clone(self.desk.table(&self.hub.store, table)?);
        self.hub.blocking(move |_| table.clear_by(Some(by))).await
    }

    async fn refuse(&self, request_id: u64, error: WireError) -> Result<(), End> {
        self.hub.count_error(&error);
        self.send_answer(request_id, encode(&Response::Error(error)))
            .await
    }
}

fn only_discards(ops: Ops<'_>) -> bool {
    ops.iter()
        .all(|op| matches!(op, Ok(Op::Discard { .. } | Op::Remove { .. })))
}

fn bad_request(text: String) -> WireError {
    WireError {
        code: ErrorCode::BadRequest,
        text,
    }
}

fn stopping() -> WireError {
    WireError {
        code: ErrorCode::ShuttingDown,
        text: "the server is stopping".to_owned(),
    }
}
