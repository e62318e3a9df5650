//! Redis: strings, written by SET and APPEND in pipelines, read by MGET.

use std::{
    collections::VecDeque,
    io::Write as _,
    path::{Path, PathBuf},
};

use rhash_harness::{Launch, Place, Process, Result, find_program, workload::Batch};

use super::{
    Connection, Kind, Level, SEND_BYTES, SENDS_IN_FLIGHT_MAX, Store, await_listener, free_port,
    lines::{Lines, number, unexpected},
};

pub(super) const PROGRAM: &str = "redis-server";

/// Keys that a step of a scan asks for.
const SCAN_KEYS: usize = 1000;

/// A server that keeps all in memory, and writes nothing but its log, if it has one.
pub(super) struct Redis {
    process: Process,
    port: u16,
    data: Option<PathBuf>,
}

impl Redis {
    /// Starts one, with a log in a directory if that and a level are given.
    pub(super) fn start(log: Option<(&Path, Level)>) -> Result<Self> {
        let program: PathBuf = find_program(PROGRAM).ok_or("redis-server is not installed")?;
        let port = free_port()?;
        let port_text = port.to_string();
        let launch = Launch::new(PROGRAM, &program)
            .args(["--bind", "127.0.0.1", "--save", ""])
            .args(["--daemonize", "no", "--port", &port_text]);
        let launch = match log {
            None => launch.args(["--appendonly", "no"]),
            Some((data, level)) => launch
                .args([
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    level.name(),
                    "--dir",
                ])
                .args([data]),
        };
        let mut process = launch.start()?;
        await_listener(&mut process, port)?;
        let data = log.map(|(data, _)| data.to_owned());
        Ok(Self {
            process,
            port,
            data,
        })
    }
}

impl Store for Redis {
    fn process(&self) -> Option<u32> {
        Some(self.process.id())
    }

    fn disk_bytes(&self) -> u64 {
        self.data.as_deref().map_or(0, Place::disk_bytes)
    }

    fn connect(&self, _kind: Kind) -> Result<Box<dyn Connection>> {
        Ok(Box::new(Client {
            lines: Lines::connect(self.port)?,
            gathered: 0,
            in_flight: VecDeque::new(),
        }))
    }
}

struct Client {
    lines: Lines,
    /// Commands that are gathered.
    gathered: usize,
    /// Answers that are due for each send.
    in_flight: VecDeque<usize>,
}

impl Client {
    fn command(&mut self, words: &[&[u8]]) -> Result<()> {
        let out = &mut self.lines.out;
        write!(out, "*{}\r\n", words.len())?;
        for word in words {
            write!(out, "${}\r\n", word.len())?;
            out.extend_from_slice(word);
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    fn write(&mut self, words: &[&[u8]]) -> Result<()> {
        self.command(words)?;
        self.gathered += 1;
        if self.lines.out.len() >= SEND_BYTES {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        if self.gathered > 0 {
            self.lines.send()?;
            self.in_flight.push_back(self.gathered);
            self.gathered = 0;
        }
        while self.in_flight.len() > SENDS_IN_FLIGHT_MAX {
            self.take_answers()?;
        }
        Ok(())
    }

    fn take_answers(&mut self) -> Result<()> {
        for _ in 0..self.in_flight.pop_front().unwrap_or(0) {
            let line = self.lines.line()?;
            if !matches!(line.first(), Some(b'+' | b':')) {
                return Err(unexpected(line));
            }
        }
        Ok(())
    }

    /// The head of an answer that is an array.
    fn array(&mut self) -> Result<usize> {
        let line = self.lines.line()?;
        match line.strip_prefix(b"*") {
            Some(count) => number(count),
            None => Err(unexpected(line)),
        }
    }

    fn bulk(&mut self) -> Result<Option<&[u8]>> {
        let line = self.lines.line()?;
        match line.strip_prefix(b"$") {
            Some(b"-1") => Ok(None),
            Some(count) => {
                let count = number(count)?;
                self.lines.bytes(count).map(Some)
            }
            None => Err(unexpected(line)),
        }
    }
}

impl Connection for Client {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        batch
            .iter()
            .try_for_each(|(term, list)| self.write(&[b"APPEND", term, list]))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(&[b"SET", key, value])
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
        if let [key] = keys {
            self.command(&[b"GET", key])?;
            self.lines.send()?;
            answer(0, self.bulk()?);
            return Ok(());
        }
        let mut words: Vec<&[u8]> = Vec::with_capacity(keys.len() + 1);
        words.push(b"MGET");
        words.extend(keys);
        self.command(&words)?;
        self.lines.send()?;
        for index in 0..self.array()? {
            answer(index, self.bulk()?);
        }
        Ok(())
    }

    fn scan(&mut self, entry: &mut dyn FnMut(&[u8], &[u8])) -> Result<bool> {
        let mut cursor = b"0".to_vec();
        loop {
            let count = SCAN_KEYS.to_string();
            self.command(&[b"SCAN", &cursor, b"COUNT", count.as_bytes()])?;
            self.lines.send()?;
            self.array()?;
            cursor = self.bulk()?.unwrap_or(b"0").to_vec();
            let mut keys = Vec::new();
            for _ in 0..self.array()? {
                keys.extend(self.bulk()?.map(<[u8]>::to_vec));
            }
            if !keys.is_empty() {
                let names: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                self.get_many(&names, &mut |index, value| {
                    if let (Some(key), Some(value)) = (names.get(index), value) {
                        entry(key, value);
                    }
                })?;
            }
            if cursor == b"0" {
                return Ok(true);
            }
        }
    }

    fn free(&mut self) -> Result<()> {
        self.command(&[b"FLUSHALL", b"SYNC"])?;
        self.lines.send()?;
        self.lines.expect("+OK")
    }
}
