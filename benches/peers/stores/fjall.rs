//! fjall, an LSM tree in this process. Lists are chunks: each append makes a new key of the term and
//! a number that grows, so that nothing is read before it is written.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch};
use rhash_harness::{Place, Result, workload::Batch};

use super::{Connection, Kind, Store};

/// Writes that are committed together.
const COMMIT_WRITES: usize = 2000;

/// Between a term and its chunk's number; no term has it.
const SEPARATOR: u8 = 0;

/// Flushes and compactions that go on for longer are not waited for.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

/// A database with a budget: a quarter for the cache, a quarter for each of two memtables.
pub(super) struct Fjall {
    database: Database,
    keyspace: Keyspace,
    data: PathBuf,
    chunks: Arc<AtomicU32>,
}

impl Fjall {
    /// Makes one.
    pub(super) fn open(data: &Path, limit_bytes: u64) -> Result<Self> {
        let database = Database::builder(data).cache_size(limit_bytes / 4).open()?;
        let keyspace = database.keyspace("bench", || {
            KeyspaceCreateOptions::default().max_memtable_size(limit_bytes / 4)
        })?;
        Ok(Self {
            database,
            keyspace,
            data: data.to_owned(),
            chunks: Arc::default(),
        })
    }
}

impl Store for Fjall {
    fn process(&self) -> Option<u32> {
        None
    }

    fn connect(&self, kind: Kind) -> Result<Box<dyn Connection>> {
        Ok(Box::new(Client {
            batch: self.database.batch(),
            database: self.database.clone(),
            keyspace: self.keyspace.clone(),
            kind,
            chunks: Arc::clone(&self.chunks),
            key: Vec::new(),
        }))
    }

    fn disk_bytes(&self) -> u64 {
        Place::disk_bytes(&self.data)
    }

    fn settle(&self) -> Result<()> {
        let begin = Instant::now();
        while self.database.outstanding_flushes() + self.database.active_compactions() > 0
            && begin.elapsed() < SETTLE_DEADLINE
        {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }
}

struct Client {
    database: Database,
    keyspace: Keyspace,
    kind: Kind,
    batch: OwnedWriteBatch,
    chunks: Arc<AtomicU32>,
    key: Vec<u8>,
}

impl Client {
    fn commit(&mut self) -> Result<()> {
        std::mem::replace(&mut self.batch, self.database.batch()).commit()?;
        Ok(())
    }

    fn commit_if_full(&mut self) -> Result<()> {
        if self.batch.len() >= COMMIT_WRITES {
            self.commit()?;
        }
        Ok(())
    }
}

impl Connection for Client {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        let chunk = self.chunks.fetch_add(1, Ordering::Relaxed);
        for (term, list) in batch.iter() {
            self.key.clear();
            self.key.extend_from_slice(term);
            self.key.push(SEPARATOR);
            self.key.extend_from_slice(&chunk.to_be_bytes());
            self.batch.insert(&self.keyspace, &self.key[..], list);
            self.commit_if_full()?;
        }
        self.commit()
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.batch.insert(&self.keyspace, key, value);
        self.commit_if_full()
    }

    fn finish(&mut self) -> Result<()> {
        self.commit()
    }

    fn get_many(
        &mut self,
        keys: &[&[u8]],
        answer: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        for (index, key) in keys.iter().enumerate() {
            if self.kind == Kind::Values {
                answer(index, self.keyspace.get(key)?.as_deref());
                continue;
            }
            self.key.clear();
            self.key.extend_from_slice(key);
            self.key.push(SEPARATOR);
            let mut list = Vec::new();
            for chunk in self.keyspace.prefix(&self.key) {
                list.extend_from_slice(&chunk.value()?);
            }
            answer(index, (!list.is_empty()).then_some(&list[..]));
        }
        Ok(())
    }

    fn scan(&mut self, entry: &mut dyn FnMut(&[u8], &[u8])) -> Result<bool> {
        for guard in self.keyspace.iter() {
            let (key, value) = guard.into_inner()?;
            entry(&key, &value);
        }
        Ok(true)
    }

    fn free(&mut self) -> Result<()> {
        self.database.delete_keyspace(self.keyspace.clone())?;
        Ok(())
    }
}
