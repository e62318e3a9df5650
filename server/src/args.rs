//! The command line of `rhash-server`. `config` checks it; nothing else sees it.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use rhash_protocol::{Durability, limits::DEFAULT_PORT};
use tracing::level_filters::LevelFilter;

use crate::{
    cold::BlockReads,
    size::{ByteSize, parse_span},
};

const EXAMPLES: &str = "\
Examples:
  rhash-server                                       half of this host's memory, ./data, port 10080
  rhash-server --mem-limit 8G --data /var/lib/rhash  at most 8 GiB of memory, the rest on disk
  rhash-server --mem-limit 512M --memory-only        no disk at all: a full server refuses writes
  rhash-server --listen 127.0.0.1:0                  a free port; the first line says which
  rhash-server --listen 0.0.0.0:10080 --tokens FILE  for other hosts, with the tokens in FILE

  rhash-server --check --data DIR                    is everything in DIR as it was written?

  rhash --server localhost:10080 stats               what it does, from another terminal

Sizes are bytes, or a number with K, M, G or T (powers of 1024): 65536, 512M, 1.5G, 8GiB.

Once ready, the server prints `listening on ADDRESS` on standard output; its log goes to standard
error. SIGTERM or Ctrl-C stops it cleanly: named tables are written to disk, and the next start
on the same directory finds them. SIGHUP makes it read its tokens again.

Exit codes: 0 stopped cleanly, or --check found nothing wrong, or --repair left nothing out; 1 failed, or found or
left out something; 2 the command line made no sense.";

/// Where the server listens if nothing is said.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:10080";
const _: () = assert!(
    DEFAULT_PORT == 10080,
    "DEFAULT_LISTEN names the protocol's port"
);

/// Where the server keeps what does not fit memory if nothing is said.
pub const DEFAULT_DATA_DIR: &str = "./data";

/// Serve hash tables that may be larger than memory.
///
/// Tables live in memory up to a limit; what does not fit goes to disk, and is read back
/// when it is asked for.
#[derive(Debug, Clone, Parser)]
#[command(name = "rhash-server", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// Listen on this address; port 0 picks a free one. Beyond this host only with --tokens.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = DEFAULT_LISTEN)]
    pub listen: String,

    /// Let in the bearers of the tokens in this file alone; `rhash token new` makes them.
    /// It is read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,

    /// Speak TLS with the certificate in this file (PEM), followed by those between it and its
    /// authority. It is read again on SIGHUP.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Take those clients alone whose certificate an authority in this file (PEM) signed.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// Listen beyond this host without tokens: everybody who can reach the port can then read,
    /// change and free all tables.
    #[arg(long, conflicts_with = "tokens")]
    pub insecure: bool,

    /// Use no more memory than this, for everything. At least 24M.
    /// Default: half of what this host or its control group has.
    #[arg(long, value_name = "SIZE")]
    pub mem_limit: Option<ByteSize>,

    /// Keep what does not fit memory, and named tables, in this directory.
    /// Default: ./data
    #[arg(long, value_name = "DIR", conflicts_with = "memory_only")]
    pub data: Option<PathBuf>,

    /// Read and verify all that is in the data directory, say what is damaged, and end. No server may be using the
    /// directory, and nothing in it is changed that a start would not.
    #[arg(long, conflicts_with_all = ["memory_only", "repair"])]
    pub check: bool,

    /// Make a damaged data directory usable, and end: keep all that is sound, say what is not, and set damaged files
    /// aside in its directory `damaged`. No server may be using it. Copy the directory first if you can.
    #[arg(long, conflicts_with = "memory_only")]
    pub repair: bool,

    /// Say as JSON what --check or --repair found.
    #[arg(long)]
    pub json: bool,

    /// Use no disk at all: over the limit, writes get an out-of-memory error.
    #[arg(long)]
    pub memory_only: bool,

    /// Use no more disk than this, at least 64M: over it, writes get an error, while reads, discards,
    /// clears and closes go on. An eighth of it is kept for them.
    /// Default: no limit.
    #[arg(long, value_name = "SIZE", conflicts_with = "memory_only")]
    pub disk_limit: Option<ByteSize>,

    /// When a write to a named table is answered: `none`: once it is in memory, so that it survives a clean
    /// stop; `everysec`: once it is in the log, so that it survives the server, and a machine that fails
    /// loses about a second; `always`: once it is on stable storage. Tables that were made with a level
    /// of their own keep that.
    /// Default: everysec.
    #[arg(long, value_name = "LEVEL", value_enum, conflicts_with = "memory_only")]
    pub durability: Option<DurabilityLevel>,

    /// Let the log take no more disk than this, at least 1M: beyond half of it what it says is written to
    /// tables, and beyond all of it writes wait for that. A longer log makes starts slower after a crash. It is no part
    /// of --disk-limit.
    /// Default: four times the memory limit, at least 512M and at most 1G, but no more than an eighth of the
    /// disk limit.
    #[arg(long, value_name = "SIZE", conflicts_with = "memory_only")]
    pub log_limit: Option<ByteSize>,

    /// Refuse to store longer values, 256M at most. Lists may grow longer by appends.
    /// Default: an eighth of the memory limit.
    #[arg(long, value_name = "SIZE")]
    pub max_value: Option<ByteSize>,

    /// Keep a client's temporary tables for this long after its connection was lost.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_span)]
    pub lease: Duration,

    /// Read from disk with this many threads.
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    pub read_threads: usize,

    /// Keep runs below this size in sled, and give a file to each other one. sled's memory grows with
    /// what it holds, so it is given a 128th of the limit at most, and then files take the small runs,
    /// too. With 0 all runs are files.
    #[arg(long, value_name = "SIZE", default_value = "1M")]
    pub small_run: ByteSize,

    /// Read blocks of large runs from disk through the page cache, or past it. auto: past it where it could hold less than
    /// half of the runs, so that a read costs less, and the cache stays with indexes.
    #[arg(long, value_name = "WAY", value_enum, default_value_t = BlockReads::Auto)]
    pub block_reads: BlockReads,

    /// Answer HTTP at this address: /metrics for Prometheus, /health and /ready. With --tokens,
    /// /metrics wants a bearer token for admin; with --tls-cert, all is by TLS.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<String>,

    /// How long connections may take to finish what is under way when the server stops.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_span)]
    pub drain_timeout: Duration,

    /// What clients may ask at most.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Log this much to standard error.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevel::Info)]
    pub log: LogLevel,

    /// Log lines for people, or JSON objects for programs.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// When a write to a named table is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityLevel {
    /// Once it is in memory.
    None,
    /// Once it is in the log.
    Everysec,
    /// Once it is on stable storage.
    Always,
}

impl DurabilityLevel {
    /// The level itself.
    pub fn level(self) -> Durability {
        match self {
            Self::None => Durability::None,
            Self::Everysec => Durability::EverySec,
            Self::Always => Durability::Always,
        }
    }
}

/// What clients may ask at most. `stats` shows it, and how often it was reached.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Connections at once, at most one for each 32 KiB of the memory limit. Default: one for each
    /// 64 KiB, at most 16384.
    #[arg(long, value_name = "COUNT")]
    pub max_connections: Option<u64>,

    /// Connections that have not said hello; of more, the oldest is closed. Default: 256.
    #[arg(long, value_name = "COUNT")]
    pub max_connections_before_hello: Option<u64>,

    /// How long a connection may take to say hello. Default: 5s.
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub hello_timeout: Option<Duration>,

    /// Close connections that ask for nothing for so long; clients of rhash come back by themselves.
    /// 0 never does. Default: 1h.
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub idle_timeout: Option<Duration>,

    /// How long one value may be on its way as a stream. Default: 1h.
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub stream_timeout: Option<Duration>,

    /// Sessions, with a connection and within their lease. Default: 8192.
    #[arg(long, value_name = "COUNT")]
    pub max_sessions: Option<u64>,

    /// Tables, named and temporary. Default: 1048576.
    #[arg(long, value_name = "COUNT")]
    pub max_tables: Option<u64>,

    /// Tables that one session may have open. Default: 131072.
    #[arg(long, value_name = "COUNT")]
    pub max_tables_per_session: Option<u64>,

    /// The longest name of a table, in bytes. Default: 255.
    #[arg(long, value_name = "BYTES")]
    pub max_table_name: Option<u64>,

    /// The longest key. Default: 64K.
    #[arg(long, value_name = "SIZE")]
    pub max_key: Option<ByteSize>,

    /// Operations or keys in one batch. Default: 65536.
    #[arg(long, value_name = "COUNT")]
    pub max_batch: Option<u64>,

    /// The longest frame. Default: 256K.
    #[arg(long, value_name = "SIZE")]
    pub max_frame: Option<ByteSize>,

    /// What all long requests may take that are being received.
    /// Default: a sixteenth of the memory limit.
    #[arg(long, value_name = "SIZE")]
    pub max_requests_in_flight: Option<ByteSize>,

    /// What all answers may take until they are sent. Default: a sixteenth of the memory limit.
    #[arg(long, value_name = "SIZE")]
    pub max_answers_in_flight: Option<ByteSize>,

    /// What the answers of one connection may take, whose reader may be slow.
    /// Default: a 64th of the memory limit, at most 4M.
    #[arg(long, value_name = "SIZE")]
    pub max_answers_per_connection: Option<ByteSize>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object each.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What went wrong.
    Error,
    /// And what may go wrong.
    Warn,
    /// And starts, stops and what they found.
    Info,
    /// And connections, spills and merges.
    Debug,
    /// And single requests.
    Trace,
}

impl LogLevel {
    /// What is logged at this level, for a subscriber.
    pub fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_that_the_help_names() {
        let args = Args::try_parse_from(["rhash-server"]).unwrap();
        assert_eq!(args.listen, "127.0.0.1:10080");
        assert_eq!(args.lease, Duration::from_secs(60));
        assert_eq!(args.small_run, ByteSize(1 << 20));
        assert_eq!(
            (args.mem_limit, args.data, args.max_value),
            (None, None, None)
        );
        assert_eq!(args.disk_limit, None);
        assert!(!args.memory_only);
    }

    #[test]
    fn a_server_without_a_disk_takes_no_directory_and_no_limit_for_it() {
        for option in [["--data", "x"], ["--disk-limit", "1G"]] {
            let args = ["rhash-server", "--memory-only"].into_iter().chain(option);
            assert_eq!(
                Args::try_parse_from(args).unwrap_err().kind(),
                clap::error::ErrorKind::ArgumentConflict
            );
        }
    }

    #[test]
    fn a_bad_size_is_named_with_the_forms_that_are_good() {
        let error = Args::try_parse_from(["rhash-server", "--mem-limit", "8 gigs"]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("--mem-limit <SIZE>") && text.contains("\"8 gigs\""),
            "{text}"
        );
        assert!(text.contains("512M, 1.5G or 8GiB"), "{text}");
    }
}
