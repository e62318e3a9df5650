//! Requests to calls of tables, and what these answer to responses.
//!
//! This file takes calls and applies those that change entries, each once; [`opens`] has those that
//! change which tables a session has open, [`reads`] those that change nothing, and [`answers`]
//! what all of them are answered with.

mod opens;
mod reads;
mod answers;

use std::sync::Arc;

use bytes::Bytes;
use rhash_protocol::{
    Call, ErrorCode, Op, Ops, Outcomes, Request, Response, TableId, WireError, codec,
};

pub(crate) use answers::encode;

use crate::{
    connection::{Clerk, End},
    session::Turn,
    table::Answer,
};
use opens::Opening;

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
        if let Err(error) = self.desk.replies.settle(call.settled) {
            return self
                .refuse(request_id, bad_request(error.to_string()))
                .await;
        }
        match (call.request.is_sequenced(), call.sequence) {
            (true, 0) => {
                let text = "a request that changes something needs a sequence number";
                self.refuse(request_id, bad_request(text.to_owned())).await
            }
            (true, sequence) => self.take_turn(request_id, sequence, call.request).await,
            (false, 0) => self.read(request_id, call.request).await,
            (false, _) => {
                let text = "a request that changes nothing has sequence number 0";
                self.refuse(request_id, bad_request(text.to_owned())).await
            }
        }
    }

    /// Applies a request that changes something, once.
    async fn take_turn(
        &mut self,
        request_id: u64,
        sequence: u64,
        request: Request<'_>,
    ) -> Result<(), End> {
        match self.desk.replies.turn(sequence) {
            Err(error) => {
                self.refuse(request_id, bad_request(error.to_string()))
                    .await
            }
            Ok(Turn::Repeat(reply)) => {
                self.send_answer(request_id, reply).await?;
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
                self.remember_and_send(request_id, encode(&Response::Error(error)))
                    .await
            }
            Ok(Turn::Apply) => match self.bound(&request).and_then(|()| self.permit(&request)) {
                // It takes the number all the same, or those that follow would leave a gap.
                Err(error) => {
                    self.hub.count_error(&error);
                    self.remember_and_send(request_id, encode(&Response::Error(error)))
                        .await
                }
                Ok(()) => self.apply(request_id, request).await,
            },
        }
    }

    async fn apply(&mut self, request_id: u64, request: Request<'_>) -> Result<(), End> {
        match request {
            Request::Open {
                name,
                kind,
                codec,
                mode,
            } => {
                self.open(
                    request_id,
                    Opening {
                        name,
                        kind,
                        codec,
                        mode,
                    },
                )
                .await
            }
            request => {
                let response = match request {
                    Request::Write { table, ops } => self.write(table, ops).await?,
                    Request::Clear { table } => self.clear(table).await,
                    Request::Close { table } => self.close(table).await,
                    Request::Detach { table } => self.detach(table).await,
                    _ => Err(bad_request("this request is not sequenced".to_owned())),
                };
                let body = response.unwrap_or_else(|error| {
                    self.hub.count_error(&error);
                    encode(&Response::Error(error))
                });
                self.remember_and_send(request_id, body).await
            }
        }
    }

    async fn remember_and_send(&mut self, request_id: u64, body: Bytes) -> Result<(), End> {
        // IMPORTANT: remembered before it is sent. A connection that is lost in between would
        // otherwise have applied what its client sends again.
        self.desk.replies.remember(body.clone());
        self.send_answer(request_id, body).await
    }

    async fn write(&self, table: TableId, ops: Ops<'_>) -> Result<Result<Bytes, WireError>, End> {
        let table = match self.desk.table(&self.hub.store, table) {
            Ok(table) => table,
            Err(error) => return Ok(Err(error)),
        };
        // Waiting may be given up, since nothing is applied yet; what follows may not.
        let admitted = self
            .unless_stopped(self.hub.store.admit(ops.bytes().len()))
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
        let written = match table.write(ops) {
            Answer::Ready(written) => written,
            Answer::Pending(written) => written.await.unwrap_or_else(|_dropped| Err(stopping())),
        };
        drop(admission);
        self.hub.count_operations(ops.count());
        Ok(written
            .map(|reply| encode(&Response::Written(Outcomes::new(reply.count, &reply.bytes)))))
    }

    async fn clear(&self, table: TableId) -> Result<Bytes, WireError> {
        let table = Arc::clone(self.desk.table(&self.hub.store, table)?);
        self.hub.blocking(move |_| table.clear()).await?;
        Ok(encode(&Response::Done))
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
