//! Who drives a blocking client: its own thread, or the thread that waits for an answer.
//!
//! A call that hands its work to another thread and is woken with the answer pays for two switches of
//! threads, which take about as long as the rest of a round trip. So a thread that asks one short
//! question after the other drives the client itself while it waits: it writes its request and reads
//! the answer. The client's own thread stands back meanwhile, and takes over when the questions end,
//! when several threads ask at the same time, or when a call comes that lasts.
//!
//! Inside of another runtime a thread must not drive; there all calls are handed over, and their
//! callers wait on a plain channel.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, mpsc},
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::{
    runtime::{Handle, Runtime},
    sync::{Notify, oneshot},
};

use crate::{
    client::Client,
    error::{Error, ErrorKind, Result},
    pipeline,
};

/// Questions that follow each other faster than this are driven by who asks; without any for so long,
/// or twice that, the client's thread takes over.
const PAUSE: Duration = Duration::from_millis(1);

/// Drives a client until the last owner is gone; then flushes, and ends.
#[derive(Debug)]
pub(super) struct Driver {
    /// None while it is dropped: a runtime must end on its own thread.
    wheel: Option<Arc<Wheel>>,
    /// Gives the thread the client that it flushes before it ends.
    stop: Option<oneshot::Sender<Client>>,
    thread: Option<thread::JoinHandle<()>>,
    client: Option<Client>,
}

/// The runtime, and whose turn it is to drive it.
#[derive(Debug)]
struct Wheel {
    runtime: Runtime,
    turn: Mutex<Turn>,
    /// Wakes the thread where it stands back, so that it drives.
    wanted: Condvar,
    /// Asks the thread to stand back.
    in_the_way: Notify,
}

#[derive(Debug)]
struct Turn {
    /// Whether the thread drives, or is about to.
    is_threads: bool,
    /// Callers that drive, or wait until they can.
    asking: usize,
    /// Callers whose work was handed over.
    handed_over: usize,
    /// Questions so far, and when the last one was answered.
    questions: u64,
    answered_last: Option<Instant>,
    is_stopped: bool,
}

impl Driver {
    /// Starts the thread and connects on it.
    pub(super) fn start(
        connect: impl Future<Output = Result<Client>> + Send + 'static,
    ) -> Result<(Self, Client)> {
        let failed = |error: std::io::Error| {
            Error::with_source(
                ErrorKind::Usage,
                format!("cannot start a thread: {error}"),
                error,
            )
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let wheel = Arc::new(Wheel {
            runtime,
            turn: Mutex::new(Turn {
                is_threads: true,
                asking: 0,
                handed_over: 0,
                questions: 0,
                answered_last: None,
                is_stopped: false,
            }),
            wanted: Condvar::new(),
            in_the_way: Notify::new(),
        });
        let (stop, stopped) = oneshot::channel::<Client>();
        let own = Arc::clone(&wheel);
        let thread = thread::Builder::new()
            .name("rhash-client".to_owned())
            .spawn(move || own.run(stopped))
            .map_err(failed)?;
        let mut driver = Self {
            wheel: Some(wheel),
            stop: Some(stop),
            thread: Some(thread),
            client: None,
        };
        let client = driver.run(connect)?;
        driver.client = Some(client.clone());
        Ok((driver, client))
    }

    /// Waits for the answer to a short question; drives meanwhile, if that is better.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        if Handle::try_current().is_ok() {
            return self.run(future);
        }
        let wheel = self.wheel()?;
        let _asking = Asking::begin(wheel);
        wheel.runtime.block_on(async {
            let mut future = pin!(future);
            let first = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
            match first {
                Poll::Pending => future.await,
                // IMPORTANT: an answer that is there at once drives nothing, and questions that follow each
                // other quickly would keep the client from ever flushing or connecting again.
                Poll::Ready(answer) => {
                    tokio::task::yield_now().await;
                    answer
                }
            }
        })
    }

    /// Runs a future on the client's thread and waits for it.
    pub(super) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.wait(future)?
    }

    /// Like [`run`](Self::run), for futures whose output is no result.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let wheel = self.wheel()?;
        let _handed_over = HandedOver::begin(wheel);
        let (sender, receiver) = mpsc::sync_channel(1);
        drop(wheel.runtime.spawn(async move {
            // The caller waits for as long as this future lives.
            drop(sender.send(future.await));
        }));
        receiver.recv().map_err(|_ended| pipeline::shut_down())
    }

    fn wheel(&self) -> Result<&Wheel> {
        self.wheel.as_deref().ok_or_else(pipeline::shut_down)
    }
}

impl Wheel {
    /// What the client's thread does, until it is stopped.
    fn run(&self, mut stopped: oneshot::Receiver<Client>) {
        loop {
            let stopped = self.runtime.block_on(async {
                tokio::select! {
                    client = &mut stopped => Some(client.ok()),
                    () = self.in_the_way.notified() => None,
                }
            });
            match stopped {
                Some(client) => {
                    if let Some(client) = client
                        && let Err(error) = self.runtime.block_on(client.shutdown())
                    {
                        tracing::error!(%error, "cached writes were lost");
                    }
                    return;
                }
                None => self.stand_back(),
            }
        }
    }

    /// Waits until it is the thread's turn.
    fn stand_back(&self) {
        let mut turn = self.turn.lock();
        let mut seen = turn.questions;
        while !turn.is_threads && turn.handed_over == 0 && !turn.is_stopped {
            let timed_out = self.wanted.wait_for(&mut turn, PAUSE).timed_out();
            if timed_out && turn.asking == 0 && turn.questions == seen {
                break;
            }
            seen = turn.questions;
        }
        turn.is_threads = true;
    }

    /// Makes it the thread's turn.
    fn call_thread(&self, turn: &mut Turn) {
        if !turn.is_threads {
            turn.is_threads = true;
            self.wanted.notify_one();
        }
    }
}

/// A question under way.
struct Asking<'a> {
    wheel: &'a Wheel,
}

impl<'a> Asking<'a> {
    fn begin(wheel: &'a Wheel) -> Self {
        let mut turn = wheel.turn.lock();
        turn.asking += 1;
        turn.questions += 1;
        if turn.asking > 1 {
            // Whoever drove would leave the others without a driver at each of its answers.
            wheel.call_thread(&mut turn);
        } else if turn.is_threads
            && turn.handed_over == 0
            && turn
                .answered_last
                .is_some_and(|answered| answered.elapsed() < PAUSE)
        {
            turn.is_threads = false;
            drop(turn);
            wheel.in_the_way.notify_one();
        }
        Self { wheel }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut turn = self.wheel.turn.lock();
        turn.asking -= 1;
        turn.answered_last = Some(Instant::now());
    }
}

/// Work that was handed over.
struct HandedOver<'a> {
    wheel: &'a Wheel,
}

impl<'a> HandedOver<'a> {
    fn begin(wheel: &'a Wheel) -> Self {
        let mut turn = wheel.turn.lock();
        turn.handed_over += 1;
        wheel.call_thread(&mut turn);
        drop(turn);
        Self { wheel }
    }
}

impl Drop for HandedOver<'_> {
    fn drop(&mut self) {
        self.wheel.turn.lock().handed_over -= 1;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(wheel) = self.wheel.take() {
            let mut turn = wheel.turn.lock();
            turn.is_stopped = true;
            wheel.call_thread(&mut turn);
        }
        if let (Some(stop), Some(client)) = (self.stop.take(), self.client.take()) {
            // A thread that ended has nothing to flush.
            drop(stop.send(client));
        }
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the client's thread panicked");
        }
    }
}
