//! The threads that read cold blocks, a bounded number with a bounded queue.

use std::{
    io,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
};

use crossbeam_channel::{Sender, TrySendError, bounded};

use crate::{moment::Moment, page_faults::Missing};

/// Jobs that may wait; one more is refused.
const QUEUE_MAX: usize = 4096;
/// Readers call nothing deep, and a thread's stack counts against the memory limit.
const STACK_BYTES: usize = 512 * 1024;

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
    threads: usize,
    /// The threads that are of use for work that does not wait.
    cores: usize,
    /// The last reads that did not wait, up to [`CALM_READS`].
    calm: AtomicU32,
    /// When the last read waited for the disk.
    pub(crate) waited: Moment,
    /// Whether pages of indexes are.
    pub(crate) missing: Missing,
}

impl ReadPool {
    /// Starts `threads` threads.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let (jobs, queue) = bounded::<Job>(QUEUE_MAX);
        for number in 0..threads {
            let queue = queue.clone();
            thread::Builder::new()
                .name(format!("read-{number}"))
                .stack_size(STACK_BYTES)
                .spawn(move || queue.iter().for_each(|job| job()))?;
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            jobs,
            threads,
            cores: cores.min(threads),
            calm: AtomicU32::new(0),
            waited: Moment::default(),
            missing: Missing::default(),
        })
    }

    /// How many jobs run at a time.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// How many jobs get on with each other that wait for nothing.
    pub(crate) fn cores(&self) -> usize {
        self.cores
    }

    /// Whether reads do not wait for the disk these days.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Relaxed) >= CALM_READS
    }

    /// Reads did not wait.
    pub(crate) fn did_not_wait(&self, reads: u32) {
        // Two at the same time may count as one: this is an estimate.
        let calm = self.calm.load(Relaxed);
        if calm < CALM_READS {
            self.calm.store(calm.saturating_add(reads), Relaxed);
        }
    }

    /// A read waits.
    pub(crate) fn waits(&self) {
        self.calm.store(0, Relaxed);
        self.waited.note();
    }

    /// Runs `job` on one of the threads.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), PoolBusy> {
        self.jobs
            .try_send(Box::new(job))
            .map_err(|error| match error {
                TrySendError::Full(_) | TrySendError::Disconnected(_) => PoolBusy,
            })
    }
}
