//! What those see who watch over a server: figures, health, readiness, logs, and how it stops.

mod cmd_support;
mod server_support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use cmd_support::Place;
use rhash_protocol::{Request, Response};
use rhash_server::access::tokens::NewToken;
use server_support::{DEADLINE, Peer, TestResult, server_command, wait};

/// A server with an address for figures.
struct Watched {
    child: Child,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Watched {
    fn start(args: &[&str]) -> TestResult<Self> {
        let small = ["--memory-only", "--mem-limit", "24M"];
        let ports = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
        let mut child = server_command()
            .args([&small[..], &ports, args].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut lines = stdout.lines();
        let mut after = |begin: &str| -> TestResult<SocketAddr> {
            let line = lines.next().ok_or("no more lines")??;
            let address = line.strip_prefix(begin).ok_or_else(|| line.clone())?;
            Ok(address.parse()?)
        };
        let (address, metrics) = (after("listening on ")?, after("metrics on ")?);
        Ok(Self {
            child,
            address,
            metrics,
        })
    }

    /// The first line and the body of an answer.
    fn ask(&self, request: &str) -> TestResult<(String, String)> {
        let mut stream = TcpStream::connect(self.metrics)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(format!("{request}\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no end of the head")?;
        let status = head.lines().next().ok_or("no status")?.to_owned();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        Ok((status, body.to_owned()))
    }

    /// A figure of its page.
    fn figure(&self, name: &str) -> TestResult<f64> {
        let (_, page) = self.ask("GET /metrics HTTP/1.1")?;
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.ok_or("no such figure")?.trim().parse()?)
    }

    fn signal(&self, name: &str) -> TestResult {
        let pid = self.child.id().to_string();
        let status = std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err("no signal".into())
        }
    }

    /// Waits for its end; gives what it said on standard error.
    fn end(&mut self) -> TestResult<String> {
        assert!(wait(&mut self.child)?.success());
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().ok_or("no standard error")?;
        stderr.read_to_string(&mut log)?;
        Ok(log)
    }

    async fn peer(&self, token: &str) -> TestResult<Peer> {
        let stream = tokio::net::TcpStream::connect(self.address).await?;
        let greeted = Peer::greet_over(stream, None, token).await?;
        Ok(greeted.map_err(|refusal| refusal.text)?)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// Sixteen who connected and said nothing, or asked and read nothing, once kept all others from being
// answered for ten seconds.
#[tokio::test]
async fn the_silent_and_the_deaf_keep_nobody_from_asking_how_it_is() -> TestResult {
    let watched = Watched::start(&[])?;
    let mut idle = Vec::new();
    for number in 0..60 {
        let mut stream = TcpStream::connect(watched.metrics)?;
        match number % 3 {
            0 => {}
            1 => stream.write_all(b"GET /health HTTP/1.1\r\n")?,
            _ => stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?,
        }
        idle.push(stream);
    }
    for path in ["/health", "/ready", "/metrics"] {
        let began = Instant::now();
        let (status, _) = watched.ask(&format!("GET {path} HTTP/1.1"))?;
        assert_eq!(status, "HTTP/1.1 200 OK", "{path}");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{path} took {took:?}");
    }
    drop(idle);
    Ok(())
}

#[tokio::test]
async fn figures_are_told_by_table_and_tier() -> TestResult {
    let watched = Watched::start(&[])?;
    let mut peer = watched.peer("").await?;
    let (table, _) = peer.open(Some("told")).await?;
    for key in 0..10u8 {
        peer.put(table, &[key], b"value").await?;
    }
    let (status, page) = watched.ask("GET /metrics HTTP/1.1\r\nHost: x")?;
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "rhash_table_entries{table=\"told\",tier=\"hot\"} 10",
        "rhash_table_sessions{table=\"told\"} 1",
        "rhash_connections 1",
        "rhash_operations_total 10",
        "rhash_memory_limit_bytes 25165824",
        "rhash_limit{limit=\"batch_entries\"} 65536",
    ] {
        assert!(page.lines().any(|has| has == line), "no {line} in:\n{page}");
    }
    assert_eq!(watched.ask("GET /ready HTTP/1.0")?.0, "HTTP/1.1 200 OK");
    assert_eq!(watched.ask("GET /health HTTP/1.1")?.1, "alive\n");
    assert_eq!(watched.ask("GET / HTTP/1.1")?.0, "HTTP/1.1 404 Not Found");
    // Nonsense, and heads without an end, are the affair of who sends them.
    let mut long = TcpStream::connect(watched.metrics)?;
    drop(long.write_all(&[b'x'; 100_000]));
    assert_eq!(watched.ask("GET /health HTTP/1.1")?.1, "alive\n");
    Ok(())
}

#[tokio::test]
async fn where_tokens_are_asked_for_figures_want_one_of_admin() -> TestResult {
    let place = Place::new()?;
    let [admin, other] =
        ["read,admin", "read,write"].map(|rights| NewToken::draw("token", "*", rights));
    let (admin, other) = (admin?, other?);
    let lines = format!(
        "{}\n{}\n",
        admin.line,
        other.line.replace("token ", "other ")
    );
    place.write("tokens", lines)?;
    let tokens = place.path().join("tokens");
    let watched = Watched::start(&["--tokens", tokens.to_str().ok_or("not UTF-8")?])?;
    for (header, status) in [
        (String::new(), "HTTP/1.1 401 Unauthorized"),
        (
            format!("\r\nAuthorization: Bearer {}", other.secret),
            "HTTP/1.1 401 Unauthorized",
        ),
        (
            format!("\r\nAuthorization: Bearer {}", admin.secret),
            "HTTP/1.1 200 OK",
        ),
    ] {
        let (came, page) = watched.ask(&format!("GET /metrics HTTP/1.1{header}"))?;
        assert_eq!(came, status);
        assert_eq!(page.contains("rhash_build_info"), status.ends_with("OK"));
    }
    assert_eq!(watched.ask("GET /ready HTTP/1.1")?.0, "HTTP/1.1 200 OK");
    Ok(())
}

#[tokio::test]
async fn a_server_that_stops_is_not_ready_and_ends_within_its_deadline() -> TestResult {
    let mut watched = Watched::start(&["--drain-timeout", "500ms", "--log-format", "json"])?;
    // A peer that never reads what it asked for would hold the server up for ever.
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let stream = socket.connect(watched.address).await?;
    let greeted = Peer::greet_over(stream, None, "").await?;
    let mut peer = greeted.map_err(|refusal| refusal.text)?;
    let (table, _) = peer.open(None).await?;
    peer.put(table, b"key", &vec![7; 100_000]).await?;
    let keys = server_support::keys_bytes(&[b"key"]);
    for _ in 0..200 {
        let keys = rhash_protocol::Keys::new(1, &keys);
        peer.send(Request::Get { table, keys }).await?;
    }
    let began = Instant::now();
    // They pile up, and for a while none is answered any more: the connection is full.
    let (mut answered, mut since) = (0.0, 0);
    while since < 20 {
        let piled_up = watched.figure("rhash_limit_used{limit=\"answers_in_flight_bytes\"}")?;
        let now = watched.figure("rhash_operations_total")?;
        since = if now == answered && piled_up > 0.0 {
            since + 1
        } else {
            0
        };
        answered = now;
        assert!(began.elapsed() < DEADLINE, "its answers do not pile up");
    }
    watched.signal("TERM")?;
    let began = Instant::now();
    let mut said_no = false;
    while let Ok((status, body)) = watched.ask("GET /ready HTTP/1.1") {
        if status == "HTTP/1.1 503 Service Unavailable" {
            assert_eq!(body, "stopping\n");
            said_no = true;
        }
        assert!(began.elapsed() < DEADLINE, "still there");
    }
    assert!(said_no, "it went without a word");
    let log = watched.end()?;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let cut = lines
        .iter()
        .find(|line| line["message"] == "connections were cut off");
    let cut = cut.ok_or_else(|| log.clone())?;
    assert_eq!(
        (&cut["level"], &cut["connections"]),
        (&"WARN".into(), &1.into())
    );
    Ok(())
}

#[tokio::test]
async fn what_is_under_way_is_finished_before_the_end() -> TestResult {
    let mut watched = Watched::start(&[])?;
    let mut peer = watched.peer("").await?;
    let (table, _) = peer.open(None).await?;
    peer.put(table, b"key", &vec![7; 100_000]).await?;
    assert_eq!(peer.call(Request::Ping).await?.response()?, Response::Pong);
    watched.signal("TERM")?;
    let notice = loop {
        let frame = peer.frame().await?.ok_or("closed without a word")?;
        if frame.head.kind == rhash_protocol::frame::FrameKind::Notice {
            break rhash_protocol::codec::decode::<rhash_protocol::Notice>(frame.body)?;
        }
    };
    assert_eq!(notice, rhash_protocol::Notice::ShuttingDown);
    watched.end()?;
    Ok(())
}

#[test]
fn figures_are_watched_line_by_line() -> TestResult {
    let watched = Watched::start(&[])?;
    let place = Place::new()?;
    let address = watched.address.to_string();
    let lines = |args: &[&str]| -> TestResult<Vec<String>> {
        let watch = [
            "--server", &address, "stats", "--watch", "10ms", "--count", "3",
        ];
        let output = place.output(&[&watch[..], args].concat())?;
        Ok(output.lines().map(str::to_owned).collect())
    };
    let shown = lines(&[])?;
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert!(
        shown[0].contains("OPS/S") && shown[0].len() == shown[1].len(),
        "{shown:?}"
    );
    for line in lines(&["--json"])? {
        let figures: serde_json::Value = serde_json::from_str(&line)?;
        assert_eq!(figures["mem_limit_bytes"], 24 << 20);
    }
    place.failure(2, &["stats", "--count", "3"])?;
    Ok(())
}
