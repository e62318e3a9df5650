//! What went wrong, sorted by what the caller does about it.

use std::{error, fmt, sync::Arc};

use rhash_protocol::{ErrorCode, WireError};

/// The result of a call to a remote table.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The most keys that an error lists; it counts them all.
pub const FAILED_KEYS_MAX: usize = 100;

/// Why a call failed. Cheap to clone, since one cause can concern many calls.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

struct Inner {
    kind: ErrorKind,
    text: String,
    keys: FailedKeys,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

/// What the caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The server cannot be reached, and the time for trying again is over. What was written stays
    /// in the cache and goes out when the server is back; call again later.
    Connection,
    /// The server is connected but did not answer in time. A write may or may not have been
    /// applied: read before you repeat it.
    Timeout,
    /// The server no longer knows this client: its lease ran out or the server started again.
    /// Temporary tables are gone, and of the writes on the way nobody knows whether they were
    /// applied; none is repeated. Open named tables again and look at [`Error::keys`].
    SessionExpired,
    /// The table was closed, here or by another client. Open it again to make a new one.
    TableClosed,
    /// There is no table of that name. Open it without `existing` to make it.
    NoSuchTable,
    /// There is a table of that name already. Open it without `create_new`, or close it first.
    TableExists,
    /// The table holds something else: values, lists or counters. Open it as what it is.
    WrongKind,
    /// The table's keys and values are encoded otherwise. Open it with the codec and types that
    /// the message names.
    WrongCodec,
    /// The table has another durability, or the server cannot give it the one that was asked for. Open
    /// it without one, or do what the message says.
    WrongDurability,
    /// The key is over the limit. Use a shorter one, or a hash of it.
    KeyTooLarge,
    /// The value is over the server's limit. Split it, or make it a list that grows by appends.
    ValueTooLarge,
    /// The server is at its memory limit and has no disk. Nothing of the batch was stored; remove
    /// entries or close tables.
    OutOfMemory,
    /// The server's disk is full. Reads, discards and closes still work.
    DiskFull,
    /// The server could not read or write its disk. Its log says more.
    Storage,
    /// What the server read from its disk is damaged, and was not returned.
    Damaged,
    /// The key or value cannot be encoded by this codec. A fault of the program.
    Encode,
    /// The bytes in the table are not what this type encodes to. Another program wrote them.
    Decode,
    /// Writes that were cached did not get to the server until the deadline. They stay in the
    /// cache; `flush` tries again. [`Error::keys`] names them, `source` says why.
    FlushFailed,
    /// The token is missing, wrong, or does not allow this.
    Denied,
    /// The server's certificate cannot be trusted, or it does not trust this client's. Name the
    /// authority that signed it, or have it renewed.
    Untrusted,
    /// A bound of the server (tables, sessions, connections) is reached. Try again later.
    Busy,
    /// The server is stopping. Try again when it is back.
    ShuttingDown,
    /// Client and server speak different versions of the protocol. Update the older one.
    WrongVersion,
    /// The peer sent something that makes no sense. A fault of one of the two programs.
    Protocol,
    /// The call makes no sense: an address that is none, an option out of range, a client that
    /// was shut down.
    Usage,
}

/// The keys that an [`Error`] concerns, as encoded: the first [`FAILED_KEYS_MAX`], and their count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailedKeys {
    first: Vec<Vec<u8>>,
    count: u64,
}

impl FailedKeys {
    /// The first keys, at most [`FAILED_KEYS_MAX`], as encoded.
    pub fn first(&self) -> &[Vec<u8>] {
        &self.first
    }

    /// How many keys there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn push(&mut self, key: &[u8]) {
        if self.first.len() < FAILED_KEYS_MAX {
            self.first.push(key.to_vec());
        }
        self.count += 1;
    }
}

impl<'a> FromIterator<&'a [u8]> for FailedKeys {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(keys: I) -> Self {
        let mut failed = Self::default();
        keys.into_iter().for_each(|key| failed.push(key));
        failed
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self::build(kind, text.into(), FailedKeys::default(), None)
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        text: impl Into<String>,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        Self::build(
            kind,
            text.into(),
            FailedKeys::default(),
            Some(source.into()),
        )
    }

    /// Writes to `keys` are not on the server, because of `cause`.
    pub(crate) fn flush_failed(keys: FailedKeys, cause: Self) -> Self {
        let text = format!("{} cached writes did not reach the server", keys.count());
        Self::build(ErrorKind::FlushFailed, text, keys, Some(Box::new(cause)))
    }

    /// The same error about these keys.
    pub(crate) fn about(&self, keys: FailedKeys) -> Self {
        Self::build(
            self.kind(),
            self.inner.text.clone(),
            keys,
            Some(Box::new(self.clone())),
        )
    }

    fn build(
        kind: ErrorKind,
        text: String,
        keys: FailedKeys,
        source: Option<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                text,
                keys,
                source,
            }),
        }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The keys whose writes did not get to the server, or may not have; mostly none.
    pub fn keys(&self) -> &FailedKeys {
        &self.inner.keys
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.inner.text)?;
        match (self.inner.kind, &self.inner.source) {
            (ErrorKind::FlushFailed, Some(cause)) => write!(out, ": {cause}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("text", &self.inner.text)
            .field("keys", &self.inner.keys.count)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        let kind = match error.code {
            ErrorCode::BadRequest => ErrorKind::Protocol,
            ErrorCode::NoSuchTable => ErrorKind::NoSuchTable,
            ErrorCode::TableExists => ErrorKind::TableExists,
            ErrorCode::TableClosed => ErrorKind::TableClosed,
            ErrorCode::WrongKind => ErrorKind::WrongKind,
            ErrorCode::WrongCodec => ErrorKind::WrongCodec,
            ErrorCode::WrongDurability => ErrorKind::WrongDurability,
            ErrorCode::KeyTooLarge => ErrorKind::KeyTooLarge,
            ErrorCode::ValueTooLarge => ErrorKind::ValueTooLarge,
            ErrorCode::SessionExpired => ErrorKind::SessionExpired,
            ErrorCode::OutOfMemory => ErrorKind::OutOfMemory,
            ErrorCode::DiskFull => ErrorKind::DiskFull,
            ErrorCode::Storage => ErrorKind::Storage,
            ErrorCode::Damaged => ErrorKind::Damaged,
            ErrorCode::ShuttingDown => ErrorKind::ShuttingDown,
            ErrorCode::Busy => ErrorKind::Busy,
            ErrorCode::WrongVersion => ErrorKind::WrongVersion,
            ErrorCode::Denied => ErrorKind::Denied,
        };
        Self::new(kind, error.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_up_to_the_bound_and_counted_beyond_it() {
        let keys: Vec<[u8; 4]> = (0..250u32).map(u32::to_le_bytes).collect();
        let failed: FailedKeys = keys.iter().map(|key| &key[..]).collect();
        assert_eq!(
            (failed.first().len(), failed.count()),
            (FAILED_KEYS_MAX, 250)
        );
    }

    #[test]
    fn a_failed_flush_says_why() {
        let cause = Error::new(ErrorKind::OutOfMemory, "limit of 32 MiB reached");
        let error = Error::flush_failed([&b"k"[..]].into_iter().collect(), cause);
        assert_eq!(
            error.to_string(),
            "1 cached writes did not reach the server: limit of 32 MiB reached"
        );
        assert!(error::Error::source(&error).is_some());
    }
}
