//! The rhash client: remote hash tables with the interface of a `HashMap`.

pub mod blocking;
pub mod codec;

mod client;
mod config;
mod builder;
mod hash;
mod table;
mod registry;
mod cache;
mod flusher;
mod pipeline;
mod address;
mod error;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;

pub use rhash_protocol::{Stats, TableInfo, TableKind};

pub use self::{
    address::{Address, SERVER_VARIABLE},
    builder::TableBuilder,
    client::Client,
    codec::{
        BincodeCodec, BytesCodec, Codec, Counter, Element, EncodeAs, Item, List, Stored, Value,
        ValueCodec,
    },
    config::{CACHE_BYTES_DEFAULT, CachePolicy, ClientBuilder, IN_FLIGHT_BYTES_DEFAULT},
    error::{Error, ErrorKind, FAILED_KEYS_MAX, FailedKeys, Result},
    hash::{Bulk, Entries, Keys, ListStream, RemoteHash, Swap, Values},
    table::ByteStream,
};
