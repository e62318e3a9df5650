//! What a process uses: memory sampled all the time, CPU time and bytes written over an interval.

use std::{
    fs,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::Result;

/// Memory is looked at this often.
const SAMPLE: Duration = Duration::from_millis(20);

/// Ticks of CPU time a second, as Linux tells them on every machine of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process used over an interval.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Usage {
    /// The most `RssAnon + RssShmem` of all samples.
    pub memory_bytes_max: u64,
    /// The last sample of it.
    pub memory_bytes_end: u64,
    /// CPU time, all threads, user and system.
    pub cpu_seconds: f64,
    /// Bytes that went towards the disk.
    pub written_bytes: u64,
    /// Bytes that came from the disk.
    pub read_bytes: u64,
    /// How long it was.
    pub seconds: f64,
}

#[derive(Debug, Clone, Copy)]
struct Totals {
    cpu_seconds: f64,
    written_bytes: u64,
    read_bytes: u64,
}

/// Watches a process from when this is made until it is asked.
#[derive(Debug)]
pub struct Meter {
    id: u32,
    begin: Instant,
    before: Totals,
    stop: mpsc::Sender<()>,
    sampler: thread::JoinHandle<(u64, u64)>,
}

impl Meter {
    /// Begins to watch.
    ///
    /// # Errors
    /// There is no such process.
    pub fn start(id: u32) -> Result<Self> {
        let before = totals(id)?;
        let (stop, stopped) = mpsc::channel();
        let sampler = thread::spawn(move || {
            let (mut most, mut last) = (0, 0);
            loop {
                if let Ok(bytes) = memory_bytes(id) {
                    last = bytes;
                    most = most.max(bytes);
                }
                if stopped.recv_timeout(SAMPLE) != Err(RecvTimeoutError::Timeout) {
                    return (most, last);
                }
            }
        });
        Ok(Self {
            id,
            begin: Instant::now(),
            before,
            stop,
            sampler,
        })
    }

    /// Ends the watch, before the process is waited for.
    ///
    /// # Errors
    /// There is no such process any more.
    pub fn stop(self) -> Result<Usage> {
        let seconds = self.begin.elapsed().as_secs_f64();
        let after = totals(self.id)?;
        drop(self.stop);
        let sampled = self.sampler.join();
        let (memory_bytes_max, _) = sampled.map_err(|_panic| "the sampler ended in a bug")?;
        // One that ended and was not waited for has figures still, but no memory.
        let memory_bytes_end = memory_bytes(self.id)?;
        Ok(Usage {
            memory_bytes_max: memory_bytes_max.max(memory_bytes_end),
            memory_bytes_end,
            cpu_seconds: after.cpu_seconds - self.before.cpu_seconds,
            written_bytes: after.written_bytes - self.before.written_bytes,
            read_bytes: after.read_bytes - self.before.read_bytes,
            seconds,
        })
    }
}

impl Usage {
    /// The memory that a process holds for itself now, `RssAnon + RssShmem`.
    ///
    /// # Errors
    /// There is no such process.
    pub fn memory_now(id: u32) -> Result<u64> {
        memory_bytes(id)
    }
}

fn memory_bytes(id: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    Ok(field(&status, "RssAnon:") * 1024 + field(&status, "RssShmem:") * 1024)
}

fn totals(id: u32) -> Result<Totals> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The program's name, in parentheses, may hold anything; what counts comes after it.
    let (_, rest) = stat.rsplit_once(')').ok_or("no stat of the process")?;
    let ticks: u64 = rest
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    let io = fs::read_to_string(format!("/proc/{id}/io"))?;
    Ok(Totals {
        cpu_seconds: ticks as f64 / TICKS_PER_SECOND,
        written_bytes: field(&io, "write_bytes:"),
        read_bytes: field(&io, "read_bytes:"),
    })
}

/// The number behind a name, 0 if there is none.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_and_time_of_this_process_are_seen() {
        let meter = Meter::start(std::process::id()).unwrap();
        let memory = vec![1_u8; 32 << 20];
        let begin = Instant::now();
        let mut sum = 0_u64;
        while begin.elapsed() < Duration::from_millis(100) {
            sum += memory.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        }
        let usage = meter.stop().unwrap();
        assert!(sum > 0);
        assert!(usage.memory_bytes_max >= 32 << 20, "{usage:?}");
        assert!(usage.cpu_seconds > 0.0 && usage.seconds >= 0.1, "{usage:?}");
    }

    #[test]
    fn a_field_is_found_at_the_start_of_its_line() {
        let text = "RssFile: 7 kB\nRssAnon:\t 12 kB\n";
        assert_eq!(field(text, "RssAnon:"), 12);
        assert_eq!(field(text, "RssShmem:"), 0);
    }
}
