//! The part of a read that the hot map did not settle: a batch of lookups that several threads work through together,
//! in the page cache and from the disk.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use rhash_protocol::{
    Slot,
    limits::ANSWER_BYTES_TARGET,
    packed::{push_presence, push_slot},
};
use tokio::sync::oneshot;

use super::{
    Answer, PackedReply, Table, TableError, busy_error,
    lookup::{Found, Lookup, Reached},
    read::{Asked, Part, Question, SLOT_BYTES, allows},
};
use crate::{cold::direct, pool::PoolBusy, waiting};

/// Lookups of a batch on which the thread that asked works itself, a few microseconds each: others
/// wait behind it.
const AT_ONCE_MAX: usize = 128;

/// How often it looks whether its helpers are ready, each of which is at its last lookup: for less
/// time than being woken by them would take.
const LAST_SPINS_MAX: u32 = 200;

/// Lookups for which it calls nobody to help.
const ALONE_MAX: usize = 8;

/// Lookups of a worker whose first block is under way from the disk: two workers come to what keeps a
/// solid-state disk busy.
const UNDER_WAY_MAX: usize = 32;

/// Lookups whose indexes are begun to be fetched at once.
const FETCHED_AHEAD: usize = 64;

/// Of so many looks at a filter one tells the system that its page is in use: several do before the system comes round
/// to it.
const LOOKS_FOR_A_NOTE: u64 = 8;
/// The same where pages of indexes are missing, so that those that come stay.
const LOOKS_FOR_A_NOTE_MISSING: u64 = 2;

/// Of so many reads past the page cache one tells what of the index it used: they push nothing out, but what is written does.
const DIRECT_READS_FOR_A_NOTE: usize = 4;

/// The first value of a batch finds so much room, whatever the others took meanwhile: or it would
/// have to be fetched apart.
const FIRST_VALUE_BYTES: usize = 8 << 10;

/// A lookup whose block is under way from the disk.
#[derive(Debug, Clone, Copy)]
struct Begun {
    number: usize,
    reached: Reached,
    /// It comes past the page cache.
    is_direct: bool,
}

impl Begun {
    /// One of a thread that begins reads through the page cache alone.
    fn in_cache(number: usize, reached: Reached) -> Self {
        Self {
            number,
            reached,
            is_direct: false,
        }
    }
}

type Reply = oneshot::Sender<Result<PackedReply, TableError>>;

/// A batch of lookups that the pool's threads work through together, in order, each taking the
/// next one; whoever finishes last puts the answer together. It begins with as many threads as
/// there are cores. A read that is tried in the page cache alone and is not there is under way from
/// then on (Linux, since 5.10), so a worker tries some before it waits for the first of them, and one
/// thread keeps the disk busy. Whoever has to wait nevertheless calls another one first.
#[derive(Debug)]
pub(super) struct BatchRead {
    table: Arc<Table>,
    asked: Asked,
    found: Vec<OnceLock<Result<Found, TableError>>>,
    found_bytes: AtomicUsize,
    next: AtomicUsize,
    /// The lookups whose indexes are being fetched, or are likely to be there.
    fetched: AtomicUsize,
    /// Workers that have not left.
    workers: AtomicUsize,
    /// Workers that were called so far.
    called: AtomicUsize,
    /// Whether one of them waited for the disk.
    has_waited: AtomicBool,
    reply: Mutex<Option<Reply>>,
}

impl BatchRead {
    pub(super) fn start(table: &Arc<Table>, asked: Asked) -> Answer<PackedReply> {
        let (sender, mut receiver) = oneshot::channel();
        let pool = &table.shared.pool;
        let lookups = asked.lookups.len();
        // A few lookups cost the others little even if they come to wait: what they read is then under way before
        // the pool's thread is awake.
        let is_quick = lookups <= ALONE_MAX || lookups <= AT_ONCE_MAX && pool.is_calm();
        let begins_here =
            is_quick && asked.question == Question::Value && !pool.missing.is_likely();
        let helpers = match (begins_here, lookups) {
            (true, ..=ALONE_MAX) => 0,
            (true, _) => pool.cores().saturating_sub(1),
            (false, _) => lookups.min(pool.cores()),
        };
        let workers = helpers + usize::from(begins_here);
        let batch = Arc::new(Self {
            table: Arc::clone(table),
            found: asked.lookups.iter().map(|_| OnceLock::new()).collect(),
            asked,
            found_bytes: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            fetched: AtomicUsize::new(0),
            workers: AtomicUsize::new(workers),
            called: AtomicUsize::new(workers),
            has_waited: AtomicBool::new(false),
            reply: Mutex::new(Some(sender)),
        });
        for helper in 0..helpers {
            if batch.submit(None).is_err() {
                // Those that were taken on do the whole work; without any there is no answer.
                if helper == 0 && !begins_here {
                    return Answer::Ready(Err(busy_error()));
                }
                for _ in helper..helpers {
                    batch.leave();
                }
                break;
            }
        }
        if begins_here {
            pool.missing.watch(|| batch.work_at_once());
            for _ in 0..LAST_SPINS_MAX {
                if let Ok(answered) = receiver.try_recv() {
                    return Answer::Ready(answered);
                }
                if helpers == 0 {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        Answer::Pending(receiver)
    }

    /// Reads what lies in the system's page cache on the thread that asked, which saves switches of
    /// threads; what would wait for the disk goes to the pool. Says how many it looked for.
    fn work_at_once(self: &Arc<Self>) -> u32 {
        let mut looks = 0;
        while let Some((number, lookup)) = self.next_lookup() {
            looks += 1;
            let mut reached = Reached::default();
            let Some(found) = waiting::never(|| self.table.read_alone(lookup, &mut reached)) else {
                self.waits();
                self.workers.fetch_add(1, Relaxed);
                if self.submit(Some(Begun::in_cache(number, reached))).is_err() {
                    self.take(number, lookup, Err(busy_error()));
                    self.leave();
                }
                break;
            };
            if !self.take(number, lookup, found) {
                break;
            }
        }
        if !self.has_waited.load(Relaxed) {
            self.table.shared.pool.did_not_wait(looks);
        }
        self.leave();
        looks
    }

    /// Has the pool work on, with this lookup first.
    fn submit(self: &Arc<Self>, first: Option<Begun>) -> Result<(), PoolBusy> {
        let batch = Arc::clone(self);
        self.table.shared.pool.submit(move || {
            let told = Arc::clone(&batch);
            let tell = move || {
                told.waits();
                told.call_another();
            };
            let missing = &batch.table.shared.pool.missing;
            let work = || direct::within(|| batch.work(first));
            missing.watch(|| waiting::telling(Arc::new(tell), work));
        })
    }

    fn waits(&self) {
        self.has_waited.store(true, Relaxed);
        self.table.shared.pool.waits();
    }

    /// One more worker is of use, since the one that says so waits for the disk.
    fn call_another(self: &Arc<Self>) {
        let most = self
            .asked
            .lookups
            .len()
            .min(self.table.shared.pool.threads());
        if self.next.load(Relaxed) >= self.asked.lookups.len()
            || self.called.fetch_add(1, Relaxed) >= most
        {
            return;
        }
        // Whoever calls has not left, so that the last one cannot have gone meanwhile.
        self.workers.fetch_add(1, Relaxed);
        if self.submit(None).is_err() {
            self.leave();
        }
    }

    /// The next lookup that nobody has begun.
    fn next_lookup(&self) -> Option<(usize, &Lookup)> {
        let number = self.next.fetch_add(1, Relaxed);
        let lookup = self.asked.lookups.get(number)?;
        // An answer has at least one key, whoever comes to read it.
        if number > 0 && self.found_bytes.load(Relaxed) > ANSWER_BYTES_TARGET {
            return None;
        }
        #[cfg(test)]
        self.table
            .shared
            .hooks
            .reached(super::hooks::Point::BatchLooked);
        Some((number, lookup))
    }

    /// Tries lookups in the page cache until enough are under way from the disk, and waits for those
    /// in the order in which they began. Says how many it read.
    fn work(&self, first: Option<Begun>) -> u32 {
        let mut under_way: VecDeque<Begun> = first.into_iter().collect();
        let (mut goes_on, mut reads) = (true, 0);
        // So many at the front of those under way have said what of the index they used.
        let mut noted = 0;
        loop {
            let next = if goes_on && under_way.len() < UNDER_WAY_MAX {
                self.fetch_ahead();
                self.next_lookup()
            } else {
                None
            };
            let (number, lookup, found) = if let Some((number, lookup)) = next {
                let mut reached = Reached::default();
                let read = || self.read(lookup, &mut reached, false);
                let directs = direct::begun_count();
                let Some(found) = waiting::never(read) else {
                    self.waits();
                    under_way.push_back(Begun {
                        number,
                        reached,
                        is_direct: direct::begun_count() > directs,
                    });
                    continue;
                };
                (number, lookup, found)
            } else {
                // The disk works meanwhile, and this thread has nothing else to do.
                self.note_uses(under_way.range(noted..));
                noted = under_way.len().saturating_sub(1);
                let begun = under_way.pop_front();
                let begun =
                    begun.and_then(|begun| Some((begun, self.asked.lookups.get(begun.number)?)));
                let Some((mut begun, lookup)) = begun else {
                    break;
                };
                let found = self.read(lookup, &mut begun.reached, true);
                (begun.number, lookup, found)
            };
            reads += 1;
            // What is under way is read in any case: the first of all may be among it.
            goes_on &= self.take(number, lookup, found);
        }
        if !self.has_waited.load(Relaxed) {
            self.table.shared.pool.did_not_wait(reads);
        }
        self.leave();
        reads
    }

    /// For each block that the page cache takes in, the index was of use: so it stays while there is room for both; and now
    /// and then for the others.
    fn note_uses<'a>(&self, begun: impl Iterator<Item = &'a Begun>) {
        let (looks_for_a_note, reads_for_a_note) = match self.table.shared.pool.missing.is_likely()
        {
            true => (LOOKS_FOR_A_NOTE_MISSING, 1),
            false => (LOOKS_FOR_A_NOTE, DIRECT_READS_FOR_A_NOTE),
        };
        let is_noted =
            |begun: &&Begun| !begun.is_direct || begun.number.is_multiple_of(reads_for_a_note);
        for begun in begun.filter(is_noted) {
            if let Some(lookup) = self.asked.lookups.get(begun.number) {
                lookup.note_use(begun.reached, looks_for_a_note);
            }
        }
    }

    /// Begins to fetch the indexes that the next lookups need, where pages of them are likely to be missing.
    fn fetch_ahead(&self) {
        let (begun, next) = (self.fetched.load(Relaxed), self.next.load(Relaxed));
        let is_near = next + FETCHED_AHEAD / 2 >= begun;
        if !is_near || begun >= self.found.len() || !self.table.shared.pool.missing.is_likely() {
            return;
        }
        let from = begun.max(next);
        let end = from + FETCHED_AHEAD;
        let claimed = self.fetched.compare_exchange(begun, end, Relaxed, Relaxed);
        if claimed.is_ok() {
            let lookups = self.asked.lookups.iter().skip(from);
            lookups.take(FETCHED_AHEAD).for_each(Lookup::begin_to_fetch);
        }
    }

    /// Reads what is asked of a key; together with others who wait for the same.
    fn read(
        &self,
        lookup: &Lookup,
        reached: &mut Reached,
        waits: bool,
    ) -> Result<Found, TableError> {
        match self.asked.question {
            Question::Value if waits => self.table.read_shared(lookup, reached),
            Question::Value => self.table.read_alone(lookup, reached),
            Question::Presence => self.table.has(lookup).map(|has| {
                if has {
                    Found::Value(Vec::new())
                } else {
                    Found::Absent
                }
            }),
        }
    }

    /// Takes what was found of a key into the answer; says whether others may follow it.
    fn take(&self, number: usize, lookup: &Lookup, mut found: Result<Found, TableError>) -> bool {
        if let Ok(known) = &found
            && self.asked.question == Question::Value
        {
            self.table.maybe_promote(lookup, known);
        }
        if let Ok(Found::Value(value)) = &found {
            let value_bytes = value.len();
            if !self.has_room(number, value_bytes) {
                if number > 0 {
                    return false;
                }
                found = Ok(Found::Longer(value_bytes as u64));
            }
        }
        if let Some(slot) = self.found.get(number) {
            // Each number is taken once, so the slot is empty.
            drop(slot.set(found));
        }
        true
    }

    /// Counts a value that was found, if the answer may be as long as it makes it.
    fn has_room(&self, number: usize, value_bytes: usize) -> bool {
        // Without the first one there is no answer, however far the others are.
        let first_is_there = self
            .found
            .first()
            .is_some_and(|first| first.get().is_some());
        let kept_bytes = if number == 0 || first_is_there {
            0
        } else {
            FIRST_VALUE_BYTES
        };
        let before = self.found_bytes.fetch_add(value_bytes, Relaxed);
        let answer_bytes = self.asked.packed.len() + before + value_bytes + SLOT_BYTES;
        let fits = allows(&*self.asked.allowance, answer_bytes + kept_bytes);
        if !fits {
            self.found_bytes.fetch_sub(value_bytes, Relaxed);
        }
        fits
    }

    /// The last to leave sends the answer.
    fn leave(&self) {
        // The atomic's order makes what the others found visible here.
        if self
            .workers
            .fetch_sub(1, std::sync::atomic::Ordering::AcqRel)
            != 1
        {
            return;
        }
        if let Some(reply) = self.reply.lock().take() {
            // Nobody may wait any more, which is no failure.
            drop(reply.send(self.answer()));
        }
    }

    fn answer(&self) -> Result<PackedReply, TableError> {
        let mut reply = PackedReply::default();
        // Made to measure, since a buffer that doubles takes up to three times that meanwhile.
        let slots_bytes = self.asked.parts.len() * SLOT_BYTES;
        let found_bytes = self.found_bytes.load(Relaxed);
        let bytes = self.asked.packed.len() + found_bytes + slots_bytes;
        reply.bytes.reserve_exact(bytes);
        let mut packed_from = 0;
        for part in &self.asked.parts {
            match part {
                Part::Packed(end) => {
                    reply
                        .bytes
                        .extend_from_slice(&self.asked.packed[packed_from..*end]);
                    packed_from = *end;
                }
                Part::Lookup(number) => match self.found.get(*number).and_then(OnceLock::get) {
                    // The answer grew long before this one was read.
                    None => break,
                    Some(Err(error)) => return Err(error.clone()),
                    Some(Ok(found)) if self.asked.question == Question::Presence => {
                        push_presence(&mut reply.bytes, *found != Found::Absent);
                    }
                    Some(Ok(Found::Absent)) => push_slot(&mut reply.bytes, &Slot::Absent),
                    Some(Ok(Found::Value(value))) => {
                        push_slot(&mut reply.bytes, &Slot::Value(value))
                    }
                    Some(Ok(Found::Longer(bytes))) => {
                        push_slot(&mut reply.bytes, &Slot::Large(*bytes))
                    }
                },
            }
            reply.count += 1;
        }
        Ok(reply)
    }
}
