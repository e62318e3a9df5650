//! A rhash server under test.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{Group, Launch, Place, Process, Result};

/// No start, and no clean stop, takes longer.
const DEADLINE: Duration = Duration::from_secs(120);

/// What the server says once it takes connections.
const READY: &str = "listening on ";

/// How to start a server.
#[derive(Debug, Default)]
pub struct ServerOptions<'a> {
    /// `--mem-limit` in bytes.
    pub limit_bytes: u64,
    /// `--data`; with none, the server keeps everything in memory.
    pub data: Option<&'a Path>,
    /// `--durability`; with none, nothing is logged.
    pub durability: Option<&'a str>,
    /// Other arguments.
    pub more: &'a [&'a str],
    /// The memory group that it runs in.
    pub group: Option<&'a Group>,
}

/// A server that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct RhashServer {
    process: Process,
    address: String,
    data: Option<PathBuf>,
}

impl RhashServer {
    /// Starts a server on a free port and waits until it is ready. Its log goes to `server.log` in
    /// the work directory.
    ///
    /// # Errors
    /// It cannot be started, or is not ready in time.
    pub fn start(place: &Place, options: &ServerOptions<'_>) -> Result<Self> {
        let limit = options.limit_bytes.to_string();
        let program = place.binary("rhash-server");
        let log = place.work().join("server.log");
        let mut launch = Launch::new("rhash-server", &program)
            .args(["--listen", "127.0.0.1:0", "--log", "warn", "--mem-limit"])
            .args([&limit]);
        launch = match options.data {
            Some(data) => launch
                .args([
                    "--durability",
                    options.durability.unwrap_or("none"),
                    "--data",
                ])
                .args([data]),
            None => launch.args(["--memory-only"]),
        };
        let mut process = launch
            .args(options.more.iter().copied())
            .group(options.group)
            .log(&log)
            .start()?;
        let output = process.output().ok_or("no standard output")?;
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix(READY) {
                    // Only the first is waited for.
                    sender.try_send(address.trim().to_owned()).ok();
                }
            }
        });
        let address = receiver.recv_timeout(DEADLINE).map_err(|_none| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            format!("rhash-server said no address: {}", log.trim_end())
        })?;
        Ok(Self {
            process,
            address,
            data: options.data.map(Path::to_owned),
        })
    }

    /// Where it listens, `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What its data directory takes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.data.as_deref().map_or(0, Place::disk_bytes)
    }

    /// Stops it cleanly.
    ///
    /// # Errors
    /// It does not end in time, or not well.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.stop(DEADLINE)?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("rhash-server ended with {status}").into())
        }
    }
}
