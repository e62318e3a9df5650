//! A home that fails on purpose: the nth write, read or sync, chosen by a test; or is slow.

use std::{
    collections::HashSet,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
};

use parking_lot::Mutex;

use super::{
    error::ColdError,
    home::{Home, RunBytes, RunSink, Shape},
    store::RunId,
};
use crate::waiting;

/// Which calls of the disk shall fail; shared by a test and the homes that it made faulty.
///
/// Every counter counts down by one a call; the call that finds it at 1 fails. At 0 none does.
#[derive(Debug, Default)]
pub struct Faults {
    writes_until: AtomicU64,
    reads_until: AtomicU64,
    syncs_until: AtomicU64,
    /// One of so many reads waits for the disk; none at 0.
    slow_one_of: AtomicU64,
    reads: AtomicU64,
    /// How often a mapped byte was said to be in use.
    uses: AtomicU64,
    /// The threads that waited.
    waited: Mutex<HashSet<ThreadId>>,
}

impl Faults {
    /// Lets the `nth` write from now (a piece, a creation, a finish) fail as on a full disk.
    pub fn fail_write(&self, nth: u64) {
        self.writes_until.store(nth, Ordering::SeqCst);
    }

    /// Lets the `nth` read from now (a piece, an opening) fail.
    pub fn fail_read(&self, nth: u64) {
        self.reads_until.store(nth, Ordering::SeqCst);
    }

    /// Lets the `nth` sync from now fail.
    pub fn fail_sync(&self, nth: u64) {
        self.syncs_until.store(nth, Ordering::SeqCst);
    }

    /// Makes one of so many reads like one of what is not in the page cache; none with 0.
    pub fn slow_reads(&self, one_of: u64) {
        self.slow_one_of.store(one_of, Ordering::SeqCst);
    }

    /// The threads that waited for the disk, other than this one, and whether this one did.
    pub fn waited(&self) -> (usize, bool) {
        let waited = self.waited.lock();
        let here = waited.contains(&thread::current().id());
        (waited.len() - usize::from(here), here)
    }

    /// The reads so far, those that must not wait and would have had to among them.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }

    /// How often a byte of an index was said to be in use.
    pub fn uses(&self) -> u64 {
        self.uses.load(Ordering::SeqCst)
    }

    fn check(&self, until: &AtomicU64, action: &'static str) -> Result<(), ColdError> {
        let before = until.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
        if before != Ok(1) {
            return Ok(());
        }
        let kind = match action {
            "write" => io::ErrorKind::StorageFull,
            _ => io::ErrorKind::Other,
        };
        Err(ColdError::io(
            action,
            Path::new("a faulty home"),
            io::Error::from(kind),
        ))
    }

    fn write(&self) -> Result<(), ColdError> {
        self.check(&self.writes_until, "write")
    }

    fn read(&self) -> Result<(), ColdError> {
        let number = self.reads.fetch_add(1, Ordering::SeqCst);
        let one_of = self.slow_one_of.load(Ordering::SeqCst);
        if number.checked_rem(one_of) == Some(0) {
            waiting::before_waiting()?;
            self.waited.lock().insert(thread::current().id());
        }
        self.check(&self.reads_until, "read")
    }

    fn sync(&self) -> Result<(), ColdError> {
        self.check(&self.syncs_until, "sync")
    }
}

/// A home whose calls fail when [`Faults`] says so.
#[derive(Debug)]
pub(super) struct FaultyHome {
    pub(super) inner: Arc<dyn Home>,
    pub(super) faults: Arc<Faults>,
}

impl FaultyHome {
    fn bytes(&self, inner: Box<dyn RunBytes>) -> Box<dyn RunBytes> {
        Box::new(FaultyBytes {
            inner,
            faults: Arc::clone(&self.faults),
        })
    }
}

impl Home for FaultyHome {
    fn shape(&self) -> Shape {
        self.inner.shape()
    }

    fn set_aside(&self, id: RunId, dir: &Path) -> Result<(), ColdError> {
        self.inner.set_aside(id, dir)
    }

    fn place_of(&self, id: RunId) -> String {
        self.inner.place_of(id)
    }

    fn create(&self, id: RunId) -> Result<Box<dyn RunSink>, ColdError> {
        self.faults.write()?;
        let inner = self.inner.create(id)?;
        Ok(Box::new(FaultySink {
            inner,
            faults: Arc::clone(&self.faults),
        }))
    }

    fn open(&self, id: RunId) -> Result<Box<dyn RunBytes>, ColdError> {
        self.faults.read()?;
        Ok(self.bytes(self.inner.open(id)?))
    }

    fn list(&self) -> Result<Vec<(RunId, u64)>, ColdError> {
        self.faults.read()?;
        self.inner.list()
    }

    fn unlisted(&self) -> Result<Vec<RunId>, ColdError> {
        self.faults.read()?;
        self.inner.unlisted()
    }

    fn make_anew(&self) -> Result<(), ColdError> {
        self.faults.write()?;
        self.inner.make_anew()
    }

    fn remove(&self, id: RunId) -> Result<(), ColdError> {
        self.inner.remove(id)
    }

    fn sync(&self) -> Result<(), ColdError> {
        self.faults.sync()?;
        self.inner.sync()
    }

    fn live_bytes(&self) -> &AtomicU64 {
        self.inner.live_bytes()
    }

    fn disk_bytes(&self) -> Result<u64, ColdError> {
        self.inner.disk_bytes()
    }

    fn give_back_needs(&self, short: bool) -> Result<Option<u64>, ColdError> {
        self.inner.give_back_needs(short)
    }

    fn give_back(&self) -> Result<u64, ColdError> {
        self.faults.write()?;
        self.inner.give_back()
    }
}

#[derive(Debug)]
struct FaultySink {
    inner: Box<dyn RunSink>,
    faults: Arc<Faults>,
}

impl RunSink for FaultySink {
    fn append(&mut self, piece: &[u8]) -> Result<(), ColdError> {
        self.faults.write()?;
        self.inner.append(piece)
    }

    fn finish(self: Box<Self>, sync: bool) -> Result<Box<dyn RunBytes>, ColdError> {
        self.faults.write()?;
        if sync {
            self.faults.sync()?;
        }
        let inner = self.inner.finish(sync)?;
        Ok(Box::new(FaultyBytes {
            inner,
            faults: self.faults,
        }))
    }
}

#[derive(Debug)]
struct FaultyBytes {
    inner: Box<dyn RunBytes>,
    faults: Arc<Faults>,
}

impl RunBytes for FaultyBytes {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ColdError> {
        self.faults.read()?;
        self.inner.read_exact_at(buffer, offset)
    }

    fn note_use(&self, offset: u64) {
        assert!(offset < self.len(), "byte {offset} is none");
        self.faults.uses.fetch_add(1, Ordering::SeqCst);
        self.inner.note_use(offset);
    }

    fn mapped(&self) -> Option<&[u8]> {
        self.inner.mapped()
    }

    fn path(&self) -> Option<&Path> {
        self.inner.path()
    }

    fn read_through(
        &self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ColdError>,
    ) -> Result<(), ColdError> {
        self.inner.read_through(&mut |piece| {
            self.faults.read()?;
            take(piece)
        })
    }

    fn sync(&self) -> Result<(), ColdError> {
        self.faults.sync()?;
        self.inner.sync()
    }
}
