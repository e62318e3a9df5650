//! What a connection receives with, and what makes it give up waiting for the rest of a request.

use std::time::Duration;

use rhash_protocol::{
    ErrorCode, WireError,
    assembler::{Assembler, AssemblyError},
    connection::ConnectionError,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    End, Outgoing,
    assembly::AssemblyRoom,
    pace::{Pace, Stalled},
};
use crate::session::Stop;

/// A connection that sends nothing for this long in the middle of a request is ended, whether others
/// wait for the room that its first half takes or not.
const STALL_MAX: Duration = Duration::from_secs(30);

/// What a connection receives with.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) assembler: Assembler,
    pub(super) room: AssemblyRoom,
    pub(super) stop: watch::Receiver<Stop>,
    pub(super) stopping: watch::Receiver<bool>,
    /// Closed when the connection's writer has given up.
    pub(super) outbox: mpsc::Sender<Outgoing>,
    /// How fast the peer sends the request that has begun.
    pub(super) pace: Pace,
    /// When the last request came.
    pub(super) idle_since: Instant,
}

impl Intake {
    /// Waits for something, unless the connection ends before.
    pub(super) async fn unless_ended<T>(
        &mut self,
        coming: impl Future<Output = T>,
    ) -> Result<T, End> {
        let (stop, stopping) = (&mut self.stop, &mut self.stopping);
        unless_ended(stop, stopping, &self.outbox, coming).await
    }

    /// Waits for more of a request that has begun, for as long as some comes, and not too little
    /// where others wait for the room that its first half takes.
    pub(super) async fn keep_pace<T>(&mut self, coming: impl Future<Output = T>) -> Result<T, End> {
        let Self {
            room,
            stop,
            stopping,
            outbox,
            pace,
            ..
        } = self;
        let kept = pace.keep(room.spell_bytes_min(), coming, |stalled| {
            stands(stalled) || room.is_wanted()
        });
        let kept = unless_ended(stop, stopping, outbox, kept).await?;
        kept.map_err(too_slow)
    }
}

/// Waits for something, unless the connection ends before.
async fn unless_ended<T>(
    stop: &mut watch::Receiver<Stop>,
    stopping: &mut watch::Receiver<bool>,
    outbox: &mpsc::Sender<Outgoing>,
    coming: impl Future<Output = T>,
) -> Result<T, End> {
    tokio::select! {
        biased;
        end = ended(stop, stopping, outbox) => Err(end),
        came = coming => Ok(came),
    }
}

/// Waits until the connection is to end, and says why: it is told to, or the server is, or its writer has
/// given up.
pub(super) async fn ended(
    stop: &mut watch::Receiver<Stop>,
    stopping: &mut watch::Receiver<bool>,
    outbox: &mpsc::Sender<Outgoing>,
) -> End {
    tokio::select! {
        biased;
        end = taken_away(stop) => end,
        _ = stopping.wait_for(|stopping| *stopping) => End::Stopping,
        () = outbox.closed() => End::Closed,
    }
}

pub(super) fn connection_failed(error: ConnectionError) -> End {
    match error {
        ConnectionError::Frame(error) => End::Failed(WireError {
            code: ErrorCode::BadRequest,
            text: error.to_string(),
        }),
        error => {
            tracing::debug!(%error, "a connection broke");
            End::Closed
        }
    }
}

pub(super) fn assembly_failed(error: AssemblyError) -> WireError {
    let code = match error {
        AssemblyError::Bytes { .. } => ErrorCode::ValueTooLarge,
        _ => ErrorCode::BadRequest,
    };
    WireError {
        code,
        text: error.to_string(),
    }
}

/// Whether a peer is given up that sends nothing, be its room wanted or not.
fn stands(stalled: Stalled) -> bool {
    stalled.moved_bytes == 0 && stalled.time >= STALL_MAX
}

fn too_slow(stalled: Stalled) -> End {
    let Stalled { time, moved_bytes } = stalled;
    let came = format!(
        "{moved_bytes} bytes came in {} s in the middle of a request",
        time.as_secs()
    );
    End::Failed(if stands(stalled) {
        WireError {
            code: ErrorCode::BadRequest,
            text: came,
        }
    } else {
        WireError {
            code: ErrorCode::Busy,
            text: format!(
                "{came}, and others wait for the room that it takes; send it again, faster or in \
                 smaller parts"
            ),
        }
    })
}

/// Waits until the session is taken from its connection, and says why.
pub(super) async fn taken_away(stop: &mut watch::Receiver<Stop>) -> End {
    // The other end goes with the session, after it has said why.
    drop(stop.wait_for(|stop| *stop != Stop::No).await);
    match *stop.borrow() {
        Stop::Revoked => End::Revoked,
        _ => End::TakenOver,
    }
}
