//! Entries of 16 + 100 bytes: loaded, asked for in batches and one by one, scanned, freed.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use rhash_harness::{
    Latencies, Meter, Place, Report, Result, Unit, Usage, say,
    workload::{Entries, KEY_BYTES, Pick, VALUE_BYTES},
};

use crate::{
    options::Peers,
    stores::{Connection, Kind, Side, Store},
};

/// Keys of a batch of gets.
const BATCH_KEYS: usize = 100;
/// Clients at the same time.
const CONNECTIONS: [usize; 3] = [1, 4, 16];

const LOAD: &str = "load";
const BATCHES: &str = "batches";
const SINGLES: &str = "singles";
const SCAN: &str = "scan";

/// Lets all sides take the entries, in turn.
pub(crate) fn run(peers: &Peers, place: &Place, report: &mut Report) -> Result<()> {
    let count = peers.entries();
    let sides = [
        Side::RhashMemory,
        Side::Rhash { part: 8 },
        Side::Rhash { part: 32 },
        Side::Redis,
        Side::Memcached,
        Side::Extstore { part: 8 },
        Side::Fjall { part: 8 },
        Side::Pipe,
    ];
    let sides = peers.present(&sides, LOAD, report);
    let work = Work {
        entries: Entries::new(peers.options.seed),
        count,
        seed: peers.options.seed,
        span: peers
            .options
            .pick(Duration::from_millis(1000), Duration::from_millis(200)),
    };
    let size = format!("{:.1} M entries of 16 + 100 bytes", count as f64 / 1e6);
    report.fact("entries", &size);
    if peers.in_pieces.is_some() {
        for workload in [BATCHES, SINGLES, SCAN] {
            report.go_on(workload);
        }
    }
    peers.take_turns(LOAD, &sides, report, |round, side, report| {
        work.run(side, round, place, report)
    })?;
    let load = [
        "rate",
        "server CPU",
        "memory, most",
        "written",
        "on disk",
        "close",
    ];
    report.finish(LOAD, &format!("Load: {size}"), &load)?;
    let many = [
        "1 connection",
        "4 connections",
        "16 connections",
        "4 connections, Zipf",
    ];
    report.finish(BATCHES, &format!("Gets in batches of 100: {size}"), &many)?;
    let one = [
        "p50, 1 connection",
        "p99, 1 connection",
        "1 connection",
        "4 connections",
        "16 connections",
    ];
    report.finish(SINGLES, &format!("Single gets: {size}"), &one)?;
    report.finish(SCAN, &format!("Scan: {size}"), &["rate"])
}

struct Work {
    entries: Entries,
    count: u64,
    seed: u64,
    span: Duration,
}

/// What readers found.
#[derive(Debug, Default)]
struct Read {
    answers: u64,
    wrong: u64,
    seconds: f64,
    latencies: Latencies,
}

impl Work {
    fn bytes(&self) -> u64 {
        self.count * (KEY_BYTES + VALUE_BYTES) as u64
    }

    fn run(&self, side: Side, round: u32, place: &Place, report: &mut Report) -> Result<()> {
        let store = side.start(place, self.bytes())?;
        self.load(side, &*store, report)?;
        let uniform = Pick::uniform(self.count);
        let zipf = Pick::zipf(self.count);
        for connections in CONNECTIONS {
            if connections > 1 && !side.takes_many() {
                continue;
            }
            let name = match connections {
                1 => "1 connection".to_owned(),
                more => format!("{more} connections"),
            };
            let seed = self.seed + u64::from(round) * 1000;
            let read = self.read(&*store, &uniform, connections, BATCH_KEYS, seed)?;
            self.add(report, BATCHES, side, &name, &read)?;
            let mut read = self.read(&*store, &uniform, connections, 1, seed + 1)?;
            if connections == 1 {
                for (metric, share) in [("p50, 1 connection", 0.5), ("p99, 1 connection", 0.99)] {
                    let time = read.latencies.quantile_us(share);
                    report.add(SINGLES, &side.name(), metric, Unit::Microseconds, time);
                }
            }
            self.add(report, SINGLES, side, &name, &read)?;
            if connections == 4 {
                let read = self.read(&*store, &zipf, connections, BATCH_KEYS, seed + 2)?;
                self.add(report, BATCHES, side, "4 connections, Zipf", &read)?;
            }
        }
        self.scan(side, &*store, report)?;
        let mut connection = store.connect(Kind::Values)?;
        let begin = Instant::now();
        connection.free()?;
        report.add(
            LOAD,
            &side.name(),
            "close",
            Unit::Seconds,
            begin.elapsed().as_secs_f64(),
        );
        Ok(())
    }

    fn load(&self, side: Side, store: &dyn Store, report: &mut Report) -> Result<()> {
        let name = side.name();
        let id = store.process().unwrap_or(std::process::id());
        let before = Usage::memory_now(id)?;
        let meter = Meter::start(id)?;
        let mut connection = store.connect(Kind::Values)?;
        let begin = Instant::now();
        for number in 0..self.count {
            connection.put(&self.entries.key(number), self.entries.value(number))?;
        }
        connection.finish()?;
        let seconds = begin.elapsed().as_secs_f64();
        store.settle()?;
        let usage = meter.stop()?;
        let rate = self.count as f64 / seconds;
        say(format_args!("load, {name}: {}", Unit::PerSecond.show(rate)));
        let mut add = |metric, unit, value| report.add(LOAD, &name, metric, unit, value);
        add("rate", Unit::PerSecond, rate);
        let (cpu, memory_bytes) = match store.process() {
            Some(_) => ("server CPU", usage.memory_bytes_max),
            None => (
                "CPU with client",
                usage.memory_bytes_max.saturating_sub(before),
            ),
        };
        add(cpu, Unit::Seconds, usage.cpu_seconds);
        add("memory, most", Unit::Bytes, memory_bytes as f64);
        let payload = self.bytes() as f64;
        add("written", Unit::Times, usage.written_bytes as f64 / payload);
        add("on disk", Unit::Times, store.disk_bytes() as f64 / payload);
        for (fact, count) in store.facts()? {
            add(fact, Unit::Count, count);
        }
        Ok(())
    }

    fn add(
        &self,
        report: &mut Report,
        workload: &str,
        side: Side,
        metric: &str,
        read: &Read,
    ) -> Result<()> {
        let name = side.name();
        if read.wrong > 0 {
            if !side.may_lose() {
                return Err(format!("{name}: {} answers are wrong", read.wrong).into());
            }
            let text = format!("{name} had lost entries: its rates are not those of the work done");
            report.note(workload, text);
            let lost = format!("lost of {metric}");
            let share = read.wrong as f64 / read.answers as f64;
            report.add(workload, &name, &lost, Unit::Times, share);
        }
        let rate = read.answers as f64 / read.seconds;
        say(format_args!(
            "{workload}, {name}, {metric}: {}",
            Unit::PerSecond.show(rate)
        ));
        report.add(workload, &name, metric, Unit::PerSecond, rate);
        Ok(())
    }

    /// So many clients ask for so many keys at once, again and again, and look at every answer.
    fn read(
        &self,
        store: &dyn Store,
        pick: &Pick,
        connections: usize,
        keys_per_get: usize,
        seed: u64,
    ) -> Result<Read> {
        let mut clients = Vec::new();
        for _ in 0..connections {
            let mut connection = store.connect(Kind::Values)?;
            // What a first request costs is not what is measured.
            connection.get_many(&[&self.entries.key(0)], &mut |_, _| {})?;
            clients.push(connection);
        }
        let together = Barrier::new(connections);
        thread::scope(|scope| {
            let readers: Vec<_> = clients
                .iter_mut()
                .enumerate()
                .map(|(index, connection)| {
                    let together = &together;
                    let random = fastrand::Rng::with_seed(seed.wrapping_mul(31) + index as u64);
                    scope.spawn(move || {
                        together.wait();
                        self.read_alone(&mut **connection, pick, keys_per_get, random)
                    })
                })
                .collect();
            let mut all = Read::default();
            for reader in readers {
                let read = reader
                    .join()
                    .map_err(|_panic| "a reader ended in a bug")??;
                all.answers += read.answers;
                all.wrong += read.wrong;
                all.seconds = all.seconds.max(read.seconds);
                all.latencies.join(read.latencies);
            }
            Ok(all)
        })
    }

    fn read_alone(
        &self,
        connection: &mut dyn Connection,
        pick: &Pick,
        keys_per_get: usize,
        mut random: fastrand::Rng,
    ) -> Result<Read> {
        let mut read = Read::default();
        let begin = Instant::now();
        while begin.elapsed() < self.span {
            let numbers: Vec<u64> = (0..keys_per_get).map(|_| pick.draw(&mut random)).collect();
            let keys: Vec<_> = numbers
                .iter()
                .map(|&number| self.entries.key(number))
                .collect();
            let keys: Vec<&[u8]> = keys.iter().map(<[u8; KEY_BYTES]>::as_slice).collect();
            let mut right = 0;
            read.latencies.time(|| {
                connection.get_many(&keys, &mut |index, value| {
                    let expected = self.entries.value(numbers[index]);
                    right += u64::from(value == Some(expected));
                })
            })?;
            read.answers += keys_per_get as u64;
            read.wrong += keys_per_get as u64 - right;
        }
        read.seconds = begin.elapsed().as_secs_f64();
        Ok(read)
    }

    fn scan(&self, side: Side, store: &dyn Store, report: &mut Report) -> Result<()> {
        let mut connection = store.connect(Kind::Values)?;
        let (mut count, mut sum) = (0_u64, 0_u64);
        let begin = Instant::now();
        let can = connection.scan(&mut |key, value| {
            count += 1;
            sum = sum.wrapping_add(checksum(key, value));
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        let name = side.name();
        if !can {
            report.note(SCAN, format!("{name} cannot list its entries"));
            return Ok(());
        }
        let expected = (0..self.count).fold(0_u64, |sum, number| {
            sum.wrapping_add(checksum(
                &self.entries.key(number),
                self.entries.value(number),
            ))
        });
        if (count, sum) != (self.count, expected) {
            return Err(format!("{name}: a scan gave {count} entries, or wrong ones").into());
        }
        report.add(SCAN, &name, "rate", Unit::PerSecond, count as f64 / seconds);
        Ok(())
    }
}

/// The same for the same entry, and as good as never for another.
fn checksum(key: &[u8], value: &[u8]) -> u64 {
    let (words, rest) = value.as_chunks::<8>();
    let all = key.as_chunks::<8>().0.iter().chain(words);
    let hash = all.fold(rest.len() as u64, |hash, &word| {
        (hash ^ u64::from_le_bytes(word))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(31)
    });
    rest.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
