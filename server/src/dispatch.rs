//! Requests to calls of tables, and what these answer to responses.

use std::sync::Arc;

use bytes::Bytes;
use rhash_protocol::{
    Call, ErrorCode, Op, OpenMode, Ops, Outcomes, Request, Response, TableId, TableKind, Values,
    WireError, codec,
    packed::{Page, PageEntries, Presence},
};

use crate::{
    connection::{ANSWER_BYTES_MAX, Clerk, End, LOOKUP_BYTES, Outgoing, Room, stream::StreamOut},
    limits::Limit,
    session::{Held, Turn},
    table::{Answer, PackedReply, PageReply, ValueStream},
};

/// An answer's bytes, and how many operations it answers.
struct Encoded {
    body: Bytes,
    operations: usize,
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

    async fn close(&mut self, table: TableId) -> Result<Bytes, WireError> {
        self.desk.table(&self.hub.store, table)?;
        let closed = self
            .hub
            .blocking(move |hub| hub.store.close_table(table))
            .await;
        let gone = match &closed {
            Ok(()) => true,
            Err(error) => error.code == ErrorCode::TableClosed,
        };
        if gone {
            self.desk.tables.remove(&table);
            self.hub.holders.forget(table);
        }
        closed.map(|()| encode(&Response::Done))
    }

    async fn detach(&mut self, id: TableId) -> Result<Bytes, WireError> {
        self.desk.table(&self.hub.store, id)?;
        if let Some(held) = self.desk.tables.get_mut(&id) {
            held.opens -= 1;
            if held.opens > 0 {
                return Ok(encode(&Response::Done));
            }
        }
        let held = self.desk.tables.remove(&id);
        self.hub.holders.release(id, self.session.id());
        if held.is_some_and(|held| held.table.name().is_none()) {
            let closed = self
                .hub
                .blocking(move |hub| hub.store.close_table(id))
                .await;
            closed.or_else(|error| match error.code {
                ErrorCode::TableClosed => Ok(()),
                _ => Err(error),
            })?;
        }
        Ok(encode(&Response::Done))
    }

    async fn open(&mut self, request_id: u64, opening: Opening<'_>) -> Result<(), End> {
        match self.open_table(opening).await {
            Ok((id, sole, body)) => {
                self.remember_and_send(request_id, body).await?;
                // From here on a change of it is told; before, it would have overtaken the answer.
                self.hub.holders.told(id, self.session.id(), sole);
                Ok(())
            }
            Err(error) => {
                self.remember_and_send(request_id, encode(&Response::Error(error)))
                    .await
            }
        }
    }

    async fn open_table(
        &mut self,
        opening: Opening<'_>,
    ) -> Result<(TableId, bool, Bytes), WireError> {
        let limits = &self.hub.limits;
        if self.desk.tables.len() as u64 >= limits.tables_per_session {
            self.hub.reached.count(Limit::TablesPerSession);
            return Err(WireError {
                code: ErrorCode::Busy,
                text: format!(
                    "this session has {} tables open, the limit; close some",
                    limits.tables_per_session
                ),
            });
        }
        let is_full = self.hub.store.tables_count() as u64 >= limits.tables;
        let name = opening.name.map(str::to_owned);
        let codec = opening.codec.map(str::to_owned);
        let kind = opening.kind;
        let may_make = self.session.grant().rights_on(opening.name).write;
        let asked = opening.mode;
        let mode = match (asked, opening.name) {
            (OpenMode::CreateNew, _) | (_, None) if is_full => return Err(self.too_many_tables()),
            // Making it errs, but not before it is known that it would be made.
            (OpenMode::OpenOrCreate, Some(_)) if is_full || !may_make => OpenMode::Existing,
            (asked, _) => asked,
        };
        let opened = self
            .hub
            .blocking(move |hub| {
                hub.store
                    .open_table(name.as_deref(), kind, codec.as_deref(), mode)
            })
            .await
            .map_err(|error| match error.code {
                ErrorCode::NoSuchTable if mode != asked && may_make => self.too_many_tables(),
                ErrorCode::NoSuchTable if mode != asked => {
                    self.denied("make", opening.name, Some(&error.text))
                }
                _ => error,
            })?;
        let id = opened.table.id();
        let (kind, codec) = (opened.table.kind(), opened.table.codec().to_owned());
        let sole = self
            .hub
            .holders
            .open(id, self.session.id(), self.session.notices());
        let held = self.desk.tables.entry(id);
        held.or_insert(Held {
            table: opened.table,
            opens: 0,
        })
        .opens += 1;
        let created = opened.created;
        let response = Response::Opened {
            table: id,
            kind,
            codec,
            created,
            sole,
        };
        Ok((id, sole, encode(&response)))
    }

    /// Answers a request that changes nothing: at once, or by a task that waits for the disk.
    async fn read(&mut self, request_id: u64, request: Request<'_>) -> Result<(), End> {
        if let Err(error) = self.bound(&request).and_then(|()| self.permit(&request)) {
            return self.refuse(request_id, error).await;
        }
        let answered = match request {
            Request::Ping => Ok(encode(&Response::Pong)),
            Request::Tables => self.tables().await,
            Request::Stats => {
                let stats = self.hub.blocking(|hub| Ok(Box::new(hub.stats()))).await;
                stats.map(|stats| encode(&Response::Stats(stats)))
            }
            request => return self.read_table(request_id, request).await,
        };
        let body = answered.unwrap_or_else(|error| encode(&Response::Error(error)));
        self.send_answer(request_id, body).await
    }

    async fn tables(&self) -> Result<Bytes, WireError> {
        let mut tables = self.hub.blocking(|hub| Ok(hub.tables())).await?;
        let grant = self.session.grant();
        tables.retain(|info| match &info.name {
            Some(name) => grant.rights_on(Some(name)).any_on_tables(),
            None => self.desk.tables.contains_key(&info.table),
        });
        Ok(encode(&Response::Tables(tables)))
    }

    async fn read_table(&mut self, request_id: u64, request: Request<'_>) -> Result<(), End> {
        let (id, answer_bytes) = match &request {
            Request::Get { table, keys } => {
                (*table, self.window.expect(keys.count(), keys.bytes().len()))
            }
            // A lookup for each key, and a byte of the answer.
            Request::Contains { table, keys } => {
                let lookups_bytes = keys.count().saturating_mul(LOOKUP_BYTES + 1);
                (*table, lookups_bytes.saturating_add(keys.bytes().len()))
            }
            // A page is put together from what may be as long, however few entries it has.
            Request::Scan { table, .. } => (*table, ANSWER_BYTES_MAX),
            Request::Len { table } | Request::IsEmpty { table } | Request::Fetch { table, .. } => {
                (*table, 0)
            }
            _ => {
                return self
                    .refuse(request_id, bad_request("not a read".to_owned()))
                    .await;
            }
        };
        let room = self
            .unless_stopped(async {
                match request {
                    // It ends where its room does.
                    Request::Get { .. } => self.window.reserve_up_to(answer_bytes).await,
                    _ => self.window.reserve(answer_bytes).await,
                }
            })
            .await?;
        let table = match self.desk.table(&self.hub.store, id) {
            Ok(table) => table,
            Err(error) => return self.refuse(request_id, error).await,
        };
        match request {
            Request::Get { keys, .. } => {
                let answer = table.get_within(keys, room.allowance());
                self.answer(request_id, room, answer, encode_values).await
            }
            Request::Contains { keys, .. } => {
                let answer = table.contains(keys);
                self.answer(request_id, room, answer, encode_presence).await
            }
            Request::Scan {
                cursor,
                what,
                entries_max,
                ..
            } => {
                let answer = table.scan(cursor, what, entries_max);
                self.answer(request_id, room, answer, encode_page).await
            }
            Request::Len { .. } => {
                let encode = |count| Encoded::one(&Response::Count(count));
                self.answer(request_id, room, table.len(), encode).await
            }
            Request::IsEmpty { .. } => {
                let encode = |empty| Encoded::one(&Response::Empty(empty));
                self.answer(request_id, room, table.is_empty(), encode)
                    .await
            }
            Request::Fetch { key, .. } => {
                let answer = table.fetch(key);
                self.fetch(request_id, answer).await
            }
            _ => Ok(()),
        }
    }

    /// Sends what a table answered, or leaves it to a task to wait for it.
    async fn answer<T: Send + 'static>(
        &self,
        request_id: u64,
        room: Room,
        answer: Answer<T>,
        encode_answer: fn(T) -> Encoded,
    ) -> Result<(), End> {
        let hub = Arc::clone(&self.hub);
        let window = Arc::clone(&self.window);
        let finish = move |answered: Result<T, WireError>| match answered {
            Ok(answered) => {
                let encoded = encode_answer(answered);
                window.learn(encoded.operations, encoded.body.len());
                hub.count_operations(encoded.operations);
                encoded.body
            }
            Err(error) => {
                hub.count_error(&error);
                encode(&Response::Error(error))
            }
        };
        match answer {
            Answer::Ready(answered) => {
                self.send(Outgoing::answer(request_id, finish(answered), room))
                    .await
            }
            Answer::Pending(answered) => {
                let outbox = self.outbox.clone();
                tokio::spawn(async move {
                    let answered = answered.await.unwrap_or_else(|_dropped| Err(stopping()));
                    // If the writer is gone, so is the client.
                    drop(
                        outbox
                            .send(Outgoing::answer(request_id, finish(answered), room))
                            .await,
                    );
                });
                Ok(())
            }
        }
    }

    async fn fetch(&self, request_id: u64, answer: Answer<Option<ValueStream>>) -> Result<(), End> {
        self.hub.count_operations(1);
        // The semaphore is never closed.
        let slot = Arc::clone(&self.streams).acquire_owned();
        let slot = self.unless_stopped(slot).await?.ok();
        let out = StreamOut {
            request_id,
            outbox: self.outbox.clone(),
            window: Arc::clone(&self.window),
            time_max: self.hub.limits.stream_time,
        };
        tokio::spawn(async move {
            let found = match answer {
                Answer::Ready(found) => found,
                Answer::Pending(found) => found.await.unwrap_or_else(|_dropped| Err(stopping())),
            };
            out.send(found).await;
            drop(slot);
        });
        Ok(())
    }

    async fn refuse(&self, request_id: u64, error: WireError) -> Result<(), End> {
        self.hub.count_error(&error);
        self.send_answer(request_id, encode(&Response::Error(error)))
            .await
    }
}

/// The operands of an open.
struct Opening<'a> {
    name: Option<&'a str>,
    kind: Option<TableKind>,
    codec: Option<&'a str>,
    mode: OpenMode,
}

impl Encoded {
    fn one(response: &Response<'_>) -> Self {
        Self {
            body: encode(response),
            operations: 1,
        }
    }
}

fn encode_values(reply: PackedReply) -> Encoded {
    let values = Values::new(reply.count, &reply.bytes);
    Encoded {
        body: encode(&Response::Values(values)),
        operations: reply.count as usize,
    }
}

fn encode_presence(reply: PackedReply) -> Encoded {
    let presence = Presence::new(reply.count, &reply.bytes);
    Encoded {
        body: encode(&Response::Present(presence)),
        operations: reply.count as usize,
    }
}

fn encode_page(reply: PageReply) -> Encoded {
    let PageReply { next, entries } = reply;
    let operations = entries.count as usize;
    let page = Page {
        next,
        entries: PageEntries::new(entries.count, &entries.bytes),
    };
    Encoded {
        body: encode(&Response::Page(page)),
        operations,
    }
}

fn only_discards(ops: Ops<'_>) -> bool {
    ops.iter()
        .all(|op| matches!(op, Ok(Op::Discard { .. } | Op::Remove { .. })))
}

/// What a response takes beyond its packed entries, mostly.
const ENVELOPE_BYTES: usize = 64;

/// The bytes of a response's packed entries.
fn packed_bytes(response: &Response<'_>) -> usize {
    match response {
        Response::Written(outcomes) => outcomes.bytes().len(),
        Response::Values(values) => values.bytes().len(),
        Response::Present(presence) => presence.bytes().len(),
        Response::Page(page) => page.entries.bytes().len(),
        _ => 0,
    }
}

/// A response as bytes.
pub(crate) fn encode(response: &Response<'_>) -> Bytes {
    // Made to measure, since a buffer that doubles takes up to three times that meanwhile.
    let mut body = Vec::with_capacity(packed_bytes(response) + ENVELOPE_BYTES);
    if let Err(error) = codec::encode(response, &mut body) {
        // Cannot happen to the types of the protocol; an empty answer is one that no client takes
        // for another.
        tracing::error!(%error, "an answer cannot be encoded");
        body.clear();
    }
    Bytes::from(body)
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
