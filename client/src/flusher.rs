//! The task that sends cached writes when they are old or many.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use rhash_protocol::limits::BATCH_BYTES_TARGET;

use crate::{
    cache::{Cache, Due},
    client::ClientCore,
};

/// What a launched batch is taken to hold.
pub(crate) const LAUNCH_BYTES: usize = BATCH_BYTES_TARGET;

/// How often the flusher looks whether the server is away for too long.
const AWAY_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until the client is gone.
pub(crate) async fn run(client: Weak<ClientCore>, cache: Arc<Cache>) {
    loop {
        let Some(client) = client.upgrade() else {
            return;
        };
        let until = match cache.next_due(Instant::now()) {
            Due::Table(slot) => {
                // The permit comes first: what is taken from the cache is sure to be launched.
                let Ok(permit) = Arc::clone(&client.launches).acquire_owned().await else {
                    return;
                };
                match client.registry.by_slot(slot) {
                    Some(table) => {
                        if let Some(batch) = cache.take_batch(slot) {
                            table.launch(batch, permit);
                        }
                    }
                    None => drop(cache.close(slot)),
                }
                continue;
            }
            Due::Later(until) => until,
        };
        client.report_away();
        drop(client);
        let look_again = Instant::now() + AWAY_CHECK_INTERVAL;
        let until = until.map_or(look_again, |until| until.min(look_again));
        tokio::select! {
            () = cache.flush_wanted.notified() => {}
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}

impl ClientCore {
    /// If the server is away for longer than failed flushes are tried again, the tables with
    /// cached writes say so at the next call.
    fn report_away(&self) {
        let Some((since, error)) = self.pipeline.away() else {
            return;
        };
        if since.elapsed() < self.retry_deadline {
            return;
        }
        for slot in self.cache.pending_slots() {
            if let Some(table) = self.registry.by_slot(slot) {
                table.report_away(since, &error);
            }
        }
    }
}
