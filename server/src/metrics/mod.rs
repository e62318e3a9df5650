//! What the server tells those who watch over it, by HTTP: `/metrics` for Prometheus, `/health`
//! while it lives, `/ready` while it takes requests.
//!
//! The figures name tables, so that they are for the same eyes as `stats`: where tokens are asked
//! for, a bearer token with the right `admin`.

mod page;

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{connection::Strangers, hub::Hub, tls::Tls};

/// The most that may connect before they have said what they ask for, and the most that are answered at
/// a time: where there are more, the oldest goes, so that those who say nothing, or read nothing, keep
/// nobody from asking how the server is.
const STRANGERS_MAX: u64 = 16;
const ANSWERS_MAX: u64 = 16;

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// How long one may take to say what it asks for, TLS included.
const HEAD_TIME_MAX: Duration = Duration::from_secs(2);

/// How long an answer may take, until its last byte has gone.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// After a failed accept, the listener waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What there is to tell.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// The tables are being opened.
    Starting,
    /// Requests are taken, or, when the hub says so, what is under way is finished.
    Serving(Arc<Hub>),
}

/// An answer to one request.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn text(status: &'static str, body: &str) -> Self {
        Self {
            status,
            kind: TEXT,
            body: format!("{body}\n"),
        }
    }
}

/// Answers until it is aborted.
pub(crate) async fn serve(
    listener: TcpListener,
    phase: watch::Receiver<Phase>,
    tls: Option<Arc<Tls>>,
) {
    let crowds = Arc::new(Crowds {
        asking: Arc::new(Strangers::new(STRANGERS_MAX)),
        answered: Arc::new(Strangers::new(ANSWERS_MAX)),
    });
    let mut requests = JoinSet::new();
    loop {
        while requests.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (phase, tls) = (phase.borrow().clone(), tls.clone());
                let crowds = Arc::clone(&crowds);
                requests.spawn(async move {
                    if let Err(error) = take(stream, &phase, tls, &crowds).await {
                        tracing::debug!(%error, "a request for figures failed");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a request for figures could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Those who are connected.
struct Crowds {
    /// Who has not said yet what it asks for.
    asking: Arc<Strangers>,
    /// Who is being answered.
    answered: Arc<Strangers>,
}

/// A peer that has said what it asks for.
struct Asked<S> {
    stream: S,
    head: Vec<u8>,
}

async fn take(
    stream: TcpStream,
    phase: &Phase,
    tls: Option<Arc<Tls>>,
    crowds: &Crowds,
) -> io::Result<()> {
    let crowd = &crowds.asking;
    match tls {
        None => {
            let asked = while_there_is_room(crowd, HEAD_TIME_MAX, ask(stream)).await?;
            answer(asked, phase, crowds).await
        }
        Some(tls) => {
            let asking = async { ask(tls.http_acceptor().accept(stream).await?).await };
            let asked = while_there_is_room(crowd, HEAD_TIME_MAX, asking).await?;
            answer(asked, phase, crowds).await
        }
    }
}

/// Does something for one of a crowd, unless it lasts too long or it has to go for others.
async fn while_there_is_room<T>(
    crowd: &Arc<Strangers>,
    time_max: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut one = crowd.add();
    tokio::select! {
        biased;
        done = timeout(time_max, work) => done?,
        () = one.displaced() => Err(io::Error::other("others came after it")),
    }
}

async fn ask<S>(mut stream: S) -> io::Result<Asked<S>>
where
    S: AsyncRead + Unpin,
{
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Asked { stream, head })
}

async fn answer<S>(asked: Asked<S>, phase: &Phase, crowds: &Crowds) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let answering = send_answer(asked, phase);
    while_there_is_room(&crowds.answered, ANSWER_TIME_MAX, answering).await
}

async fn send_answer<S>(asked: Asked<S>, phase: &Phase) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let Asked { mut stream, head } = asked;
    let Answer { status, kind, body } = answer_to(&String::from_utf8_lossy(&head), phase).await;
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

async fn answer_to(head: &str, phase: &Phase) -> Answer {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    if method != Some("GET") {
        return Answer::text("405 Method Not Allowed", "only GET is answered");
    }
    match (path, phase) {
        ("/health", _) => Answer::text("200 OK", "alive"),
        ("/ready", Phase::Serving(hub)) if !*hub.stopping.borrow() => {
            Answer::text("200 OK", "ready")
        }
        ("/ready", Phase::Serving(_)) => Answer::text("503 Service Unavailable", "stopping"),
        ("/ready" | "/metrics", Phase::Starting) => {
            Answer::text("503 Service Unavailable", "starting")
        }
        ("/metrics", Phase::Serving(hub)) => {
            if !may_see(hub, bearer(lines)) {
                return Answer::text(
                    "401 Unauthorized",
                    "this wants the header `Authorization: Bearer TOKEN`, with a token for admin",
                );
            }
            // IMPORTANT: with the work, or those who come and go would have any number of pages made.
            let turn = hub.listing_turn().await;
            let page = hub.blocking(move |hub| {
                let page = page::page(&hub.stats());
                drop(turn);
                Ok(page)
            });
            match page.await {
                Ok(body) => Answer {
                    status: "200 OK",
                    kind: EXPOSITION,
                    body,
                },
                Err(error) => Answer::text("500 Internal Server Error", &error.text),
            }
        }
        _ => Answer::text("404 Not Found", "there are /metrics, /health and /ready"),
    }
}

/// The token that a request carries.
fn bearer<'a>(mut lines: impl Iterator<Item = &'a str>) -> &'a str {
    let token = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("authorization");
        is_it
            .then(|| value.trim().strip_prefix("Bearer "))
            .flatten()
    });
    token.unwrap_or_default().trim()
}

fn may_see(hub: &Hub, token: &str) -> bool {
    let grant = hub.access.admit(token);
    grant.is_some_and(|grant| grant.rights.admin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_whatever_else_is_in_the_head() {
        let head = "GET /metrics HTTP/1.1\r\nHost: x\r\nauthorization: Bearer  abc \r\n\r\n";
        assert_eq!(bearer(head.split("\r\n")), "abc");
        assert_eq!(
            bearer("GET / HTTP/1.1\r\nAuthorization: Basic abc".split("\r\n")),
            ""
        );
    }

    #[tokio::test]
    async fn before_it_serves_a_server_lives_and_is_not_ready() {
        for (request, status) in [
            ("GET /health HTTP/1.1", "200 OK"),
            ("GET /ready?x=1 HTTP/1.1", "503 Service Unavailable"),
            ("GET /metrics HTTP/1.1", "503 Service Unavailable"),
            ("GET /other HTTP/1.1", "404 Not Found"),
            ("POST /health HTTP/1.1", "405 Method Not Allowed"),
            ("nonsense", "405 Method Not Allowed"),
            ("", "405 Method Not Allowed"),
        ] {
            let answer = answer_to(request, &Phase::Starting).await;
            assert_eq!(answer.status, status, "{request:?}");
        }
    }
}
