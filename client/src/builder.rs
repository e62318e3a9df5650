//! Opening a table.

use std::marker::PhantomData;

use rhash_protocol::{Durability, OpenMode};

use crate::{
    client::Client,
    codec::{Codec, Item, Stored, codec_name},
    config::CachePolicy,
    error::Result,
    hash::RemoteHash,
    table::TableSpec,
};

/// Says which table to open and how; made by [`Client::table`] and [`Client::temporary`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before `open`"]
pub struct TableBuilder {
    client: Client,
    name: Option<String>,
    mode: OpenMode,
    durability: Option<Durability>,
    policy: CachePolicy,
}

impl TableBuilder {
    pub(crate) fn new(client: Client, name: Option<String>) -> Self {
        let policy = client.core.policy;
        Self {
            client,
            name,
            mode: OpenMode::OpenOrCreate,
            durability: None,
            policy,
        }
    }

    /// Opens the table only if it exists. Default: make it where it is missing.
    pub fn existing(mut self) -> Self {
        self.mode = OpenMode::Existing;
        self
    }

    /// Makes the table only if it does not exist. Default: open it where it exists.
    pub fn create_new(mut self) -> Self {
        self.mode = OpenMode::CreateNew;
        self
    }

    /// How safe a write to this named table is when the server answers it. A table that is made keeps it;
    /// one that exists must have it. The cache answers before the server does: [`flush`] waits for the
    /// server.
    /// Default: what the table has; one that is made follows the server's `--durability`.
    ///
    /// [`flush`]: crate::RemoteHash::flush
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// What the cache does for this table. Default: what the client's builder said.
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Opens the table for these types. A table that this client has open already keeps the
    /// cache policy of its first handle.
    ///
    /// # Errors
    /// [`NoSuchTable`](crate::ErrorKind::NoSuchTable), [`TableExists`](crate::ErrorKind::TableExists),
    /// [`WrongKind`](crate::ErrorKind::WrongKind), [`WrongCodec`](crate::ErrorKind::WrongCodec) or
    /// [`WrongDurability`](crate::ErrorKind::WrongDurability), [`Usage`](crate::ErrorKind::Usage) for a
    /// temporary table with a durability, and those of the connection.
    pub async fn open<K: Item<C>, V: Stored<C>, C: Codec>(self) -> Result<RemoteHash<K, V, C>> {
        let spec = TableSpec {
            kind: Some(V::KIND),
            codec: Some(codec_name::<K, V, C>()),
            mode: self.mode,
            durability: self.durability,
        };
        let handle = self
            .client
            .core
            .open_table(self.name, spec, self.policy)
            .await?;
        Ok(RemoteHash::new(self.client, handle, PhantomData))
    }
}
