//! The threads that read cold blocks, a bounded number with a bounded queue.

use std::{io, thread};

use crossbeam_channel::{Sender, TrySendError, bounded};

/// Jobs that may wait; one more is refused.
const QUEUE_MAX: usize = 4096;
/// Readers call nothing deep, and a thread's stack counts against the memory limit.
const STACK_BYTES: usize = 512 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolBusy;

/// Threads that wait for jobs. They end when the pool is dropped and the queue is empty.
#[derive(Debug)]
pub(crate) struct ReadPool {
    jobs: Sender<Job>,
    threads: usize,
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
        Ok(Self { jobs, threads })
    }

    /// How many jobs run at a time.
    pub(crate) fn threads(&self) -> usize {
        self.threads
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
