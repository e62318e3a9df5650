//! Values of any length, read part by part as they are taken.

use std::{fmt, sync::Arc};

use rhash_protocol::limits::FRAME_BYTES_MAX;
use tokio::sync::oneshot;

use super::{Answer, Table, TableError, busy_error, check::check_key};
use crate::{
    cold::Fold,
    shared::{Shared, cold_error},
};

/// Parts are put together up to this before they are handed out.
const CHUNK_BYTES_TARGET: usize = FRAME_BYTES_MAX / 2;

/// The bytes of one value. A read pool's thread is busy only while the next ones are read.
pub struct ValueStream {
    shared: Arc<Shared>,
    fold: Option<Fold>,
}

impl fmt::Debug for ValueStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ValueStream")
    }
}

type Step = (Option<Fold>, Option<Result<Vec<u8>, TableError>>);

impl ValueStream {
    /// The next bytes; none after the last ones, and after an error.
    pub async fn recv(&mut self) -> Option<Result<Vec<u8>, TableError>> {
        let fold = self.fold.take()?;
        let (sender, receiver) = oneshot::channel();
        let submitted = self.shared.pool.submit(move || {
            // Nobody may wait any more, which is no failure.
            drop(sender.send(step(fold)));
        });
        if submitted.is_err() {
            return Some(Err(busy_error()));
        }
        let (fold, chunk) = receiver.await.ok()?;
        self.fold = fold;
        chunk
    }
}

/// Reads about a chunk.
fn step(mut fold: Fold) -> Step {
    let mut chunk = Vec::new();
    while chunk.len() < CHUNK_BYTES_TARGET {
        match fold.next_part() {
            Ok(Some(part)) => chunk.extend_from_slice(part),
            Ok(None) => {
                let chunk = (!chunk.is_empty()).then_some(Ok(chunk));
                return (None, chunk);
            }
            Err(error) => return (None, Some(Err(cold_error(&error)))),
        }
    }
    (Some(fold), Some(Ok(chunk)))
}

impl Table {
    /// Reads one value of any length; none if there is no entry.
    pub fn fetch(self: &Arc<Self>, key: &[u8]) -> Answer<Option<ValueStream>> {
        if let Err(error) = check_key(key) {
            return Answer::Ready(Err(error));
        }
        let hash = self.shared.hasher.hash(key);
        let state = self.state.lock();
        if state.closed {
            return Answer::Ready(Err(self.closed_error()));
        }
        let lookup = state.lookup(hash, key);
        drop(state);
        self.on_pool(move |table| {
            let fold = table.fold(&lookup).map_err(|error| cold_error(&error))?;
            Ok(fold.map(|fold| ValueStream {
                shared: Arc::clone(&table.shared),
                fold: Some(fold),
            }))
        })
    }
}
