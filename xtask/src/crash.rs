//! `cargo xtask crash`: a server that is killed again and again under load. What it acknowledged is
//! there, once, and nothing else is.

mod load;
mod options;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::place;
use crate::server::Server;
use load::{Draws, Levels, Shared, Writer};
use options::Options;

/// Clients that write at the same time.
const WRITERS: u64 = 4;

/// A server lives for at most so long after it is ready.
const LIFE_MS_MAX: u64 = 1500;

/// One of so many is killed before it is ready, …
const KILLED_AT_START: u64 = 6;
/// … and this early at the latest.
const START_MS_MAX: u64 = 60;
/// One of so many is stopped and not killed.
const STOPPED: u64 = 10;

/// The levels of servers, one after the other, where tables have their own. The first one keeps a log, so that new
/// tables can have any.
const LEVELS_IN_TURN: [&str; 3] = ["everysec", "none", "always"];

/// No start, stop or call takes longer.
const DEADLINE: Duration = Duration::from_secs(300);

/// Runs the crashes.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        say!("{}", options::HELP);
        return Ok(());
    };
    let given = options.bin_dir.as_deref();
    let binaries = place::binaries_of(options.debug, given, DEADLINE * 6)?;
    let mut checks = Checklist::default();
    for level in &options.levels {
        let stage = place::target_directory()?.join("crash").join(level);
        place::empty_directory(&stage)?;
        let crash = Crash {
            options: &options,
            level,
            binary: binaries.join("rhash-server"),
            stage: &stage,
            address: free_address()?,
        };
        crash.run(&mut checks)?;
    }
    checks.outcome("crash")
}

/// An address that nobody has at this moment; all servers of a run listen there, one after the other.
fn free_address() -> Result<String, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    let address = address.map_err(|error| Failure::new("a free port", error))?;
    Ok(address.to_string())
}

/// The crashes at one level.
struct Crash<'a> {
    options: &'a Options,
    level: &'a str,
    binary: PathBuf,
    stage: &'a Path,
    address: String,
}

impl Crash<'_> {
    fn run(&self, checks: &mut Checklist) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::new("cannot start threads", error))?;
        let seed = self.options.seed;
        say!(
            "xtask: crash: {} ends at {}, seed {seed} …",
            self.options.kills,
            self.level
        );
        let shared = Arc::new(Shared::default());
        let mut server = self.start(0)?;
        server.wait_until_ready(DEADLINE)?;
        let mut writers = self.start_writers(&runtime, &shared)?;
        let (killed, slowest) = self.end_servers(&mut server, &mut writers)?;
        shared.stop.store(true, Relaxed);
        let ended = runtime.block_on(async {
            let mut wrong = Vec::new();
            while let Some(ended) = writers.join_next().await {
                let ended = ended.map_err(|error| Failure::new("a writer", error))?;
                wrong.extend(ended.err());
            }
            Ok::<_, Failure>(wrong)
        })?;
        let stopped = server.stop(DEADLINE)?;
        let (operations, answers) = (&shared.operations, &shared.answers);
        let detail = match ended.first() {
            Some(wrong) => wrong.clone(),
            None => format!(
                "{} operations, {} answers, over {} kills and {} stops; slowest start {} ms",
                operations.load(Relaxed),
                answers.load(Relaxed),
                killed,
                self.options.kills - killed,
                slowest.as_millis()
            ),
        };
        let name = format!("{}: nothing is lost, doubled or made up", self.level);
        checks.check(&name, ended.is_empty(), detail);
        let name = format!("{}: the last server stops cleanly", self.level);
        checks.check(&name, stopped.success(), stopped.to_string());
        Ok(())
    }

    fn start(&self, number: u64) -> Result<Server, Failure> {
        let mut command = Command::new(&self.binary);
        command
            .arg("--mem-limit")
            .arg(self.options.mem_limit_bytes.to_string());
        command
            .arg("--log-limit")
            .arg(self.options.log_limit_bytes.to_string());
        command.arg("--data").arg(self.stage.join("data"));
        let level = match self.level {
            options::OWN => LEVELS_IN_TURN[number as usize % LEVELS_IN_TURN.len()],
            level => level,
        };
        command.args(["--durability", level, "--log", "info"]);
        let log = self.stage.join(format!("server-{number}.log"));
        Server::start_at(&mut command, &self.address, &log)
    }

    fn start_writers(
        &self,
        runtime: &Runtime,
        shared: &Arc<Shared>,
    ) -> Result<JoinSet<Result<(), String>>, Failure> {
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let seed = self.options.seed;
            let levels = match self.level {
                options::OWN => Levels::Own,
                _ => Levels::OfServer,
            };
            let writer = Writer::connect(&self.address, number, seed, levels, Arc::clone(shared));
            let writer = runtime
                .block_on(writer)
                .map_err(|error| Failure::new("a writer", error))?;
            writers.spawn_on(writer.run(), runtime.handle());
        }
        Ok(writers)
    }

    /// Ends one server after the other; says how many were killed, and how long the slowest start took.
    fn end_servers(
        &self,
        server: &mut Server,
        writers: &mut JoinSet<Result<(), String>>,
    ) -> Result<(u64, Duration), Failure> {
        let mut draws = Draws(self.options.seed.wrapping_add(77));
        let (mut killed, mut slowest) = (0, Duration::ZERO);
        for number in 1..=self.options.kills {
            pause(draws.below(LIFE_MS_MAX));
            if draws.below(STOPPED) == 0 {
                let status = server.stop(DEADLINE)?;
                if !status.success() {
                    return Err(Failure::Failed(format!(
                        "server {number} stopped with {status}"
                    )));
                }
            } else {
                server.kill(DEADLINE)?;
                killed += 1;
            }
            *server = self.start(number)?;
            if draws.below(KILLED_AT_START) == 0 {
                pause(draws.below(START_MS_MAX));
                server.kill(DEADLINE)?;
                *server = self.start(number)?;
            }
            let began = Instant::now();
            server.wait_until_ready(DEADLINE)?;
            slowest = slowest.max(began.elapsed());
            if let Some(ended) = writers.try_join_next() {
                let why = ended.map_err(|error| Failure::new("a writer", error))?;
                let why = why.err().unwrap_or_else(|| "it ended".to_owned());
                return Err(Failure::Failed(format!("after {number} ends: {why}")));
            }
            if number.is_multiple_of(25) {
                say!("xtask: crash: {number} ends");
            }
        }
        Ok((killed, slowest))
    }
}

/// Lets the server live on. Nothing tells when a crash is due but the clock.
fn pause(ms: u64) {
    std::thread::park_timeout(Duration::from_millis(ms));
}
