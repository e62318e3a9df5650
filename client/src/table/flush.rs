//! Bringing cached writes to the server, and what happens when it does not take them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rhash_protocol::{Ops, Request, Response};
use tokio::sync::OwnedSemaphorePermit;

use super::{TableCore, is_final};
use crate::{
    cache::Batch,
    error::{Error, ErrorKind, Result},
    pipeline::{self, Patience},
};

/// The first wait before a refused batch is tried again; doubled each time.
const RETRY_WAIT_MIN: Duration = Duration::from_millis(20);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(1);

/// How often those that wait for a flush look whether the server is away for too long.
const WAIT_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How flushes of a table go wrong.
#[derive(Debug, Default)]
pub(super) struct Failing {
    /// When the first refusal came that no success followed.
    since: Option<Instant>,
    /// The wait before the next attempt.
    wait: Duration,
    /// The last refusal, once it is final or its deadline has passed.
    given_up: Option<Error>,
    /// What the next call is told, once.
    pub(super) unreported: Option<Error>,
    /// The outage of which calls were told.
    pub(super) away_reported: Option<Instant>,
}

impl TableCore {
    /// Sends a batch in a task of its own, which nothing can leave half-way.
    pub(crate) fn launch(self: &Arc<Self>, batch: Batch, permit: OwnedSemaphorePermit) {
        let core = Arc::clone(self);
        drop(self.client.runtime.spawn(async move {
            core.send_batch(batch).await;
            drop(permit);
        }));
    }

    async fn send_batch(&self, batch: Batch) {
        let ops = Ops::new(batch.count, &batch.packed);
        let request = Request::Write {
            table: self.id,
            ops,
        };
        let result = match self.client.pipeline.call(request, Patience::Endless).await {
            Ok(reply) => reply.response().and_then(|response| match response {
                Response::Written(_) => Ok(()),
                other => Err(pipeline::unexpected(&other)),
            }),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                let mut state = self.state.lock();
                state.failing.since = None;
                state.failing.given_up = None;
                drop(state);
                self.client
                    .cache
                    .settle(self.slot, batch.number, &batch.keys);
            }
            Err(error) => self.batch_failed(&batch, &error),
        }
        self.changed.notify_waiters();
    }

    fn batch_failed(&self, batch: &Batch, error: &Error) {
        // When the pipeline was shut, too, nothing will ever be sent again.
        if is_final(error) || error.kind() == ErrorKind::Usage {
            self.lose(error);
            self.client.registry.remove(self);
            return;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        let failing = &mut state.failing;
        let since = *failing.since.get_or_insert_with(|| {
            failing.wait = RETRY_WAIT_MIN;
            now
        });
        let retry = if is_permanent(error) || now - since >= self.client.retry_deadline {
            None
        } else {
            let retry = now + failing.wait;
            failing.wait = (failing.wait * 2).min(RETRY_WAIT_MAX);
            Some(retry)
        };
        tracing::warn!(%error, entries = batch.keys.len(), "a flush was refused");
        if retry.is_none() {
            failing.given_up = Some(error.clone());
        }
        // IMPORTANT: the writes are dirty again before anybody hears of the failure, or a second
        // flush would find nothing to send and report success.
        self.client.cache.restore(self.slot, batch, retry);
        if retry.is_none() {
            let keys = self.client.cache.pending_keys(self.slot);
            failing.unreported = Some(Error::flush_failed(keys, error.clone()));
            self.is_troubled.store(true, Ordering::Release);
        }
    }

    /// Sends all cached writes and waits until the server has them.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<()> {
        self.check_gone()?;
        let cache = &self.client.cache;
        let stamp = cache.stamp_last();
        if !cache.settled_up_to(self.slot, stamp) {
            self.begin_attempt();
            self.wait_until(
                || cache.settled_up_to(self.slot, stamp),
                || cache.take_batch(self.slot),
            )
            .await?;
        }
        // Earlier failures are mended by this success.
        self.state.lock().failing.unreported = None;
        self.check_gone()
    }

    /// Brings the cached write of one key, if there is one, to the server.
    pub(super) async fn sync_key(self: &Arc<Self>, key: &[u8]) -> Result<()> {
        let cache = &self.client.cache;
        if cache.is_pending(self.slot, key) {
            self.begin_attempt();
            self.wait_until(
                || !cache.is_pending(self.slot, key),
                || cache.take_one(self.slot, key),
            )
            .await?;
        }
        Ok(())
    }

    /// A caller wants a flush now, whatever came of earlier ones.
    fn begin_attempt(&self) {
        self.state.lock().failing.given_up = None;
    }

    /// Launches what `take` gives until `done`, or until it is clear that this will not be soon.
    async fn wait_until(
        self: &Arc<Self>,
        done: impl Fn() -> bool,
        take: impl Fn() -> Option<Batch>,
    ) -> Result<()> {
        let begun = Instant::now();
        let silence_max = self.client.retry_deadline + self.client.request_timeout;
        let mut retry_at: Option<Instant> = None;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done() {
                return Ok(());
            }
            self.check_gone()?;
            self.check_hope(begun, silence_max)?;
            if retry_at.is_none_or(|at| at <= Instant::now()) {
                while let Ok(permit) = Arc::clone(&self.client.launches).acquire_owned().await {
                    let Some(batch) = take() else { break };
                    self.launch(batch, permit);
                }
            }
            // An answer, or the time to look again.
            let _elapsed = tokio::time::timeout(WAIT_CHECK_INTERVAL, changed).await;
            let failing = self.state.lock().failing.retry_wait();
            retry_at = failing.map(|wait| Instant::now() + wait.min(WAIT_CHECK_INTERVAL));
            if let Some(at) = retry_at {
                tokio::time::sleep_until(at.into()).await;
                retry_at = None;
            }
        }
    }

    /// Errs if the server refused for too long, is away for too long, or does not answer.
    fn check_hope(&self, begun: Instant, silence_max: Duration) -> Result<()> {
        let given_up = self.state.lock().failing.given_up.clone();
        let cause = if let Some(error) = given_up {
            error
        } else if let Some((since, error)) = self.client.pipeline.away()
            && since.elapsed() >= self.client.retry_deadline
        {
            error
        } else if begun.elapsed() >= silence_max {
            Error::new(
                ErrorKind::Timeout,
                format!("no answer within {silence_max:?}"),
            )
        } else {
            return Ok(());
        };
        // This call tells it, so the next one need not.
        self.state.lock().failing.unreported = None;
        let keys = self.client.cache.pending_keys(self.slot);
        Err(Error::flush_failed(keys, cause))
    }

    /// Waits until something pending is on the server and the cache has room again.
    pub(super) async fn wait_for_room<T>(&self, mut retry: impl FnMut() -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + self.client.retry_deadline;
        loop {
            let room = self.client.cache.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if let Some(done) = retry() {
                return Ok(done);
            }
            self.check()?;
            self.client.cache.flush_wanted.notify_one();
            if tokio::time::timeout_at(deadline.into(), room)
                .await
                .is_err()
            {
                let keys = self.client.cache.pending_keys(self.slot);
                let cause = match self.client.pipeline.away() {
                    Some((_, error)) => error,
                    None => Error::new(
                        ErrorKind::Timeout,
                        format!(
                            "no room in the cache within {:?}",
                            self.client.retry_deadline
                        ),
                    ),
                };
                return Err(Error::flush_failed(keys, cause));
            }
        }
    }
}

impl Failing {
    /// How long to wait before trying again what was refused.
    fn retry_wait(&self) -> Option<Duration> {
        self.since
            .filter(|_| self.given_up.is_none())
            .map(|_| self.wait)
    }
}

/// Whether trying again cannot help.
fn is_permanent(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Busy
            | ErrorKind::ShuttingDown
            | ErrorKind::OutOfMemory
            | ErrorKind::DiskFull
            | ErrorKind::Storage
            | ErrorKind::Connection
            | ErrorKind::Timeout
    )
}
