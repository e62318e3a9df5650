//! Going through a table page by page, one page ahead of the user.

use std::sync::Arc;

use bytes::Bytes;
use rhash_protocol::{Request, Response, ScanWhat, Slot};
use tokio::sync::mpsc;

use super::{TableCore, read::malformed};
use crate::{error::Result, pipeline};

/// The most entries that a page may have.
const PAGE_ENTRIES_MAX: u32 = 16_384;

/// Pieces that are read ahead of the user; a page without long values is one piece.
const PIECES_AHEAD_MAX: usize = 1;

/// One entry, encoded; the half that was not asked for is empty.
#[derive(Debug, Clone)]
pub struct ScanEntry {
    /// The key, as encoded.
    pub key: Bytes,
    /// The value, as encoded.
    pub value: Bytes,
}

/// The entries of a table, as pieces of pages.
#[derive(Debug)]
pub(crate) struct PageStream {
    pub(crate) pieces: mpsc::Receiver<Result<Vec<ScanEntry>>>,
}

impl TableCore {
    /// Begins to go through the table; what this client wrote before is flushed first.
    pub(crate) fn scan(self: &Arc<Self>, what: ScanWhat) -> PageStream {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD_MAX);
        let core = Arc::clone(self);
        drop(self.client.runtime.spawn(async move {
            if let Err(error) = core.scan_to(what, &sender).await {
                // A receiver that is gone needs no error.
                drop(sender.send(Err(error)).await);
            }
        }));
        PageStream { pieces }
    }

    async fn scan_to(
        self: &Arc<Self>,
        what: ScanWhat,
        pieces: &mpsc::Sender<Result<Vec<ScanEntry>>>,
    ) -> Result<()> {
        self.check()?;
        self.flush().await?;
        let mut cursor: Option<Vec<u8>> = None;
        loop {
            let request = Request::Scan {
                table: self.id,
                cursor: cursor.as_deref(),
                what,
                entries_max: PAGE_ENTRIES_MAX,
            };
            let reply = self.call(request).await?;
            let page = match reply.response()? {
                Response::Page(page) => page,
                other => return Err(pipeline::unexpected(&other)),
            };
            let mut piece = Vec::with_capacity(page.entries.count());
            for entry in page.entries.iter() {
                let entry = entry.map_err(malformed)?;
                let value = match entry.value {
                    Slot::Value(value) => reply.slice(value),
                    Slot::Absent => Bytes::new(),
                    Slot::Large(_) => {
                        // Long values go one by one, so that few are in memory.
                        if !piece.is_empty()
                            && pieces.send(Ok(std::mem::take(&mut piece))).await.is_err()
                        {
                            return Ok(());
                        }
                        match self.fetch_whole(entry.key).await? {
                            Some(value) => value,
                            // It was removed since.
                            None => continue,
                        }
                    }
                };
                piece.push(ScanEntry {
                    key: reply.slice(entry.key),
                    value,
                });
            }
            cursor = page.next;
            if pieces.send(Ok(piece)).await.is_err() || cursor.is_none() {
                return Ok(());
            }
        }
    }
}
