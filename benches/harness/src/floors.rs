//! What the machine itself can do: no store is faster than these.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{Latencies, Result};

/// The file that is read and written.
const FILE_BYTES: u64 = 512 << 20;
const FILE_BYTES_QUICK: u64 = 64 << 20;
/// How long each floor is measured.
const SPAN: Duration = Duration::from_secs(1);
const SPAN_QUICK: Duration = Duration::from_millis(200);
/// What a random read takes, and what it is aligned to.
const BLOCK_BYTES: usize = 4096;
const PART_BYTES: usize = 1 << 20;
/// Reads under way at the same time, in the second measurement.
pub(crate) const DEPTH: usize = 16;

/// Measured limits of disk, loopback and fdatasync.
#[derive(Debug, Clone, Serialize)]
pub struct Floors {
    /// Random reads of 4 KiB past the page cache, one after the other, a second.
    pub disk_reads_depth_1: f64,
    /// Sixteen at a time.
    pub disk_reads_depth_16: f64,
    /// Sequential reads past the page cache, bytes a second.
    pub disk_read_bytes_per_second: f64,
    /// Sequential writes, synced at the end, bytes a second.
    pub disk_write_bytes_per_second: f64,
    /// A byte there and back over TCP on this host, median, microseconds.
    pub loopback_us: f64,
    /// Appending 4 KiB and making it safe, median, microseconds.
    pub fdatasync_us: f64,
}

impl Floors {
    /// Measures, in this directory.
    ///
    /// # Errors
    /// Its disk cannot be read past the page cache, or is full.
    pub fn measure(directory: &Path, quick: bool) -> Result<Self> {
        let (bytes, span) = amounts(quick);
        let path = directory.join("floors");
        let measured = Self::measure_in(&path, bytes, span);
        drop(std::fs::remove_file(&path));
        measured
    }

    fn measure_in(path: &Path, bytes: u64, span: Duration) -> Result<Self> {
        let disk_write_bytes_per_second = write(path, bytes)?;
        let disk = Disk::of(path, bytes, span)?;
        Ok(Self {
            disk_reads_depth_1: disk.reads(1)?,
            disk_reads_depth_16: disk.reads(DEPTH)?,
            disk_read_bytes_per_second: read(&disk.file, bytes)?,
            disk_write_bytes_per_second,
            loopback_us: loopback(span)?,
            fdatasync_us: fdatasync(path, span)?,
        })
    }

    /// One line of it.
    pub fn line(&self) -> String {
        let mib = f64::from(1 << 20);
        format!(
            "random 4 KiB reads {:.1} k/s at depth 1, {:.1} k/s at 16; sequential {:.0} MiB/s read, {:.0} MiB/s written; \
             loopback {:.0} µs; fdatasync {:.0} µs",
            self.disk_reads_depth_1 / 1e3,
            self.disk_reads_depth_16 / 1e3,
            self.disk_read_bytes_per_second / mib,
            self.disk_write_bytes_per_second / mib,
            self.loopback_us,
            self.fdatasync_us
        )
    }
}

/// What random reads from the disk take, to be measured again and again beside what is made of them: the disk of a
/// machine that others share is twice as fast in one minute as in the next.
#[derive(Debug)]
pub struct Disk {
    file: File,
    bytes: u64,
    span: Duration,
}

impl Disk {
    /// Writes a file into this directory, which is gone with what is returned.
    ///
    /// # Errors
    /// The disk cannot be read past the page cache, or is full.
    pub fn prepare(directory: &Path, quick: bool) -> Result<Self> {
        let (bytes, span) = amounts(quick);
        let path = directory.join("floor");
        write(&path, bytes)?;
        let disk = Self::of(&path, bytes, span);
        std::fs::remove_file(&path)?;
        disk
    }

    fn of(path: &Path, bytes: u64, span: Duration) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { file, bytes, span })
    }

    /// Random reads of 4 KiB a second, sixteen at a time.
    ///
    /// # Errors
    /// A read fails.
    pub fn reads_now(&self) -> Result<f64> {
        self.reads(DEPTH)
    }

    /// Microseconds that a random read of 4 KiB takes by itself and a byte there and back over TCP on this host, medians.
    ///
    /// # Errors
    /// A read fails, or there is no loopback.
    pub fn read_and_round_trip_us(&self) -> Result<f64> {
        let mut random = fastrand::Rng::new();
        let mut buffer = Aligned::new(BLOCK_BYTES);
        let mut latencies = Latencies::default();
        let begin = Instant::now();
        while begin.elapsed() < self.span / 2 {
            latencies.time(|| self.read_block(&mut buffer, &mut random))?;
        }
        Ok(latencies.quantile_us(0.5) + loopback(self.span / 2)?)
    }

    fn reads(&self, depth: usize) -> Result<f64> {
        let over = AtomicBool::new(false);
        let begin = Instant::now();
        let reads = thread::scope(|scope| {
            let reader = |seed| {
                let over = &over;
                move || -> Result<u64> {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut buffer = Aligned::new(BLOCK_BYTES);
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        self.read_block(&mut buffer, &mut random)?;
                        count += 1;
                    }
                    Ok(count)
                }
            };
            let readers: Vec<_> = (0..depth as u64)
                .map(|seed| scope.spawn(reader(seed)))
                .collect();
            // A thread may wake before its time.
            while begin.elapsed() < self.span {
                thread::park_timeout(self.span.saturating_sub(begin.elapsed()));
            }
            over.store(true, Ordering::Relaxed);
            let counts = readers.into_iter().map(|reader| reader.join());
            counts
                .map(|count| count.unwrap_or_else(|_panic| Err("a reader ended in a bug".into())))
                .sum::<Result<u64>>()
        })?;
        Ok(reads as f64 / begin.elapsed().as_secs_f64())
    }

    fn read_block(&self, buffer: &mut Aligned, random: &mut fastrand::Rng) -> std::io::Result<()> {
        let block = random.u64(0..self.bytes / BLOCK_BYTES as u64);
        self.file
            .read_exact_at(buffer.bytes(), block * BLOCK_BYTES as u64)
    }
}

/// The length of the file, and how long each floor is measured.
fn amounts(quick: bool) -> (u64, Duration) {
    if quick {
        (FILE_BYTES_QUICK, SPAN_QUICK)
    } else {
        (FILE_BYTES, SPAN)
    }
}

fn write(path: &Path, bytes: u64) -> Result<f64> {
    let mut part = vec![0_u8; PART_BYTES];
    fastrand::Rng::with_seed(1).fill(&mut part);
    let begin = Instant::now();
    let mut file = File::create(path)?;
    for _ in 0..bytes / PART_BYTES as u64 {
        file.write_all(&part)?;
    }
    file.sync_all()?;
    Ok(bytes as f64 / begin.elapsed().as_secs_f64())
}

fn read(file: &File, bytes: u64) -> Result<f64> {
    let mut buffer = Aligned::new(PART_BYTES);
    let begin = Instant::now();
    for part in 0..bytes / PART_BYTES as u64 {
        file.read_exact_at(buffer.bytes(), part * PART_BYTES as u64)?;
    }
    Ok(bytes as f64 / begin.elapsed().as_secs_f64())
}

fn loopback(span: Duration) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = thread::spawn(move || {
        let mut byte = [0_u8; 1];
        while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
    });
    let mut latencies = Latencies::default();
    let begin = Instant::now();
    while begin.elapsed() < span {
        let mut byte = [7_u8; 1];
        latencies.time(|| {
            near.write_all(&byte)
                .and_then(|()| near.read_exact(&mut byte))
        })?;
    }
    drop(near);
    echo.join().map_err(|_panic| "the echo ended in a bug")?;
    Ok(latencies.quantile_us(0.5))
}

fn fdatasync(path: &Path, span: Duration) -> Result<f64> {
    let mut file = File::create(path)?;
    let block = vec![7_u8; BLOCK_BYTES];
    let mut latencies = Latencies::default();
    let begin = Instant::now();
    while begin.elapsed() < span {
        latencies.time(|| file.write_all(&block).and_then(|()| file.sync_data()))?;
    }
    Ok(latencies.quantile_us(0.5))
}

/// A buffer whose place in memory is a multiple of a block, as reads past the page cache need it.
struct Aligned {
    memory: Vec<u8>,
    begin: usize,
    bytes: usize,
}

impl Aligned {
    fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + BLOCK_BYTES];
        let begin = memory.as_ptr().align_offset(BLOCK_BYTES);
        Self {
            memory,
            begin,
            bytes,
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.begin..self.begin + self.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_whole() {
        for _ in 0..8 {
            let mut buffer = Aligned::new(BLOCK_BYTES);
            assert_eq!(buffer.bytes().as_ptr() as usize % BLOCK_BYTES, 0);
            assert_eq!(buffer.bytes().len(), BLOCK_BYTES);
        }
    }

    #[test]
    fn a_round_trip_takes_time() {
        assert!(loopback(Duration::from_millis(20)).unwrap() > 0.0);
    }
}
