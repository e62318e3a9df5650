//! One open table, in bytes: what the typed handles are made of.
//!
//! [`TableCore`] decides for each call whether the cache or the server answers it. `read` and
//! `write` hold the calls, `flush` brings cached writes to the server, `scan` and `fetch` stream.
//! Keys are passed with the table's slot before them, as the cache has them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use rhash_protocol::{Durability, OpenMode, Request, Response, TableId, TableKind};
use tokio::sync::Notify;

use crate::{
    cache::{SLOT_BYTES, Slot},
    client::ClientCore,
    config::CachePolicy,
    error::{Error, ErrorKind, Result},
    pipeline::{self, Reply},
};

mod read;
mod pieces;
mod read_many;
mod write;
mod flush;
mod scan;
mod fetch;

pub use self::{
    fetch::ByteStream,
    pieces::{PIECES_UNDER_WAY_MAX, Pieces},
    scan::ScanEntry,
};
use self::{flush::Failing, pieces::Pace};
pub(crate) use self::{
    read::{Cached, Keep},
    read_many::{ManyRead, Values},
    scan::{PageStream, Piece},
    write::{Condition, Outcome},
};

/// What an open asks for.
#[derive(Debug, Clone)]
pub(crate) struct TableSpec {
    pub(crate) kind: Option<TableKind>,
    pub(crate) codec: Option<String>,
    pub(crate) mode: OpenMode,
    pub(crate) durability: Option<Durability>,
}

/// An open table.
#[derive(Debug)]
pub(crate) struct TableCore {
    pub(crate) client: Arc<ClientCore>,
    pub(crate) id: TableId,
    pub(crate) slot: Slot,
    pub(crate) name: Option<String>,
    pub(crate) kind: TableKind,
    pub(crate) policy: CachePolicy,
    /// Wakes those that wait for a batch's answer.
    changed: Notify,
    /// How long reads of many keys take.
    pace: Pace,
    state: Mutex<State>,
    /// Whether `state` has something that a call must look at first.
    is_troubled: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Why the table is of no more use.
    gone: Option<Error>,
    failing: Failing,
}

impl TableCore {
    pub(crate) fn new(
        client: Arc<ClientCore>,
        id: TableId,
        slot: Slot,
        name: Option<String>,
        kind: TableKind,
        policy: CachePolicy,
    ) -> Self {
        Self {
            client,
            id,
            slot,
            name,
            kind,
            policy,
            changed: Notify::new(),
            pace: Pace::default(),
            state: Mutex::default(),
            is_troubled: AtomicBool::new(false),
        }
    }

    /// A buffer for a key, with the table's slot in it.
    pub(crate) fn key_buffer(&self) -> Vec<u8> {
        const KEY_BYTES_USUAL: usize = 28;
        let mut key = Vec::with_capacity(SLOT_BYTES + KEY_BYTES_USUAL);
        key.extend_from_slice(&self.slot.to_le_bytes());
        key
    }

    /// Errs if the table is gone, and once if writes failed since the last call.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.is_troubled.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = self.state.lock();
        if let Some(gone) = &state.gone {
            return Err(gone.clone());
        }
        self.is_troubled.store(false, Ordering::Release);
        state.failing.unreported.take().map_or(Ok(()), Err)
    }

    /// Errs if the table is gone.
    fn check_gone(&self) -> Result<()> {
        self.state.lock().gone.clone().map_or(Ok(()), Err)
    }

    /// The table is of no more use to this client; what is cached of it is lost.
    pub(crate) fn lose(&self, error: &Error) {
        let keys = self.client.cache.close(self.slot);
        let mut state = self.state.lock();
        if state.gone.is_none() {
            state.gone = Some(if keys.count() > 0 {
                error.about(keys)
            } else {
                error.clone()
            });
        }
        self.is_troubled.store(true, Ordering::Release);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Makes a call about this table, and notes if the answer says that the table is gone.
    async fn call(&self, request: Request<'_>) -> Result<Reply> {
        self.take_note(self.client.call(request).await)
    }

    /// The reply, unless it or what it says is an error, which may be this table's last.
    fn take_note(&self, reply: Result<Reply>) -> Result<Reply> {
        let checked = reply.and_then(|reply| {
            reply.response()?;
            Ok(reply)
        });
        checked.inspect_err(|error| self.note(error))
    }

    pub(crate) fn note(&self, error: &Error) {
        if is_final(error) {
            self.lose(error);
            self.client.registry.remove(self);
        }
    }

    async fn done(&self, request: Request<'_>) -> Result<()> {
        let reply = self.call(request).await?;
        match reply.response()? {
            Response::Done => Ok(()),
            other => Err(pipeline::unexpected(&other)),
        }
    }

    /// Frees the table for everybody.
    pub(crate) async fn close(&self) -> Result<()> {
        let report = self.check();
        self.check_gone()?;
        self.done(Request::Close { table: self.id }).await?;
        self.lose(&Error::new(ErrorKind::TableClosed, "the table was closed"));
        self.client.registry.remove(self);
        report
    }

    /// Sends what is cached and lets go of the table, unless it was opened again meanwhile.
    async fn release(self: &Arc<Self>) -> Result<()> {
        let _alone = match &self.name {
            Some(name) => Some(self.client.registry.name_lock(name).lock().await),
            None => None,
        };
        if !self.client.registry.is_unused(self) || self.state.lock().gone.is_some() {
            return Ok(());
        }
        // A temporary table is freed: nobody will ever read what is flushed to it.
        let flushed = match self.name {
            Some(_) => self.flush().await,
            None => Ok(()),
        };
        let detached = self.done(Request::Detach { table: self.id }).await;
        self.lose(&Error::new(
            ErrorKind::TableClosed,
            "the table was let go of",
        ));
        self.client.registry.remove(self);
        flushed.and(detached)
    }
}

/// Whether an error means that no later call on the table can succeed.
fn is_final(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::TableClosed | ErrorKind::SessionExpired | ErrorKind::NoSuchTable
    )
}

/// Keeps a table open; lets go of it when the last one is dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    core: Arc<TableCore>,
    is_released: bool,
}

impl Handle {
    pub(crate) fn new(core: Arc<TableCore>) -> Self {
        Self {
            core,
            is_released: false,
        }
    }

    pub(crate) fn core(&self) -> &Arc<TableCore> {
        &self.core
    }

    pub(crate) async fn close(self) -> Result<()> {
        self.core.close().await
    }

    /// Lets go of the table and waits for it, if this is its last handle; else flushes it.
    pub(crate) async fn detach(mut self) -> Result<()> {
        self.core.flush().await?;
        self.is_released = true;
        if self.core.client.registry.drop_handle(&self.core) {
            self.core.release().await?;
        }
        Ok(())
    }
}

/// A release under way: counted, so that a shutdown waits for it.
struct Release {
    core: Arc<TableCore>,
}

impl Release {
    fn begin(core: Arc<TableCore>) -> Self {
        core.client
            .releases
            .send_modify(|under_way| *under_way += 1);
        Self { core }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        self.core
            .client
            .releases
            .send_modify(|under_way| *under_way -= 1);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.is_released || !self.core.client.registry.drop_handle(&self.core) {
            return;
        }
        let release = Release::begin(Arc::clone(&self.core));
        // Works outside of the runtime too; if that has ended, so has the connection.
        drop(self.core.client.runtime.spawn(async move {
            let core = &release.core;
            if let Err(error) = core.release().await {
                tracing::warn!(%error, "letting go of a table failed");
                core.client.registry.remove(core);
                core.client.release_failed.lock().get_or_insert(error);
            }
        }));
    }
}

impl TableCore {
    /// The server is away since `since`, and writes wait in the cache: the next call says so,
    /// once.
    pub(crate) fn report_away(&self, since: Instant, error: &Error) {
        let keys = self.client.cache.pending_keys(self.slot);
        let mut state = self.state.lock();
        if keys.count() > 0 && state.failing.away_reported != Some(since) {
            state.failing.away_reported = Some(since);
            state.failing.unreported = Some(Error::flush_failed(keys, error.clone()));
            self.is_troubled.store(true, Ordering::Release);
        }
    }
}
