//! Streams of keys, values, entries and list elements.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use super::{decode_failed, decode_key, decode_read};
use crate::{
    codec::{Element, Item, Stored},
    error::Result,
    table::{ByteStream, PageStream, Piece, ScanEntry},
};

/// Takes entries out of pieces of pages.
struct Scan {
    pages: PageStream,
    piece: Piece,
}

impl Scan {
    fn new(pages: PageStream) -> Self {
        Self {
            pages,
            piece: Piece::default(),
        }
    }

    fn poll_entry(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ScanEntry>>> {
        loop {
            if let Some(entry) = self.piece.next() {
                return Poll::Ready(Some(Ok(entry)));
            }
            match ready!(self.pages.pieces.poll_recv(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(piece)) => self.piece = piece,
            }
        }
    }

    async fn next(&mut self) -> Option<Result<ScanEntry>> {
        std::future::poll_fn(|context| self.poll_entry(context)).await
    }
}

macro_rules! scan_stream {
    ($(#[$text:meta])* $name:ident<$($type:ident: $bound:path),*> yields $item:ty, $decode:expr) => {
        $(#[$text])*
        ///
        /// A `Stream` of results, which reads a page ahead; ends after the first error.
        #[must_use = "a stream does nothing unless it is read"]
        pub struct $name<$($type,)* C> {
            scan: Scan,
            types: PhantomData<fn() -> ($($type,)* C)>,
        }

        impl<$($type,)* C> fmt::Debug for $name<$($type,)* C> {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(stringify!($name))
            }
        }

        impl<$($type: $bound,)* C> $name<$($type,)* C> {
            pub(crate) fn new(pages: PageStream) -> Self {
                Self { scan: Scan::new(pages), types: PhantomData }
            }

            /// The next one; none after the last.
            pub async fn next(&mut self) -> Option<Result<$item>> {
                let entry = self.scan.next().await?;
                Some(entry.and_then($decode))
            }
        }

        impl<$($type: $bound,)* C> Stream for $name<$($type,)* C> {
            type Item = Result<$item>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                let entry = ready!(self.scan.poll_entry(context));
                Poll::Ready(entry.map(|entry| entry.and_then($decode)))
            }
        }
    };
}

scan_stream!(
    /// The keys of a table.
    Keys<K: Item<C>> yields K,
    |entry| decode_key::<K, C>(&entry.key)
);
scan_stream!(
    /// The values of a table.
    Values<V: Stored<C>> yields V::Read,
    |entry| decode_read::<V, C>(&entry.value)
);
scan_stream!(
    /// The entries of a table.
    Entries<K: Item<C>, V: Stored<C>> yields (K, V::Read),
    |entry| Ok((decode_key::<K, C>(&entry.key)?, decode_read::<V, C>(&entry.value)?))
);

/// The elements of one list, however long it is: a `Stream` of results.
#[must_use = "a stream does nothing unless it is read"]
pub struct ListStream<T, C> {
    bytes: ByteStream,
    decoder: Decoder<T, C>,
    is_ended: bool,
}

impl<T, C> fmt::Debug for ListStream<T, C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ListStream")
    }
}

impl<T: Element<C>, C> ListStream<T, C> {
    pub(crate) fn new(bytes: ByteStream) -> Self {
        Self {
            bytes,
            decoder: Decoder::new(),
            is_ended: false,
        }
    }

    /// The next element; none after the last.
    pub async fn next(&mut self) -> Option<Result<T>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<T: Element<C>, C> Stream for ListStream<T, C> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.is_ended && this.decoder.is_empty() {
                return Poll::Ready(None);
            }
            match this.decoder.next(this.is_ended) {
                Some(Ok(item)) => return Poll::Ready(Some(Ok(item))),
                Some(Err(error)) => {
                    (this.is_ended, this.decoder) = (true, Decoder::new());
                    return Poll::Ready(Some(Err(error)));
                }
                None => {}
            }
            match ready!(Pin::new(&mut this.bytes).poll_next(context)) {
                Some(Ok(bytes)) => this.decoder.push(&bytes),
                Some(Err(error)) => {
                    (this.is_ended, this.decoder) = (true, Decoder::new());
                    return Poll::Ready(Some(Err(error)));
                }
                None => this.is_ended = true,
            }
        }
    }
}

/// Takes elements out of bytes that come in parts, wherever these are cut.
pub(crate) struct Decoder<T, C> {
    bytes: Vec<u8>,
    taken: usize,
    /// An element did not fit what was there: it is tried again when this many bytes are, which
    /// doubles, so that a long element is not decoded again at each part.
    wanted: usize,
    types: PhantomData<fn() -> (T, C)>,
}

impl<T: Element<C>, C> Decoder<T, C> {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            taken: 0,
            wanted: 1,
            types: PhantomData,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    pub(crate) fn push(&mut self, part: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(part);
    }

    /// The next element; none if more bytes are needed. After the last part, what is left and is
    /// no element is an error.
    pub(crate) fn next(&mut self, was_last_part: bool) -> Option<Result<T>> {
        let rest = &self.bytes[self.taken..];
        if rest.is_empty() || (rest.len() < self.wanted && !was_last_part) {
            return None;
        }
        let mut left = rest;
        match T::decode_next(&mut left) {
            Ok(item) => {
                self.taken = self.bytes.len() - left.len();
                self.wanted = 1;
                Some(Ok(item))
            }
            Err(_) if !was_last_part => {
                self.wanted = rest.len() * 2;
                None
            }
            Err(error) => Some(Err(decode_failed("list element", &error))),
        }
    }
}
