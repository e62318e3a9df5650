//! Takes connections, up to a bound.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};

use crate::{connection, hub::Hub, limits::Limit};

/// After a failed accept (no file descriptors, say), the listener waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// So many connections are taken at once before others have their turn.
const ACCEPTED_AT_ONCE: usize = 16;

/// The most connections beyond the limit that are being told so; others are closed without a word.
const REFUSALS_MAX: usize = 16;

/// Takes connections until the server stops, and then waits until they have ended.
pub(crate) async fn listen(listener: TcpListener, hub: Arc<Hub>) {
    let connections_max = hub.limits.connections;
    let mut stopping = hub.stopping.clone();
    let mut connections = JoinSet::new();
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut at_once = 0;
    loop {
        at_once += 1;
        if at_once % ACCEPTED_AT_ONCE == 0 {
            yield_now().await;
        }
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if connections.len() as u64 >= connections_max => {
                hub.reached.count(Limit::Connections);
                tracing::debug!(connections_max, "a connection was refused: too many");
                if let Ok(turn) = Arc::clone(&refusals).try_acquire_owned() {
                    let hub = Arc::clone(&hub);
                    tokio::spawn(async move {
                        connection::refuse(stream, &hub).await;
                        drop(turn);
                    });
                }
            }
            Ok((stream, peer)) => accept(&mut connections, stream, peer, &hub),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = timeout(hub.drain_time, async {
        while connections.join_next().await.is_some() {}
    });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut off");
        connections.shutdown().await;
    }
}

fn accept(connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr, hub: &Arc<Hub>) {
    connections.spawn(connection::serve(stream, peer, Arc::clone(hub)));
}

/// The addresses of a name and a port.
///
/// # Errors
/// There are none.
pub(crate) async fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(name).await?.collect())
}

/// Listens at the first of the addresses where that is possible.
///
/// # Errors
/// All addresses are in use, or are not this host's.
pub(crate) async fn bind(addresses: &[SocketAddr]) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(addresses).await?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}
