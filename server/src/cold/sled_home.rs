//! Runs in sled, for small ones.
//!
//! A piece is one or more values under sequential keys: the run's id and the offset, both big-endian.
//! sled's files never shrink, so when they hold far more than what is live, that is moved to a new
//! database and the old one is removed; reads go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use super::{
    error::ColdError,
    file_home::sync_dir,
    home::{Home, RunBytes, RunSink, Shape},
    sled_db::Database,
    sled_dirs::{self, Goes, SledDir},
    store::RunId,
};
use crate::{shared::error_text, waiting};

/// A longer piece is cut: sled reads up to sixteen neighbours to read one value.
const VALUE_BYTES_MAX: usize = 2048;

/// What is live is moved when sled's files are this many times as long, …
const DISK_FACTOR_MAX: u64 = 4;
/// … or this many times where disk is short, which is more than a new one takes, …
const DISK_FACTOR_SHORT: u64 = 3;
/// … but not before they have this length.
const DISK_BYTES_MIN: u64 = 1 << 20;
/// What a new database takes by itself.
const NEW_BYTES: u64 = 512 << 10;
/// What is live is moved only up to this, since nothing is written to sled meanwhile.
const MOVE_BYTES_MAX: u64 = 256 << 20;

/// A sled database of runs.
#[derive(Debug)]
pub(super) struct SledHome {
    place: Arc<Place>,
    live_bytes: AtomicU64,
}

/// Where the database is, as its home and its runs share it.
#[derive(Debug)]
struct Place {
    /// Replaced when what is live has been moved; held for a moment only.
    current: RwLock<Arc<Database>>,
    /// Held for reading by each change, for writing while all is moved: so that nothing is changed
    /// in a database that was copied already. Taken before `current`, and never twice.
    changes: RwLock<()>,
    /// The bytes of each run that was opened or is being written: sled goes back to an older state where a page is
    /// damaged, says nothing, and then does not list all that it has, so that it is not asked alone what is to be moved.
    runs: Mutex<BTreeMap<RunId, u64>>,
    cache_bytes: u64,
    /// What cannot be read is left out.
    salvages: bool,
}

/// How far a move has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// The new database has everything.
    Copied,
    /// It is on stable storage.
    Synced,
    /// From here on a start takes the new one.
    Complete,
    /// Everybody reads the new one.
    Swapped,
}

impl Place {
    /// The runs that sled lists; where what cannot be read is left out, those before it.
    fn ids_in(&self, database: &Database) -> Result<Vec<RunId>, ColdError> {
        let mut ids = Vec::new();
        match list_into(database, &mut ids) {
            Err(error) if self.salvages => {
                tracing::warn!(error = error_text(&error), "sled does not list all runs");
            }
            listed => listed?,
        }
        Ok(ids)
    }

    fn current(&self) -> Arc<Database> {
        Arc::clone(&self.current.read())
    }

    /// Changes the database, which is not moved meanwhile.
    fn change<T>(
        &self,
        change: impl FnOnce(&Database) -> Result<T, ColdError>,
    ) -> Result<T, ColdError> {
        if self.current().is_in_doubt() {
            self.renew()?;
        }
        let _changes = self.changes.read();
        let database = self.current();
        let changed = change(&database);
        if changed.is_err() {
            database.doubt();
        }
        changed
    }

    /// Moves everything to a new database after an error.
    ///
    /// # Errors
    /// What can be read goes on to be; the next change tries again.
    fn renew(&self) -> Result<(), ColdError> {
        let _changes = self.changes.write();
        if !self.current().is_in_doubt() {
            return Ok(());
        }
        self.copy_on(Goes::Away, &|_| Ok(()))?;
        tracing::warn!("moved what sled holds to a new directory, after an error");
        Ok(())
    }

    /// Moves everything to a new database, and removes the old one when its last reader is done.
    fn move_on(&self, reached: &dyn Fn(Moved) -> Result<(), ColdError>) -> Result<(), ColdError> {
        let _changes = self.changes.write();
        self.copy_on(Goes::Away, reached)
    }

    /// Like [`Self::move_on`], while nothing is changed. Where a run cannot be copied whole the old database is set
    /// aside, whatever was wanted.
    fn copy_on(
        &self,
        mut old_goes: Goes,
        reached: &dyn Fn(Moved) -> Result<(), ColdError>,
    ) -> Result<(), ColdError> {
        let old = self.current();
        let new = Arc::new(Database::open(old.dir().begin_next()?, self.cache_bytes)?);
        let known = self.runs.lock().clone();
        let mut ids: BTreeSet<RunId> = self.ids_in(&old)?.into_iter().collect();
        ids.extend(known.keys());
        let mut cut = Vec::new();
        for id in ids {
            let wanted_bytes = known.get(&id).copied().unwrap_or(0);
            let copied = copy_run(&old, &new, id)?;
            // IMPORTANT: a disk that fails for a while has the values, and says nothing of what lies there.
            if let Some(error) = copied.unread
                && !self.salvages
            {
                return Err(error);
            }
            if copied.bytes < wanted_bytes {
                let error = value_missing(id, copied.bytes);
                tracing::error!(
                    run = id,
                    error = error_text(&error),
                    "a run in sled cannot be moved whole; the directory is set aside, in damaged/"
                );
                old_goes = Goes::Aside;
                cut.push((id, copied.bytes));
            }
        }
        reached(Moved::Copied)?;
        new.sync()?;
        reached(Moved::Synced)?;
        // IMPORTANT: only when all is on stable storage, or a crash would leave a start with less.
        new.dir().complete()?;
        *self.current.write() = new;
        old.dir().retire(old_goes);
        // The next move does not miss what is in none.
        self.runs.lock().extend(cut);
        reached(Moved::Complete)?;
        drop(old);
        reached(Moved::Swapped)
    }
}

impl SledHome {
    /// Opens the database in a data directory, and makes it if need be.
    pub(super) fn open(
        data_dir: &Path,
        cache_bytes: u64,
        salvages: bool,
    ) -> Result<Self, ColdError> {
        if let Some(path) = sled_dirs::begin_first(data_dir)? {
            // IMPORTANT: sled does not open what a power cut left of a database that was being made, so
            // that one has another name until it is on stable storage.
            Database::make(&path, cache_bytes)?;
            sled_dirs::finish_first(data_dir)?;
        }
        let dir = SledDir::current(data_dir)?;
        // IMPORTANT: or a power cut would leave nothing of it, though all that is in it was synced. Each time, since
        // the sync after which it was made, or got its name, may have failed.
        sync_dir(data_dir)?;
        let database = Database::open(dir, cache_bytes)?;
        Ok(Self {
            place: Arc::new(Place {
                current: RwLock::new(Arc::new(database)),
                changes: RwLock::new(()),
                runs: Mutex::new(BTreeMap::new()),
                cache_bytes,
                salvages,
            }),
            live_bytes: AtomicU64::new(0),
        })
    }

    fn bytes(&self, id: RunId) -> SledBytes {
        SledBytes {
            place: Arc::clone(&self.place),
            id,
            bytes: 0,
        }
    }

    /// Has it that an error came.
    #[cfg(test)]
    pub(super) fn doubt(&self) {
        self.place.current().doubt();
    }

    /// Has sled no values of a run, as where a page was set back to an older state.
    #[cfg(test)]
    pub(super) fn lose_values(&self, id: RunId) {
        let database = self.place.current();
        for entry in database.entries(run_range(id)) {
            let (key, _) = entry.expect("a value");
            database.remove(&key).expect("a removal");
        }
    }

    /// Moves all to a new database, whether that is worth it or not.
    #[cfg(test)]
    pub(super) fn move_on(
        &self,
        reached: &dyn Fn(Moved) -> Result<(), ColdError>,
    ) -> Result<(), ColdError> {
        self.place.move_on(reached)
    }

    /// The run's length, by its last piece; none if there is no piece.
    fn length(&self, id: RunId) -> Result<Option<u64>, ColdError> {
        let database = self.place.current();
        let Some((key, value)) = database.entries(run_range(id)).last_one()? else {
            return Ok(None);
        };
        let (_, offset) = split_key(&key).ok_or(ColdError::Damaged {
            what: "a key in sled",
            run: id,
            offset: 0,
        })?;
        Ok(Some(offset.saturating_add(value.len() as u64)))
    }
}

impl Home for SledHome {
    fn shape(&self) -> Shape {
        Shape {
            block_bytes: 1024,
            section_bytes: 1 << 20,
            aligned: false,
        }
    }

    fn place_of(&self, id: RunId) -> String {
        format!(
            "run {id} in {}",
            self.place.current().dir().path().display()
        )
    }

    fn create(&self, id: RunId) -> Result<Box<dyn RunSink>, ColdError> {
        Ok(Box::new(SledSink {
            bytes: self.bytes(id),
            finished: false,
        }))
    }

    fn open(&self, id: RunId) -> Result<Box<dyn RunBytes>, ColdError> {
        let length = self.length(id)?.ok_or(ColdError::Missing { run: id })?;
        self.place.runs.lock().insert(id, length);
        Ok(Box::new(SledBytes {
            bytes: length,
            ..self.bytes(id)
        }))
    }

    fn list(&self) -> Result<Vec<(RunId, u64)>, ColdError> {
        let ids = self.place.ids_in(&self.place.current())?;
        let length = |id| match self.length(id) {
            Err(_) if self.place.salvages => Ok((id, 0)),
            length => Ok((id, length?.unwrap_or(0))),
        };
        ids.into_iter().map(length).collect()
    }

    fn unlisted(&self) -> Result<Vec<RunId>, ColdError> {
        let listed: BTreeSet<RunId> = self
            .place
            .ids_in(&self.place.current())?
            .into_iter()
            .collect();
        let mut known: Vec<RunId> = self.place.runs.lock().keys().copied().collect();
        known.retain(|id| !listed.contains(id));
        Ok(known)
    }

    fn make_anew(&self) -> Result<(), ColdError> {
        let _changes = self.place.changes.write();
        self.place.copy_on(Goes::Aside, &|_| Ok(()))
    }

    fn remove(&self, id: RunId) -> Result<(), ColdError> {
        self.bytes(id).remove()
    }

    fn sync(&self) -> Result<(), ColdError> {
        self.place.change(Database::sync)
    }

    fn live_bytes(&self) -> &AtomicU64 {
        &self.live_bytes
    }

    fn disk_bytes(&self) -> Result<u64, ColdError> {
        self.place.current().disk_bytes()
    }

    fn give_back_needs(&self, short: bool) -> Result<Option<u64>, ColdError> {
        let disk_bytes = self.disk_bytes()?;
        let live_bytes = self.live_bytes.load(Ordering::Relaxed);
        let factor = if short {
            DISK_FACTOR_SHORT
        } else {
            DISK_FACTOR_MAX
        };
        let bytes_max = live_bytes.saturating_mul(factor);
        if disk_bytes <= bytes_max.max(DISK_BYTES_MIN) || live_bytes > MOVE_BYTES_MAX {
            return Ok(None);
        }
        Ok(Some(live_bytes.saturating_mul(2) + NEW_BYTES))
    }

    fn give_back(&self) -> Result<u64, ColdError> {
        let disk_bytes = self.disk_bytes()?;
        self.place.move_on(&|_| Ok(()))?;
        Ok(disk_bytes.saturating_sub(self.disk_bytes()?))
    }
}

fn piece_key(id: RunId, offset: u64) -> [u8; 16] {
    (u128::from(id) << 64 | u128::from(offset)).to_be_bytes()
}

fn split_key(key: &[u8]) -> Option<(RunId, u64)> {
    let both = u128::from_be_bytes(*key.first_chunk()?);
    Some(((both >> 64) as u64, both as u64))
}

/// Lists runs, by number.
fn list_into(database: &Database, ids: &mut Vec<RunId>) -> Result<(), ColdError> {
    let mut from = Some(0);
    while let Some(id) = from {
        let Some((key, _)) = database.entries(piece_key(id, 0)..).next().transpose()? else {
            break;
        };
        let (id, _) = split_key(&key).ok_or(ColdError::Damaged {
            what: "a key in sled",
            run: id,
            offset: 0,
        })?;
        ids.push(id);
        from = id.checked_add(1);
    }
    Ok(())
}

/// What of a run was copied.
#[derive(Debug)]
struct Copied {
    bytes: u64,
    /// Why what follows could not be read.
    unread: Option<ColdError>,
}

/// Copies a run's values as far as they follow one another.
///
/// # Errors
/// Those of writing.
fn copy_run(old: &Database, new: &Database, id: RunId) -> Result<Copied, ColdError> {
    let mut written = Ok(());
    let mut bytes = 0;
    let read = values_from(old, id, 0..u64::MAX, &mut |at, value| {
        written = new
            .insert(&piece_key(id, at), value)
            .and_then(|()| new.changed(value.len()));
        bytes = at.saturating_add(value.len() as u64);
        // What it was is told by the other error.
        written
            .as_ref()
            .map_or(Err(ColdError::Cancelled), |()| Ok(()))
    });
    written?;
    Ok(Copied {
        bytes,
        unread: read.err(),
    })
}

/// Takes a value and its offset.
type TakeValue<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), ColdError>;

/// Gives a run's values to `take` as far as they follow one another, each with its offset; the first one begins where
/// the range does, the last one before its end.
fn values_from(
    database: &Database,
    id: RunId,
    range: Range<u64>,
    take: TakeValue<'_>,
) -> Result<(), ColdError> {
    let mut at = range.start;
    loop {
        let from = at;
        for entry in database.entries(piece_key(id, from)..piece_key(id, range.end)) {
            let (key, value) = entry?;
            if split_key(&key) != Some((id, at)) {
                break;
            }
            take(at, &value)?;
            at = at.saturating_add(value.len() as u64);
        }
        // A page that was set back to an older state may not know of the next one, where a search from the root does.
        if at == from || at >= range.end {
            return Ok(());
        }
    }
}

fn value_missing(run: RunId, offset: u64) -> ColdError {
    ColdError::Damaged {
        what: "a value is missing in sled",
        run,
        offset,
    }
}

fn run_range(id: RunId) -> std::ops::RangeInclusive<[u8; 16]> {
    piece_key(id, 0)..=piece_key(id, u64::MAX)
}

/// A run in sled being written.
#[derive(Debug)]
struct SledSink {
    bytes: SledBytes,
    finished: bool,
}

impl RunSink for SledSink {
    fn append(&mut self, piece: &[u8]) -> Result<(), ColdError> {
        let SledBytes { place, id, bytes } = &mut self.bytes;
        place.change(|database| {
            for value in piece.chunks(VALUE_BYTES_MAX) {
                database.insert(&piece_key(*id, *bytes), value)?;
                *bytes += value.len() as u64;
                place.runs.lock().insert(*id, *bytes);
            }
            database.changed(piece.len())
        })
    }

    fn finish(mut self: Box<Self>, sync: bool) -> Result<Box<dyn RunBytes>, ColdError> {
        // IMPORTANT: sled writes what it holds when it likes, but what is finished must outlive the
        // process: others name it, and files that were merged into it are removed.
        self.bytes.place.change(|database| match sync {
            true => database.sync(),
            false => database.flush(),
        })?;
        self.finished = true;
        Ok(Box::new(self.bytes.clone()))
    }
}

impl Drop for SledSink {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.bytes.remove()
        {
            tracing::warn!(run = self.bytes.id, %error, "an unfinished run stays behind in sled");
        }
    }
}

/// A run in sled.
#[derive(Debug, Clone)]
struct SledBytes {
    place: Arc<Place>,
    id: RunId,
    bytes: u64,
}

impl SledBytes {
    fn remove(&self) -> Result<(), ColdError> {
        // IMPORTANT: before anything else, since a move that this change waits for needs not have it whole.
        self.place.runs.lock().remove(&self.id);
        self.place.change(|database| {
            for entry in database.entries(run_range(self.id)) {
                let (key, value) = entry?;
                database.remove(&key)?;
                database.changed(value.len())?;
            }
            Ok(())
        })
    }

    /// Fills `buffer` from values that follow one another; the space between them is damage.
    fn read_values(&self, mut buffer: &mut [u8], range: Range<u64>) -> Result<(), ColdError> {
        let end = range.end;
        values_from(&self.place.current(), self.id, range, &mut |at, value| {
            let (head, rest) = std::mem::take(&mut buffer)
                .split_at_mut_checked(value.len())
                .ok_or(ColdError::Damaged {
                    what: "a value in sled is too long",
                    run: self.id,
                    offset: at,
                })?;
            head.copy_from_slice(value);
            buffer = rest;
            Ok(())
        })?;
        match buffer.len() as u64 {
            0 => Ok(()),
            left => Err(value_missing(self.id, end.saturating_sub(left))),
        }
    }
}

impl RunBytes for SledBytes {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ColdError> {
        // sled does not say whether it has what it is asked for.
        waiting::before_waiting()?;
        if buffer.len() > VALUE_BYTES_MAX {
            let end = offset.saturating_add(buffer.len() as u64);
            return self.read_values(buffer, offset..end);
        }
        let database = self.place.current();
        match database.get(&piece_key(self.id, offset))? {
            Some(value) if value.len() == buffer.len() => {
                buffer.copy_from_slice(&value);
                Ok(())
            }
            _ => {
                let end = offset.saturating_add(buffer.len() as u64);
                self.read_values(buffer, offset..end)
            }
        }
    }

    /// Value by value, since a read that does not begin and end with one finds nothing.
    fn read_through(
        &self,
        take: &mut dyn FnMut(&[u8]) -> Result<(), ColdError>,
    ) -> Result<(), ColdError> {
        let mut bytes = 0;
        values_from(
            &self.place.current(),
            self.id,
            0..self.bytes,
            &mut |at, value| {
                bytes = at.saturating_add(value.len() as u64);
                take(value)
            },
        )?;
        match bytes == self.bytes {
            true => Ok(()),
            false => Err(value_missing(self.id, bytes)),
        }
    }
}
