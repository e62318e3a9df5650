//! Nothing is done for who may not ask it: every kind of request, and every way to lack the right.

mod server_support;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use rhash_protocol::{
    Call, ErrorCode, Op, OpenMode, Ops, Request, Response, TableKind, codec,
    connection::{FrameReader, FrameWriter},
    frame::{FrameHead, FrameKind},
    handshake::{self, Hello, MAGIC},
    limits::PROTOCOL_VERSION,
};
use rhash_server::access::tokens::NewToken;
use server_support::{
    DEADLINE, Peer, ServerProcess, TestResult, ops_bytes,
    requests::{Needs, needs, packed, samples},
    run_to_end,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// A server that asks for tokens, and the file that they are in.
struct Guarded {
    server: ServerProcess,
    file: PathBuf,
    admin: NewToken,
    client: NewToken,
    _dir: tempfile::TempDir,
}

impl Guarded {
    /// A server with a table `t` that has one entry; `rights` on `tables` are what the token of the
    /// client grants.
    async fn start(tables: &str, rights: &str) -> TestResult<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("tokens");
        let admin = NewToken::draw("admin", "*", "read,write,admin")?;
        let client = NewToken::draw("client", tables, rights)?;
        fs::write(&file, format!("{}\n{}\n", admin.line, client.line))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let path = file.to_str().ok_or("not UTF-8")?;
        let server =
            ServerProcess::start(&["--memory-only", "--mem-limit", "24M", "--tokens", path])?;
        let guarded = Self {
            server,
            file,
            admin,
            client,
            _dir: dir,
        };
        let mut peer = guarded.admin().await?;
        let (table, _) = peer.open(Some("t")).await?;
        peer.put(table, b"key", b"value").await?;
        Ok(guarded)
    }

    async fn admin(&self) -> TestResult<Peer> {
        Peer::connect_as(&self.server, &self.admin.secret).await
    }

    async fn client(&self) -> TestResult<Peer> {
        Peer::connect_as(&self.server, &self.client.secret).await
    }

    /// Puts other lines into the file and waits until the server has read them: a token that it
    /// adds is known.
    async fn reload(&self, client_line: &str) -> TestResult {
        let probe = NewToken::draw("probe", "*", "read")?;
        let lines = format!("{}\n{client_line}\n{}\n", self.admin.line, probe.line);
        fs::write(&self.file, lines)?;
        self.server.signal("HUP")?;
        let began = Instant::now();
        // Each try comes from an address of its own, since failures are answered at a slow pace.
        let mut number = 0;
        loop {
            number += 1;
            let stream = connect_from(&self.server, [127, 1, 0, number]).await?;
            if Peer::greet_over(stream, None, &probe.secret).await?.is_ok() {
                return Ok(());
            }
            if began.elapsed() > DEADLINE {
                return Err("the tokens were not read again".into());
            }
        }
    }

    /// Everything that a request could have changed.
    async fn state(&self) -> TestResult<(Vec<Option<String>>, u64, Option<Vec<u8>>)> {
        let mut peer = self.admin().await?;
        let answer = peer.call(Request::Tables).await?;
        let names = match answer.response()? {
            Response::Tables(tables) => tables.into_iter().map(|table| table.name).collect(),
            response => return Err(format!("{response:?}").into()),
        };
        let (table, _) = peer.open(Some("t")).await?;
        let state = (
            names,
            peer.len(table).await?,
            peer.get(table, b"key").await?,
        );
        Ok(state)
    }
}

/// Connects from an address of this host.
async fn connect_from(server: &ServerProcess, from: [u8; 4]) -> TestResult<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    Ok(timeout(DEADLINE, socket.connect(server.address)).await??)
}

/// Says hello with a token and sends a request at once, as if that would do; gives the refusal, and
/// wants nothing after it.
async fn barge_in(stream: TcpStream, token: &str, request: Request<'_>) -> TestResult<ErrorCode> {
    let (source, sink) = stream.into_split();
    let (mut reader, mut writer) = (FrameReader::new(source), FrameWriter::new(sink));
    let hello = Hello {
        session: None,
        token: token.to_owned(),
        client: "test".to_owned(),
    };
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    codec::encode(&hello, &mut body)?;
    writer
        .write_frame(FrameHead::whole(FrameKind::Hello, 0), &body)
        .await?;
    let mut body = Vec::new();
    let sequence = u64::from(request.is_sequenced());
    let call = Call {
        sequence,
        settled: 0,
        request,
    };
    codec::encode(&call, &mut body)?;
    writer
        .write_frame(FrameHead::whole(FrameKind::Request, 1), &body)
        .await?;
    writer.flush().await?;
    let frame = timeout(DEADLINE, reader.next()).await??;
    let refusal = handshake::decode_refusal(frame.ok_or("closed without a word")?)?;
    let more = timeout(DEADLINE, reader.next()).await?;
    assert!(!matches!(more, Ok(Some(_))), "something after the refusal");
    Ok(refusal.code)
}

#[tokio::test]
async fn without_a_token_or_with_a_wrong_one_no_request_is_done() -> TestResult {
    let guarded = Guarded::start("*", "read,write").await?;
    let before = guarded.state().await?;
    let packed = packed();
    let wrong = NewToken::draw("client", "*", "read,write")?;
    for (case, token) in [(2, ""), (3, wrong.secret.as_str())] {
        for (number, sample) in (1..).zip(samples()) {
            // Numbers of tables count from 1.
            let request = sample(1, &packed);
            let (kind, _) = needs(&request);
            let stream = connect_from(&guarded.server, [127, case, 0, number]).await?;
            let code = barge_in(stream, token, request).await?;
            assert_eq!(code, ErrorCode::Denied, "{kind}, token {token:?}");
        }
    }
    assert_eq!(guarded.state().await?, before);
    Ok(())
}

#[tokio::test]
async fn with_a_revoked_token_no_request_is_done() -> TestResult {
    let guarded = Guarded::start("*", "read,write,admin").await?;
    let before = guarded.state().await?;
    let packed = packed();
    let mut peers = Vec::new();
    for _ in samples() {
        let mut peer = guarded.client().await?;
        let (table, _) = peer.open(Some("t")).await?;
        peers.push((peer, table));
    }
    let mut temporary = guarded.client().await?;
    temporary.open(None).await?;
    let ticket = temporary.welcome.ticket;
    guarded.reload("# the client's line was here").await?;
    for ((mut peer, table), sample) in peers.into_iter().zip(samples()) {
        let request = sample(table, &packed);
        let (kind, _) = needs(&request);
        // It may be too late to send anything.
        drop(peer.send(request).await);
        let frame = peer.frame().await?.ok_or("closed without a word")?;
        assert_eq!(frame.head.kind, FrameKind::Refusal, "{kind}");
        assert_eq!(
            handshake::decode_refusal(frame)?.code,
            ErrorCode::Denied,
            "{kind}"
        );
    }
    assert_eq!(temporary.last_word().await?.code, ErrorCode::Denied);
    // The session is gone, for its own token and for others, and its table with it.
    for (number, token) in [(1, &guarded.client.secret), (2, &guarded.admin.secret)] {
        let stream = connect_from(&guarded.server, [127, 4, 0, number]).await?;
        let refusal = Peer::greet_over(stream, Some(ticket), token).await?;
        let code = refusal.err().map(|refusal| refusal.code);
        let expected = [ErrorCode::Denied, ErrorCode::SessionExpired];
        assert!(
            code.is_some_and(|code| expected.contains(&code)),
            "{code:?}"
        );
    }
    assert_eq!(guarded.state().await?, before);
    Ok(())
}

/// Sends each kind of request in a session of its own that has the table open, after `narrow` has
/// become the client's line, and wants those refused that `refused` says.
async fn narrowed(narrow: &str, refused: fn(Needs) -> bool) -> TestResult {
    let guarded = Guarded::start("*", "read,write,admin").await?;
    let before = guarded.state().await?;
    let packed = packed();
    let mut peers = Vec::new();
    for _ in samples() {
        let mut peer = guarded.client().await?;
        let (table, _) = peer.open(Some("t")).await?;
        peers.push((peer, table));
    }
    let line = guarded.client.line.replace(" * read,write,admin", narrow);
    assert_ne!(line, guarded.client.line);
    guarded.reload(&line).await?;
    for ((mut peer, table), sample) in peers.into_iter().zip(samples()) {
        let request = sample(table, &packed);
        let (kind, needs) = needs(&request);
        let answer = peer.call(request).await?;
        let code = answer.code().ok();
        let expected = refused(needs).then_some(ErrorCode::Denied);
        assert_eq!(code, expected, "{kind}");
        // A refusal takes its sequence number, so that the session goes on.
        assert_eq!(peer.call(Request::Ping).await?.response()?, Response::Pong);
        if refused(needs) {
            assert_eq!(guarded.state().await?, before, "{kind}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn with_a_token_for_reading_nothing_is_changed() -> TestResult {
    narrowed(" * read", |needs| {
        matches!(needs, Needs::Write | Needs::Admin)
    })
    .await
}

#[tokio::test]
async fn with_a_token_for_writing_nothing_is_read() -> TestResult {
    let guarded = Guarded::start("*", "write").await?;
    let mut peer = guarded.client().await?;
    let (table, _) = peer.open(Some("t")).await?;
    peer.put(table, b"key", b"blind").await?;
    let remove = ops_bytes(&[Op::Remove { key: b"key" }]);
    let ops = Ops::new(1, &remove);
    let answer = peer.call(Request::Write { table, ops }).await?;
    assert_eq!(answer.code()?, ErrorCode::Denied, "it tells what was there");
    let answer = peer.call(Request::Len { table }).await?;
    let error = answer.error()?;
    assert_eq!(error.code, ErrorCode::Denied);
    assert_eq!(error.text, "the token client may not read the table \"t\"");
    assert_eq!(guarded.state().await?.2.as_deref(), Some(&b"blind"[..]));
    Ok(())
}

#[tokio::test]
async fn with_a_token_for_other_tables_nothing_is_done_to_this_one() -> TestResult {
    let on_tables = |needs| needs != Needs::Nothing;
    narrowed(" t?* read,write", on_tables).await
}

#[tokio::test]
async fn a_table_of_another_pattern_cannot_be_opened_and_is_not_even_named() -> TestResult {
    let guarded = Guarded::start("mine-*", "read,write").await?;
    let mut peer = guarded.client().await?;
    for name in ["t", "none-such", "mine"] {
        for mode in [
            OpenMode::Existing,
            OpenMode::OpenOrCreate,
            OpenMode::CreateNew,
        ] {
            let open = Request::Open {
                name: Some(name),
                kind: Some(TableKind::Values),
                codec: Some("bytes"),
                mode,
                durability: None,
            };
            assert_eq!(peer.call(open).await?.code()?, ErrorCode::Denied, "{name}");
        }
    }
    peer.open(Some("mine-1")).await?;
    peer.open(None).await?;
    let answer = peer.call(Request::Tables).await?;
    let Response::Tables(tables) = answer.response()? else {
        return Err("no tables".into());
    };
    let names: Vec<_> = tables.iter().map(|table| table.name.as_deref()).collect();
    assert_eq!(
        (names.len(), names.contains(&Some("t"))),
        (2, false),
        "{names:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_reader_opens_what_there_is_and_makes_nothing() -> TestResult {
    let guarded = Guarded::start("*", "read").await?;
    let mut peer = guarded.client().await?;
    let (table, _) = peer.open(Some("t")).await?;
    assert_eq!(
        peer.get(table, b"key").await?.as_deref(),
        Some(&b"value"[..])
    );
    for name in [Some("new"), None] {
        let open = Request::Open {
            name,
            kind: Some(TableKind::Values),
            codec: Some("bytes"),
            mode: OpenMode::OpenOrCreate,
            durability: None,
        };
        assert_eq!(
            peer.call(open).await?.code()?,
            ErrorCode::Denied,
            "{name:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_makes_no_sense_leaves_the_tokens_as_they_were() -> TestResult {
    let guarded = Guarded::start("*", "read").await?;
    let mut before = guarded.client().await?;
    fs::write(&guarded.file, "nonsense\n")?;
    guarded.server.signal("HUP")?;
    // Whenever it is read: nothing changes.
    for _ in 0..50 {
        assert_eq!(
            before.call(Request::Ping).await?.response()?,
            Response::Pong
        );
        guarded.client().await?;
    }
    guarded.reload(&guarded.client.line).await?;
    assert_eq!(
        before.call(Request::Ping).await?.response()?,
        Response::Pong
    );
    Ok(())
}

#[tokio::test]
async fn wrong_tokens_are_answered_slowly_and_good_ones_at_once() -> TestResult {
    let guarded = Guarded::start("*", "read").await?;
    let from = [127, 9, 9, 9];
    let began = Instant::now();
    let mut tries = Vec::new();
    for _ in 0..15 {
        let stream = connect_from(&guarded.server, from).await?;
        tries.push(tokio::spawn(async move {
            let began = Instant::now();
            let refused = barge_in(stream, "guess", Request::Ping).await.is_ok();
            (refused, began.elapsed())
        }));
    }
    let spread = began.elapsed().as_secs();
    let asked = Instant::now();
    let stream = connect_from(&guarded.server, from).await?;
    let good = Peer::greet_over(stream, None, &guarded.client.secret).await?;
    assert!(good.is_ok() && asked.elapsed() < Duration::from_secs(4));
    let mut answered = Vec::new();
    for tried in tries {
        if let (true, took) = tried.await? {
            answered.push(took);
        }
    }
    // Five at once, five at a pace of one a second, and one for each second that the tries took.
    assert!(
        answered.len() as u64 <= 11 + spread,
        "{spread} s: {answered:?}"
    );
    let longest = answered.iter().max().ok_or("nobody was answered")?;
    assert!(*longest >= Duration::from_millis(900), "{answered:?}");
    Ok(())
}

#[tokio::test]
async fn beyond_this_host_a_server_wants_tokens_or_a_word() -> TestResult {
    for listen in ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0"] {
        let output = run_to_end(&["--listen", listen, "--memory-only", "--mem-limit", "24M"])?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{listen}: {stderr}");
        for word in ["beyond this host", "--tokens", "--insecure"] {
            assert!(stderr.contains(word), "no {word:?} in: {stderr}");
        }
    }
    let small = ["--memory-only", "--mem-limit", "24M"];
    let open = ServerProcess::start_at("0.0.0.0:0", &[&small[..], &["--insecure"]].concat())?;
    Peer::connect(&open).await?;
    let guarded = Guarded::start("*", "read").await?;
    let path = guarded.file.to_str().ok_or("not UTF-8")?;
    let beyond = ServerProcess::start_at("0.0.0.0:0", &[&small[..], &["--tokens", path]].concat())?;
    Peer::connect_as(&beyond, &guarded.client.secret).await?;
    assert!(Peer::connect(&beyond).await.is_err());

    let both = run_to_end(&["--tokens", path, "--insecure"])?;
    assert_eq!(both.status.code(), Some(2), "one excludes the other");
    let missing = run_to_end(&["--tokens", "/none/such", "--memory-only"])?;
    let stderr = String::from_utf8(missing.stderr)?;
    assert_eq!(missing.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("/none/such") && stderr.contains("No such file"),
        "{stderr}"
    );
    Ok(())
}
