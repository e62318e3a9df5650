//! The server inside this command, and the runtime that it needs.

use std::path::PathBuf;

use clap::Parser as _;
use rhash_server::{
    args::Args,
    config::Config,
    embed::{Handle, Server},
    size::ByteSize,
};
use tokio::runtime::Runtime;

use crate::failure::{Failure, Outcome};

/// Where it listens: a free port that only this host reaches.
const LISTEN: &str = "127.0.0.1:0";

/// A server that runs in threads of this process.
#[derive(Debug)]
pub(crate) struct Embedded {
    server: Handle,
    runtime: Runtime,
}

/// Where a server keeps what does not fit its memory.
#[derive(Debug)]
pub(crate) enum Keep {
    /// In this directory, with its named tables.
    In(PathBuf),
    /// Nowhere: over its limit it refuses writes.
    InMemory,
}

impl Embedded {
    /// Starts a server on a free port of this host.
    ///
    /// # Errors
    /// The memory limit is too small, or the data directory cannot be used.
    pub(crate) fn start(keep: Keep, mem_limit: Option<ByteSize>) -> Outcome<Self> {
        // The server's own defaults hold for all that is not said here.
        let mut args = Args::try_parse_from(["rhash-server", "--listen", LISTEN])
            .map_err(|error| Failure::plain(error.to_string()))?;
        match keep {
            Keep::In(data) => args.data = Some(data),
            Keep::InMemory => args.memory_only = true,
        }
        args.mem_limit = mem_limit;
        let config = Config::from_args(args).map_err(|error| Failure::Usage(error.to_string()))?;
        let runtime = new_runtime()?;
        let server = runtime
            .block_on(Server::start(config))
            .map_err(|error| Failure::plain(format!("the server cannot start: {error}")))?;
        Ok(Self { server, runtime })
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> String {
        self.server.local_addr().to_string()
    }

    /// Stops the server cleanly, so that the next one finds all tables.
    ///
    /// # Errors
    /// Tables could not be written to disk.
    pub(crate) fn stop(self) -> Outcome {
        self.runtime
            .block_on(self.server.stop())
            .map_err(|error| Failure::plain(format!("the server did not stop cleanly: {error}")))
    }

    /// Ends the server where it stands; nothing is written down.
    pub(crate) fn abandon(self) {
        self.runtime.shutdown_background();
    }
}

fn new_runtime() -> Outcome<Runtime> {
    Runtime::new().map_err(|error| Failure::plain(format!("cannot start threads: {error}")))
}
