//! The fake server's tables and sessions, all under one lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rhash_protocol::{
    BackupInfo, Durability, ErrorCode, Notice, Op, OpenMode, Ops, Outcome, PageEntry, Request,
    Response, ScanWhat, Slot, Stats, TableId, TableInfo, TableKind, WireError, codec,
    handshake::Ticket,
    limits::ANSWER_BYTES_TARGET,
    packed::{
        Outcomes, Page, PageEntries, Presence, Values, push_outcome, push_page_entry,
        push_presence, push_slot,
    },
};
use tokio::sync::mpsc;

use super::{Hooks, Seen};

type SessionId = u64;

/// Notices for one connection.
pub(super) type Notices = mpsc::Sender<Notice>;

#[derive(Debug, Default)]
pub(super) struct Tables {
    tables: BTreeMap<TableId, Table>,
    sessions: HashMap<SessionId, Session>,
    id_last: u64,
}

#[derive(Debug)]
struct Table {
    name: Option<String>,
    kind: TableKind,
    codec: String,
    /// Its own; none follows the server, whose level is `everysec`.
    durability: Option<Durability>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    sessions: BTreeSet<SessionId>,
}

#[derive(Debug, Default)]
struct Session {
    secret: [u8; 16],
    sequence_last: u64,
    answers: BTreeMap<u64, Vec<u8>>,
    notices: Option<Notices>,
}

/// What a connection does with a request's answer.
pub(super) enum Answer {
    Message(Vec<u8>),
    Value(Option<Vec<u8>>),
}

fn refuse(code: ErrorCode, text: impl Into<String>) -> WireError {
    WireError {
        code,
        text: text.into(),
    }
}

impl Tables {
    pub(super) fn len(&self) -> usize {
        self.tables.len()
    }

    pub(super) fn stored(&self, name: &str) -> HashMap<Vec<u8>, Vec<u8>> {
        let table = self
            .tables
            .values()
            .find(|table| table.name.as_deref() == Some(name));
        table
            .map(|table| table.entries.clone().into_iter().collect())
            .unwrap_or_default()
    }

    pub(super) fn expire_sessions(&mut self) {
        self.sessions.clear();
        self.tables.retain(|_, table| table.name.is_some());
        self.tables
            .values_mut()
            .for_each(|table| table.sessions.clear());
    }

    /// The session of a ticket, and whether it was there; a new one if no ticket is given, none if
    /// the ticket's is over.
    pub(super) fn enter(
        &mut self,
        ticket: Option<Ticket>,
        notices: Notices,
    ) -> Option<(Ticket, bool)> {
        if let Some(ticket) = ticket {
            let session = self.sessions.get_mut(&ticket.id)?;
            session.notices = Some(notices);
            return (session.secret == ticket.secret).then_some((ticket, true));
        }
        self.id_last += 1;
        let ticket = Ticket {
            id: self.id_last,
            secret: [self.id_last as u8; 16],
        };
        let session = Session {
            secret: ticket.secret,
            notices: Some(notices),
            ..Session::default()
        };
        self.sessions.insert(ticket.id, session);
        Some((ticket, false))
    }

    /// Answers a call, or repeats the answer.
    pub(super) fn call(
        &mut self,
        session_id: SessionId,
        call: &rhash_protocol::Call<'_>,
        hooks: &mut Hooks,
        seen: &mut Seen,
    ) -> Answer {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return message(Err(refuse(ErrorCode::SessionExpired, "no such session")));
        };
        session
            .answers
            .retain(|&sequence, _| sequence > call.settled);
        if call.sequence > 0 {
            if let Some(answer) = session.answers.get(&call.sequence) {
                seen.repeats += 1;
                return Answer::Message(answer.clone());
            }
            if call.sequence != session.sequence_last + 1 {
                return message(Err(refuse(ErrorCode::BadRequest, "a gap in the sequence")));
            }
            if session.answers.len() as u64 >= hooks.unsettled {
                return message(Err(refuse(ErrorCode::Busy, "too many unsettled answers")));
            }
            session.sequence_last = call.sequence;
        }
        let answer = match &call.request {
            Request::Fetch { table, key } => {
                seen.fetches += 1;
                match self.table(*table, session_id) {
                    Ok(table) => return Answer::Value(table.entries.get(*key).cloned()),
                    Err(error) => message(Err(error)),
                }
            }
            request => self.answer(session_id, request, hooks, seen),
        };
        if let (Answer::Message(bytes), Some(session)) =
            (&answer, self.sessions.get_mut(&session_id))
            && call.sequence > 0
        {
            session.answers.insert(call.sequence, bytes.clone());
        }
        answer
    }

    fn answer(
        &mut self,
        session: SessionId,
        request: &Request<'_>,
        hooks: &mut Hooks,
        seen: &mut Seen,
    ) -> Answer {
        let mut packed = Vec::new();
        let response = match *request {
            Request::Ping => Ok(Response::Pong),
            Request::Stats => Ok(Response::Stats(Box::new(Stats {
                version: "fake".to_owned(),
                tables: self.infos(),
                ..Stats::default()
            }))),
            Request::Tables => Ok(Response::Tables(self.infos())),
            Request::Sync => Ok(Response::Done),
            Request::Backup { dir } => {
                seen.backups += 1;
                self.backup(dir)
            }
            Request::Open {
                name,
                kind,
                codec,
                mode,
                durability,
            } => self.open(session, name, kind, codec, mode, durability),
            Request::Close { table } => self.table(table, session).map(drop).map(|()| {
                self.tables.remove(&table);
                Response::Done
            }),
            Request::Detach { table } => self.table(table, session).map(drop).map(|()| {
                self.detach(table, session);
                Response::Done
            }),
            Request::Write { table, ops } => {
                self.write(session, table, ops, hooks, seen, &mut packed)
            }
            Request::Len { table } => self
                .table(table, session)
                .map(|table| Response::Count(table.entries.len() as u64)),
            Request::IsEmpty { table } => self
                .table(table, session)
                .map(|table| Response::Empty(table.entries.is_empty())),
            Request::Clear { table } => self.table(table, session).map(|table| {
                table.entries.clear();
                Response::Done
            }),
            Request::Get { table, keys } => self.table(table, session).map(|table| {
                let mut count = 0;
                for key in keys.iter().flatten() {
                    if packed.len() >= hooks.answer_bytes {
                        break;
                    }
                    push_slot(&mut packed, &slot(table.entries.get(key), hooks));
                    count += 1;
                }
                seen.gets += u64::from(count);
                Response::Values(Values::new(count, &packed))
            }),
            Request::Contains { table, keys } => self.table(table, session).map(|table| {
                for key in keys.iter().flatten() {
                    push_presence(&mut packed, table.entries.contains_key(key));
                }
                seen.gets += keys.count() as u64;
                Response::Present(Presence::new(keys.count() as u32, &packed))
            }),
            Request::Scan {
                table,
                cursor,
                what,
                entries_max,
            } => self
                .table(table, session)
                .map(|table| table.page(cursor, what, entries_max, hooks, &mut packed)),
            Request::Fetch { .. } => Err(refuse(ErrorCode::BadRequest, "answered elsewhere")),
        };
        message(response)
    }

    fn table(&mut self, id: TableId, session: SessionId) -> Result<&mut Table, WireError> {
        let closed = || refuse(ErrorCode::TableClosed, "the table is closed");
        let table = self.tables.get_mut(&id).ok_or_else(closed)?;
        if table.sessions.contains(&session) {
            Ok(table)
        } else {
            Err(closed())
        }
    }

    fn open(
        &mut self,
        session: SessionId,
        name: Option<&str>,
        kind: Option<TableKind>,
        codec: Option<&str>,
        mode: OpenMode,
        durability: Option<Durability>,
    ) -> Result<Response<'static>, WireError> {
        let found = name.and_then(|name| {
            let named = |(_, table): &(&TableId, &Table)| table.name.as_deref() == Some(name);
            self.tables.iter().find(named).map(|(id, _)| *id)
        });
        let (id, created) = match (found, mode) {
            (Some(_), OpenMode::CreateNew) => {
                return Err(refuse(ErrorCode::TableExists, "the table exists"));
            }
            (Some(id), _) => (id, false),
            (None, OpenMode::Existing) => {
                return Err(refuse(ErrorCode::NoSuchTable, "no such table"));
            }
            (None, _) => {
                let (Some(kind), Some(codec)) = (kind, codec) else {
                    return Err(refuse(ErrorCode::NoSuchTable, "no such table"));
                };
                self.id_last += 1;
                let table = Table {
                    name: name.map(str::to_owned),
                    kind,
                    codec: codec.to_owned(),
                    durability,
                    entries: BTreeMap::new(),
                    sessions: BTreeSet::new(),
                };
                self.tables.insert(self.id_last, table);
                (self.id_last, true)
            }
        };
        let Some(table) = self.tables.get_mut(&id) else {
            return Err(refuse(ErrorCode::NoSuchTable, "no such table"));
        };
        if kind.is_some_and(|kind| kind != table.kind) {
            return Err(refuse(
                ErrorCode::WrongKind,
                format!("it holds {}", table.kind.name()),
            ));
        }
        if codec.is_some_and(|codec| codec != table.codec) {
            return Err(refuse(
                ErrorCode::WrongCodec,
                format!("its codec is {}", table.codec),
            ));
        }
        if durability.is_some_and(|asked| asked != table.durability()) {
            return Err(refuse(
                ErrorCode::WrongDurability,
                format!("its durability is {}", table.durability().name()),
            ));
        }
        let (kind, codec) = (table.kind, table.codec.clone());
        table.sessions.insert(session);
        let sole = table.sessions.len() == 1;
        if !sole {
            self.tell_sole(id, session, false);
        }
        Ok(Response::Opened {
            table: id,
            kind,
            codec,
            created,
            sole,
        })
    }

    fn detach(&mut self, id: TableId, session: SessionId) {
        let Some(table) = self.tables.get_mut(&id) else {
            return;
        };
        table.sessions.remove(&session);
        if table.name.is_none() {
            self.tables.remove(&id);
        } else if table.sessions.len() == 1 {
            self.tell_sole(id, session, true);
        }
    }

    /// Tells the other sessions of a table whether they are alone.
    fn tell_sole(&self, id: TableId, but: SessionId, sole: bool) {
        let Some(table) = self.tables.get(&id) else {
            return;
        };
        for session in table.sessions.iter().filter(|&&session| session != but) {
            let notices = self
                .sessions
                .get(session)
                .and_then(|session| session.notices.as_ref());
            if let Some(notices) = notices {
                drop(notices.try_send(Notice::Sole { table: id, sole }));
            }
        }
    }

    fn write<'a>(
        &mut self,
        session: SessionId,
        table: TableId,
        ops: Ops<'_>,
        hooks: &Hooks,
        seen: &mut Seen,
        packed: &'a mut Vec<u8>,
    ) -> Result<Response<'a>, WireError> {
        let table = self.table(table, session)?;
        if let Some(code) = hooks.refuse_writes {
            seen.refusals += 1;
            return Err(refuse(code, format!("writes are refused: {code:?}")));
        }
        if ops.check().is_err() {
            return Err(refuse(ErrorCode::BadRequest, "malformed"));
        }
        seen.writes += 1;
        let mut count = 0;
        for op in ops.iter().flatten() {
            seen.operations += 1;
            *seen.by_key.entry(op.key().to_vec()).or_default() += 1;
            let outcome = table.apply(&op, packed);
            count += u32::from(outcome);
        }
        Ok(Response::Written(Outcomes::new(count, packed)))
    }

    /// Says that there is a copy, and makes none.
    fn backup(&self, dir: &str) -> Result<Response<'static>, WireError> {
        if !dir.starts_with('/') {
            return Err(refuse(ErrorCode::BadRequest, "not an absolute path"));
        }
        let named = self.tables.values().filter(|table| table.name.is_some());
        Ok(Response::BackedUp(BackupInfo {
            tables: named.count() as u64,
            ..BackupInfo::default()
        }))
    }

    fn infos(&self) -> Vec<TableInfo> {
        let info = |(id, table): (&TableId, &Table)| TableInfo {
            name: table.name.clone(),
            table: *id,
            kind: table.kind,
            codec: table.codec.clone(),
            entries_estimate: table.entries.len() as u64,
            hot_entries: table.entries.len() as u64,
            hot_bytes: 0,
            cold_runs: 0,
            cold_bytes: 0,
            sessions: table.sessions.len() as u64,
            durability: table.durability(),
            own_durability: table.durability.is_some(),
        };
        self.tables.iter().map(info).collect()
    }
}

impl Table {
    /// How safe its writes would be.
    fn durability(&self) -> Durability {
        match self.name {
            Some(_) => self.durability.unwrap_or(Durability::EverySec),
            None => Durability::None,
        }
    }

    /// Applies an operation; whether it had an outcome, which is pushed.
    fn apply(&mut self, op: &Op<'_>, packed: &mut Vec<u8>) -> bool {
        let key = op.key();
        let old = self.entries.get(key).cloned();
        let found = old.as_deref().map_or(Outcome::Absent, Outcome::Value);
        let number = |bytes: Option<&[u8]>| {
            bytes
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(0, i64::from_le_bytes)
        };
        match *op {
            Op::Put { value, .. } => self.put(key, value),
            Op::Append { bytes, .. } => {
                self.entries
                    .entry(key.to_vec())
                    .or_default()
                    .extend_from_slice(bytes);
            }
            Op::Add { delta, .. } => {
                let sum = number(old.as_deref()).wrapping_add(delta);
                self.put(key, &sum.to_le_bytes());
            }
            Op::Discard { .. } => drop(self.entries.remove(key)),
            Op::PutIfAbsent { value, .. } => {
                if old.is_none() {
                    self.put(key, value);
                }
                push_outcome(packed, &found);
            }
            Op::Replace { value, .. } => {
                if old.is_some() {
                    self.put(key, value);
                }
                push_outcome(packed, &found);
            }
            Op::CompareAndSwap { expected, new, .. } => {
                if old.as_deref() == expected {
                    match new {
                        Some(new) => self.put(key, new),
                        None => drop(self.entries.remove(key)),
                    }
                    push_outcome(packed, &Outcome::Swapped);
                } else {
                    push_outcome(packed, &found);
                }
            }
            Op::Remove { .. } => {
                self.entries.remove(key);
                push_outcome(packed, &found);
            }
            Op::AddAndGet { delta, .. } => {
                let sum = number(old.as_deref()).wrapping_add(delta).to_le_bytes();
                self.put(key, &sum);
                push_outcome(packed, &Outcome::Value(&sum));
            }
        }
        op.is_conditional()
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.entries.insert(key.to_vec(), value.to_vec());
    }

    fn page<'a>(
        &self,
        cursor: Option<&[u8]>,
        what: ScanWhat,
        entries_max: u32,
        hooks: &Hooks,
        packed: &'a mut Vec<u8>,
    ) -> Response<'a> {
        let after = match cursor {
            None => std::ops::Bound::Unbounded,
            Some(cursor) => std::ops::Bound::Excluded(cursor.to_vec()),
        };
        let mut count = 0;
        let mut last = None;
        let mut next = None;
        for (key, value) in self.entries.range((after, std::ops::Bound::Unbounded)) {
            if count >= entries_max.min(hooks.page_entries) || packed.len() >= ANSWER_BYTES_TARGET {
                next = last;
                break;
            }
            let value = match what {
                ScanWhat::Keys => Slot::Absent,
                ScanWhat::Values | ScanWhat::Items => slot(Some(value), hooks),
            };
            let is_key_wanted = what != ScanWhat::Values || matches!(value, Slot::Large(_));
            let shown: &[u8] = if is_key_wanted { key } else { &[] };
            push_page_entry(packed, &PageEntry { key: shown, value });
            count += 1;
            last = Some(key.clone());
        }
        Response::Page(Page {
            next,
            entries: PageEntries::new(count, packed),
        })
    }
}

fn slot<'a>(value: Option<&'a Vec<u8>>, hooks: &Hooks) -> Slot<'a> {
    match value {
        None => Slot::Absent,
        Some(value) if value.len() > hooks.inline_bytes => Slot::Large(value.len() as u64),
        Some(value) => Slot::Value(value),
    }
}

fn message(response: Result<Response<'_>, WireError>) -> Answer {
    let response = response.unwrap_or_else(Response::Error);
    let mut bytes = Vec::new();
    // The messages of the protocol can all be encoded.
    drop(codec::encode(&response, &mut bytes));
    Answer::Message(bytes)
}
