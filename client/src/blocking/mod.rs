//! The same client for programs that do not use `async`.
//!
//! Methods have the same names and do the same; streams are iterators. They may be called from
//! anywhere, inside of an async runtime too, where they block the thread that calls. A client has
//! one thread of its own, which ends, after it flushed, when the client and the last table are
//! dropped.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rhash_protocol::{BackupInfo, Durability, Stats, TableInfo};

use crate::{
    builder::TableBuilder as AsyncTableBuilder,
    client::Client as AsyncClient,
    codec::{Codec, Item, Stored},
    config::{CachePolicy, ClientBuilder as AsyncClientBuilder},
    error::Result,
};

mod runtime;
mod hash;
mod iter;
mod bulk;
pub mod encoded;

use self::runtime::Driver;
pub use self::{
    bulk::Bulk,
    hash::RemoteHash,
    iter::{Bytes, Entries, Keys, ListItems, Values},
};

/// A connection to a server; see [`crate::Client`].
#[derive(Debug, Clone)]
pub struct Client {
    client: AsyncClient,
    /// Dropped after `client`: its thread flushes what the client left.
    driver: Arc<Driver>,
}

/// Builds a blocking [`Client`]; see [`crate::ClientBuilder`] for what the options do.
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing before `connect`"]
pub struct ClientBuilder {
    options: AsyncClientBuilder,
}

/// Says which table to open and how; see [`crate::TableBuilder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before `open`"]
pub struct TableBuilder {
    driver: Arc<Driver>,
    options: AsyncTableBuilder,
}

macro_rules! options {
    ($($name:ident($($value:ident: $type:ty),*)),* $(,)?) => {$(
        #[doc = concat!("As [`ClientBuilder::", stringify!($name), "`](crate::ClientBuilder::", stringify!($name), ").")]
        pub fn $name(mut self, $($value: $type),*) -> Self {
            self.options = self.options.$name($($value),*);
            self
        }
    )*};
}

impl ClientBuilder {
    options! {
        cache_bytes(bytes: usize),
        cache_items(items: impl Into<Option<usize>>),
        cache_policy(policy: CachePolicy),
        flush_interval(interval: Duration),
        flush_bytes(bytes: usize),
        in_flight_bytes(bytes: usize),
        connect_timeout(timeout: Duration),
        request_timeout(timeout: Duration),
        retry_deadline(deadline: Duration),
        backoff(waits: std::ops::RangeInclusive<Duration>),
        token(token: impl Into<String>),
        token_file(path: impl Into<PathBuf>),
        tls_ca(path: impl Into<PathBuf>),
        tls_identity(cert: impl Into<PathBuf>, key: impl Into<PathBuf>),
        client_name(name: impl Into<String>),
    }

    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// As for [`crate::ClientBuilder::connect`].
    pub fn connect(self, address: &str) -> Result<Client> {
        let address = address.to_owned();
        let (driver, client) = Driver::start(async move { self.options.connect(&address).await })?;
        Ok(Client {
            client,
            driver: Arc::new(driver),
        })
    }

    /// Connects to where `RHASH_SERVER` says, or else to this host.
    ///
    /// # Errors
    /// As for [`crate::ClientBuilder::connect`].
    pub fn connect_default(self) -> Result<Client> {
        let (driver, client) = Driver::start(self.options.connect_default())?;
        Ok(Client {
            client,
            driver: Arc::new(driver),
        })
    }
}

impl Client {
    /// Connects with default options.
    ///
    /// # Errors
    /// As for [`crate::Client::connect`].
    pub fn connect(address: &str) -> Result<Self> {
        Self::builder().connect(address)
    }

    /// Options, then a connection.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A named table.
    pub fn table(&self, name: impl Into<String>) -> TableBuilder {
        TableBuilder {
            driver: Arc::clone(&self.driver),
            options: self.client.table(name),
        }
    }

    /// A table of this client alone.
    pub fn temporary(&self) -> TableBuilder {
        TableBuilder {
            driver: Arc::clone(&self.driver),
            options: self.client.temporary(),
        }
    }

    /// All tables that this client may see.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        self.run(|client| async move { client.tables().await })
    }

    /// The named table, if there is one.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn find_table(&self, name: &str) -> Result<Option<TableInfo>> {
        let name = name.to_owned();
        self.run(|client| async move { client.find_table(&name).await })
    }

    /// The server's figures.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn stats(&self) -> Result<Stats> {
        self.run(|client| async move { client.stats().await })
    }

    /// Asks the server for a sign of life, and says how long that took.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn ping(&self) -> Result<Duration> {
        self.run(|client| async move { client.ping().await })
    }

    /// Frees a named table, for everybody.
    ///
    /// # Errors
    /// As for [`crate::Client::close_table`].
    pub fn close_table(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.run(|client| async move { client.close_table(&name).await })
    }

    /// Sends all cached writes of all tables and waits until the server has them.
    ///
    /// # Errors
    /// As for [`crate::Client::flush`].
    pub fn flush(&self) -> Result<()> {
        self.run(|client| async move { client.flush().await })
    }

    /// Flushes all tables, and returns when all that was written is on stable storage.
    ///
    /// # Errors
    /// As for [`crate::Client::sync`].
    pub fn sync(&self) -> Result<()> {
        self.run(|client| async move { client.sync().await })
    }

    /// Flushes all tables, and has the server copy its named tables to a new directory on its host.
    ///
    /// # Errors
    /// As for [`crate::Client::backup`].
    pub fn backup(&self, dir: &str) -> Result<BackupInfo> {
        let dir = dir.to_owned();
        self.run(|client| async move { client.backup(&dir).await })
    }

    /// Flushes all tables, then disconnects.
    ///
    /// # Errors
    /// As for [`crate::Client::shutdown`].
    pub fn shutdown(&self) -> Result<()> {
        self.run(|client| async move { client.shutdown().await })
    }

    fn run<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(AsyncClient) -> F,
    ) -> Result<T> {
        self.driver.run(work(self.client.clone()))
    }
}

impl TableBuilder {
    /// Opens the table only if it exists.
    pub fn existing(mut self) -> Self {
        self.options = self.options.existing();
        self
    }

    /// Makes the table only if it does not exist.
    pub fn create_new(mut self) -> Self {
        self.options = self.options.create_new();
        self
    }

    /// How safe a write to this named table is when the server answers it; as
    /// [`durability`](crate::TableBuilder::durability).
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options = self.options.durability(durability);
        self
    }

    /// What the cache does for this table.
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.options = self.options.cache_policy(policy);
        self
    }

    /// Opens the table for these types.
    ///
    /// # Errors
    /// As for [`crate::TableBuilder::open`].
    pub fn open<K: Item<C>, V: Stored<C>, C: Codec>(self) -> Result<RemoteHash<K, V, C>> {
        let options = self.options;
        let table = self
            .driver
            .run(async move { options.open::<K, V, C>().await })?;
        Ok(RemoteHash::new(table, self.driver))
    }
}
