//! Iterators over tables and lists. Each crosses to the client's thread once a page, not once an
//! entry.

use std::{fmt, marker::PhantomData, sync::Arc};

use super::Driver;
use crate::{
    codec::{Element, Item, Stored},
    error::Result,
    hash::{Decoder, decode_key, decode_read},
    table::{ByteStream, PageStream, Piece, ScanEntry},
};

/// The encoded entries of a table.
pub(super) struct Pieces {
    /// None after the end or an error.
    pages: Option<PageStream>,
    piece: Piece,
    driver: Arc<Driver>,
}

impl Pieces {
    pub(super) fn new(pages: PageStream, driver: Arc<Driver>) -> Self {
        Self {
            pages: Some(pages),
            piece: Piece::default(),
            driver,
        }
    }
}

impl Iterator for Pieces {
    type Item = Result<ScanEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.piece.next() {
                return Some(Ok(entry));
            }
            let mut pages = self.pages.take()?;
            let taken = self.driver.wait(async move {
                let piece = pages.pieces.recv().await;
                (pages, piece)
            });
            match taken {
                Ok((pages, Some(Ok(piece)))) => {
                    self.pages = Some(pages);
                    self.piece = piece;
                }
                Ok((_, Some(Err(error)))) | Err(error) => return Some(Err(error)),
                Ok((_, None)) => return None,
            }
        }
    }
}

macro_rules! scan_iterator {
    ($(#[$text:meta])* $name:ident<$($type:ident: $bound:path),*> yields $item:ty, $decode:expr) => {
        $(#[$text])*
        #[must_use = "an iterator does nothing unless it is read"]
        pub struct $name<$($type,)* C> {
            pieces: Pieces,
            types: PhantomData<fn() -> ($($type,)* C)>,
        }

        impl<$($type,)* C> fmt::Debug for $name<$($type,)* C> {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(stringify!($name))
            }
        }

        impl<$($type,)* C> $name<$($type,)* C> {
            pub(super) fn new(pieces: Pieces) -> Self {
                Self { pieces, types: PhantomData }
            }
        }

        impl<$($type: $bound,)* C> Iterator for $name<$($type,)* C> {
            type Item = Result<$item>;

            fn next(&mut self) -> Option<Self::Item> {
                Some(self.pieces.next()?.and_then($decode))
            }
        }
    };
}

scan_iterator!(
    /// The keys of a table.
    Keys<K: Item<C>> yields K,
    |entry| decode_key::<K, C>(&entry.key)
);
scan_iterator!(
    /// The values of a table.
    Values<V: Stored<C>> yields V::Read,
    |entry| decode_read::<V, C>(&entry.value)
);
scan_iterator!(
    /// The entries of a table.
    Entries<K: Item<C>, V: Stored<C>> yields (K, V::Read),
    |entry| Ok((decode_key::<K, C>(&entry.key)?, decode_read::<V, C>(&entry.value)?))
);

/// The encoded bytes of one value, part by part.
#[derive(Debug)]
#[must_use = "an iterator does nothing unless it is read"]
pub struct Bytes {
    /// None after the end or an error.
    bytes: Option<ByteStream>,
    driver: Arc<Driver>,
}

impl Bytes {
    pub(super) fn new(bytes: ByteStream, driver: Arc<Driver>) -> Self {
        Self {
            bytes: Some(bytes),
            driver,
        }
    }
}

impl Iterator for Bytes {
    type Item = Result<bytes::Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = self.bytes.take()?;
        let taken = self.driver.wait(async move {
            let part = bytes.next().await;
            (bytes, part)
        });
        match taken {
            Ok((bytes, Some(Ok(part)))) => {
                self.bytes = Some(bytes);
                Some(Ok(part))
            }
            Ok((_, Some(Err(error)))) | Err(error) => Some(Err(error)),
            Ok((_, None)) => None,
        }
    }
}

/// The elements of one list, however long it is.
#[must_use = "an iterator does nothing unless it is read"]
pub struct ListItems<T, C> {
    bytes: Bytes,
    decoder: Decoder<T, C>,
    is_ended: bool,
}

impl<T, C> fmt::Debug for ListItems<T, C> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ListItems")
    }
}

impl<T: Element<C>, C> ListItems<T, C> {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self {
            bytes,
            decoder: Decoder::new(),
            is_ended: false,
        }
    }

    fn end(&mut self) {
        (self.is_ended, self.decoder) = (true, Decoder::new());
    }
}

impl<T: Element<C>, C> Iterator for ListItems<T, C> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.decoder.next(self.is_ended) {
                if item.is_err() {
                    self.end();
                }
                return Some(item);
            }
            if self.is_ended {
                return None;
            }
            match self.bytes.next() {
                Some(Ok(part)) => self.decoder.push(&part),
                Some(Err(error)) => {
                    self.end();
                    return Some(Err(error));
                }
                None => self.is_ended = true,
            }
        }
    }
}
