//! The rhash client: hash tables on another machine, with the interface of a `HashMap`.
//!
//! ```
//! # async fn example(address: &str) -> rhash_client::Result<()> {
//! use rhash_client::{Client, List, RemoteHash};
//!
//! let client = Client::connect(address).await?;
//! let ages: RemoteHash<String, u32> = client.table("ages").open().await?;
//! ages.insert("Ada", 36).await?;
//! assert_eq!(ages.get("Ada").await?, Some(36));
//! assert_eq!(ages.remove("Ada").await?, Some(36));
//!
//! let postings: RemoteHash<String, List<u64>> = client.table("postings").open().await?;
//! postings.append("sea", 1).await?;
//! postings.append_many("sea", [5, 8]).await?;
//! assert_eq!(postings.get("sea").await?, Some(vec![1, 5, 8]));
//! client.shutdown().await
//! # }
//! # let server = rhash_client::testing::FakeServer::start().unwrap();
//! # let runtime = tokio::runtime::Runtime::new().unwrap();
//! # runtime.block_on(example(&server.address())).unwrap();
//! ```
//!
//! One line makes a table that lives as long as its handle, and programs without `async` use
//! [`blocking`], which has the same names:
//!
//! ```
//! # fn example(address: &str) -> rhash_client::Result<()> {
//! use rhash_client::blocking::RemoteHash;
//!
//! let squares = RemoteHash::<u32, u32>::connect(address)?;
//! squares.extend((0..100).map(|n| (n, n * n)))?;
//! let mut sum = 0;
//! for value in squares.values() {
//!     sum += value?;
//! }
//! assert_eq!(sum, 328_350);
//! # Ok(())
//! # }
//! # let server = rhash_client::testing::FakeServer::start().unwrap();
//! # example(&server.address()).unwrap();
//! ```
//!
//! What happens on the way, in the order of the modules: a [`Client`] owns the connection and the
//! cache; `builder` opens tables; `hash` encodes keys and values with a [`codec`]; `table` decides
//! what the cache answers and what the server; `cache` keeps writes until the `flusher` sends them
//! in batches, and what was read while this client is the table's only one; `pipeline` sends calls
//! one behind the other over a connection that comes back, each applied once.

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
mod token;
mod tls;
mod error;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;

pub use rhash_protocol::{BackupInfo, Durability, LimitInfo, Stats, TableInfo, TableKind};

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
    tls::CA_VARIABLE,
    token::{TOKEN_FILE_VARIABLE, TOKEN_VARIABLE},
};
