//! How a connection becomes one by TLS, if the server speaks that, and what those are told who
//! speak the other of the two.

use std::{io, net::SocketAddr, time::Duration};

use rhash_protocol::{ErrorCode, WireError, connection::FrameWriter, handshake};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    opening::Refused,
    socket::{self, Sink, Source},
};
use crate::{access::Turn, hub::Hub, limits::Limit, tls::begins_tls};

/// A peer whose first bytes come one by one is looked at again after so long.
const PEEK_PAUSE: Duration = Duration::from_millis(10);

/// Makes of a socket what frames come from and go to, in the time that is left for a hello.
pub(super) async fn secure(
    stream: TcpStream,
    hub: &Hub,
    hello_left: Duration,
) -> Result<(Source, Sink), Refused> {
    let Some(tls) = &hub.tls else {
        return Ok(socket::split(stream));
    };
    let begun = async {
        match peek_tls(&stream).await {
            Ok(true) => hub.comings_and_goings.turn().await,
            Ok(false) => {
                let text = "this port speaks TLS; connect to rhash+tls://HOST:PORT";
                tell(stream, hub, text).await;
                return Err(refused("it does not speak TLS"));
            }
            Err(error) => return Err(refused(&format!("it left: {error}"))),
        }
        let accepted = tls.acceptor().accept(stream).await;
        accepted.map_err(|error| refused(&format!("the TLS handshake failed: {error}")))
    };
    match timeout(hello_left, begun).await {
        Ok(stream) => stream.map(socket::split_tls),
        Err(_elapsed) => {
            hub.reached.count(Limit::HelloTime);
            Err(refused("no TLS handshake in the time for a hello"))
        }
    }
}

/// Whether what a peer sends first is TLS.
async fn peek_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 3];
    loop {
        let got = stream.peek(&mut first).await?;
        match begins_tls(first.get(..got).unwrap_or_default()) {
            Some(is_tls) => return Ok(is_tls),
            None if got == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            // What is there stays, so that there is nothing to wait for that is not ready at once.
            None => sleep(PEEK_PAUSE).await,
        }
    }
}

async fn tell(stream: TcpStream, hub: &Hub, text: &str) {
    let refusal = WireError {
        code: ErrorCode::BadRequest,
        text: text.to_owned(),
    };
    let mut writer = FrameWriter::new(stream);
    let told = async {
        handshake::send_refusal(&mut writer, &refusal).await.ok()?;
        writer.shutdown().await.ok()
    };
    // Whether it arrives is the peer's affair.
    drop(timeout(hub.limits.hello_time, told).await);
}

fn refused(reason: &str) -> Refused {
    Refused {
        reason: reason.to_owned(),
    }
}

/// Notes in the log what kept a peer from beginning, but not for each connection of a flood.
pub(super) fn note_refusal(hub: &Hub, peer: SocketAddr, reason: &str) {
    match hub.access.failures.turn(peer.ip(), Instant::now()) {
        Turn::After(_) => tracing::warn!(%peer, reason, "a connection was refused"),
        Turn::Never => tracing::debug!(%peer, reason, "a connection was refused"),
    }
}
