//! The options of a client.

use std::{path::PathBuf, time::Duration};

use crate::{
    address::Address,
    client::Client,
    error::{Error, ErrorKind, Result},
    tls::TlsOptions,
    token::{Token, TokenOptions},
};

/// The default budget of the cache.
pub const CACHE_BYTES_DEFAULT: usize = 64 * 1024 * 1024;

/// The default bound of the bytes that are sent and not answered.
pub const IN_FLIGHT_BYTES_DEFAULT: usize = 16 * 1024 * 1024;

const IN_FLIGHT_BYTES_MIN: usize = 64 * 1024;
const CACHE_BYTES_MIN: usize = 4 * 1024;

/// What the cache does with writes and with what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CachePolicy {
    /// Writes go to the cache, and from there to the server in batches; reads are kept.
    #[default]
    WriteBack,
    /// Each write waits for the server; what was written and read is kept.
    WriteThrough,
    /// Each write waits for the server; nothing is kept.
    None,
}

/// Builds a [`Client`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before `connect`"]
pub struct ClientBuilder {
    pub(crate) cache_bytes: usize,
    pub(crate) cache_items: Option<usize>,
    pub(crate) cache_policy: CachePolicy,
    pub(crate) flush_interval: Duration,
    pub(crate) flush_bytes: Option<usize>,
    pub(crate) in_flight_bytes: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) retry_deadline: Duration,
    pub(crate) backoff_min: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) token: TokenOptions,
    pub(crate) tls: TlsOptions,
    pub(crate) client_name: String,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            cache_bytes: CACHE_BYTES_DEFAULT,
            cache_items: None,
            cache_policy: CachePolicy::default(),
            flush_interval: Duration::from_secs(1),
            flush_bytes: None,
            in_flight_bytes: IN_FLIGHT_BYTES_DEFAULT,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(60),
            retry_deadline: Duration::from_secs(30),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            token: TokenOptions::default(),
            tls: TlsOptions::default(),
            client_name: concat!("rhash-client ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl ClientBuilder {
    /// The budget of the cache of all tables: keys, values and what each entry costs beyond them.
    /// Default: 64 MiB.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// The most entries in the cache, whatever their size. Default: none.
    pub fn cache_items(mut self, items: impl Into<Option<usize>>) -> Self {
        self.cache_items = items.into();
        self
    }

    /// What the cache does, for tables that are not opened with another policy.
    /// Default: [`CachePolicy::WriteBack`].
    pub fn cache_policy(mut self, policy: CachePolicy) -> Self {
        self.cache_policy = policy;
        self
    }

    /// How long a write stays in the cache at most before it is sent. Default: 1 second.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval;
        self
    }

    /// The bytes of cached writes at which they are sent, whatever their age. Default: a quarter
    /// of the cache.
    pub fn flush_bytes(mut self, bytes: usize) -> Self {
        self.flush_bytes = Some(bytes);
        self
    }

    /// The most bytes of requests that are not answered. Default: 16 MiB.
    pub fn in_flight_bytes(mut self, bytes: usize) -> Self {
        self.in_flight_bytes = bytes;
        self
    }

    /// How long one attempt to connect may take. Default: 5 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call waits for its answer. Default: 60 seconds.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a failed flush or a lost connection is tried again before calls say so.
    /// Default: 30 seconds.
    pub fn retry_deadline(mut self, deadline: Duration) -> Self {
        self.retry_deadline = deadline;
        self
    }

    /// The waits between attempts to reconnect: from `min`, doubled each time, up to `max`.
    /// Default: 20 ms to 2 s.
    pub fn backoff(mut self, waits: std::ops::RangeInclusive<Duration>) -> Self {
        (self.backoff_min, self.backoff_max) = waits.into_inner();
        self
    }

    /// What lets this client in, where the server asks for it. Default: what the address says
    /// (`rhash://TOKEN@HOST:PORT`), or else [`TOKEN_VARIABLE`](crate::TOKEN_VARIABLE), or the file
    /// that [`TOKEN_FILE_VARIABLE`](crate::TOKEN_FILE_VARIABLE) names.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token.token = Token::new(token);
        self
    }

    /// A file with the token, which nobody but its owner may be able to read. Default: none.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token.file = Some(path.into());
        self
    }

    /// A file with the authorities (PEM) to trust when an address begins with `rhash+tls://`.
    /// Default: the file that [`CA_VARIABLE`](crate::CA_VARIABLE) names, or else those of the system.
    pub fn tls_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca = Some(path.into());
        self
    }

    /// Files with this client's certificate and its private key (PEM), for servers that ask for them.
    /// Default: none.
    pub fn tls_identity(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.identity = Some((cert.into(), key.into()));
        self
    }

    /// What this client is called in the server's log. Default: the crate's name and version.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// Connects to `HOST:PORT`, or `rhash://TOKEN@HOST:PORT`, or by TLS to `rhash+tls://…`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for an address or option that is none, else why the server could not
    /// be reached or did not take this client.
    pub async fn connect(self, address: &str) -> Result<Client> {
        let address = address.parse()?;
        self.connect_to(address).await
    }

    /// Connects to where `RHASH_SERVER` says, or else to this host.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn connect_default(self) -> Result<Client> {
        self.connect_to(Address::from_env()?).await
    }

    async fn connect_to(self, address: Address) -> Result<Client> {
        self.check()?;
        Client::open(self, address).await
    }

    fn check(&self) -> Result<()> {
        let fault = if self.cache_bytes < CACHE_BYTES_MIN {
            format!(
                "cache_bytes is {}, below the least of {CACHE_BYTES_MIN}",
                self.cache_bytes
            )
        } else if self.cache_items == Some(0) {
            "cache_items is 0; use CachePolicy::None to cache nothing".to_owned()
        } else if self.in_flight_bytes < IN_FLIGHT_BYTES_MIN {
            format!(
                "in_flight_bytes is {}, below the least of {IN_FLIGHT_BYTES_MIN}",
                self.in_flight_bytes
            )
        } else if self.backoff_min.is_zero() || self.backoff_max < self.backoff_min {
            "backoff goes from a time above zero to one not below it".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::Usage, fault))
    }
}
