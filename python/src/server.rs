//! The server inside this process, and the tokens that it asks clients for.

use std::{error::Error, path::PathBuf};

use clap::{CommandFactory as _, FromArgMatches as _};
use parking_lot::Mutex;
use pyo3::{
    exceptions::{PyOSError, PyValueError},
    prelude::*,
};
use rhash_server::{
    access::tokens::{NewToken, TokensError},
    allocator,
    args::{Args, LogFormat},
    config::Config,
    embed::{self, Handle, Server as RustServer, ServerError},
    store::{check, repair},
};
use tokio::runtime::Runtime;

use crate::{
    errors::{self, with_causes},
    fork::Owned,
};

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
    metrics_address: Option<String>,
    running: Mutex<Option<Owned<Running>>>,
}

#[pymethods]
impl Server {
    /// Starts a server, told by the options of the command `rhash-server`.
    #[new]
    fn new(py: Python<'_>, arguments: Vec<String>) -> PyResult<Self> {
        let args = parse(arguments)?;
        if args.check || args.repair {
            return Err(PyValueError::new_err(
                "--check and --repair end by themselves: give them to python -m mivrhash.mivrhashservice",
            ));
        }
        let config = config(args)?;
        let running = py.detach(|| start(config)).map_err(|error| {
            let text = with_causes(&*error);
            match error.downcast_ref() {
                Some(
                    ServerError::Exposed { .. } | ServerError::Tokens(_) | ServerError::Tls(_),
                ) => PyValueError::new_err(text),
                _ => PyOSError::new_err(format!("the server cannot start: {text}")),
            }
        })?;
        let metrics_address = running.handle.metrics_addr();
        Ok(Self {
            address: running.handle.local_addr().to_string(),
            metrics_address: metrics_address.map(|address| address.to_string()),
            running: Mutex::new(Some(Owned::new(running))),
        })
    }

    /// Where it listens.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// Where it answers HTTP, if it does.
    #[getter]
    fn metrics_address(&self) -> Option<&str> {
        self.metrics_address.as_deref()
    }

    /// Whether it has not been stopped.
    #[getter]
    fn is_running(&self) -> bool {
        let running = self.running.lock();
        running.as_ref().is_some_and(Owned::is_ours)
    }

    /// Reads the tokens file and the files for TLS again. Who was revoked is sent away; if a file cannot
    /// be used, all stays as it was.
    fn reload(&self, py: Python<'_>) -> PyResult<()> {
        let reload = || {
            let running = self.running.lock();
            let running = running.as_ref().and_then(Owned::get);
            running.map(|Running { handle, runtime }| runtime.block_on(handle.reload()))
        };
        match py.detach(reload) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(PyOSError::new_err(with_causes(&error))),
            None => Err(errors::raise(py, "UsageError", "the server was stopped")),
        }
    }

    /// Stops it: named tables are written to disk. A server that was stopped stays so.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let running = py.detach(|| self.running.lock().take());
        // In a child of the process that started it, there is nothing to stop.
        let Some(running) = running.and_then(Owned::into_inner) else {
            return Ok(());
        };
        py.detach(move || {
            let Running { handle, runtime } = running;
            runtime.block_on(handle.stop())
        })
        .map_err(|error| {
            let text = format!("the server did not stop cleanly: {}", with_causes(&error));
            errors::raise(py, "StorageError", &text)
        })
    }
}

fn config(args: Args) -> PyResult<Config> {
    Config::from_args(args).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Does what `--check` or `--repair` says; gives the words for it, and whether all is well. None if neither is
/// asked for.
#[pyfunction]
pub(crate) fn examine(py: Python<'_>, arguments: Vec<String>) -> PyResult<Option<(String, bool)>> {
    let args = parse(arguments)?;
    let (checks, repairs) = (args.check, args.repair);
    if args.json {
        return Err(PyValueError::new_err(
            "--json is an option of the program rhash-server",
        ));
    }
    let store = config(args)?.store;
    let examined = py.detach(|| match (checks, repairs) {
        (true, _) => check(&store, &mut |_, _| {})
            .map(|report| Some((report.to_string(), report.is_sound()))),
        (_, true) => repair(&store, &mut |_, _| {})
            .map(|report| Some((report.to_string(), report.dropped.is_empty()))),
        _ => Ok(None),
    });
    examined.map_err(|error| PyOSError::new_err(with_causes(&error)))
}

fn start(config: Config) -> Result<Running, Box<dyn Error + Send + Sync>> {
    let runtime = embed::runtime()?;
    let handle = runtime.block_on(RustServer::start(config))?;
    Ok(Running { handle, runtime })
}

/// The options of `rhash-server`; what is wrong with them is said in one paragraph, since the usage is
/// another one here.
fn parse(arguments: Vec<String>) -> PyResult<Args> {
    let command = Args::command().no_binary_name(true);
    command
        .try_get_matches_from(arguments)
        .and_then(|matches| Args::from_arg_matches(&matches))
        .map_err(|error| {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let end = ["\n\nUsage:", "\n\nFor more information"]
                .into_iter()
                .filter_map(|ending| text.find(ending))
                .min()
                .unwrap_or(text.len());
            PyValueError::new_err(text[..end].trim_end().to_owned())
        })
}

/// Prepares this process to be a server and nothing else: its allocator keeps little, and it logs to
/// standard error, as the options of `rhash-server` say.
#[pyfunction]
pub(crate) fn become_server(arguments: Vec<String>) -> PyResult<()> {
    let args = parse(arguments)?;
    allocator::give_back_soon();
    let log = tracing_subscriber::fmt()
        .with_max_level(args.log.filter())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    // Where there is a log already, that is kept.
    drop(match args.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    });
    Ok(())
}

/// What `--tokens` does.
const TOKENS_HELP: &str = "Let in the bearers of the tokens in this file alone; `token new` makes \
    them. It is read again on SIGHUP";

/// What `--help` says of the server's options, under another name and with other examples; `-h` is the
/// short form.
#[pyfunction]
pub(crate) fn server_help(program: String, usage: String, examples: String, long: bool) -> String {
    let mut command = Args::command()
        .bin_name(program)
        .override_usage(usage)
        .after_help(examples)
        // The tokens are made by another command here.
        .mut_arg("tokens", |tokens| tokens.help(TOKENS_HELP));
    let help = if long {
        command.render_long_help()
    } else {
        command.render_help()
    };
    help.to_string()
}

/// Draws a token: gives the secret, and its line for a tokens file, to which it is added if there is one.
#[pyfunction]
pub(crate) fn new_token(
    name: &str,
    tables: &str,
    rights: &str,
    file: Option<PathBuf>,
) -> PyResult<(String, String)> {
    let token = NewToken::draw(name, tables, rights)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    if let Some(file) = file {
        token.append_to(&file).map_err(|error| match &error {
            TokensError::Line { .. } => PyValueError::new_err(error.to_string()),
            _ => PyOSError::new_err(with_causes(&error)),
        })?;
    }
    Ok((token.secret, token.line))
}
