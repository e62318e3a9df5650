//! One value of any length, as a stream of its bytes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::mpsc;

use super::{TableCore, read::without_slot};
use crate::{
    error::{Error, ErrorKind, Result},
    pipeline::StreamPart,
};

/// Parts that a [`ByteStream`] reads ahead of its user.
const PARTS_AHEAD_MAX: usize = 4;

/// A value that is being read.
#[derive(Debug)]
pub(crate) struct Fetch {
    core: Arc<TableCore>,
    key: Vec<u8>,
    parts: mpsc::Receiver<StreamPart>,
    /// Bytes that were given out.
    offset: u64,
    is_ended: bool,
}

impl Fetch {
    /// Begins to read the value of a key (without slot); none if there is no entry.
    async fn begin(core: Arc<TableCore>, key: Vec<u8>) -> Result<Option<Self>> {
        let parts = core.client.pipeline.fetch(core.id, &key, 0).await?;
        let mut fetch = Self {
            core,
            key,
            parts,
            offset: 0,
            is_ended: false,
        };
        Ok(if fetch.is_present().await? {
            Some(fetch)
        } else {
            None
        })
    }

    async fn is_present(&mut self) -> Result<bool> {
        loop {
            let part = tokio::time::timeout(self.core.client.request_timeout, self.parts.recv());
            match part.await {
                Ok(Some(StreamPart::Present(present))) => return Ok(present),
                Ok(Some(StreamPart::Failed(error))) => {
                    self.core.note(&error);
                    return Err(error);
                }
                Ok(Some(StreamPart::Bytes(_) | StreamPart::End)) => {
                    return Err(Error::new(
                        ErrorKind::Protocol,
                        "a value without a beginning",
                    ));
                }
                Ok(None) => self.ask_again().await?,
                Err(_elapsed) => {
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        "no answer to a fetch in time",
                    ));
                }
            }
        }
    }

    /// The reader was too slow while others waited: goes on where it was.
    async fn ask_again(&mut self) -> Result<()> {
        let pipeline = &self.core.client.pipeline;
        self.parts = pipeline.fetch(self.core.id, &self.key, self.offset).await?;
        Ok(())
    }

    /// The next bytes; none after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.is_ended {
            return Ok(None);
        }
        let result = self.next_part().await;
        self.is_ended = !matches!(result, Ok(Some(_)));
        result
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.parts.recv().await {
                Some(StreamPart::Bytes(bytes)) => {
                    self.offset += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(StreamPart::End) => return Ok(None),
                Some(StreamPart::Failed(error)) => {
                    self.core.note(&error);
                    return Err(error);
                }
                Some(StreamPart::Present(true)) => {}
                Some(StreamPart::Present(false)) => {
                    let text = "the entry was removed while it was read";
                    return Err(Error::new(ErrorKind::Storage, text));
                }
                None => self.ask_again().await?,
            }
        }
    }
}

impl TableCore {
    /// A long value, in one piece. `key` is without slot.
    pub(super) async fn fetch_whole(self: &Arc<Self>, key: &[u8]) -> Result<Option<Bytes>> {
        let Some(mut fetch) = Fetch::begin(Arc::clone(self), key.to_vec()).await? else {
            return Ok(None);
        };
        let mut value = Vec::new();
        while let Some(bytes) = fetch.next().await? {
            value.extend_from_slice(&bytes);
        }
        Ok(Some(value.into()))
    }

    /// The bytes of a value, whether they are in the cache or on the server.
    pub(crate) async fn chunks(self: &Arc<Self>, key: Vec<u8>) -> Result<Option<ByteStream>> {
        self.check()?;
        self.sync_key(&key).await?;
        let fetch = Fetch::begin(Arc::clone(self), without_slot(&key).to_vec()).await?;
        Ok(fetch.map(|fetch| ByteStream::new(fetch, &self.client.runtime)))
    }
}

/// The encoded bytes of one value, part by part: a [`Stream`] of [`Bytes`].
///
/// A list that is replaced while it is read may come as a mixture; one that only grows by appends
/// comes whole, as it was at some moment or longer.
#[derive(Debug)]
pub struct ByteStream {
    parts: mpsc::Receiver<Result<Bytes>>,
}

impl ByteStream {
    fn new(mut fetch: Fetch, runtime: &tokio::runtime::Handle) -> Self {
        let (sender, parts) = mpsc::channel(PARTS_AHEAD_MAX);
        drop(runtime.spawn(async move {
            while let Some(part) = fetch.next().await.transpose() {
                let is_last = part.is_err();
                if sender.send(part).await.is_err() || is_last {
                    break;
                }
            }
        }));
        Self { parts }
    }

    /// The next part; none after the last.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        self.parts.recv().await
    }
}

impl Stream for ByteStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.parts.poll_recv(context)
    }
}
