//! A connection with its cache, for any number of tables.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use pyo3::{exceptions::PyValueError, prelude::*};
use rhash_client::{
    CachePolicy, SERVER_VARIABLE,
    blocking::{Client as RustClient, ClientBuilder},
};

use rhash_protocol::limits::DEFAULT_PORT;

use crate::{errors, fork::Owned, shared::Shared};

/// The part of the cache that is for live objects, where there are some.
const LIVE_SHARE: usize = 8;

/// The least budget of the encoded part.
const CACHE_BYTES_MIN: usize = 4096;

/// A connection to a server, and the cache of all tables that are opened through it.
#[pyclass(
    frozen,
    subclass,
    weakref,
    module = "mivrhash._native",
    name = "Client"
)]
#[derive(Debug)]
pub(crate) struct Client {
    /// As it was given; none for that of the environment.
    address: Option<String>,
    /// What may be told of it.
    shown_address: String,
    options: ClientBuilder,
    cache_bytes: usize,
    connection: Mutex<Option<Arc<Owned<RustClient>>>>,
    /// Named tables that are open, so that handles on one share its live objects.
    pub(crate) shares: Mutex<HashMap<String, Weak<Shared>>>,
}

impl Client {
    /// The budget of the live objects of a table.
    pub(crate) fn live_bytes(&self) -> usize {
        self.cache_bytes / LIVE_SHARE
    }

    /// The connection; made anew in a child of the process that made it.
    pub(crate) fn connection(&self, py: Python<'_>) -> PyResult<RustClient> {
        let current = self.connection.lock().clone();
        let Some(current) = current else {
            return Err(errors::raise(py, "UsageError", "the client was closed"));
        };
        if let Some(client) = current.get() {
            return Ok(client.clone());
        }
        let client = self.connect(py)?;
        let owned = Arc::new(Owned::new(client.clone()));
        let before = self.connection.lock().replace(owned);
        drop(before);
        self.shares.lock().clear();
        Ok(client)
    }

    /// Whether nothing goes over it any more, though it was flushed.
    pub(crate) fn is_closed(&self) -> bool {
        self.connection.lock().is_none()
    }

    /// Writes what changed in live values of all named tables into the cache.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        let shares: Vec<_> = {
            let shares = self.shares.lock();
            shares.values().filter_map(Weak::upgrade).collect()
        };
        let settled = shares.iter().map(|shared| shared.settle(py));
        settled.fold(Ok(()), PyResult::and)
    }

    fn connect(&self, py: Python<'_>) -> PyResult<RustClient> {
        let options = self.options.clone();
        let address = self.address.clone();
        py.detach(move || match address {
            Some(address) => options.connect(&address),
            None => options.connect_default(),
        })
        .map_err(|error| errors::of_client(py, &error))
    }

    /// Calls the client while others run Python.
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&RustClient) -> rhash_client::Result<T> + Send,
    ) -> PyResult<T> {
        let client = self.connection(py)?;
        py.detach(move || work(&client))
            .map_err(|error| errors::of_client(py, &error))
    }
}

/// An address without the token that it may have: what is shown or kept must not tell it.
fn shown(address: Option<&str>) -> String {
    let of_environment = || std::env::var(SERVER_VARIABLE).ok();
    let address = address.map(str::to_owned).or_else(of_environment);
    let address = address.filter(|address| !address.is_empty());
    let address = address.unwrap_or_else(|| format!("127.0.0.1:{DEFAULT_PORT}"));
    let begin = address.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = address.split_at(begin);
    let place = rest.rsplit_once('@').map_or(rest, |(_token, place)| place);
    format!("{scheme}{place}")
}

/// A number of bytes or items.
fn count(name: &str, value: i64) -> PyResult<usize> {
    usize::try_from(value)
        .map_err(|_negative| PyValueError::new_err(format!("{name} is {value}, below zero")))
}

fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_out_of_range| PyValueError::new_err(format!("{name} is {value}, not a time")))
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (address=None, *, cache_bytes=None, cache_items=None, cache_policy="write-back",
        live=true, flush_interval=None, connect_timeout=None, request_timeout=None,
        retry_deadline=None, token=None, token_file=None, tls_ca=None, tls_identity=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        address: Option<String>,
        cache_bytes: Option<i64>,
        cache_items: Option<i64>,
        cache_policy: &str,
        live: bool,
        flush_interval: Option<f64>,
        connect_timeout: Option<f64>,
        request_timeout: Option<f64>,
        retry_deadline: Option<f64>,
        token: Option<String>,
        token_file: Option<PathBuf>,
        tls_ca: Option<PathBuf>,
        tls_identity: Option<(PathBuf, PathBuf)>,
    ) -> PyResult<Self> {
        let cache_bytes = match cache_bytes {
            Some(value) => count("cache_bytes", value)?,
            None => rhash_client::CACHE_BYTES_DEFAULT,
        };
        let cache_items = cache_items.map(|value| count("cache_items", value));
        let live_bytes = if live { cache_bytes / LIVE_SHARE } else { 0 };
        let policy = match cache_policy {
            "write-back" => CachePolicy::WriteBack,
            "write-through" => CachePolicy::WriteThrough,
            "none" => CachePolicy::None,
            other => {
                return Err(PyValueError::new_err(format!(
                    "cache_policy is {other:?}, not 'write-back', 'write-through' or 'none'"
                )));
            }
        };
        let encoded_bytes = cache_bytes - live_bytes;
        let mut options = ClientBuilder::default()
            .cache_bytes(encoded_bytes.max(CACHE_BYTES_MIN.min(cache_bytes)))
            .cache_items(cache_items.transpose()?)
            .cache_policy(policy)
            .client_name(concat!("mivrhash ", env!("CARGO_PKG_VERSION")));
        if let Some(value) = flush_interval {
            options = options.flush_interval(seconds("flush_interval", value)?);
        }
        if let Some(value) = connect_timeout {
            options = options.connect_timeout(seconds("connect_timeout", value)?);
        }
        if let Some(value) = request_timeout {
            options = options.request_timeout(seconds("request_timeout", value)?);
        }
        if let Some(value) = retry_deadline {
            options = options.retry_deadline(seconds("retry_deadline", value)?);
        }
        if let Some(token) = token {
            options = options.token(token);
        }
        if let Some(path) = token_file {
            options = options.token_file(path);
        }
        if let Some(path) = tls_ca {
            options = options.tls_ca(path);
        }
        if let Some((cert, key)) = tls_identity {
            options = options.tls_identity(cert, key);
        }
        let shown_address = shown(address.as_deref());
        let client = Self {
            address,
            shown_address,
            options,
            cache_bytes,
            connection: Mutex::new(None),
            shares: Mutex::default(),
        };
        let connected = client.connect(py)?;
        *client.connection.lock() = Some(Arc::new(Owned::new(connected)));
        Ok(client)
    }

    /// Where the server is, without the token that its address may have.
    #[getter]
    fn address(&self) -> &str {
        &self.shown_address
    }

    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    /// Sends all cached writes of all tables, and waits until the server has them.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.settle(py)?;
        self.call(py, RustClient::flush)
    }

    /// Flushes all tables, and waits until what was written to named ones is on stable storage.
    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        self.settle(py)?;
        self.call(py, RustClient::sync)
    }

    /// Flushes all tables, then disconnects.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        // What cannot be written keeps nobody from closing.
        let settled = self.settle(py);
        let Some(connection) = self.connection.lock().take() else {
            return Ok(());
        };
        let Some(client) = connection.get().cloned() else {
            return Ok(());
        };
        let shut = py.detach(move || client.shutdown());
        settled.and(shut.map_err(|error| errors::of_client(py, &error)))
    }

    /// The server's figures, as JSON.
    fn stats_json(&self, py: Python<'_>) -> PyResult<String> {
        let stats = self.call(py, RustClient::stats)?;
        serde_json::to_string(&stats).map_err(|error| errors::internal(&error.to_string()))
    }

    /// All tables that this client may see, as JSON.
    fn tables_json(&self, py: Python<'_>) -> PyResult<String> {
        let tables = self.call(py, RustClient::tables)?;
        serde_json::to_string(&tables).map_err(|error| errors::internal(&error.to_string()))
    }

    /// Asks the server for a sign of life, and gives the seconds that took.
    fn ping(&self, py: Python<'_>) -> PyResult<f64> {
        Ok(self.call(py, RustClient::ping)?.as_secs_f64())
    }

    /// Has the server copy its named tables to a new directory on its host; gives what was made, as JSON.
    fn backup_json(&self, py: Python<'_>, directory: &str) -> PyResult<String> {
        self.settle(py)?;
        let made = self.call(py, |client| client.backup(directory))?;
        serde_json::to_string(&made).map_err(|error| errors::internal(&error.to_string()))
    }

    /// Frees a named table, for everybody.
    fn close_table(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.call(py, |client| client.close_table(name))
    }
}
