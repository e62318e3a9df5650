//! The store of runs: owns the homes, chooses one for each new run, and finds runs again.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    direct::BlockReads,
    disk::{Claim, Disk, Purpose},
    error::ColdError,
    faults::{Faults, FaultyHome},
    file_home::FileHome,
    format::RunSummary,
    home::{Home, Homes},
    lost::Lost,
    memory_home::MemoryHome,
    run::{Run, read_footer, read_note},
    sled_dirs,
    sled_home::SledHome,
    writer::RunWriter,
};
use crate::key_hash::KeyHasher;

/// Names a run; never used twice by one data directory.
pub type RunId = u64;

/// The directory of run files, inside the data directory.
pub(crate) const RUNS_DIR: &str = "runs";

/// The least that sled may hold.
const SLED_BYTES_MIN: u64 = 256 << 10;

/// The least that sled may cache.
const SLED_CACHE_BYTES_MIN: u64 = 64 << 10;

/// The share of the memory limit that sled may hold on disk, as a divisor.
const SLED_SHARE: u64 = 128;

/// How a store keeps its runs.
#[derive(Debug, Clone)]
pub struct ColdOptions {
    /// Runs expected to be smaller go to sled, others get a file; 0: files only, `u64::MAX`: sled
    /// only. Default: 1 MiB.
    pub small_run_bytes: u64,
    /// What sled may cache. Default: 64 KiB.
    pub sled_cache_bytes: u64,
    /// The bytes of runs that sled may hold, since its RAM grows with them; beyond it, small runs
    /// get files. Does not bind when `small_run_bytes` is `u64::MAX`. Default: 256 KiB.
    pub sled_bytes_max: u64,
    /// The least id that a new run may get. Default: 1.
    pub next_run: RunId,
    /// Places keys.
    pub hasher: KeyHasher,
    /// The most disk that runs may take, with what sled keeps for itself. Default: no limit.
    pub disk_limit_bytes: Option<u64>,
    /// How blocks of run files are read. Default: [`BlockReads::Auto`].
    pub block_reads: BlockReads,
    /// Takes of sled what can be read, and of the rest that it is lost, for a repair, which has it written anew
    /// by [`ColdStore::mend`] before anything else. Default: false.
    pub salvages: bool,
    /// Lets the disk fail on purpose, for tests. Default: none.
    pub faults: Option<Arc<Faults>>,
}

impl ColdOptions {
    /// The defaults, with keys placed by `hasher`.
    pub fn new(hasher: KeyHasher) -> Self {
        Self {
            small_run_bytes: 1 << 20,
            sled_cache_bytes: SLED_CACHE_BYTES_MIN,
            sled_bytes_max: SLED_BYTES_MIN,
            next_run: 1,
            hasher,
            disk_limit_bytes: None,
            block_reads: BlockReads::Auto,
            salvages: false,
            faults: None,
        }
    }

    /// Lets sled hold what a server with this memory limit can afford: with no data it takes next to
    /// no RAM, with 256 KiB about 7 MB, with 1 MiB 11 MB, with 4 MiB 17 MB, with 16 MiB 30 MB.
    #[must_use]
    pub fn with_mem_limit(mut self, mem_limit_bytes: u64) -> Self {
        self.sled_bytes_max = (mem_limit_bytes / SLED_SHARE).max(SLED_BYTES_MIN);
        self.sled_cache_bytes = (self.sled_bytes_max / 4).max(SLED_CACHE_BYTES_MIN);
        self
    }
}

/// What all runs of a store share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hasher: KeyHasher,
    reads: AtomicU64,
}

impl Shared {
    /// Tells the secret of this store from others.
    pub(super) fn hasher_mark(&self) -> u32 {
        self.hasher.hash(b"rhash run").check
    }

    #[inline]
    pub(super) fn count_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// A run that lies in a store, whether it can be opened or not.
#[derive(Debug)]
pub struct FoundRun {
    /// The run's id.
    pub id: RunId,
    /// The bytes that it takes.
    pub bytes: u64,
    /// What it says about itself; an error for one that is damaged or was never finished.
    pub summary: Result<RunSummary, ColdError>,
    /// Where it lies, for people.
    pub place: String,
}

/// Owns the homes of runs.
#[derive(Debug)]
pub struct ColdStore {
    options: ColdOptions,
    shared: Arc<Shared>,
    homes: Arc<Homes>,
    /// The data directory, where sled is or will be once the first small run is written; none: there
    /// are only files. Held while sled is opened, so that it is opened once.
    sled_dir: Mutex<Option<PathBuf>>,
    next_run: AtomicU64,
    disk: Arc<Disk>,
    /// At the last look there was no room for more entries.
    crowded: AtomicBool,
    /// What the last spill that found no room would have taken; 0 if it found some.
    spill_lacks_bytes: AtomicU64,
}

impl ColdStore {
    /// Opens the runs in a data directory. What was being written when the server stopped is gone;
    /// sled is opened only if it is there.
    ///
    /// # Errors
    /// Any of the file system and of sled.
    pub fn open(dir: &Path, options: ColdOptions) -> Result<Self, ColdError> {
        let files = faulty(
            &options,
            Arc::new(FileHome::open(dir.join(RUNS_DIR), options.block_reads)?),
        );
        let store = Self::new(options, files, Some(dir.to_owned()));
        if sled_dirs::any(dir)? {
            store.sled()?;
        }
        for home in store.homes() {
            let last = home.list()?.into_iter().map(|(id, _)| id).max();
            store
                .next_run
                .fetch_max(last.map_or(0, |id| id.saturating_add(1)), Ordering::Relaxed);
        }
        Ok(store)
    }

    /// A store in RAM, for tests.
    pub fn in_memory(options: ColdOptions) -> Self {
        let home = faulty(&options, Arc::new(MemoryHome::default()));
        Self::new(options, home, None)
    }

    fn new(options: ColdOptions, files: Arc<dyn Home>, sled_dir: Option<PathBuf>) -> Self {
        let shared = Shared {
            hasher: options.hasher.clone(),
            reads: AtomicU64::new(0),
        };
        let homes = Arc::new(Homes::new(files));
        Self {
            next_run: AtomicU64::new(options.next_run),
            shared: Arc::new(shared),
            disk: Disk::new(options.disk_limit_bytes, Arc::clone(&homes)),
            homes,
            sled_dir: Mutex::new(sled_dir),
            crowded: AtomicBool::new(false),
            spill_lacks_bytes: AtomicU64::new(0),
            options,
        }
    }

    #[cfg(test)]
    pub(super) fn with_home(options: ColdOptions, home: Arc<dyn Home>) -> Self {
        let home = faulty(&options, home);
        Self::new(options, home, None)
    }

    /// Gives new runs no number below this one.
    pub fn number_from(&self, next: RunId) {
        self.next_run.fetch_max(next, Ordering::Relaxed);
    }

    /// Begins a run of at most `bytes_expected` bytes, whatever the disk limit; they choose its home.
    ///
    /// # Errors
    /// Any of opening the home and creating the run.
    pub fn begin(&self, table: u64, bytes_expected: u64) -> Result<RunWriter, ColdError> {
        let claim = Claim {
            purpose: Purpose::Keep,
            bytes: bytes_expected,
        };
        self.begin_for(claim, table, bytes_expected)
    }

    /// Begins a run of at most `bytes_expected` bytes, if there is room for it.
    ///
    /// # Errors
    /// [`ColdError::DiskLimit`]; any of opening the home and creating the run.
    pub fn begin_for(
        &self,
        claim: Claim,
        table: u64,
        bytes_expected: u64,
    ) -> Result<RunWriter, ColdError> {
        let room = self.disk.take(claim)?;
        let home = self.home_for(bytes_expected)?;
        let id = self.next_run.fetch_add(1, Ordering::Relaxed);
        let mut writer = RunWriter::new(home, Arc::clone(&self.shared), id, table)?;
        writer.hold(room);
        Ok(writer)
    }

    /// How often the disk limit was reached.
    pub fn limit_refusals(&self) -> u64 {
        self.disk.refusals()
    }

    /// `--disk-limit`.
    pub fn disk_limit_bytes(&self) -> Option<u64> {
        self.disk.limit_bytes()
    }

    /// What may still be written for this purpose.
    ///
    /// # Errors
    /// Any of asking sled.
    pub fn room_bytes(&self, purpose: Purpose) -> Result<u64, ColdError> {
        self.disk.room_bytes(purpose)
    }

    /// Whether there is room for a spill of so many bytes; if not, no more entries are taken in until
    /// there is.
    ///
    /// # Errors
    /// Any of asking sled.
    pub fn has_room_to_spill(&self, bytes: u64) -> Result<bool, ColdError> {
        let has_room = self.room_bytes(Purpose::Spill)? >= bytes;
        let lacking_bytes = if has_room { 0 } else { bytes };
        self.spill_lacks_bytes
            .store(lacking_bytes, Ordering::Relaxed);
        if !has_room {
            self.crowded.store(true, Ordering::Relaxed);
        }
        Ok(has_room)
    }

    /// Looks whether there is room for more entries, for [`ColdStore::crowded`].
    ///
    /// # Errors
    /// Any of asking sled.
    pub fn look_for_room(&self) -> Result<(), ColdError> {
        self.disk.forget_over()?;
        let lacking_bytes = self.spill_lacks_bytes.load(Ordering::Relaxed);
        let crowded = self.room_bytes(Purpose::Intake)? == 0
            || self.room_bytes(Purpose::Spill)? < lacking_bytes;
        self.crowded.store(crowded, Ordering::Relaxed);
        Ok(())
    }

    /// Why no more entries are taken in, if at the last look there was no room for them.
    pub fn crowded(&self) -> Option<ColdError> {
        self.is_crowded().then(|| self.disk_full())
    }

    /// Whether at the last look there was no room for more entries.
    pub fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// The error that the disk limit is reached.
    pub fn disk_full(&self) -> ColdError {
        self.disk.full()
    }

    /// Opens a run by its footer. A run is opened once; its `Arc` is what is shared.
    ///
    /// # Errors
    /// [`ColdError::Missing`] if there is none; damage; any of reading.
    pub fn open_run(&self, id: RunId) -> Result<Arc<Run>, ColdError> {
        for home in self.homes() {
            match Run::open(Arc::clone(home), Arc::clone(&self.shared), id) {
                Err(ColdError::Missing { .. }) => {}
                opened => return opened.map(Arc::new),
            }
        }
        Err(ColdError::Missing { run: id })
    }

    /// Opens a run of a table, or puts in its place one that answers whatever it is asked with why this one
    /// cannot be opened: it is missing or damaged, or of another table, format or secret.
    ///
    /// # Errors
    /// Any of reading, that may be gone another time.
    pub fn open_or_lose(&self, id: RunId, table: u64) -> Result<Arc<Run>, ColdError> {
        let mut found = (&self.homes.files, Lost::Missing);
        for home in self.homes() {
            let opened = Run::open(Arc::clone(home), Arc::clone(&self.shared), id);
            let why = match opened {
                Ok(run) if run.table() == table => return Ok(Arc::new(run)),
                Ok(_other) => Lost::Damaged("it belongs to another table", 0),
                Err(ColdError::Missing { .. }) => continue,
                Err(error) => match (Lost::of(&error), &error) {
                    (Some(why), _) => why,
                    (None, ColdError::Sled { .. }) if self.options.salvages => {
                        Lost::Damaged("sled cannot read it", 0)
                    }
                    (None, _) => return Err(error),
                },
            };
            found = (home, why);
        }
        let (home, why) = found;
        let lost = Run::lost(Arc::clone(home), Arc::clone(&self.shared), id, table, why);
        Ok(Arc::new(lost))
    }

    /// The note of a run that need not be open.
    ///
    /// # Errors
    /// [`ColdError::Missing`] if there is none; damage; any of reading.
    pub fn note_of(&self, id: RunId) -> Result<Vec<u8>, ColdError> {
        for home in self.homes() {
            let bytes = match home.open(id) {
                Err(ColdError::Missing { .. }) => continue,
                opened => opened?,
            };
            let footer = read_footer(&*bytes, id)?;
            if footer.hasher_mark != self.shared.hasher_mark() {
                return Err(ColdError::OtherSecret { run: id });
            }
            return read_note(&*bytes, &footer);
        }
        Err(ColdError::Missing { run: id })
    }

    /// Where a run lies, or would, for people.
    pub fn place_of(&self, id: RunId) -> String {
        let here = |home: &&Arc<dyn Home>| home.open(id).is_ok();
        let home = self.homes().find(here).unwrap_or(&self.homes.files);
        home.place_of(id)
    }

    /// Every run that lies there, by id.
    ///
    /// # Errors
    /// Any of listing the homes; what is wrong with one run is said beside it.
    pub fn list(&self) -> Result<Vec<FoundRun>, ColdError> {
        let mut found = Vec::new();
        for home in self.homes() {
            for (id, bytes) in home.list()? {
                let footer = home.open(id).and_then(|run| read_footer(&*run, id));
                found.push(FoundRun {
                    id,
                    bytes,
                    summary: footer.map(|footer| footer.summary),
                    place: home.place_of(id),
                });
            }
        }
        found.sort_by_key(|run| run.id);
        Ok(found)
    }

    /// Runs that are open, or were, and are not listed: sled's tree is damaged, and went back to an older state
    /// without a word. What it then holds may be readable, until something is changed.
    ///
    /// # Errors
    /// Any of listing the homes.
    pub fn unlisted(&self) -> Result<Vec<RunId>, ColdError> {
        let mut unlisted = Vec::new();
        for home in self.homes() {
            unlisted.extend(home.unlisted()?);
        }
        Ok(unlisted)
    }

    /// Where runs are not listed, or a store salvages, writes what their home holds anew, as far as it can be read, and
    /// sets aside what it was in; says which runs were not listed. All that matter must have been opened.
    ///
    /// # Errors
    /// Any of reading, and of writing; all is then as before.
    pub fn mend(&self) -> Result<Vec<RunId>, ColdError> {
        let mut mended = Vec::new();
        for home in self.homes() {
            let unlisted = home.unlisted()?;
            if self.options.salvages || !unlisted.is_empty() {
                home.make_anew()?;
                mended.extend(unlisted);
            }
        }
        Ok(mended)
    }

    /// Removes a run that is not open; for one that is, see [`Run::remove_on_drop`].
    ///
    /// # Errors
    /// Any of removing; a run that is not there is removed already.
    pub fn remove(&self, id: RunId) -> Result<(), ColdError> {
        self.homes().try_for_each(|home| home.remove(id))
    }

    /// Puts a run that is not open into another directory, or removes it where it is no file.
    ///
    /// # Errors
    /// Any of the file system, and of sled.
    pub fn set_aside(&self, id: RunId, dir: &Path) -> Result<(), ColdError> {
        self.homes().try_for_each(|home| home.set_aside(id, dir))
    }

    /// Brings to stable storage all finished runs in sled, and the names of all run files; the bytes
    /// of files are synced by `RunWriter::finish` or [`Run::sync`].
    ///
    /// # Errors
    /// Any of syncing; what was not synced before is then in doubt.
    pub fn sync(&self) -> Result<(), ColdError> {
        self.homes().try_for_each(|home| home.sync())
    }

    /// The disk that all runs take, with what sled keeps for itself.
    ///
    /// # Errors
    /// Any of asking sled.
    pub fn disk_bytes(&self) -> Result<u64, ColdError> {
        self.homes.disk_bytes()
    }

    /// Gives back disk that sled takes for nothing, if that is worth the work, or if disk is `short` and
    /// there is any to speak of; says how much. Reads go on meanwhile.
    ///
    /// # Errors
    /// Any of reading and writing sled; all is then as before.
    pub fn give_back(&self, short: bool) -> Result<u64, ColdError> {
        let mut given_bytes = 0;
        for home in self.homes() {
            let Some(bytes) = home.give_back_needs(short)? else {
                continue;
            };
            let purpose = Purpose::Merge;
            let _room = match self.disk.take(Claim { purpose, bytes }) {
                // Merges may make room for it.
                Err(ColdError::DiskLimit { .. }) => continue,
                room => room?,
            };
            given_bytes += home.give_back()?;
        }
        Ok(given_bytes)
    }

    /// Takes note of the disk that all open runs take, once those that a start finds are.
    ///
    /// # Errors
    /// Any of asking sled.
    pub fn started(&self) -> Result<(), ColdError> {
        self.disk.started()
    }

    /// The bytes of open runs that sled holds.
    pub fn sled_bytes(&self) -> u64 {
        self.homes
            .sled
            .get()
            .map_or(0, |home| home.live_bytes().load(Ordering::Relaxed))
    }

    /// Reads of blocks since the store was opened.
    pub fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    fn homes(&self) -> impl Iterator<Item = &Arc<dyn Home>> {
        self.homes.iter()
    }

    fn home_for(&self, bytes_expected: u64) -> Result<Arc<dyn Home>, ColdError> {
        let small = bytes_expected < self.options.small_run_bytes;
        let sled_only = self.options.small_run_bytes == u64::MAX;
        let room = self
            .options
            .sled_bytes_max
            .saturating_sub(self.sled_bytes());
        if sled_only || (small && bytes_expected <= room) {
            return Ok(Arc::clone(self.sled()?.unwrap_or(&self.homes.files)));
        }
        Ok(Arc::clone(&self.homes.files))
    }

    /// Sled, opened if it is not yet.
    fn sled(&self) -> Result<Option<&Arc<dyn Home>>, ColdError> {
        if let Some(home) = self.homes.sled.get() {
            return Ok(Some(home));
        }
        let dir = self.sled_dir.lock();
        let (None, Some(dir)) = (self.homes.sled.get(), &*dir) else {
            return Ok(self.homes.sled.get());
        };
        let home = SledHome::open(dir, self.options.sled_cache_bytes, self.options.salvages)?;
        let home = faulty(&self.options, Arc::new(home));
        Ok(Some(self.homes.sled.get_or_init(|| home)))
    }
}

/// The home, failing on purpose if the options say so.
fn faulty(options: &ColdOptions, inner: Arc<dyn Home>) -> Arc<dyn Home> {
    match &options.faults {
        Some(faults) => Arc::new(FaultyHome {
            inner,
            faults: Arc::clone(faults),
        }),
        None => inner,
    }
}
