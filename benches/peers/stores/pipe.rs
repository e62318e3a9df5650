//! A `HashMap` in another process, behind a pipe: the least that any server can be. Each batch is
//! waited for before the next one is made.
//!
//! A request is a letter, a count of entries, and the entries, each a key and a value with lengths
//! before them; an answer to a write is a byte.

use std::{
    collections::HashMap,
    io::{BufReader, BufWriter, Read, Write},
    process::{ChildStdin, ChildStdout},
    sync::{Mutex, PoisonError},
};

use rhash_harness::{Launch, Process, Result, workload::Batch};

use super::{Connection, Kind, SEND_BYTES, Store};

/// What this program is told to be the far end of a pipe.
pub(crate) const ARGUMENT: &str = "--be-the-pipe";

const APPEND: u8 = b'A';
const PUT: u8 = b'P';
const GET: u8 = b'G';
const SCAN: u8 = b'S';
const FREE: u8 = b'F';
/// The length of a value that is not there, and of the key behind the last entry of a scan.
const NONE: u32 = u32::MAX;

/// The far end.
pub(crate) fn serve() -> Result<()> {
    let mut map: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut input = BufReader::with_capacity(SEND_BYTES, std::io::stdin().lock());
    let mut out = BufWriter::with_capacity(SEND_BYTES, std::io::stdout().lock());
    let (mut letter, mut key, mut value) = ([0], Vec::new(), Vec::new());
    while input.read_exact(&mut letter).is_ok() {
        let count = read_u32(&mut input)?;
        for _ in 0..count {
            read_bytes(&mut input, &mut key)?;
            match letter[0] {
                APPEND => {
                    read_bytes(&mut input, &mut value)?;
                    match map.get_mut(&key) {
                        Some(list) => list.extend_from_slice(&value),
                        None => {
                            map.insert(key.clone(), value.clone());
                        }
                    }
                }
                PUT => {
                    read_bytes(&mut input, &mut value)?;
                    map.insert(key.clone(), value.clone());
                }
                _ => match map.get(&key) {
                    Some(value) => write_bytes(&mut out, value)?,
                    None => out.write_all(&NONE.to_le_bytes())?,
                },
            }
        }
        match letter[0] {
            SCAN => {
                for (key, value) in &map {
                    write_bytes(&mut out, key)?;
                    write_bytes(&mut out, value)?;
                }
                out.write_all(&NONE.to_le_bytes())?;
            }
            FREE => {
                map = HashMap::new();
                out.write_all(&[0])?;
            }
            GET => {}
            _ => out.write_all(&[0])?,
        }
        out.flush()?;
    }
    Ok(())
}

/// The near end.
pub(super) struct Pipe {
    process: Process,
    /// Taken by the one client and put back by its end.
    ends: std::sync::Arc<Mutex<Option<Ends>>>,
}

struct Ends {
    out: ChildStdin,
    input: BufReader<ChildStdout>,
}

impl Pipe {
    /// Starts this program once more, as the far end.
    pub(super) fn start() -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut process = Launch::new("the map behind a pipe", &program)
            .args([ARGUMENT])
            .start()?;
        let (Some(out), Some(input)) = (process.input(), process.output()) else {
            return Err("no pipe".into());
        };
        let input = BufReader::with_capacity(SEND_BYTES, input);
        Ok(Self {
            process,
            ends: std::sync::Arc::new(Mutex::new(Some(Ends { out, input }))),
        })
    }
}

impl Store for Pipe {
    fn process(&self) -> Option<u32> {
        Some(self.process.id())
    }

    fn connect(&self, _kind: Kind) -> Result<Box<dyn Connection>> {
        let ends = self
            .ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Ok(Box::new(Client {
            ends: Some(ends.ok_or("a pipe has one client at a time")?),
            home: std::sync::Arc::clone(&self.ends),
            gathered: Vec::new(),
            count: 0,
            value: Vec::new(),
        }))
    }
}

struct Client {
    /// None after the end only.
    ends: Option<Ends>,
    home: std::sync::Arc<Mutex<Option<Ends>>>,
    gathered: Vec<u8>,
    count: u32,
    value: Vec<u8>,
}

impl Client {
    fn ends(&mut self) -> Result<&mut Ends> {
        self.ends.as_mut().ok_or_else(|| "the pipe is gone".into())
    }

    fn gather(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        write_bytes(&mut self.gathered, key)?;
        write_bytes(&mut self.gathered, value)?;
        self.count += 1;
        Ok(())
    }

    fn request(&mut self, letter: u8) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        let count = std::mem::take(&mut self.count);
        let ends = self.ends()?;
        ends.out.write_all(&[letter])?;
        ends.out.write_all(&count.to_le_bytes())?;
        ends.out.write_all(&gathered)?;
        ends.out.flush()?;
        self.gathered = gathered;
        self.gathered.clear();
        Ok(())
    }

    fn write(&mut self, letter: u8) -> Result<()> {
        self.request(letter)?;
        self.ends()?.input.read_exact(&mut [0])?;
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.ends.take();
    }
}

impl Connection for Client {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        for (term, list) in batch.iter() {
            self.gather(term, list)?;
        }
        self.write(APPEND)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.gather(key, value)?;
        if self.gathered.len() >= SEND_BYTES {
            self.write(PUT)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if self.count > 0 {
            self.write(PUT)?;
        }
        Ok(())
    }

    fn get_many(
        &mut self,
        keys: &[&[u8]],
        answer: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        for key in keys {
            write_bytes(&mut self.gathered, key)?;
            self.count += 1;
        }
        self.request(GET)?;
        let mut value = std::mem::take(&mut self.value);
        let ends = self.ends()?;
        for index in 0..keys.len() {
            match read_u32(&mut ends.input)? {
                NONE => answer(index, None),
                count => {
                    value.resize(count as usize, 0);
                    ends.input.read_exact(&mut value)?;
                    answer(index, Some(&value));
                }
            }
        }
        self.value = value;
        Ok(())
    }

    fn scan(&mut self, entry: &mut dyn FnMut(&[u8], &[u8])) -> Result<bool> {
        self.request(SCAN)?;
        let ends = self.ends()?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        loop {
            match read_u32(&mut ends.input)? {
                NONE => return Ok(true),
                count => {
                    key.resize(count as usize, 0);
                    ends.input.read_exact(&mut key)?;
                    read_bytes(&mut ends.input, &mut value)?;
                    entry(&key, &value);
                }
            }
        }
    }

    fn free(&mut self) -> Result<()> {
        self.write(FREE)
    }
}

fn read_u32(input: &mut impl Read) -> Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn read_bytes(input: &mut impl Read, bytes: &mut Vec<u8>) -> Result<()> {
    let count = read_u32(input)?;
    bytes.resize(count as usize, 0);
    Ok(input.read_exact(bytes)?)
}

fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    let count = u32::try_from(bytes.len())?;
    out.write_all(&count.to_le_bytes())?;
    Ok(out.write_all(bytes)?)
}
