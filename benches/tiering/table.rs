//! A table of a server under test, as a program would use it: written in bulks that send while the
//! next batch is made, read past the client's cache.

use rhash_client::{BytesCodec, CachePolicy, Client, RemoteHash, Stored, blocking};
use rhash_harness::Result;
use tokio::runtime::Runtime;

/// The table's name. Nothing of it is logged.
const TABLE: &str = "bench";

/// The writing end.
pub(crate) type Bulk<V> = blocking::Bulk<Vec<u8>, V, BytesCodec>;

/// Opens the table for writes.
pub(crate) fn writer<V: Stored<BytesCodec>>(address: &str) -> Result<Bulk<V>> {
    writer_of(address, TABLE)
}

/// Opens another table for writes.
pub(crate) fn writer_of<V: Stored<BytesCodec>>(address: &str, name: &str) -> Result<Bulk<V>> {
    let client = blocking::Client::connect(address)?;
    let table: blocking::RemoteHash<Vec<u8>, V, BytesCodec> = client.table(name).open()?;
    Ok(table.bulk())
}

/// Frees the table.
pub(crate) fn free(address: &str) -> Result<()> {
    Ok(blocking::Client::connect(address)?.close_table(TABLE)?)
}

/// The reading end, on a runtime of its own thread.
pub(crate) struct Reader<V> {
    table: RemoteHash<Vec<u8>, V, BytesCodec>,
    client: Client,
    runtime: Runtime,
}

impl<V: Stored<BytesCodec, Read = Vec<u8>>> Reader<V> {
    /// Opens the table for reads.
    pub(crate) fn open(address: &str) -> Result<Self> {
        Self::open_table(address, TABLE)
    }

    /// Opens another table for reads.
    pub(crate) fn open_table(address: &str, name: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (client, table) = runtime.block_on(async {
            let client = Client::connect(address).await?;
            let table = client.table(name).cache_policy(CachePolicy::None);
            let table = table.open().await?;
            Ok::<_, rhash_client::Error>((client, table))
        })?;
        Ok(Self {
            table,
            client,
            runtime,
        })
    }

    /// Reads one.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.runtime.block_on(self.table.get(key))?)
    }

    /// Reads many at once.
    pub(crate) fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        let keys = keys.iter().map(AsRef::as_ref);
        Ok(self.runtime.block_on(self.table.get_many(keys))?)
    }

    /// Shows all entries.
    pub(crate) fn scan(&self, mut see: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.runtime.block_on(async {
            let mut entries = self.table.iter();
            while let Some(entry) = entries.next().await {
                let (key, value) = entry?;
                see(&key, &value);
            }
            Ok(())
        })
    }
}

impl<V> Drop for Reader<V> {
    fn drop(&mut self) {
        // Nothing was written through it.
        drop(self.runtime.block_on(self.client.shutdown()));
    }
}
