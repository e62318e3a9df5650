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
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{hub::Hub, tls::Tls};

/// The most requests that are answered at a time; more wait to be accepted.
const REQUESTS_MAX: usize = 16;

/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// How long one may take, from its first byte to the last of its answer.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);

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
    let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut requests = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let slot = Arc::clone(&slots).acquire_owned().await;
        while requests.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let (phase, tls) = (phase.borrow().clone(), tls.clone());
                requests.spawn(async move {
                    let answered = timeout(REQUEST_TIME_MAX, take(stream, &phase, tls)).await;
                    if let Ok(Err(error)) = answered {
                        tracing::debug!(%error, "a request for figures failed");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a request for figures could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn take(stream: TcpStream, phase: &Phase, tls: Option<Arc<Tls>>) -> io::Result<()> {
    match tls {
        None => answer(stream, phase).await,
        Some(tls) => answer(tls.http_acceptor().accept(stream).await?, phase).await,
    }
}

async fn answer<S>(mut stream: S, phase: &Phase) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
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
            match hub.blocking(|hub| Ok(page::page(&hub.stats()))).await {
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
