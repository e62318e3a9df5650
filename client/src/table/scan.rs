//! Going through a table page by page, one page ahead of the user.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use rhash_protocol::{Request, Response, ScanWhat, Slot};
use tokio::sync::mpsc;

use super::{TableCore, read::malformed};
use crate::{
    error::Result,
    pipeline::{self, Patience, PendingReply},
};

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

/// Entries of a page, cut out of it only when they are taken: whoever takes them then counts the
/// references to the page alone, and not against the task that reads the next one.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    page: Bytes,
    spans: std::vec::IntoIter<Span>,
    /// An entry whose value was fetched by itself; comes after the spans.
    long: Option<ScanEntry>,
}

/// Where an entry's key and value lie in its page.
#[derive(Debug)]
struct Span {
    key: Range<usize>,
    value: Range<usize>,
}

/// The entries of a table, as pieces of pages.
#[derive(Debug)]
pub(crate) struct PageStream {
    pub(crate) pieces: mpsc::Receiver<Result<Piece>>,
}

impl Iterator for Piece {
    type Item = ScanEntry;

    fn next(&mut self) -> Option<ScanEntry> {
        match self.spans.next() {
            Some(Span { key, value }) => Some(ScanEntry {
                key: self.page.slice(key),
                value: self.page.slice(value),
            }),
            None => self.long.take(),
        }
    }
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
        pieces: &mpsc::Sender<Result<Piece>>,
    ) -> Result<()> {
        self.check()?;
        self.flush().await?;
        let mut asked = self.ask_page(None, what).await?;
        loop {
            let pipeline = &self.client.pipeline;
            let reply = self.take_note(pipeline.wait(asked, Patience::Bounded).await)?;
            let page = match reply.response()? {
                Response::Page(page) => page,
                other => return Err(pipeline::unexpected(&other)),
            };
            // The server makes the next page while this one is taken apart and read.
            let next = match &page.next {
                Some(cursor) => Some(self.ask_page(Some(cursor), what).await?),
                None => None,
            };
            let mut spans = Vec::with_capacity(page.entries.count());
            for entry in page.entries.iter() {
                let entry = entry.map_err(malformed)?;
                let value = match entry.value {
                    Slot::Value(value) => reply.span(value),
                    Slot::Absent => 0..0,
                    Slot::Large(_) => {
                        // Long values go one by one, so that few are in memory.
                        let long = match self.fetch_whole(entry.key).await? {
                            Some(value) => ScanEntry {
                                key: Bytes::copy_from_slice(entry.key),
                                value,
                            },
                            // It was removed since.
                            None => continue,
                        };
                        let piece = Piece {
                            page: reply.bytes(),
                            spans: std::mem::take(&mut spans).into_iter(),
                            long: Some(long),
                        };
                        if pieces.send(Ok(piece)).await.is_err() {
                            return Ok(());
                        }
                        continue;
                    }
                };
                spans.push(Span {
                    key: reply.span(entry.key),
                    value,
                });
            }
            let piece = Piece {
                page: reply.bytes(),
                spans: spans.into_iter(),
                long: None,
            };
            if pieces.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
            match next {
                Some(next) => asked = next,
                None => return Ok(()),
            }
        }
    }

    async fn ask_page(&self, cursor: Option<&[u8]>, what: ScanWhat) -> Result<PendingReply> {
        let request = Request::Scan {
            table: self.id,
            cursor,
            what,
            entries_max: PAGE_ENTRIES_MAX,
        };
        let pipeline = &self.client.pipeline;
        pipeline.send(request, Patience::Bounded).await
    }
}
