//! memcached, with or without its store on disk: meta commands in quiet mode, so that only what went
//! wrong is answered, and a no-op behind each send, so that an answer comes at all.

use std::{
    collections::VecDeque,
    io::Write as _,
    path::{Path, PathBuf},
};

use rhash_harness::{Launch, Place, Process, Result, find_program, workload::Batch};

use super::{
    Connection, Kind, SEND_BYTES, SENDS_IN_FLIGHT_MAX, Store, await_listener, free_port,
    lines::{Lines, number, unexpected},
};

pub(super) const PROGRAM: &str = "memcached";

/// The file behind the memory.
const FILE: &str = "ext";
const FILE_GIGABYTES: u64 = 8;

/// Lists grow beyond the default of a megabyte. The file's buffer must hold the longest.
const ITEM_MEGABYTES: u64 = 8;

/// A server with so much memory for items; its index comes on top.
pub(super) struct Memcached {
    process: Process,
    port: u16,
    data: Option<PathBuf>,
}

impl Memcached {
    /// Starts one.
    pub(super) fn start(limit_bytes: u64, data: Option<&Path>) -> Result<Self> {
        let program = find_program(PROGRAM).ok_or("memcached is not installed")?;
        let port = free_port()?;
        let megabytes = (limit_bytes >> 20).to_string();
        let item = (ITEM_MEGABYTES << 20).to_string();
        let (port_text, mut extended) = (port.to_string(), String::new());
        let mut launch = Launch::new(PROGRAM, &program)
            .args(["-l", "127.0.0.1", "-U", "0", "-u", "root", "-p"])
            .args([&port_text, "-m", &megabytes, "-I", &item]);
        if let Some(data) = data {
            let file = data.join(FILE).display().to_string();
            // Without a lower size than usual, entries as small as ours would never go to disk.
            extended = format!(
                "ext_path={file}:{FILE_GIGABYTES}G,ext_item_size=64,ext_wbuf_size={ITEM_MEGABYTES}"
            );
        }
        if !extended.is_empty() {
            launch = launch.args(["-o", &extended]);
        }
        let mut process = launch.start()?;
        await_listener(&mut process, port)?;
        Ok(Self {
            process,
            port,
            data: data.map(Path::to_owned),
        })
    }
}

impl Store for Memcached {
    fn process(&self) -> Option<u32> {
        Some(self.process.id())
    }

    fn connect(&self, _kind: Kind) -> Result<Box<dyn Connection>> {
        Ok(Box::new(Client {
            lines: Lines::connect(self.port)?,
            in_flight: VecDeque::new(),
            missing: Vec::new(),
        }))
    }

    fn disk_bytes(&self) -> u64 {
        self.data.as_deref().map_or(0, Place::disk_bytes)
    }

    fn facts(&self) -> Result<Vec<(&'static str, f64)>> {
        let mut lines = Lines::connect(self.port)?;
        lines.out.extend_from_slice(b"stats\r\n");
        lines.send()?;
        let mut evictions = 0.0;
        loop {
            let line = lines.line()?;
            if line == b"END" {
                return Ok(vec![("evictions", evictions)]);
            }
            if let Some(count) = line.strip_prefix(b"STAT evictions ") {
                evictions = number(count)? as f64;
            }
        }
    }
}

struct Client {
    lines: Lines,
    /// One for each send whose no-op is not answered.
    in_flight: VecDeque<()>,
    /// The numbers of writes that found nothing to append to.
    missing: Vec<usize>,
}

impl Client {
    fn send(&mut self) -> Result<()> {
        if !self.lines.out.is_empty() {
            self.lines.out.extend_from_slice(b"mn\r\n");
            self.lines.send()?;
            self.in_flight.push_back(());
        }
        while self.in_flight.len() > SENDS_IN_FLIGHT_MAX {
            self.take_answers()?;
        }
        Ok(())
    }

    fn take_answers(&mut self) -> Result<()> {
        self.in_flight.pop_front();
        loop {
            let line = self.lines.line()?;
            if line == b"MN" {
                return Ok(());
            } else if let Some(number_text) = line.strip_prefix(b"NS O") {
                self.missing.push(number(number_text)?);
            } else if !line.starts_with(b"SERVER_ERROR") && !line.starts_with(b"NS") {
                return Err(unexpected(line));
            }
            // What it has no room for it refuses; the checks count what is lost.
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], mode: std::fmt::Arguments<'_>) -> Result<()> {
        let out = &mut self.lines.out;
        out.extend_from_slice(b"ms ");
        out.extend_from_slice(key);
        write!(out, " {} {mode} q\r\n", value.len())?;
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        if out.len() >= SEND_BYTES {
            self.send()?;
        }
        Ok(())
    }
}

impl Connection for Client {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        for (index, (term, list)) in batch.iter().enumerate() {
            self.set(term, list, format_args!("MA O{index}"))?;
        }
        self.finish()?;
        // An append does not make what is missing: it is added then.
        let mut missing = std::mem::take(&mut self.missing);
        missing.sort_unstable();
        let mut missing = missing.iter().peekable();
        for (index, (term, list)) in batch.iter().enumerate() {
            if missing.next_if(|&&number| number == index).is_some() {
                self.set(term, list, format_args!("ME"))?;
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.set(key, value, format_args!("MS"))
    }

    fn finish(&mut self) -> Result<()> {
        self.send()?;
        while !self.in_flight.is_empty() {
            self.take_answers()?;
        }
        Ok(())
    }

    fn get_many(
        &mut self,
        keys: &[&[u8]],
        answer: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        let out = &mut self.lines.out;
        out.extend_from_slice(b"get");
        for key in keys {
            out.push(b' ');
            out.extend_from_slice(key);
        }
        out.extend_from_slice(b"\r\n");
        self.lines.send()?;
        // Answers come in the order of the keys; those that are missing are left out.
        let mut next = 0;
        loop {
            let line = self.lines.line()?;
            if line == b"END" {
                (next..keys.len()).for_each(|index| answer(index, None));
                return Ok(());
            }
            let mut words = line.split(|&byte| byte == b' ');
            let (Some(b"VALUE"), Some(key), _, Some(count)) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                return Err(unexpected(line));
            };
            let count = number(count)?;
            while keys.get(next).is_some_and(|&asked| asked != key) {
                answer(next, None);
                next += 1;
            }
            answer(next, Some(self.lines.bytes(count)?));
            next += 1;
        }
    }

    fn scan(&mut self, _entry: &mut dyn FnMut(&[u8], &[u8])) -> Result<bool> {
        Ok(false)
    }

    fn free(&mut self) -> Result<()> {
        self.lines.out.extend_from_slice(b"flush_all\r\n");
        self.lines.send()?;
        self.lines.expect("OK")
    }
}
