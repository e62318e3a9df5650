//! rhash, through its client library, as a program would use it: bulks of the blocking face for
//! writes, which send while the next batch is made; the async face for reads.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rhash_client::{BytesCodec, CachePolicy, Client, List, RemoteHash, Stored, blocking};
use rhash_harness::{Place, Result, RhashServer, ServerOptions, workload::Batch};
use tokio::runtime::Runtime;

use super::{Connection, Kind, Level, Store};

/// The table that all connections open.
const TABLE: &str = "bench";

/// Merges are over when nothing was merged for this long: a table counts as at rest after a second,
/// and is then merged once more.
const QUIET: Duration = Duration::from_secs(2);
/// Merges that go on for longer are not waited for.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

/// A server of ours.
pub(super) struct Rhash {
    server: RhashServer,
}

impl Rhash {
    /// Starts one, with a disk if there is a directory, and with a log if there is a level.
    pub(super) fn start(
        place: &Place,
        limit_bytes: u64,
        data: Option<&Path>,
        level: Option<Level>,
    ) -> Result<Self> {
        let options = ServerOptions {
            limit_bytes,
            data,
            durability: level.map(Level::name),
            ..ServerOptions::default()
        };
        Ok(Self {
            server: RhashServer::start(place, &options)?,
        })
    }
}

impl Store for Rhash {
    fn process(&self) -> Option<u32> {
        Some(self.server.id())
    }

    fn connect(&self, kind: Kind) -> Result<Box<dyn Connection>> {
        let address = self.server.address().to_owned();
        Ok(match kind {
            Kind::Values => Box::new(Connected::<Vec<u8>>::new(address)),
            Kind::Lists => Box::new(Connected::<List<u8>>::new(address)),
        })
    }

    fn disk_bytes(&self) -> u64 {
        self.server.disk_bytes()
    }

    fn settle(&self) -> Result<()> {
        let client = blocking::Client::connect(self.server.address())?;
        let begin = Instant::now();
        let (mut merged, mut quiet_since) = (u64::MAX, Instant::now());
        while begin.elapsed() < SETTLE_DEADLINE && quiet_since.elapsed() < QUIET {
            let now = client.stats()?.merged_bytes;
            if now != merged {
                (merged, quiet_since) = (now, Instant::now());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    fn facts(&self) -> Result<Vec<(&'static str, f64)>> {
        let stats = blocking::Client::connect(self.server.address())?.stats()?;
        Ok(vec![
            ("merges", stats.merges as f64),
            ("stalls, ms", stats.stall_ms as f64),
        ])
    }
}

/// What a table may hold here, and how it is written.
trait Held: Stored<BytesCodec, Read = Vec<u8>> + Sized + 'static {
    fn write(bulk: &mut Bulk<Self>, key: &[u8], bytes: &[u8]) -> rhash_client::Result<()>;
}

type Bulk<V> = blocking::Bulk<Vec<u8>, V, BytesCodec>;
type Table<V> = blocking::RemoteHash<Vec<u8>, V, BytesCodec>;

impl Held for Vec<u8> {
    fn write(bulk: &mut Bulk<Self>, key: &[u8], bytes: &[u8]) -> rhash_client::Result<()> {
        bulk.insert(key, bytes)
    }
}

impl Held for List<u8> {
    fn write(bulk: &mut Bulk<Self>, key: &[u8], bytes: &[u8]) -> rhash_client::Result<()> {
        bulk.append(key, bytes)
    }
}

/// A client, or two: one that writes and one that reads.
struct Connected<V> {
    address: String,
    writer: Option<Bulk<V>>,
    reader: Option<Reader<V>>,
}

/// A reading client on a runtime of its own thread.
struct Reader<V> {
    table: RemoteHash<Vec<u8>, V, BytesCodec>,
    client: Client,
    runtime: Runtime,
}

impl<V> Drop for Reader<V> {
    fn drop(&mut self) {
        // Nothing was written through it.
        drop(self.runtime.block_on(self.client.shutdown()));
    }
}

impl<V: Held> Reader<V> {
    fn open(address: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (client, table) = runtime.block_on(async {
            let client = Client::connect(address).await?;
            // Nothing is to be answered from the client's own memory.
            let table = client.table(TABLE).cache_policy(CachePolicy::None);
            let table = table.open().await?;
            Ok::<_, rhash_client::Error>((client, table))
        })?;
        Ok(Self {
            table,
            client,
            runtime,
        })
    }
}

impl<V: Held> Connected<V> {
    fn new(address: String) -> Self {
        Self {
            address,
            writer: None,
            reader: None,
        }
    }

    fn write(&mut self, key: &[u8], bytes: &[u8]) -> Result<()> {
        if self.writer.is_none() {
            let client = blocking::Client::connect(&self.address)?;
            let table: Table<V> = client.table(TABLE).open()?;
            self.writer = Some(table.bulk());
        }
        let bulk = self.writer.as_mut().ok_or("no writer")?;
        V::write(bulk, key, bytes)?;
        if bulk.is_full() {
            bulk.send()?;
        }
        Ok(())
    }
}

impl<V: Held> Connection for Connected<V> {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        let mut pairs = batch.iter();
        pairs.try_for_each(|(term, list)| self.write(term, list))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(key, value)
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(bulk) = self.writer.take() {
            bulk.finish()?;
        }
        Ok(())
    }

    fn get_many(
        &mut self,
        keys: &[&[u8]],
        answer: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        if self.reader.is_none() {
            self.reader = Some(Reader::open(&self.address)?);
        }
        let reader = self.reader.as_ref().ok_or("no reader")?;
        if let [key] = keys {
            let value = reader.runtime.block_on(reader.table.get(*key))?;
            answer(0, value.as_deref());
            return Ok(());
        }
        let keys = keys.iter().copied();
        let values = reader.runtime.block_on(reader.table.get_many(keys))?;
        for (index, value) in values.iter().enumerate() {
            answer(index, value.as_deref());
        }
        Ok(())
    }

    fn scan(&mut self, entry: &mut dyn FnMut(&[u8], &[u8])) -> Result<bool> {
        let client = blocking::Client::connect(&self.address)?;
        let table: Table<V> = client.table(TABLE).open()?;
        for pair in table.iter() {
            let (key, value) = pair?;
            entry(&key, &value);
        }
        Ok(true)
    }

    fn free(&mut self) -> Result<()> {
        Ok(blocking::Client::connect(&self.address)?.close_table(TABLE)?)
    }
}
