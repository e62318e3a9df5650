//! How far the log is written and synced, who waits for that, and what is in the way.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rhash_protocol::WireError;
use tokio::sync::{Notify, futures::Notified};

use super::{Durability, Lsn, files::LogFile, segment::HEADER_BYTES};

/// What is written, and nobody waits for, is synced after this.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How far the log is.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<State>,
    /// Wakes threads that wait for a record.
    moved: Condvar,
    /// Wakes tasks that wait for a record, or for room.
    moved_async: Notify,
    /// Wakes the thread that syncs.
    sync_work: Condvar,
    /// What `state` says, to be read without it.
    written: AtomicU64,
    synced: AtomicU64,
    has_failed: AtomicBool,
    /// What can still be written to the segment at hand, as far as room was taken for it on disk.
    room: AtomicU64,
}

#[derive(Debug)]
struct State {
    written: Lsn,
    synced: Lsn,
    /// Somebody waits, or will, until this record is synced.
    wanted: Lsn,
    /// When the first of what is written and not synced was written, or a bit before.
    unsynced_since: Option<Instant>,
    trouble: Option<WireError>,
    checkpoint_trouble: Option<WireError>,
    /// There was no room for what comes next, so nothing behind it is written before there is.
    stuck: Option<WireError>,
    /// The last segment that could not be begun, by the number that its first record would have had, and why.
    refused: Option<(Lsn, WireError)>,
    failure: Option<WireError>,
    /// By the number of their first record, with their lengths; the last one is written to.
    segments: VecDeque<(Lsn, u64)>,
    file: Arc<dyn LogFile>,
    writer_ended: bool,
}

/// What the thread that syncs is to do.
#[derive(Debug)]
pub(super) enum SyncWork {
    /// Sync this file; then all up to the record is synced.
    Sync(Arc<dyn LogFile>, Lsn, Instant),
    /// End.
    End,
}

impl Progress {
    pub(super) fn new(
        last: Lsn,
        segments: Vec<(Lsn, u64)>,
        first: Lsn,
        file: Arc<dyn LogFile>,
    ) -> Self {
        let mut segments = VecDeque::from(segments);
        segments.push_back((first, HEADER_BYTES as u64));
        Self {
            state: Mutex::new(State {
                written: last,
                synced: last,
                wanted: 0,
                unsynced_since: None,
                trouble: None,
                checkpoint_trouble: None,
                stuck: None,
                refused: None,
                failure: None,
                segments,
                file,
                writer_ended: false,
            }),
            moved: Condvar::new(),
            moved_async: Notify::new(),
            sync_work: Condvar::new(),
            written: AtomicU64::new(last),
            synced: AtomicU64::new(last),
            has_failed: AtomicBool::new(false),
            room: AtomicU64::new(u64::MAX),
        }
    }

    /// The last record that is on stable storage.
    pub(super) fn synced(&self) -> Lsn {
        self.synced.load(Ordering::Acquire)
    }

    pub(super) fn failure(&self) -> Option<WireError> {
        if !self.has_failed.load(Ordering::Acquire) {
            return None;
        }
        self.state.lock().failure.clone()
    }

    pub(super) fn trouble(&self) -> Option<WireError> {
        self.state.lock().trouble.clone()
    }

    pub(super) fn checkpoint_trouble(&self) -> Option<WireError> {
        self.state.lock().checkpoint_trouble.clone()
    }

    pub(super) fn set_checkpoint_trouble(&self, trouble: Option<WireError>) {
        let mut state = self.state.lock();
        if state.checkpoint_trouble != trouble {
            state.checkpoint_trouble = trouble;
            self.tell(state);
        }
    }

    /// Why a record is not written before there is room on disk, if it is not yet.
    pub(super) fn stuck_before(&self, lsn: Lsn) -> Option<WireError> {
        let state = self.state.lock();
        state.stuck.clone().filter(|_| state.written < lsn)
    }

    /// How much can be written before more room has to be taken on disk.
    pub(super) fn room(&self) -> u64 {
        self.room.load(Ordering::Acquire)
    }

    /// Says how much that is.
    pub(super) fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::Release);
    }

    /// How long the oldest written record has not been on stable storage.
    pub(super) fn unsynced_age(&self) -> Duration {
        let since = self.state.lock().unsynced_since;
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether a record is as safe as the level asks.
    pub(super) fn reached(&self, durability: Durability, lsn: Lsn) -> bool {
        let through = match durability {
            Durability::Always => &self.synced,
            Durability::EverySec | Durability::None => &self.written,
        };
        through.load(Ordering::Acquire) >= lsn
    }

    /// Notified when anything has moved on. Cancel safe.
    pub(super) fn moved(&self) -> Notified<'_> {
        self.moved_async.notified()
    }

    /// Lets all tasks look again.
    pub(super) fn wake_async(&self) {
        self.moved_async.notify_waiters();
    }

    /// Asks for a sync up to a record.
    pub(super) fn want(&self, lsn: Lsn) {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(lsn);
        drop(state);
        self.sync_work.notify_one();
    }

    pub(super) async fn wait_async(
        &self,
        durability: Durability,
        lsn: Lsn,
    ) -> Result<(), WireError> {
        loop {
            let moved = self.moved_async.notified();
            tokio::pin!(moved);
            // Before the look, so that no wake-up is lost between the two.
            moved.as_mut().enable();
            if self.reached(durability, lsn) {
                return Ok(());
            }
            if let Some(error) = self.failure() {
                return Err(error);
            }
            moved.await;
        }
    }

    /// Blocks until a record is as safe as the level asks. Whoever waits here has locks that others want, or
    /// is what makes room on disk: so it does not wait for room.
    pub(super) fn wait(&self, durability: Durability, lsn: Lsn) -> Result<(), WireError> {
        let mut state = self.state.lock();
        while !self.reached(durability, lsn) {
            if let Some(error) = &state.failure {
                return Err(error.clone());
            }
            if let Some(error) = state.stuck.as_ref().filter(|_| state.written < lsn) {
                return Err(error.clone());
            }
            self.moved.wait(&mut state);
        }
        Ok(())
    }

    /// Records up to `last` are written; the segment at hand has so many bytes now. Those up to `wanted`
    /// are to be synced at once.
    pub(super) fn wrote(&self, last: Lsn, segment_bytes: u64, wanted: Lsn) {
        let mut state = self.state.lock();
        state.written = last;
        state.wanted = state.wanted.max(wanted);
        state.stuck = None;
        state.unsynced_since.get_or_insert_with(Instant::now);
        if let Some((_, bytes)) = state.segments.back_mut() {
            *bytes = segment_bytes;
        }
        self.written.store(last, Ordering::Release);
        if state.wanted > state.synced {
            self.sync_work.notify_one();
        }
        self.tell(state);
    }

    /// All that was written is synced, and what comes goes to a new segment.
    pub(super) fn rolled(&self, first: Lsn, file: Arc<dyn LogFile>) {
        let mut state = self.state.lock();
        state.segments.push_back((first, HEADER_BYTES as u64));
        state.file = file;
        let written = state.written;
        self.set_synced(&mut state, written, None);
        self.tell(state);
    }

    /// No segment could be begun with the record `first`: what comes goes to the old one.
    pub(super) fn refuse_segment(&self, first: Lsn, error: WireError) {
        let mut state = self.state.lock();
        state.refused = Some((first, error));
        self.tell(state);
    }

    /// A segment will be asked for: what became of an earlier one says nothing of it.
    pub(super) fn forget_refusal(&self) {
        self.state.lock().refused = None;
    }

    /// Blocks until a segment that was asked for is begun. As [`wait`](Self::wait), it does not wait for room.
    pub(super) fn wait_begun(&self, first: Lsn) -> Result<(), WireError> {
        let mut state = self.state.lock();
        loop {
            if state.segments.iter().any(|segment| segment.0 == first) {
                return Ok(());
            }
            let refused = state.refused.as_ref().filter(|refused| refused.0 == first);
            let error = refused.map(|(_, error)| error);
            if let Some(error) = state.failure.as_ref().or(state.stuck.as_ref()).or(error) {
                return Err(error.clone());
            }
            self.moved.wait(&mut state);
        }
    }

    /// Records up to `through` are on stable storage.
    pub(super) fn synced_through(&self, through: Lsn, began: Instant) {
        let mut state = self.state.lock();
        let since = (state.written > through).then_some(began);
        self.set_synced(&mut state, through, since);
        self.tell(state);
    }

    fn set_synced(&self, state: &mut State, through: Lsn, since: Option<Instant>) {
        if through >= state.synced {
            state.synced = through;
            state.unsynced_since = since;
            self.synced.store(through, Ordering::Release);
        }
    }

    /// Says what keeps the log from being written, for now, or that nothing does.
    pub(super) fn set_trouble(&self, trouble: Option<WireError>) {
        let mut state = self.state.lock();
        if state.trouble != trouble {
            state.trouble = trouble;
            self.tell(state);
        }
    }

    /// There is no room for what comes next.
    pub(super) fn set_stuck(&self, error: WireError) {
        let mut state = self.state.lock();
        state.trouble = Some(error.clone());
        state.stuck = Some(error);
        self.tell(state);
    }

    /// Nothing more is written; says whether this was news.
    pub(super) fn fail(&self, error: WireError) -> bool {
        let mut state = self.state.lock();
        let is_news = state.failure.is_none();
        if is_news {
            state.failure = Some(error);
            self.has_failed.store(true, Ordering::Release);
        }
        self.sync_work.notify_one();
        self.tell(state);
        is_news
    }

    /// The writer has ended: what is written is synced once more, and that is all.
    pub(super) fn end(&self) {
        self.state.lock().writer_ended = true;
        self.sync_work.notify_one();
    }

    fn tell(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.moved.notify_all();
        self.moved_async.notify_waiters();
    }

    /// Waits until there is something to sync.
    pub(super) fn next_sync(&self) -> SyncWork {
        let mut state = self.state.lock();
        loop {
            if state.failure.is_some() || (state.writer_ended && state.written == state.synced) {
                return SyncWork::End;
            }
            let age = state.unsynced_since.map(|since| since.elapsed());
            let unsynced = state.written > state.synced;
            let is_due = state.wanted > state.synced
                || state.writer_ended
                || age.is_some_and(|age| age >= SYNC_EVERY);
            if unsynced && is_due {
                return SyncWork::Sync(Arc::clone(&state.file), state.written, Instant::now());
            }
            let at_most = SYNC_EVERY.saturating_sub(age.unwrap_or_default());
            self.sync_work
                .wait_for(&mut state, at_most.max(Duration::from_millis(1)));
        }
    }

    /// The segments, by the numbers of their first records.
    pub(super) fn segments(&self) -> Vec<Lsn> {
        let state = self.state.lock();
        state.segments.iter().map(|(first, _)| *first).collect()
    }

    /// The oldest segment, if all its records are up to `through` and it is not written to.
    pub(super) fn oldest_through(&self, through: Lsn) -> Option<(Lsn, u64)> {
        let state = self.state.lock();
        let (oldest, next) = (state.segments.front()?, state.segments.get(1)?);
        (next.0 <= through + 1).then_some(*oldest)
    }

    /// The oldest segment was removed.
    pub(super) fn forget_oldest(&self, first: Lsn) {
        let mut state = self.state.lock();
        if state
            .segments
            .front()
            .is_some_and(|oldest| oldest.0 == first)
        {
            state.segments.pop_front();
        }
    }
}
