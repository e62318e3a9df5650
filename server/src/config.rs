//! What a server is made of, checked.

use std::{path::PathBuf, time::Duration};

use rhash_protocol::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::{
    args::{Args, DEFAULT_DATA_DIR},
    cold::reserve_bytes,
    limits::{LimitError, Limits},
    log::Durability,
    memory_limit::memory_available_bytes,
    size::ByteSize,
    store::{LOG_LIMIT_BYTES_MIN, StoreConfig},
    tls::TlsFiles,
};

/// The least memory limit under which a server does its work.
pub const MEM_LIMIT_BYTES_MIN: u64 = 24 << 20;

/// The least disk limit: what is kept back of it must have room for merges.
pub const DISK_LIMIT_BYTES_MIN: u64 = 64 << 20;

/// The share of the host's memory that a server takes if nothing is said.
const HOST_SHARE: u64 = 2;

/// The share of the memory limit that one value may take if nothing is said.
const VALUE_SHARE: u64 = 8;

/// The log takes no more than this share of the disk limit if nothing is said, as a divisor.
const LOG_DISK_SHARE: u64 = 8;

/// The most threads that read from disk.
pub const READ_THREADS_MAX: usize = 256;

/// The longest lease: what a client leaves behind must go some time.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a server is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 picks a free one.
    pub listen: String,
    /// The file with the tokens of those who may come in; none lets everybody in.
    pub tokens: Option<PathBuf>,
    /// The files for TLS; none speaks in the clear.
    pub tls: Option<TlsFiles>,
    /// Whether it may listen beyond this host without tokens.
    pub insecure: bool,
    /// Where it answers HTTP for those who watch over it, if it does.
    pub metrics: Option<String>,
    /// How long connections may take to finish when it stops.
    pub drain_time: Duration,
    /// How long a session outlives its connection.
    pub lease: Duration,
    /// What clients may ask at most.
    pub limits: Limits,
    /// What its tables are kept in.
    pub store: StoreConfig,
}

/// A setting that makes no sense; the command line's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Too little memory to work in.
    #[error(
        "a memory limit of {given} is too small; the server needs at least {}",
        ByteSize(MEM_LIMIT_BYTES_MIN)
    )]
    MemLimit {
        /// What was given.
        given: ByteSize,
    },
    /// The host does not say how much memory it has.
    #[error("cannot tell how much memory this host has; give --mem-limit SIZE, such as 512M")]
    MemUnknown,
    /// Too little disk to work on.
    #[error(
        "a disk limit of {given} is too small; the server needs at least {}",
        ByteSize(DISK_LIMIT_BYTES_MIN)
    )]
    DiskLimit {
        /// What was given.
        given: ByteSize,
    },
    /// Too little room for a log.
    #[error(
        "a log limit of {given} is too small; the server needs at least {}, or --durability none",
        ByteSize(LOG_LIMIT_BYTES_MIN)
    )]
    LogLimit {
        /// What was given.
        given: ByteSize,
    },
    /// Longer values than a message can carry, or than fit memory.
    #[error(
        "--max-value {given} is over {limit}, the most that the limits of memory and disk allow"
    )]
    ValueTooLarge {
        /// What was given.
        given: ByteSize,
        /// The most.
        limit: ByteSize,
    },
    /// Values shorter than keys.
    #[error("--max-value {given} is under {limit}, the least that makes sense")]
    ValueTooSmall {
        /// What was given.
        given: ByteSize,
        /// The least.
        limit: ByteSize,
    },
    /// No address that one could listen at.
    #[error("{given} is not ADDRESS:PORT, such as 127.0.0.1:10080 or [::]:10080")]
    Listen {
        /// What was given.
        given: String,
    },
    /// No threads, or too many.
    #[error("--read-threads {given} is not between 1 and {READ_THREADS_MAX}")]
    ReadThreads {
        /// What was given.
        given: usize,
    },
    /// No time to finish, or far too long.
    #[error("--drain-timeout {} s is not between 1 ms and {} s", given.as_secs_f64(), LEASE_MAX.as_secs())]
    Drain {
        /// What was given.
        given: Duration,
    },
    /// A limit that makes no sense.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A lease of nothing, or for ever.
    #[error("a lease of {} s is not between 1 ms and {} s", given.as_secs(), LEASE_MAX.as_secs())]
    Lease {
        /// What was given.
        given: Duration,
    },
}

impl Config {
    /// A server at a free port that only this host reaches, with all else as by default.
    pub fn new(store: StoreConfig) -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            tokens: None,
            tls: None,
            metrics: None,
            drain_time: Duration::from_secs(15),
            insecure: false,
            lease: Duration::from_secs(60),
            limits: Limits::for_memory(store.mem_limit_bytes),
            store,
        }
    }

    /// What a command line asks for.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting that makes no sense.
    pub fn from_args(args: Args) -> Result<Self, ConfigError> {
        let mem_limit_bytes = mem_limit_bytes(args.mem_limit, memory_available_bytes())?;
        let data_dir = (!args.memory_only)
            .then(|| args.data.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)));
        if !(1..=READ_THREADS_MAX).contains(&args.read_threads) {
            return Err(ConfigError::ReadThreads {
                given: args.read_threads,
            });
        }
        if args.lease.is_zero() || args.lease > LEASE_MAX {
            return Err(ConfigError::Lease { given: args.lease });
        }
        for address in [Some(&args.listen), args.metrics.as_ref()]
            .into_iter()
            .flatten()
        {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                let given = address.clone();
                return Err(ConfigError::Listen { given });
            }
        }
        if args.drain_timeout.is_zero() || args.drain_timeout > LEASE_MAX {
            return Err(ConfigError::Drain {
                given: args.drain_timeout,
            });
        }
        let mut limits = Limits::from_args(&args.limits, mem_limit_bytes)?;
        let tls = match (args.tls_cert, args.tls_key) {
            (Some(cert), Some(key)) => Some(TlsFiles {
                cert,
                key,
                client_ca: args.tls_client_ca,
            }),
            _ => None,
        };
        if tls.is_some() && args.limits.max_connections.is_none() {
            // Each has buffers for what is in cipher, too.
            limits.connections = (limits.connections / 2).max(1);
        }
        let mut store = StoreConfig::new(mem_limit_bytes, data_dir);
        store.disk_limit_bytes = match args.disk_limit {
            Some(given) if given.0 < DISK_LIMIT_BYTES_MIN => {
                return Err(ConfigError::DiskLimit { given });
            }
            limit => limit.map(|limit| limit.0),
        };
        // While a value is spilled, the reserve of the disk limit must have room for it.
        let reserve_bytes = store.disk_limit_bytes.map_or(u64::MAX, reserve_bytes);
        let values_bytes = mem_limit_bytes.min(reserve_bytes);
        store.value_bytes_max = value_bytes_max(args.max_value, values_bytes)?;
        store.read_threads = args.read_threads;
        store.small_run_bytes = args.small_run.0;
        store.block_reads = args.block_reads;
        store.durability = match args.durability {
            _ if args.memory_only => Durability::None,
            None => Durability::EverySec,
            Some(level) => level.level(),
        };
        if let Some(limit_bytes) = store.disk_limit_bytes {
            store.log_limit_bytes = store.log_limit_bytes.min(limit_bytes / LOG_DISK_SHARE);
        }
        if let Some(given) = args.log_limit {
            if given.0 < LOG_LIMIT_BYTES_MIN {
                return Err(ConfigError::LogLimit { given });
            }
            store.log_limit_bytes = given.0;
        }
        Ok(Self {
            listen: args.listen,
            tokens: args.tokens,
            tls,
            metrics: args.metrics,
            drain_time: args.drain_timeout,
            insecure: args.insecure,
            lease: args.lease,
            limits,
            store,
        })
    }
}

/// The memory limit: what was asked for, or half of what there is.
///
/// # Errors
/// [`ConfigError`] if it is too small to work in, or if nothing is known.
pub fn mem_limit_bytes(
    asked: Option<ByteSize>,
    available_bytes: Option<u64>,
) -> Result<u64, ConfigError> {
    let bytes = match (asked, available_bytes) {
        (Some(ByteSize(bytes)), _) => bytes,
        (None, Some(available)) => available / HOST_SHARE,
        (None, None) => return Err(ConfigError::MemUnknown),
    };
    if bytes < MEM_LIMIT_BYTES_MIN {
        return Err(ConfigError::MemLimit {
            given: ByteSize(bytes),
        });
    }
    Ok(bytes)
}

fn value_bytes_max(asked: Option<ByteSize>, limit_bytes: u64) -> Result<usize, ConfigError> {
    let default = (limit_bytes / VALUE_SHARE).min(VALUE_BYTES_MAX as u64);
    let bytes = match asked {
        None => default,
        // While a value is received, stored and spilled there are several copies of it.
        Some(given) if given.0 > (limit_bytes / 4).min(VALUE_BYTES_MAX as u64) => {
            let limit = ByteSize((limit_bytes / 4).min(VALUE_BYTES_MAX as u64));
            return Err(ConfigError::ValueTooLarge { given, limit });
        }
        Some(given) if given.0 < KEY_BYTES_MAX as u64 => {
            let limit = ByteSize(KEY_BYTES_MAX as u64);
            return Err(ConfigError::ValueTooSmall { given, limit });
        }
        Some(ByteSize(bytes)) => bytes,
    };
    Ok(usize::try_from(bytes).unwrap_or(VALUE_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn config(args: &[&str]) -> Result<Config, ConfigError> {
        let args = ["rhash-server"].iter().chain(args);
        Config::from_args(Args::try_parse_from(args).unwrap())
    }

    #[test]
    fn the_limit_is_half_of_what_there_is_unless_it_is_given() {
        assert_eq!(mem_limit_bytes(None, Some(8 << 30)), Ok(4 << 30));
        assert_eq!(
            mem_limit_bytes(Some(ByteSize(64 << 20)), Some(8 << 30)),
            Ok(64 << 20)
        );
        assert_eq!(
            mem_limit_bytes(Some(ByteSize(64 << 20)), None),
            Ok(64 << 20)
        );
        assert_eq!(mem_limit_bytes(None, None), Err(ConfigError::MemUnknown));
    }

    #[test]
    fn a_limit_below_the_working_minimum_is_refused_by_name() {
        let error = config(&["--mem-limit", "23M"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a memory limit of 23 MiB is too small; the server needs at least 24 MiB"
        );
        assert!(config(&["--mem-limit", "24M"]).is_ok());
        assert!(
            mem_limit_bytes(None, Some(32 << 20)).is_err(),
            "half of a small group"
        );
    }

    #[test]
    fn a_disk_limit_without_room_for_merges_is_refused_by_name() {
        let limit = |args: &[&str]| config(args).map(|config| config.store.disk_limit_bytes);
        assert_eq!(limit(&[]), Ok(None));
        assert_eq!(limit(&["--disk-limit", "1G"]), Ok(Some(1 << 30)));
        assert_eq!(
            limit(&["--disk-limit", "63M"]).unwrap_err().to_string(),
            "a disk limit of 63 MiB is too small; the server needs at least 64 MiB"
        );
    }

    #[test]
    fn the_longest_value_follows_the_limit() {
        let max = |args: &[&str]| config(args).map(|config| config.store.value_bytes_max);
        assert_eq!(max(&["--mem-limit", "24M"]), Ok(3 << 20));
        assert_eq!(max(&["--mem-limit", "100G"]), Ok(VALUE_BYTES_MAX));
        assert_eq!(
            max(&["--mem-limit", "64M", "--max-value", "1M"]),
            Ok(1 << 20)
        );
        let error = max(&["--mem-limit", "64M", "--max-value", "17M"]).unwrap_err();
        assert!(error.to_string().contains("is over 16 MiB"), "{error}");
        let error = max(&["--mem-limit", "64M", "--max-value", "1K"]).unwrap_err();
        assert!(error.to_string().contains("is under 64 KiB"), "{error}");
    }

    #[test]
    fn a_server_keeps_its_data_in_data_unless_told_otherwise() {
        let dir = |args: &[&str]| config(args).map(|config| config.store.data_dir);
        assert_eq!(dir(&[]), Ok(Some(PathBuf::from("./data"))));
        assert_eq!(dir(&["--data", "x"]), Ok(Some(PathBuf::from("x"))));
        assert_eq!(dir(&["--memory-only"]), Ok(None));
    }

    #[test]
    fn an_address_without_a_port_is_refused() {
        for listen in ["localhost", "1.2.3.4:", "1.2.3.4:99999", ""] {
            let error = config(&["--listen", listen]).unwrap_err();
            assert_eq!(
                error,
                ConfigError::Listen {
                    given: listen.to_owned()
                }
            );
        }
        assert!(config(&["--listen", "[::1]:0"]).is_ok());
    }

    #[test]
    fn threads_and_leases_have_bounds() {
        assert!(config(&["--read-threads", "0"]).is_err());
        assert!(config(&["--read-threads", "257"]).is_err());
        assert!(config(&["--lease", "0"]).is_err());
        assert!(config(&["--lease", "25h"]).is_err());
        assert!(config(&["--lease", "200ms", "--read-threads", "1"]).is_ok());
    }
}
