//! The stores that are compared: how each is started, spoken to, and freed.

use std::{
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use rhash_harness::{Place, Process, Result, workload::Batch};

mod rhash;
mod redis;
mod memcached;
mod fjall;
mod pipe;
mod combine;
mod lines;

pub(crate) use self::pipe::{ARGUMENT as PIPE_ARGUMENT, serve as serve_pipe};

/// Bytes that are gathered before they are sent to a server, the same for all of them.
pub(crate) const SEND_BYTES: usize = 192 * 1024;

/// Sends whose answers a connection may be waiting for.
pub(crate) const SENDS_IN_FLIGHT_MAX: usize = 16;

/// A server that does not answer by then never will.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Lists,
    Values,
}

/// A store that runs.
pub(crate) trait Store: Sync {
    /// The process that it is; none if it lives in this one.
    fn process(&self) -> Option<u32>;

    /// Another client of it. All of them see the same table.
    fn connect(&self, kind: Kind) -> Result<Box<dyn Connection>>;

    /// What it takes on disk.
    fn disk_bytes(&self) -> u64 {
        0
    }

    /// Waits until what it does in the background is done.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// What only it tells of itself: a name and a count.
    fn facts(&self) -> Result<Vec<(&'static str, f64)>> {
        Ok(Vec::new())
    }
}

/// A client of a store.
pub(crate) trait Connection: Send {
    /// Appends to many lists, in as few requests as is good, without waiting for the answers.
    fn append(&mut self, batch: &Batch<'_>) -> Result<()>;

    /// Sets a value, gathered with others into full requests, without waiting for the answers.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Sends what is gathered, and waits for all answers.
    fn finish(&mut self) -> Result<()>;

    /// Gets the values or lists of several keys at once, and says what each one is.
    fn get_many(
        &mut self,
        keys: &[&[u8]],
        answer: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<()>;

    /// Goes through all entries; false if the store cannot.
    fn scan(&mut self, entry: &mut dyn FnMut(&[u8], &[u8])) -> Result<bool>;

    /// Frees the table, in memory and on disk.
    fn free(&mut self) -> Result<()>;
}

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Only what the client does before it sends anything.
    Combine,
    /// Ours, with no disk.
    RhashMemory,
    /// Ours, with a limit of this part of the data.
    Rhash {
        part: u64,
    },
    /// The same with a log.
    RhashLogged {
        part: u64,
        level: Level,
    },
    Redis,
    /// With a log.
    RedisLogged {
        level: Level,
    },
    Memcached,
    /// With its store on disk behind a limit of this part of the data.
    Extstore {
        part: u64,
    },
    /// In process, with a budget of this part of the data.
    Fjall {
        part: u64,
    },
    /// A map in another process, behind a pipe, each batch waited for.
    Pipe,
}

/// How safe a write is once it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// It survives the process, and a second later the machine.
    EverySec,
    /// It survives the machine.
    Always,
}

impl Level {
    /// What rhash and Redis call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EverySec => "everysec",
            Self::Always => "always",
        }
    }
}

/// The least limit that our server takes; others get no less either.
const LIMIT_BYTES_MIN: u64 = 24 << 20;

/// A limit that means no limit, for any workload here.
const LIMIT_BYTES_AMPLE: u64 = 16 << 30;

impl Side {
    /// What it is called in tables and options.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Combine => "combining-alone".to_owned(),
            Self::RhashMemory => "rhash-memory".to_owned(),
            Self::Rhash { part } => format!("rhash-1/{part}"),
            Self::RhashLogged { part, level } => format!("rhash-1/{part}-{}", level.name()),
            Self::Redis => "redis".to_owned(),
            Self::RedisLogged { level } => format!("redis-{}", level.name()),
            Self::Memcached => "memcached".to_owned(),
            Self::Extstore { part } => format!("extstore-1/{part}"),
            Self::Fjall { part } => format!("fjall-1/{part}"),
            Self::Pipe => "hashmap-pipe".to_owned(),
        }
    }

    /// Whether it may forget what it was given without saying so.
    pub(crate) fn may_lose(self) -> bool {
        matches!(self, Self::Memcached | Self::Extstore { .. })
    }

    /// Whether a client can have many connections to it.
    pub(crate) fn takes_many(self) -> bool {
        !matches!(self, Self::Pipe | Self::Combine)
    }

    /// The program that it needs and that may be missing.
    pub(crate) fn program(self) -> Option<&'static str> {
        match self {
            Self::Redis | Self::RedisLogged { .. } => Some(redis::PROGRAM),
            Self::Memcached | Self::Extstore { .. } => Some(memcached::PROGRAM),
            _ => None,
        }
    }

    /// The limit for data of this size; none if it keeps all in memory.
    pub(crate) fn limit_bytes(self, data_bytes: u64) -> Option<u64> {
        match self {
            Self::Rhash { part }
            | Self::RhashLogged { part, .. }
            | Self::Extstore { part }
            | Self::Fjall { part } => Some((data_bytes / part).max(LIMIT_BYTES_MIN)),
            _ => None,
        }
    }

    /// Starts it, empty.
    pub(crate) fn start(self, place: &Place, data_bytes: u64) -> Result<Box<dyn Store>> {
        let limit = self.limit_bytes(data_bytes);
        let ample = limit.unwrap_or(LIMIT_BYTES_AMPLE);
        Ok(match self {
            Self::Combine => Box::new(combine::Combine),
            Self::RhashMemory => Box::new(rhash::Rhash::start(place, ample, None, None)?),
            Self::Rhash { .. } => {
                let data = place.empty_directory("rhash")?;
                Box::new(rhash::Rhash::start(place, ample, Some(&data), None)?)
            }
            Self::RhashLogged { level, .. } => {
                let data = place.empty_directory("rhash")?;
                Box::new(rhash::Rhash::start(place, ample, Some(&data), Some(level))?)
            }
            Self::Redis => Box::new(redis::Redis::start(None)?),
            Self::RedisLogged { level } => {
                let data = place.empty_directory("redis")?;
                Box::new(redis::Redis::start(Some((&data, level)))?)
            }
            Self::Memcached => Box::new(memcached::Memcached::start(ample, None)?),
            Self::Extstore { .. } => {
                let data = place.empty_directory("extstore")?;
                Box::new(memcached::Memcached::start(ample, Some(&data))?)
            }
            Self::Fjall { .. } => {
                let data = place.empty_directory("fjall")?;
                Box::new(fjall::Fjall::open(&data, ample)?)
            }
            Self::Pipe => Box::new(pipe::Pipe::start()?),
        })
    }
}

/// A port that nobody listened on a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Connects as soon as somebody listens.
fn await_listener(process: &mut Process, port: u16) -> Result<()> {
    let begin = Instant::now();
    loop {
        if let Some(status) = process.ended()? {
            return Err(format!("a server ended at once: {status}").into());
        }
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => return Ok(()),
            Err(error) if begin.elapsed() > START_DEADLINE => return Err(error.into()),
            Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
}
