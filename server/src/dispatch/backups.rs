//! Backups: made by a thread of their own, one at a time, while the connection goes on.

use std::{io, path::PathBuf, sync::Arc, thread};

use rhash_protocol::{BackupInfo, ErrorCode, Response, WireError};
use tokio::sync::oneshot;

use super::answers::Encoded;
use crate::{
    background,
    connection::{Clerk, End},
    store::backup,
    table::Answer,
};

/// Copying calls nothing deep.
const STACK_BYTES: usize = 512 * 1024;

impl Clerk {
    /// Begins a backup; it is answered when it is made. It goes on if the client goes, and ends with the server.
    pub(super) async fn backup(&self, request_id: u64, dir: &str) -> Result<(), End> {
        let Some(turn) = self.hub.backup_turn() else {
            return self.refuse(request_id, backup::busy()).await;
        };
        let room = self.unless_ended(self.window.reserve(0)).await?;
        let (sender, made) = oneshot::channel();
        let (hub, dir) = (Arc::clone(&self.hub), PathBuf::from(dir));
        let make = move || {
            background::step_back();
            // Whoever has the server may drop it without a stop.
            let goes_on = || !*hub.stopping.borrow() && hub.stopping.has_changed().is_ok();
            let made = hub.store.backup(&dir, &goes_on);
            if let Err(error) = &made {
                tracing::warn!(dir = %dir.display(), error = error.text, "no backup was made");
            }
            drop(turn);
            // Nobody may wait any more, and the backup is there all the same.
            drop(sender.send(made));
        };
        let started = thread::Builder::new()
            .name("backup".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(make);
        if let Err(error) = started {
            drop(room);
            return self.refuse(request_id, no_thread(&error)).await;
        }
        let encode = |info: BackupInfo| Encoded::one(&Response::BackedUp(info));
        self.answer(request_id, room, Answer::Pending(made), encode)
            .await
    }
}

fn no_thread(error: &io::Error) -> WireError {
    WireError {
        code: ErrorCode::Storage,
        text: format!("cannot start a thread for the backup: {error}"),
    }
}
