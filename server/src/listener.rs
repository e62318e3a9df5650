//! Takes connections, up to a bound, and waits with each until its peer has something to say.
//!
//! That is done by a thread of its own: peers that come and go without a word, however many, take no
//! time of the threads that answer requests.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{self, Handle},
    sync::{Semaphore, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use crate::{
    connection::{self, Guest},
    hub::Hub,
    limits::Limit,
};

/// After a failed accept (no file descriptors, say), the listener waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The most connections beyond the limit that are being told so; others are closed without a word.
const REFUSALS_MAX: usize = 16;

/// The stack of its thread; nothing that it runs recurses.
const STACK_BYTES: usize = 512 * 1024;

/// Takes connections, which are served by the runtime that this is called on, until the server stops;
/// what it gives waits until they have ended.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn start(listener: TcpListener, hub: Arc<Hub>) -> io::Result<JoinHandle<()>> {
    let inside = Handle::current();
    let door = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = {
        let _door = door.enter();
        TcpListener::from_std(listener.into_std()?)?
    };
    let (open, closed) = oneshot::channel::<()>();
    let listening = door.spawn(async move {
        listen(listener, &hub, &inside).await;
        drop(open);
    });
    let run = move || {
        // Nothing is ever sent: the sender is dropped.
        drop(door.block_on(closed));
    };
    thread::Builder::new()
        .name("listener".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(run)?;
    Ok(listening)
}

async fn listen(listener: TcpListener, hub: &Arc<Hub>, inside: &Handle) {
    let connections_max = hub.limits.connections;
    let mut stopping = hub.stopping.clone();
    let mut connections = Connections {
        tasks: JoinSet::new(),
        inside,
        hub,
    };
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => break,
            true = connections.next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if connections.tasks.len() as u64 >= connections_max => {
                hub.reached.count(Limit::Connections);
                tracing::debug!(connections_max, "a connection was refused: too many");
                if let Ok(turn) = Arc::clone(&refusals).try_acquire_owned() {
                    let hub = Arc::clone(hub);
                    tokio::spawn(async move {
                        connection::refuse(stream, &hub).await;
                        drop(turn);
                    });
                }
            }
            Ok((stream, peer)) => {
                connections.tasks.spawn(wait(stream, peer, Arc::clone(hub)));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = timeout(hub.drain_time, async { while connections.next().await {} });
    if drained.await.is_err() {
        let connections = &mut connections.tasks;
        tracing::warn!(connections = connections.len(), "connections were cut off");
        connections.shutdown().await;
    }
}

/// Those that wait with the listener, and those that are served.
struct Connections<'a> {
    /// What ends with a guest is to be served.
    tasks: JoinSet<Option<Guest>>,
    inside: &'a Handle,
    hub: &'a Arc<Hub>,
}

impl Connections<'_> {
    /// Waits for the next that has something to say, and has it served, or that has ended; says whether
    /// there was any. Cancel safe.
    async fn next(&mut self) -> bool {
        let Some(ended) = self.tasks.join_next().await else {
            return false;
        };
        if let Ok(Some(guest)) = ended {
            let hub = Arc::clone(self.hub);
            let served = async {
                connection::serve(guest, hub).await;
                None
            };
            self.tasks.spawn_on(served, self.inside);
        }
        true
    }
}

/// Waits until a peer says something, or is to be told something; none if it leaves without a word.
async fn wait(stream: TcpStream, peer: SocketAddr, hub: Arc<Hub>) -> Option<Guest> {
    let counted = hub.count_connection();
    let mut stranger = hub.strangers.add();
    let since = Instant::now();
    let mut first = [0];
    let mut stopping = hub.stopping.clone();
    tokio::select! {
        said = stream.peek(&mut first) => {
            if matches!(said, Ok(0) | Err(_)) {
                return None;
            }
        }
        () = stranger.displaced() => {}
        () = sleep(hub.limits.hello_time) => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    Some(Guest {
        stream: stream.into_std().ok()?,
        peer,
        stranger,
        since,
        counted,
    })
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
