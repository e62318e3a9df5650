//! The threads that read cold blocks, a bounded number with a bounded queue.
//!
//! They are started as jobs come, and end when none has for a while: what a thread keeps for its next allocations pins
//! the pages that it lies in, which the allocator gives back only once the thread has ended.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use crate::{moment::Moment, page_faults::Missing};

/// Jobs that may wait; one more is refused.
const QUEUE_MAX: usize = 4096;
/// Readers call nothing deep, and a thread's stack counts against the memory limit.
const STACK_BYTES: usize = 512 * 1024;
/// A thread that had nothing to do for so long ends; the governor has the allocator give back after a longer rest.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(3);

/// A thread looks so often for its next job before it sleeps, where reads do not wait for the disk: what comes next
/// comes sooner than a thread that sleeps is awake. Between two looks it lets others run.
const LOOKS_BEFORE_SLEEP: u32 = 64;
/// The same where they do, of the last thread that has read: until its answer is followed by the next request the disk has
/// nothing to do, and it should not wait for a thread to wake up, too. Where others still read, what comes next finds a thread
/// awake soon, and the processors are of use to all.
const LOOKS_OF_LAST_READER: u32 = 200;

/// After so many reads in a row that did not wait for the disk, the next one is taken not to, either.
const CALM_READS: u32 = 64;

type Job = Box<dyn FnOnce() + Send>;

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolBusy;

/// Threads that wait for jobs. They end when the pool is dropped and the queue is empty.
#[derive(Debug)]
pub(crate) struct ReadPool {
    jobs: Sender<Job>,
    readers: Arc<Readers>,
    /// The threads that are of use for work that does not wait.
    cores: usize,
    /// When the last read waited for the disk.
    pub(crate) waited: Moment,
    /// Whether pages of indexes are.
    pub(crate) missing: Missing,
}

/// The threads that there are.
#[derive(Debug)]
struct Readers {
    queue: Receiver<Job>,
    threads_max: usize,
    running: AtomicUsize,
    /// Those of them that wait for a job.
    idle: AtomicUsize,
    idle_max: Duration,
    /// The last reads that did not wait, up to [`CALM_READS`].
    calm: AtomicU32,
}

impl Readers {
    /// Starts one more thread, if there may be one more.
    fn start(self: &Arc<Self>) -> io::Result<()> {
        let more = |running| (running < self.threads_max).then_some(running + 1);
        let Ok(number) = self.running.fetch_update(SeqCst, SeqCst, more) else {
            return Ok(());
        };
        let readers = Arc::clone(self);
        let started = thread::Builder::new()
            .name(format!("read-{number}"))
            .stack_size(STACK_BYTES)
            .spawn(move || readers.work());
        if started.is_err() {
            self.running.fetch_sub(1, SeqCst);
        }
        started.map(drop)
    }

    /// Starts one more thread if more jobs wait than threads do.
    fn start_if_short(self: &Arc<Self>) {
        if self.queue.len() > self.idle.load(SeqCst) {
            // If the system has no thread to give, those that run do the work.
            drop(self.start());
        }
    }

    fn work(&self) {
        loop {
            self.idle.fetch_add(1, SeqCst);
            let job = self.next_job();
            self.idle.fetch_sub(1, SeqCst);
            // IMPORTANT: whoever sent a job while this thread still counted as idle relies on it, so it looks once more.
            let job = match job {
                Err(RecvTimeoutError::Timeout) => self.queue.try_recv().ok(),
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(job) => Some(job),
            };
            match job {
                Some(job) => job(),
                None if self.may_leave() => return,
                None => {}
            }
        }
    }

    /// Waits for a job, for a while.
    fn next_job(&self) -> Result<Job, RecvTimeoutError> {
        for _ in 0..self.looks() {
            match self.queue.try_recv() {
                Err(TryRecvError::Empty) => thread::yield_now(),
                job => return job.map_err(|_ended| RecvTimeoutError::Disconnected),
            }
        }
        self.queue.recv_timeout(self.idle_max)
    }

    /// How often a thread that has nothing to do looks for a job before it sleeps.
    fn looks(&self) -> u32 {
        if self.is_calm() {
            LOOKS_BEFORE_SLEEP
        } else if self.idle.load(Relaxed) >= self.running.load(Relaxed) {
            LOOKS_OF_LAST_READER
        } else {
            0
        }
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Relaxed) >= CALM_READS
    }

    /// Takes a thread out of the count, if it is not the last one.
    fn may_leave(&self) -> bool {
        let less = |running: usize| (running > 1).then(|| running - 1);
        self.running.fetch_update(SeqCst, SeqCst, less).is_ok()
    }
}

impl ReadPool {
    /// A pool of at most `threads` threads, of which one always runs.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        Self::start_with(threads, IDLE_MAX)
    }

    fn start_with(threads: usize, idle_max: Duration) -> io::Result<Self> {
        let (jobs, queue) = bounded::<Job>(QUEUE_MAX);
        let readers = Arc::new(Readers {
            queue,
            threads_max: threads,
            running: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            idle_max,
            calm: AtomicU32::new(0),
        });
        readers.start()?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            jobs,
            readers,
            cores: cores.min(threads),
            waited: Moment::default(),
            missing: Missing::default(),
        })
    }

    /// How many jobs run at a time.
    pub(crate) fn threads(&self) -> usize {
        self.readers.threads_max
    }

    /// How many jobs get on with each other that wait for nothing.
    pub(crate) fn cores(&self) -> usize {
        self.cores
    }

    /// Whether reads do not wait for the disk these days.
    pub(crate) fn is_calm(&self) -> bool {
        self.readers.is_calm()
    }

    /// Reads did not wait.
    pub(crate) fn did_not_wait(&self, reads: u32) {
        // Two at the same time may count as one: this is an estimate.
        let calm = self.readers.calm.load(Relaxed);
        if calm < CALM_READS {
            self.readers.calm.store(calm.saturating_add(reads), Relaxed);
        }
    }

    /// A read waits.
    pub(crate) fn waits(&self) {
        self.readers.calm.store(0, Relaxed);
        self.waited.note();
    }

    /// Runs `job` on one of the threads.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), PoolBusy> {
        self.jobs
            .try_send(Box::new(job))
            .map_err(|error| match error {
                TrySendError::Full(_) | TrySendError::Disconnected(_) => PoolBusy,
            })?;
        self.readers.start_if_short();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Barrier, mpsc},
        time::Instant,
    };

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < DEADLINE, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn as_many_jobs_run_at_a_time_as_there_may_be_threads() {
        let pool = ReadPool::start(4).unwrap();
        let all_are_here = Arc::new(Barrier::new(5));
        for _ in 0..4 {
            let barrier = Arc::clone(&all_are_here);
            pool.submit(move || {
                barrier.wait();
            })
            .unwrap();
        }
        all_are_here.wait();
        assert_eq!(pool.readers.running.load(SeqCst), 4);
    }

    #[test]
    fn threads_end_when_idle_but_for_one_and_no_job_is_left_behind() {
        let pool = ReadPool::start_with(4, Duration::from_micros(50)).unwrap();
        let (done, jobs_done) = mpsc::channel();
        for number in 0..20_000 {
            if number == 10_000 {
                // From here on each of them looks for a job before it sleeps, not the last one alone.
                pool.did_not_wait(CALM_READS);
                assert!(pool.is_calm());
            }
            let done = done.clone();
            pool.submit(move || done.send(number).unwrap()).unwrap();
            // Threads leave all the while: each job is waited for by nobody else.
            let told = jobs_done.recv_timeout(DEADLINE);
            assert_eq!(told, Ok(number), "a job is left behind");
            if number % 16 == 0 {
                // So that some jobs come while threads look, some while they sleep, and some while they leave.
                thread::park_timeout(Duration::from_micros(number % 512));
            }
        }
        wait_until("threads stay", || pool.readers.running.load(SeqCst) == 1);
    }
}
