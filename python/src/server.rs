//! The server inside this process.

use clap::Parser as _;
use parking_lot::Mutex;
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    prelude::*,
};
use rhash_server::{
    allocator,
    args::{Args, LogLevel},
    config::Config,
    embed::{self, Handle, Server as RustServer},
};
use tokio::runtime::Runtime;

use crate::{errors, fork::Owned};

#[derive(Debug)]
struct Running {
    handle: Handle,
    runtime: Runtime,
}

/// A server that runs in threads of this process.
#[pyclass(frozen, subclass, module = "mivrhash._native", name = "Server")]
#[derive(Debug)]
pub(crate) struct Server {
    address: String,
    running: Mutex<Option<Owned<Running>>>,
}

#[pymethods]
impl Server {
    /// Starts a server, told by the options of the command `rhash-server`.
    #[new]
    fn new(py: Python<'_>, arguments: Vec<String>) -> PyResult<Self> {
        let program = std::iter::once("mivrhash".to_owned());
        let args = Args::try_parse_from(program.chain(arguments))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let config =
            Config::from_args(args).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let running = py.detach(|| start(config)).map_err(|error| {
            let mut text = format!("the server cannot start: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            PyOSError::new_err(text)
        })?;
        Ok(Self {
            address: running.handle.local_addr().to_string(),
            running: Mutex::new(Some(Owned::new(running))),
        })
    }

    /// Where it listens.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// Whether it has not been stopped.
    #[getter]
    fn is_running(&self) -> bool {
        let running = self.running.lock();
        running.as_ref().is_some_and(Owned::is_ours)
    }

    /// Stops it: named tables are written to disk. A server that was stopped stays so.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let running = self.running.lock().take();
        // In a child of the process that started it, there is nothing to stop.
        let Some(running) = running.and_then(Owned::into_inner) else {
            return Ok(());
        };
        py.detach(move || {
            let Running { handle, runtime } = running;
            runtime.block_on(handle.stop())
        })
        .map_err(|error| {
            let text = format!("the server did not stop cleanly: {error}");
            errors::raise(py, "StorageError", &text)
        })
    }
}

fn start(config: Config) -> Result<Running, Box<dyn std::error::Error + Send + Sync>> {
    let runtime = embed::runtime()?;
    let handle = runtime.block_on(RustServer::start(config))?;
    Ok(Running { handle, runtime })
}

/// Prepares this process to be a server and nothing else: its allocator keeps little, and it logs to
/// standard error.
#[pyfunction]
pub(crate) fn become_server(log: &str) -> PyResult<()> {
    allocator::give_back_soon();
    let level =
        <LogLevel as clap::ValueEnum>::from_str(log, true).map_err(PyValueError::new_err)?;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level.filter())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
    // Where there is a log already, that is kept.
    drop(subscriber);
    Ok(())
}
