//! Reads all that is in a directory: in this process, through the server's library, or from a real server, through
//! the client's.

use std::sync::Arc;

use rhash_client::{
    BytesCodec, CachePolicy, Client, Counter, Error, ErrorKind, List, RemoteHash, TableKind,
};
use rhash_protocol::packed::{PageEntries, push_bytes};
use rhash_protocol::{ErrorCode, Keys, OpenMode, ScanWhat, Slot, Values, WireError};
use rhash_server::store::Store;
use rhash_server::table::{Answer, Table};
use tokio::runtime::Runtime;

use super::content::TABLES;

/// Entries of a page of a scan.
const PAGE_ENTRIES: u32 = 1000;

/// Why something could not be read.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// Whether it says that the disk has what cannot be read, rather than that something else went wrong.
    pub(super) is_told: bool,
    pub(super) text: String,
}

/// Values in the order of their keys.
pub(super) type Found = Vec<Option<Vec<u8>>>;

/// What a scan gave before it ended, and why it ended early, if it did.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) entries: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) fault: Option<Fault>,
}

/// Somebody who can be asked for all that is there. Tables go by their numbers in [`TABLES`].
pub(super) trait Reader {
    /// The names of all tables.
    fn names(&mut self) -> Result<Vec<String>, Fault>;
    /// The values of some keys.
    fn get(&mut self, table: usize, keys: &[&[u8]]) -> Result<Found, Fault>;
    /// How many entries there are.
    fn count(&mut self, table: usize) -> Result<u64, Fault>;
    /// All entries.
    fn scan(&mut self, table: usize) -> Scanned;
}

/// A store in this process.
pub(super) struct InProcess<'a> {
    store: &'a Store,
    runtime: &'a Runtime,
}

impl<'a> InProcess<'a> {
    pub(super) fn new(store: &'a Store, runtime: &'a Runtime) -> Self {
        Self { store, runtime }
    }

    fn table(&self, number: usize) -> Result<Arc<Table>, Fault> {
        let name = Some(TABLES[number].0);
        let opened = self
            .store
            .open_table(name, None, None, OpenMode::Existing)
            .map_err(Fault::from)?;
        Ok(opened.table)
    }

    /// A value of any length.
    fn fetch(&self, table: &Arc<Table>, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let Some(mut stream) = wait(table.fetch(key))? else {
            return Ok(None);
        };
        self.runtime.block_on(async {
            let mut value = Vec::new();
            while let Some(chunk) = stream.recv().await {
                value.extend_from_slice(&chunk?);
            }
            Ok::<_, Fault>(Some(value))
        })
    }
}

fn wait<T>(answer: Answer<T>) -> Result<T, Fault> {
    match answer {
        Answer::Ready(result) => Ok(result?),
        Answer::Pending(receiver) => match receiver.blocking_recv() {
            Ok(result) => Ok(result?),
            Err(_gone) => Err(Fault::odd("a read was never answered")),
        },
    }
}

impl Reader for InProcess<'_> {
    fn names(&mut self) -> Result<Vec<String>, Fault> {
        let tables = self.store.tables();
        Ok(tables.into_iter().filter_map(|table| table.name).collect())
    }

    fn get(&mut self, table: usize, keys: &[&[u8]]) -> Result<Found, Fault> {
        let table = self.table(table)?;
        let mut found = Vec::new();
        while found.len() < keys.len() {
            let asked = &keys[found.len()..];
            let mut packed = Vec::new();
            asked.iter().for_each(|key| push_bytes(&mut packed, key));
            let reply = wait(table.get(Keys::new(asked.len() as u32, &packed)))?;
            if reply.count == 0 {
                return Err(Fault::odd("an answer without a value"));
            }
            for (slot, key) in Values::new(reply.count, &reply.bytes).iter().zip(asked) {
                found.push(match slot {
                    Ok(Slot::Absent) => None,
                    Ok(Slot::Value(value)) => Some(value.to_vec()),
                    Ok(Slot::Large(_)) => self.fetch(&table, key)?,
                    Err(malformed) => return Err(Fault::odd(&malformed.to_string())),
                });
            }
        }
        Ok(found)
    }

    fn count(&mut self, table: usize) -> Result<u64, Fault> {
        wait(self.table(table)?.len())
    }

    fn scan(&mut self, table: usize) -> Scanned {
        let mut scanned = Scanned::default();
        let read = |scanned: &mut Scanned| -> Result<(), Fault> {
            let table = self.table(table)?;
            let mut cursor: Option<Vec<u8>> = None;
            loop {
                let page = wait(table.scan(cursor.as_deref(), ScanWhat::Items, PAGE_ENTRIES))?;
                for entry in PageEntries::new(page.entries.count, &page.entries.bytes).iter() {
                    let entry = entry.map_err(|malformed| Fault::odd(&malformed.to_string()))?;
                    let value = match entry.value {
                        Slot::Value(value) => value.to_vec(),
                        Slot::Large(_) => self
                            .fetch(&table, entry.key)?
                            .ok_or_else(|| Fault::odd("a scanned key is not there"))?,
                        Slot::Absent => return Err(Fault::odd("a scanned entry has no value")),
                    };
                    scanned.entries.push((entry.key.to_vec(), value));
                }
                cursor = page.next;
                if cursor.is_none() {
                    return Ok(());
                }
            }
        };
        scanned.fault = read(&mut scanned).err();
        scanned
    }
}

/// A table over the wire.
enum Remote {
    Values(RemoteHash<Vec<u8>, Vec<u8>, BytesCodec>),
    Lists(RemoteHash<Vec<u8>, List<u8>, BytesCodec>),
    Counters(RemoteHash<Vec<u8>, Counter, BytesCodec>),
}

/// A server, and a client of it.
pub(super) struct OverTheWire<'a> {
    client: Client,
    runtime: &'a Runtime,
}

impl<'a> OverTheWire<'a> {
    /// Connects to a server.
    pub(super) fn connect(address: &str, runtime: &'a Runtime) -> Result<Self, Error> {
        let client = runtime.block_on(Client::connect(address))?;
        Ok(Self { client, runtime })
    }

    /// Ends the session.
    pub(super) fn close(self) {
        // Nothing was written.
        self.runtime.block_on(self.client.shutdown()).ok();
    }

    async fn table(&self, number: usize) -> Result<Remote, Error> {
        let (name, kind) = TABLES[number];
        let builder = self.client.table(name).existing();
        let builder = builder.cache_policy(CachePolicy::None);
        Ok(match kind {
            TableKind::Values => Remote::Values(builder.open().await?),
            TableKind::Lists => Remote::Lists(builder.open().await?),
            TableKind::Counters => Remote::Counters(builder.open().await?),
        })
    }

    async fn scan_into(&self, table: usize, scanned: &mut Scanned) -> Result<(), Error> {
        match self.table(table).await? {
            Remote::Values(table) => {
                let mut entries = table.iter();
                while let Some(entry) = entries.next().await {
                    scanned.entries.push(entry?);
                }
            }
            Remote::Lists(table) => {
                let mut entries = table.iter();
                while let Some(entry) = entries.next().await {
                    scanned.entries.push(entry?);
                }
            }
            Remote::Counters(table) => {
                let mut entries = table.iter();
                while let Some(entry) = entries.next().await {
                    let (key, sum) = entry?;
                    scanned.entries.push((key, sum.to_le_bytes().to_vec()));
                }
            }
        }
        Ok(())
    }
}

impl Reader for OverTheWire<'_> {
    fn names(&mut self) -> Result<Vec<String>, Fault> {
        let tables = self.runtime.block_on(self.client.tables())?;
        Ok(tables.into_iter().filter_map(|table| table.name).collect())
    }

    fn get(&mut self, table: usize, keys: &[&[u8]]) -> Result<Found, Fault> {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.to_vec()).collect();
        Ok(self.runtime.block_on(async {
            match self.table(table).await? {
                Remote::Values(table) => table.get_many(&keys).await,
                Remote::Lists(table) => table.get_many(&keys).await,
                Remote::Counters(table) => {
                    let sums = table.get_many(&keys).await?.into_iter();
                    Ok(sums
                        .map(|sum| sum.map(|sum| sum.to_le_bytes().to_vec()))
                        .collect())
                }
            }
        })?)
    }

    fn count(&mut self, table: usize) -> Result<u64, Fault> {
        Ok(self.runtime.block_on(async {
            match self.table(table).await? {
                Remote::Values(table) => table.len().await,
                Remote::Lists(table) => table.len().await,
                Remote::Counters(table) => table.len().await,
            }
        })?)
    }

    fn scan(&mut self, table: usize) -> Scanned {
        let mut scanned = Scanned::default();
        let read = self.runtime.block_on(self.scan_into(table, &mut scanned));
        scanned.fault = read.err().map(Fault::from);
        scanned
    }
}

impl Fault {
    fn odd(text: &str) -> Self {
        Self {
            is_told: false,
            text: text.to_owned(),
        }
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self {
            is_told: matches!(error.code, ErrorCode::Damaged | ErrorCode::Storage),
            text: error.text,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self {
            is_told: matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Storage),
            text: error.to_string(),
        }
    }
}
