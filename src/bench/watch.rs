//! Looks at a server again and again while it is measured: its memory and its disk over time.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rhash_client::{Stats, blocking::Client};
use serde::Serialize;
use std::sync::Mutex;

use crate::failure::Outcome;

/// How often the server is asked.
const EVERY: Duration = Duration::from_millis(100);

/// The most samples that are kept; then each two neighbours become one.
const SAMPLES_MAX: usize = 2000;

/// What a server took at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Since the round began.
    pub(crate) seconds: f64,
    pub(crate) memory_bytes: u64,
    pub(crate) disk_bytes: u64,
}

/// The most that was seen of memory and disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peak {
    pub(crate) memory_bytes: u64,
    pub(crate) disk_bytes: u64,
}

/// Samples in bounded space, peaks never lost.
#[derive(Debug)]
struct Samples {
    all: Vec<Sample>,
    /// How many samples one of `all` stands for.
    joined: usize,
    last: Sample,
    last_count: usize,
    peak: Peak,
}

/// A thread with a connection of its own that looks at a server until it is told to stop.
#[derive(Debug)]
pub(crate) struct Watch {
    began: Instant,
    samples: Arc<Mutex<Samples>>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(crate) fn start(address: &str) -> Outcome<Self> {
        let client = Client::builder()
            .client_name("rhash bench, watching")
            .connect(address)?;
        let samples = Arc::new(Mutex::new(Samples::default()));
        let began = Instant::now();
        let (stop, stopped) = mpsc::sync_channel(0);
        let thread = {
            let samples = Arc::clone(&samples);
            thread::spawn(move || {
                while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    // A server that is gone is told by the work, which fails too.
                    let Ok(stats) = client.stats() else { return };
                    lock(&samples).add(sample(began, &stats));
                }
            })
        };
        Ok(Self {
            began,
            samples,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The time since it began.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Forgets the peak; figures that somebody else asked for count from now on.
    pub(crate) fn begin(&self, stats: &Stats) {
        let mut samples = lock(&self.samples);
        samples.peak = Peak::default();
        samples.add(sample(self.began, stats));
    }

    /// The peak since it was forgotten, these figures included.
    pub(crate) fn end(&self, stats: &Stats) -> Peak {
        let mut samples = lock(&self.samples);
        samples.add(sample(self.began, stats));
        samples.peak
    }

    /// Stops, and returns all samples.
    pub(crate) fn finish(mut self) -> Vec<Sample> {
        self.stop();
        let mut samples = lock(&self.samples);
        samples.close();
        std::mem::take(&mut samples.all)
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told so itself.
            let _ended = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

fn sample(began: Instant, stats: &Stats) -> Sample {
    Sample {
        seconds: began.elapsed().as_secs_f64(),
        memory_bytes: stats.resident_bytes,
        disk_bytes: stats.disk_bytes,
    }
}

/// Whoever panicked while holding it had only added a sample.
fn lock(samples: &Mutex<Samples>) -> std::sync::MutexGuard<'_, Samples> {
    samples
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            joined: 1,
            last: Sample::default(),
            last_count: 0,
            peak: Peak::default(),
        }
    }
}

impl Samples {
    fn add(&mut self, sample: Sample) {
        self.peak.memory_bytes = self.peak.memory_bytes.max(sample.memory_bytes);
        self.peak.disk_bytes = self.peak.disk_bytes.max(sample.disk_bytes);
        self.last = join(self.last, sample);
        self.last_count += 1;
        if self.last_count >= self.joined {
            self.close();
        }
        if self.all.len() >= SAMPLES_MAX {
            let halved = self.all.chunks(2).map(|pair| match *pair {
                [left, right] => join(left, right),
                _ => pair[0],
            });
            self.all = halved.collect();
            self.joined *= 2;
        }
    }

    fn close(&mut self) {
        if self.last_count > 0 {
            self.all.push(std::mem::take(&mut self.last));
            self.last_count = 0;
        }
    }
}

/// One sample for two: the later time, the larger figures.
fn join(left: Sample, right: Sample) -> Sample {
    Sample {
        seconds: right.seconds,
        memory_bytes: left.memory_bytes.max(right.memory_bytes),
        disk_bytes: left.disk_bytes.max(right.disk_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_bounded_and_keep_peaks_and_order() {
        let mut samples = Samples::default();
        for at in 0..SAMPLES_MAX * 5 {
            samples.add(Sample {
                seconds: at as f64,
                memory_bytes: if at == 1234 { 99 } else { 1 },
                disk_bytes: 2,
            });
        }
        samples.close();
        assert!(samples.all.len() <= SAMPLES_MAX, "{}", samples.all.len());
        assert!(samples.all.len() > SAMPLES_MAX / 4);
        assert!(
            samples
                .all
                .windows(2)
                .all(|pair| pair[0].seconds < pair[1].seconds)
        );
        assert_eq!(
            samples.all.iter().map(|sample| sample.memory_bytes).max(),
            Some(99)
        );
        assert_eq!(samples.peak.memory_bytes, 99);
    }
}
