//! Requests that change nothing: answered at once, or by a task that waits for the disk.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use rhash_protocol::{Request, Response, TableId, WireError};

use super::{
    answers::{Encoded, encode, encode_page, encode_presence, encode_values},
    bad_request, stopping,
};
use crate::{
    connection::{ANSWER_BYTES_MAX, Clerk, End, LOOKUP_BYTES, Outgoing, Room, stream::StreamOut},
    hub::LISTED_TABLE_BYTES,
    table::{Answer, Table, ValueStream},
};

impl Clerk {
    /// Answers a request that changes nothing: at once, or by a task that waits for the disk.
    pub(super) async fn read(&mut self, request_id: u64, request: Request<'_>) -> Result<(), End> {
        if let Err(error) = self.bound(&request).and_then(|()| self.permit(&request)) {
            return self.refuse(request_id, error).await;
        }
        match request {
            Request::Ping => self.send_answer(request_id, encode(&Response::Pong)).await,
            Request::Tables => self.tables(request_id).await,
            Request::Stats => self.stats(request_id).await,
            Request::Sync => self.sync(request_id).await,
            Request::Backup { dir } => self.backup(request_id, dir).await,
            request => self.read_table(request_id, request).await,
        }
    }

    async fn tables(&self, request_id: u64) -> Result<(), End> {
        let turn = self.unless_ended(self.hub.listing_turn()).await?;
        let grant = self.session.grant();
        let mine: HashSet<TableId> = self.desk.tables.keys().copied().collect();
        // IMPORTANT: chosen before anything is told of them, or who may see none would cost as much as
        // who may see all.
        let found = self.hub.blocking(move |hub| {
            let shown = |table: &Table| match table.name() {
                Some(name) => grant.rights_on(Some(name)).any_on_tables(),
                None => mine.contains(&table.id()),
            };
            let tables = hub.store.tables_that(shown);
            drop(turn);
            Ok(tables)
        });
        let tables = match found.await {
            Ok(tables) => tables,
            Err(error) => return self.refuse(request_id, error).await,
        };
        let bytes = tables.len().saturating_mul(LISTED_TABLE_BYTES);
        // Nobody keeps a turn while it waits for room.
        let room = self.unless_ended(self.window.reserve_whole(bytes)).await?;
        let turn = self.unless_ended(self.hub.listing_turn()).await?;
        let body = self.hub.blocking(move |hub| {
            let body = encode(&Response::Tables(hub.table_figures(&tables)));
            drop(turn);
            Ok(body)
        });
        self.send_listing(request_id, body.await, room).await
    }

    async fn stats(&self, request_id: u64) -> Result<(), End> {
        let bytes = self.hub.listing_bytes();
        let room = self.unless_ended(self.window.reserve_whole(bytes)).await?;
        let turn = self.unless_ended(self.hub.listing_turn()).await?;
        let body = self.hub.blocking(move |hub| {
            let body = encode(&Response::Stats(Box::new(hub.stats())));
            drop(turn);
            Ok(body)
        });
        self.send_listing(request_id, body.await, room).await
    }

    async fn send_listing(
        &self,
        request_id: u64,
        body: Result<Bytes, WireError>,
        room: Room,
    ) -> Result<(), End> {
        match body {
            Ok(body) => self.send(Outgoing::answer(request_id, body, room)).await,
            Err(error) => {
                drop(room);
                self.refuse(request_id, error).await
            }
        }
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
            // The answer is short, and what it is found by is not.
            Request::Len { table } => {
                let counted = self.desk.table(&self.hub.store, *table);
                (*table, counted.map_or(0, |table| table.count_bytes()))
            }
            Request::IsEmpty { table } | Request::Fetch { table, .. } => (*table, 0),
            _ => {
                return self
                    .refuse(request_id, bad_request("not a read".to_owned()))
                    .await;
            }
        };
        let room = self
            .unless_ended(async {
                match request {
                    // It ends where its room does.
                    Request::Get { .. } => self.window.reserve_up_to(answer_bytes).await,
                    _ => self.window.reserve(answer_bytes).await,
                }
            })
            .await?;
        let table = match self.desk.table(&self.hub.store, id) {
            Ok(table) => table,
            Err(error) => {
                // IMPORTANT: the refusal needs room itself, and may never get it beside this.
                drop(room);
                return self.refuse(request_id, error).await;
            }
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
    pub(super) async fn answer<T: Send + 'static>(
        &self,
        request_id: u64,
        room: Room,
        answer: Answer<T>,
        encode_answer: fn(T) -> Encoded,
    ) -> Result<(), End> {
        let hub = Arc::clone(&self.hub);
        let window = Arc::clone(&self.window);
        let finish = move |answered: Result<T, WireError>, room: &Room| match answered {
            Ok(answered) => {
                let encoded = encode_answer(answered);
                window.learn(encoded.operations, room.wanted_bytes(encoded.body.len()));
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
                let body = finish(answered, &room);
                self.send(Outgoing::answer(request_id, body, room)).await
            }
            Answer::Pending(answered) => {
                let outbox = self.outbox.clone();
                tokio::spawn(async move {
                    let answered = answered.await.unwrap_or_else(|_dropped| Err(stopping()));
                    let body = finish(answered, &room);
                    // If the writer is gone, so is the client.
                    drop(outbox.send(Outgoing::answer(request_id, body, room)).await);
                });
                Ok(())
            }
        }
    }

    async fn fetch(&self, request_id: u64, answer: Answer<Option<ValueStream>>) -> Result<(), End> {
        self.hub.count_operations(1);
        // The semaphore is never closed.
        let slot = Arc::clone(&self.streams).acquire_owned();
        let slot = self.unless_ended(slot).await?.ok();
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
}
