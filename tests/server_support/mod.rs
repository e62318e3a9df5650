//! A server process and a peer that speaks the bare protocol to it, for tests of the whole server.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod requests;
pub(crate) mod abuse;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rhash_protocol::{
    Call, ErrorCode, Keys, Notice, Op, OpenMode, Ops, Request, Response, Slot, TableId, TableKind,
    WireError,
    assembler::{Assembler, AssemblyLimits},
    codec,
    connection::{FrameReader, FrameWriter},
    frame::{Frame, FrameKind},
    handshake::{self, Greeting, Hello, Ticket, Welcome},
    packed,
};
use tokio::{
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// No wait of a test is longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// A command line of the server.
pub(crate) fn server_command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rhash-server"))
}

/// Runs the server where it is expected to end by itself.
pub(crate) fn run_to_end(args: &[&str]) -> TestResult<Output> {
    let mut child = server_command()
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let status = wait(&mut child)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout)?;
    }
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_end(&mut stderr)?;
    }
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Waits for a process to end, within the deadline.
pub(crate) fn wait(child: &mut Child) -> TestResult<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begin.elapsed() > DEADLINE {
            child.kill()?;
            return Err("the process did not end in time".into());
        }
        // A look every few milliseconds at something that has no other way to be waited for.
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// A server that was started and is killed at the end of the test.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What came before and with the address.
    pub(crate) ready_line: String,
}

impl ServerProcess {
    /// Starts a server at a free port and waits until it is ready.
    pub(crate) fn start(args: &[&str]) -> TestResult<Self> {
        Self::start_at("127.0.0.1:0", args)
    }

    /// Starts a server at an address and waits until it is ready.
    pub(crate) fn start_at(listen: &str, args: &[&str]) -> TestResult<Self> {
        Self::start_command(server_command(), listen, args)
    }

    /// Starts a server that may have so many files open.
    pub(crate) fn start_with_files(files_max: u32, args: &[&str]) -> TestResult<Self> {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("ulimit -n {files_max} && exec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_rhash-server"));
        Self::start_command(command, "127.0.0.1:0", args)
    }

    /// Starts a server with a variable of its environment set.
    pub(crate) fn start_with(variable: &str, value: &str, args: &[&str]) -> TestResult<Self> {
        let mut command = server_command();
        command.env(variable, value);
        Self::start_command(command, "127.0.0.1:0", args)
    }

    fn start_command(mut command: Command, listen: &str, args: &[&str]) -> TestResult<Self> {
        let mut child = command
            .args(["--listen", listen, "--log", "error"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            drop(sender.send(read.map(|_| line)));
        });
        let line = match receiver.recv_timeout(DEADLINE) {
            Ok(line) => line?,
            Err(error) => {
                child.kill()?;
                return Err(error.into());
            }
        };
        let ready_line = line.trim_end().to_owned();
        let address = ready_line
            .strip_prefix("listening on ")
            .ok_or_else(|| format!("not a ready line: {line:?}"))?
            .parse()?;
        Ok(Self {
            child,
            address,
            ready_line,
        })
    }

    /// A server without a disk, under the least memory limit.
    pub(crate) fn start_small() -> TestResult<Self> {
        Self::start(&["--memory-only", "--mem-limit", "24M"])
    }

    /// A server with its data in `dir`, under the least memory limit.
    pub(crate) fn start_in(dir: &Path) -> TestResult<Self> {
        Self::start(&[
            "--mem-limit",
            "24M",
            "--data",
            dir.to_str().ok_or("not UTF-8")?,
        ])
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, name: &str) -> TestResult {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err("the signal could not be sent".into())
        }
    }

    /// Stops it with SIGTERM.
    pub(crate) fn stop(mut self) -> TestResult<ExitStatus> {
        self.signal("TERM")?;
        wait(&mut self.child)
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> TestResult<ExitStatus> {
        wait(&mut self.child)
    }

    /// A figure of its `/proc` status, in bytes.
    pub(crate) fn status_bytes(&self, name: &str) -> TestResult<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .ok_or("no such figure")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl ServerProcess {
    /// How many files it has open.
    pub(crate) fn files_open(&self) -> TestResult<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count())
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> TestResult<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/task", self.child.id()))?.count())
    }
}

/// The disk that all files below a directory take; those that go meanwhile count nothing.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A client that sends what it is told to.
pub(crate) struct Peer {
    pub(crate) reader: FrameReader<OwnedReadHalf>,
    pub(crate) writer: FrameWriter<OwnedWriteHalf>,
    pub(crate) welcome: Welcome,
    assembler: Assembler,
    last_request: u64,
    /// The last sequence number used.
    pub(crate) sequence: u64,
    /// What the server said unasked and nobody has looked at.
    pub(crate) notices: Vec<Notice>,
}

/// An answer's bytes.
pub(crate) struct Answered(pub Vec<u8>);

impl Answered {
    pub(crate) fn response(&self) -> TestResult<Response<'_>> {
        Ok(codec::decode(&self.0)?)
    }

    /// The error that it is.
    pub(crate) fn error(&self) -> TestResult<WireError> {
        match self.response()? {
            Response::Error(error) => Ok(error),
            response => Err(format!("not an error: {response:?}").into()),
        }
    }

    /// The code of the error that it is.
    pub(crate) fn code(&self) -> TestResult<ErrorCode> {
        Ok(self.error()?.code)
    }
}

impl Peer {
    /// Begins a session.
    pub(crate) async fn connect(server: &ServerProcess) -> TestResult<Self> {
        match Self::greet(server, None).await? {
            Ok(peer) => Ok(peer),
            Err(refusal) => Err(format!("refused: {refusal:?}").into()),
        }
    }

    /// Says hello with a ticket, or without.
    pub(crate) async fn greet(
        server: &ServerProcess,
        session: Option<Ticket>,
    ) -> TestResult<Result<Self, WireError>> {
        let stream = timeout(DEADLINE, TcpStream::connect(server.address)).await??;
        Self::greet_over(stream, session, "").await
    }

    /// Begins a session with a token.
    pub(crate) async fn connect_as(server: &ServerProcess, token: &str) -> TestResult<Self> {
        let stream = timeout(DEADLINE, TcpStream::connect(server.address)).await??;
        match Self::greet_over(stream, None, token).await? {
            Ok(peer) => Ok(peer),
            Err(refusal) => Err(format!("refused: {refusal:?}").into()),
        }
    }

    /// Says hello over a connection, with a ticket and a token.
    pub(crate) async fn greet_over(
        stream: TcpStream,
        session: Option<Ticket>,
        token: &str,
    ) -> TestResult<Result<Self, WireError>> {
        stream.set_nodelay(true)?;
        let (source, sink) = stream.into_split();
        let (mut reader, mut writer) = (FrameReader::new(source), FrameWriter::new(sink));
        let hello = Hello {
            session,
            token: token.to_owned(),
            client: "test".to_owned(),
        };
        let greeting = handshake::greet(&mut reader, &mut writer, &hello);
        Ok(match timeout(DEADLINE, greeting).await?? {
            Greeting::Welcome(welcome) => Ok(Self {
                reader,
                writer,
                welcome,
                assembler: Assembler::new(AssemblyLimits {
                    bytes_max: 1 << 30,
                    messages_max: 64,
                }),
                last_request: 0,
                sequence: 0,
                notices: Vec::new(),
            }),
            Greeting::Refusal(refusal) => Err(refusal),
        })
    }

    /// Sends a request under the next sequence number, if it needs one, with all settled before.
    pub(crate) async fn send(&mut self, request: Request<'_>) -> TestResult<u64> {
        let mut call = Call {
            sequence: 0,
            settled: self.sequence,
            request,
        };
        if call.request.is_sequenced() {
            self.sequence += 1;
            call.sequence = self.sequence;
        }
        self.send_call(&call).await
    }

    /// Sends a call as it is.
    pub(crate) async fn send_call(&mut self, call: &Call<'_>) -> TestResult<u64> {
        let mut body = Vec::new();
        codec::encode(call, &mut body)?;
        self.last_request += 1;
        self.writer
            .write_message(FrameKind::Request, self.last_request, &body)
            .await?;
        self.writer.flush().await?;
        Ok(self.last_request)
    }

    /// The next frame; none at the end.
    pub(crate) async fn frame(&mut self) -> TestResult<Option<Frame<'_>>> {
        Ok(timeout(DEADLINE, self.reader.next()).await??)
    }

    /// The next answer and its request id; notices on the way are kept.
    pub(crate) async fn receive(&mut self) -> TestResult<(u64, Answered)> {
        loop {
            let frame = timeout(DEADLINE, self.reader.next()).await??;
            let frame = frame.ok_or("the server closed the connection")?;
            match frame.head.kind {
                FrameKind::Notice => self.notices.push(codec::decode(frame.body)?),
                FrameKind::Refusal => {
                    return Err(format!("{:?}", handshake::decode_refusal(frame)?).into());
                }
                _ => {
                    if let Some(message) = self.assembler.push(frame)? {
                        return Ok((message.request_id, Answered(message.body.into_owned())));
                    }
                }
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(&mut self, request: Request<'_>) -> TestResult<Answered> {
        let sent = self.send(request).await?;
        self.answer_to(sent).await
    }

    /// Waits for the answer to a request that is the next to be answered.
    pub(crate) async fn answer_to(&mut self, request_id: u64) -> TestResult<Answered> {
        let (answered, body) = self.receive().await?;
        if answered == request_id {
            Ok(body)
        } else {
            Err(format!("an answer to {answered}, where {request_id} was next").into())
        }
    }

    /// The reason that the server gives before it closes the connection.
    pub(crate) async fn last_word(&mut self) -> TestResult<WireError> {
        let frame = self.frame().await?.ok_or("closed without a word")?;
        let refusal = handshake::decode_refusal(frame)?;
        match self.frame().await? {
            None => Ok(refusal),
            Some(frame) => Err(format!("{frame:?} after the last word").into()),
        }
    }

    /// Opens a table of values, named or temporary; tells whether it is this session's alone.
    pub(crate) async fn open(&mut self, name: Option<&str>) -> TestResult<(TableId, bool)> {
        self.open_kind(name, TableKind::Values).await
    }

    /// Opens a table of a kind.
    pub(crate) async fn open_kind(
        &mut self,
        name: Option<&str>,
        kind: TableKind,
    ) -> TestResult<(TableId, bool)> {
        let open = Request::Open {
            name,
            kind: Some(kind),
            codec: Some("bytes"),
            mode: OpenMode::OpenOrCreate,
            durability: None,
        };
        match self.call(open).await?.response()? {
            Response::Opened { table, sole, .. } => Ok((table, sole)),
            response => Err(format!("{response:?}").into()),
        }
    }

    /// Writes a batch and wants it done.
    pub(crate) async fn write(&mut self, table: TableId, ops: &[Op<'_>]) -> TestResult {
        let bytes = ops_bytes(ops);
        let ops = Ops::new(ops.len() as u32, &bytes);
        match self.call(Request::Write { table, ops }).await?.response()? {
            Response::Written(_) => Ok(()),
            response => Err(format!("{response:?}").into()),
        }
    }

    /// Puts one value.
    pub(crate) async fn put(&mut self, table: TableId, key: &[u8], value: &[u8]) -> TestResult {
        self.write(table, &[Op::Put { key, value }]).await
    }

    /// Reads one value.
    pub(crate) async fn get(&mut self, table: TableId, key: &[u8]) -> TestResult<Option<Vec<u8>>> {
        let keys = keys_bytes(&[key]);
        let request = Request::Get {
            table,
            keys: Keys::new(1, &keys),
        };
        let answered = self.call(request).await?;
        match answered.response()? {
            Response::Values(values) => match values.iter().next() {
                Some(Ok(Slot::Value(value))) => Ok(Some(value.to_vec())),
                Some(Ok(Slot::Absent)) => Ok(None),
                slot => Err(format!("{slot:?}").into()),
            },
            response => Err(format!("{response:?}").into()),
        }
    }

    /// Counts a table's entries.
    pub(crate) async fn len(&mut self, table: TableId) -> TestResult<u64> {
        match self.call(Request::Len { table }).await?.response()? {
            Response::Count(count) => Ok(count),
            response => Err(format!("{response:?}").into()),
        }
    }

    /// Waits for a notice, sending pings so that something comes.
    pub(crate) async fn wait_for_notice(&mut self) -> TestResult<Notice> {
        let begin = Instant::now();
        while self.notices.is_empty() {
            if begin.elapsed() > DEADLINE {
                return Err("no notice came".into());
            }
            self.call(Request::Ping).await?;
        }
        Ok(self.notices.remove(0))
    }
}

/// Packs operations.
pub(crate) fn ops_bytes(ops: &[Op<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for op in ops {
        packed::push_op(&mut bytes, op);
    }
    bytes
}

/// Packs keys.
pub(crate) fn keys_bytes(keys: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for key in keys {
        packed::push_bytes(&mut bytes, key);
    }
    bytes
}
