//! A client that speaks the bare protocol, so that it knows of each batch when it left and when it was answered.

use std::collections::VecDeque;
use std::time::Duration;

use rhash_protocol::{
    Call, OpenMode, Request, Response, ScanWhat, Slot, TableId, TableKind,
    assembler::{Assembler, AssemblyLimits},
    codec,
    connection::{FrameReader, FrameWriter},
    frame::FrameKind,
    handshake::{self, Greeting, Hello},
};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::failure::Failure;

/// No answer takes longer: the server itself gives up waiting for room after a minute.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// Entries that a page of a scan may have.
const PAGE_ENTRIES: u32 = 10_000;

/// A connection with a session of its own.
pub(crate) struct Peer {
    reader: FrameReader<OwnedReadHalf>,
    writer: FrameWriter<OwnedWriteHalf>,
    assembler: Assembler,
    last_request: u64,
    sequence: u64,
    settled: u64,
    /// Requests with a sequence number that are not settled: whether each was answered.
    open: VecDeque<(u64, bool)>,
}

/// An answer's bytes.
#[derive(Debug)]
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    pub(crate) fn response(&self) -> Result<Response<'_>, Failure> {
        codec::decode(&self.0).map_err(|error| Failure::new("an answer", error))
    }
}

/// The time by the monotonic clock, which the traced server uses, too.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

fn lost(error: impl std::fmt::Display) -> Failure {
    Failure::new("the connection", error)
}

fn late(_elapsed: tokio::time::error::Elapsed) -> Failure {
    Failure::Failed(format!("no answer within {} s", ANSWER_LIMIT.as_secs()))
}

impl Peer {
    pub(crate) async fn connect(address: &str) -> Result<Self, Failure> {
        let connecting = timeout(ANSWER_LIMIT, TcpStream::connect(address));
        let stream = connecting.await.map_err(late)?.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let (source, sink) = stream.into_split();
        let (mut reader, mut writer) = (FrameReader::new(source), FrameWriter::new(sink));
        let hello = Hello {
            session: None,
            token: String::new(),
            client: "xtask".to_owned(),
        };
        let greeting = timeout(
            ANSWER_LIMIT,
            handshake::greet(&mut reader, &mut writer, &hello),
        );
        match greeting.await.map_err(late)?.map_err(lost)? {
            Greeting::Welcome(_) => {}
            Greeting::Refusal(refusal) => return Err(lost(refusal.text)),
        }
        let limits = AssemblyLimits {
            bytes_max: 64 << 20,
            messages_max: 64,
        };
        Ok(Self {
            reader,
            writer,
            assembler: Assembler::new(limits),
            last_request: 0,
            sequence: 0,
            settled: 0,
            open: VecDeque::new(),
        })
    }

    /// Sends a request, under the next sequence number if it needs one; returns the request's id.
    pub(crate) async fn send(&mut self, request: Request<'_>) -> Result<u64, Failure> {
        self.last_request += 1;
        let mut sequence = 0;
        if request.is_sequenced() {
            self.sequence += 1;
            sequence = self.sequence;
            self.open.push_back((self.last_request, false));
        }
        let call = Call {
            sequence,
            settled: self.settled,
            request,
        };
        let mut body = Vec::new();
        codec::encode(&call, &mut body).map_err(|error| Failure::new("a request", error))?;
        let writing = async {
            self.writer
                .write_message(FrameKind::Request, self.last_request, &body)
                .await?;
            self.writer.flush().await
        };
        let written = timeout(ANSWER_LIMIT, writing).await.map_err(late)?;
        written.map_err(lost)?;
        Ok(self.last_request)
    }

    /// The next answer, and the request that it is for.
    pub(crate) async fn receive(&mut self) -> Result<(u64, Answer), Failure> {
        loop {
            let frame = timeout(ANSWER_LIMIT, self.reader.next());
            let frame = frame.await.map_err(late)?.map_err(lost)?;
            let frame = frame.ok_or_else(|| lost("the server closed it"))?;
            match frame.head.kind {
                FrameKind::Notice => {}
                FrameKind::Refusal => {
                    let refusal = handshake::decode_refusal(frame).map_err(lost)?;
                    return Err(lost(refusal.text));
                }
                _ => {
                    if let Some(message) = self.assembler.push(frame).map_err(lost)? {
                        let (request, body) = (message.request_id, message.body.into_owned());
                        self.settle(request);
                        return Ok((request, Answer(body)));
                    }
                }
            }
        }
    }

    fn settle(&mut self, request: u64) {
        for (open, answered) in &mut self.open {
            *answered |= *open == request;
        }
        while self.open.front().is_some_and(|(_, answered)| *answered) {
            self.open.pop_front();
            self.settled += 1;
        }
    }

    /// Sends a request and waits for its answer, while no other is under way.
    pub(crate) async fn call(&mut self, request: Request<'_>) -> Result<Answer, Failure> {
        let sent = self.send(request).await?;
        let (answered, answer) = self.receive().await?;
        match answered == sent {
            true => Ok(answer),
            false => Err(Failure::Failed(format!(
                "an answer to {answered}, where {sent} was next"
            ))),
        }
    }

    /// Opens a table of a kind, and makes it if need be.
    pub(crate) async fn open(&mut self, name: &str, kind: TableKind) -> Result<TableId, Failure> {
        self.open_as(name, Some(kind), OpenMode::OpenOrCreate).await
    }

    /// Opens a table that is there.
    pub(crate) async fn open_existing(&mut self, name: &str) -> Result<TableId, Failure> {
        self.open_as(name, None, OpenMode::Existing).await
    }

    async fn open_as(
        &mut self,
        name: &str,
        kind: Option<TableKind>,
        mode: OpenMode,
    ) -> Result<TableId, Failure> {
        let open = Request::Open {
            name: Some(name),
            kind,
            codec: kind.map(|_| "bytes"),
            mode,
            durability: None,
        };
        match self.call(open).await?.response()? {
            Response::Opened { table, .. } => Ok(table),
            other => Err(unexpected("opening a table", &other)),
        }
    }

    /// The names of all tables that have one.
    pub(crate) async fn names(&mut self) -> Result<Vec<String>, Failure> {
        match self.call(Request::Tables).await?.response()? {
            Response::Tables(tables) => {
                Ok(tables.into_iter().filter_map(|table| table.name).collect())
            }
            other => Err(unexpected("listing the tables", &other)),
        }
    }

    /// All entries of a table, or all keys; each must come once.
    pub(crate) async fn scan(
        &mut self,
        table: TableId,
        what: ScanWhat,
        mut take: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut cursor: Option<Vec<u8>> = None;
        loop {
            let scan = Request::Scan {
                table,
                cursor: cursor.as_deref(),
                what,
                entries_max: PAGE_ENTRIES,
            };
            let answer = self.call(scan).await?;
            let page = match answer.response()? {
                Response::Page(page) => page,
                other => return Err(unexpected("a scan", &other)),
            };
            for entry in page.entries.iter() {
                let entry = entry.map_err(|error| Failure::new("a page", error))?;
                match entry.value {
                    Slot::Absent => take(entry.key, None)?,
                    Slot::Value(value) => take(entry.key, Some(value))?,
                    Slot::Large(bytes) => {
                        return Err(Failure::Failed(format!(
                            "a value of {bytes} bytes, and none was so long"
                        )));
                    }
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }
}

/// An answer that is none to the request.
pub(crate) fn unexpected(what: &str, response: &Response<'_>) -> Failure {
    match response {
        Response::Error(error) => {
            Failure::Failed(format!("{what}: {} ({:?})", error.text, error.code))
        }
        other => Failure::Failed(format!("{what}: an answer of another kind: {other:?}")),
    }
}
