//! What clients may ask of a server at most, and how often they asked for more.
//!
//! Memory has a limit of its own, which those here follow unless they are given. Each has an option
//! and a line in `stats`.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use rhash_protocol::{
    LimitInfo,
    limits::{
        BATCH_BYTES_TARGET, BATCH_ENTRIES_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX, KEY_BYTES_MAX,
        TABLE_NAME_BYTES_MAX,
    },
};

use crate::{args::LimitArgs, size::ByteSize};

/// What a connection may take at rest, for deciding how many there may be.
const CONNECTION_BYTES: u64 = 64 * 1024;
/// What one may take at most, all together, for deciding how many may be asked for: at rest, after a
/// request, it is 14 KiB, and all that is not connections needs as much.
const CONNECTION_BYTES_MIN: u64 = 32 * 1024;
const CONNECTIONS_MIN: u64 = 64;
const CONNECTIONS_MAX: u64 = 16_384;

/// A flood of connections that never say hello takes no more than these.
const CONNECTIONS_BEFORE_HELLO: u64 = 256;

/// The share of the memory limit that requests may take which are being received, and as much for
/// all answers.
const IN_FLIGHT_SHARE: u64 = 16;

/// The share of the memory limit that the answers of one connection may take.
const CONNECTION_SHARE: u64 = 64;
const CONNECTION_ANSWERS_BYTES_MAX: u64 = 4 << 20;

/// The longest time that a limit may be.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The most that any count may be.
const COUNT_MAX: u64 = 1 << 20;

/// What clients may ask of a server at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: u64,
    /// Of these, those that have not said hello yet. Where there are more, the oldest goes.
    pub connections_before_hello: u64,
    /// How long a connection may take to say hello.
    pub hello_time: Duration,
    /// How long a connection may ask for nothing; none for ever.
    pub idle_time: Option<Duration>,
    /// How long one value may be on its way as a stream, which keeps its files alive.
    pub stream_time: Duration,
    /// Sessions, with and without a connection.
    pub sessions: u64,
    /// Tables, named and temporary.
    pub tables: u64,
    /// Tables that one session may have open.
    pub tables_per_session: u64,
    /// The longest name of a table.
    pub table_name_bytes: u64,
    /// The longest key.
    pub key_bytes: u64,
    /// The most operations or keys in one batch.
    pub batch_entries: u64,
    /// The longest body of a frame.
    pub frame_bytes: u64,
    /// What all requests may take that are being received.
    pub requests_in_flight_bytes: u64,
    /// What all answers may take until they are sent.
    pub answers_in_flight_bytes: u64,
    /// What those of one connection may take.
    pub answers_per_connection_bytes: u64,
}

/// A limit that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {given} is not between {least} and {most}")]
pub struct LimitError {
    /// The option.
    pub option: &'static str,
    /// What was given.
    pub given: String,
    /// The least that makes sense.
    pub least: String,
    /// The most.
    pub most: String,
}

impl Limits {
    /// Those of a server with this memory limit, if nothing is said.
    pub fn for_memory(mem_limit_bytes: u64) -> Self {
        let connection_bytes = mem_limit_bytes / CONNECTION_SHARE;
        Self {
            connections: (mem_limit_bytes / CONNECTION_BYTES)
                .clamp(CONNECTIONS_MIN, CONNECTIONS_MAX),
            connections_before_hello: CONNECTIONS_BEFORE_HELLO,
            hello_time: Duration::from_secs(5),
            idle_time: Some(Duration::from_secs(3600)),
            stream_time: Duration::from_secs(3600),
            sessions: 8192,
            tables: COUNT_MAX,
            tables_per_session: 1 << 17,
            table_name_bytes: TABLE_NAME_BYTES_MAX as u64,
            key_bytes: KEY_BYTES_MAX as u64,
            batch_entries: BATCH_ENTRIES_MAX as u64,
            frame_bytes: FRAME_BYTES_MAX as u64,
            requests_in_flight_bytes: mem_limit_bytes / IN_FLIGHT_SHARE,
            answers_in_flight_bytes: mem_limit_bytes / IN_FLIGHT_SHARE,
            answers_per_connection_bytes: connection_bytes.min(CONNECTION_ANSWERS_BYTES_MAX),
        }
    }

    /// Those that a command line asks for.
    ///
    /// # Errors
    /// [`LimitError`] names the first that makes no sense.
    pub fn from_args(args: &LimitArgs, mem_limit_bytes: u64) -> Result<Self, LimitError> {
        let defaults = Self::for_memory(mem_limit_bytes);
        let mut limits = defaults.clone();
        let counts = [
            (
                "--max-connections",
                args.max_connections,
                &mut limits.connections,
                (mem_limit_bytes / CONNECTION_BYTES_MIN).clamp(CONNECTIONS_MIN, COUNT_MAX),
            ),
            (
                "--max-connections-before-hello",
                args.max_connections_before_hello,
                &mut limits.connections_before_hello,
                COUNT_MAX,
            ),
            (
                "--max-sessions",
                args.max_sessions,
                &mut limits.sessions,
                COUNT_MAX,
            ),
            (
                "--max-tables",
                args.max_tables,
                &mut limits.tables,
                COUNT_MAX,
            ),
            (
                "--max-tables-per-session",
                args.max_tables_per_session,
                &mut limits.tables_per_session,
                COUNT_MAX,
            ),
            (
                "--max-table-name",
                args.max_table_name,
                &mut limits.table_name_bytes,
                TABLE_NAME_BYTES_MAX as u64,
            ),
            (
                "--max-batch",
                args.max_batch,
                &mut limits.batch_entries,
                BATCH_ENTRIES_MAX as u64,
            ),
        ];
        for (option, given, limit, most) in counts {
            if let Some(given) = given {
                *limit = within(option, given, 1..=most, |count| count.to_string())?;
            }
        }
        let half = mem_limit_bytes / 2;
        let sizes = [
            (
                "--max-key",
                args.max_key,
                &mut limits.key_bytes,
                16,
                KEY_BYTES_MAX as u64,
            ),
            // A batch of writes, as clients make them, is more than one frame then.
            (
                "--max-frame",
                args.max_frame,
                &mut limits.frame_bytes,
                4096,
                FRAME_BYTES_MAX as u64,
            ),
            (
                "--max-requests-in-flight",
                args.max_requests_in_flight,
                &mut limits.requests_in_flight_bytes,
                BATCH_BYTES_TARGET as u64,
                half,
            ),
            (
                "--max-answers-in-flight",
                args.max_answers_in_flight,
                &mut limits.answers_in_flight_bytes,
                BATCH_BYTES_TARGET as u64,
                half,
            ),
            (
                "--max-answers-per-connection",
                args.max_answers_per_connection,
                &mut limits.answers_per_connection_bytes,
                BATCH_BYTES_TARGET as u64,
                half,
            ),
        ];
        for (option, given, limit, least, most) in sizes {
            if let Some(ByteSize(given)) = given {
                let shown = |bytes| ByteSize(bytes).to_string();
                *limit = within(option, given, least..=most.max(least), shown)?;
            }
        }
        limits.hello_time = time("--hello-timeout", args.hello_timeout, defaults.hello_time)?;
        limits.stream_time = time(
            "--stream-timeout",
            args.stream_timeout,
            defaults.stream_time,
        )?;
        limits.idle_time = match args.idle_timeout {
            None => defaults.idle_time,
            Some(Duration::ZERO) => None,
            given => Some(time("--idle-timeout", given, Duration::ZERO)?),
        };
        Ok(limits)
    }
}

fn within(
    option: &'static str,
    given: u64,
    range: std::ops::RangeInclusive<u64>,
    shown: impl Fn(u64) -> String,
) -> Result<u64, LimitError> {
    if range.contains(&given) {
        return Ok(given);
    }
    Err(LimitError {
        option,
        given: shown(given),
        least: shown(*range.start()),
        most: shown(*range.end()),
    })
}

fn time(
    option: &'static str,
    given: Option<Duration>,
    default: Duration,
) -> Result<Duration, LimitError> {
    let shown = |time: Duration| format!("{} s", time.as_secs_f64());
    match given {
        None => Ok(default),
        Some(given) if (Duration::from_millis(1)..=TIME_MAX).contains(&given) => Ok(given),
        Some(given) => Err(LimitError {
            option,
            given: shown(given),
            least: "1ms".to_owned(),
            most: shown(TIME_MAX),
        }),
    }
}

/// A limit by name, for counting how often it was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    Connections,
    ConnectionsBeforeHello,
    HelloTime,
    IdleTime,
    StreamTime,
    Sessions,
    Tables,
    TablesPerSession,
    TableNameBytes,
    KeyBytes,
    ValueBytes,
    BatchEntries,
    FrameBytes,
    Tokens,
}

const LIMITS: usize = Limit::Tokens as usize + 1;

/// How often each limit was reached.
#[derive(Debug, Default)]
pub(crate) struct Reached([AtomicU64; LIMITS]);

impl Reached {
    /// Counts a time.
    pub(crate) fn count(&self, limit: Limit) {
        if let Some(counter) = self.0.get(limit as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// The times so far.
    pub(crate) fn times(&self, limit: Limit) -> u64 {
        let counter = self.0.get(limit as usize);
        counter.map_or(0, |counter| counter.load(Relaxed))
    }
}

/// What of the limits is used now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) connections: u64,
    pub(crate) connections_before_hello: u64,
    pub(crate) sessions: u64,
    pub(crate) tables: u64,
    pub(crate) requests_in_flight_bytes: u64,
    /// How often requests waited for room.
    pub(crate) requests_waited: u64,
    pub(crate) answers_in_flight_bytes: u64,
    /// How often answers did.
    pub(crate) answers_waited: u64,
}

/// All limits, as `stats` shows them. Times are in milliseconds; a time without a limit is 0.
pub(crate) fn figures(
    limits: &Limits,
    value_bytes: u64,
    used: Used,
    reached: &Reached,
) -> Vec<LimitInfo> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let idle_ms = limits.idle_time.map_or(0, ms);
    use Limit as L;
    let lines: [(&str, u64, Option<u64>, Option<Limit>); 18] = [
        (
            "connections",
            limits.connections,
            Some(used.connections),
            Some(L::Connections),
        ),
        (
            "connections_before_hello",
            limits.connections_before_hello,
            Some(used.connections_before_hello),
            Some(L::ConnectionsBeforeHello),
        ),
        ("hello_bytes", HELLO_BYTES_MAX as u64, None, None),
        ("hello_ms", ms(limits.hello_time), None, Some(L::HelloTime)),
        ("invalid_tokens", 0, None, Some(L::Tokens)),
        ("idle_ms", idle_ms, None, Some(L::IdleTime)),
        (
            "stream_ms",
            ms(limits.stream_time),
            None,
            Some(L::StreamTime),
        ),
        (
            "sessions",
            limits.sessions,
            Some(used.sessions),
            Some(L::Sessions),
        ),
        ("tables", limits.tables, Some(used.tables), Some(L::Tables)),
        (
            "tables_per_session",
            limits.tables_per_session,
            None,
            Some(L::TablesPerSession),
        ),
        (
            "table_name_bytes",
            limits.table_name_bytes,
            None,
            Some(L::TableNameBytes),
        ),
        ("key_bytes", limits.key_bytes, None, Some(L::KeyBytes)),
        ("value_bytes", value_bytes, None, Some(L::ValueBytes)),
        (
            "batch_entries",
            limits.batch_entries,
            None,
            Some(L::BatchEntries),
        ),
        ("frame_bytes", limits.frame_bytes, None, Some(L::FrameBytes)),
        (
            "requests_in_flight_bytes",
            limits.requests_in_flight_bytes,
            Some(used.requests_in_flight_bytes),
            None,
        ),
        (
            "answers_in_flight_bytes",
            limits.answers_in_flight_bytes,
            Some(used.answers_in_flight_bytes),
            None,
        ),
        (
            "answers_per_connection_bytes",
            limits.answers_per_connection_bytes,
            None,
            None,
        ),
    ];
    lines
        .into_iter()
        .map(|(name, max, in_use, limit)| LimitInfo {
            name: name.to_owned(),
            max,
            used: in_use,
            reached: match (name, limit) {
                ("requests_in_flight_bytes", _) => used.requests_waited,
                ("answers_in_flight_bytes", _) => used.answers_waited,
                (_, Some(limit)) => reached.times(limit),
                (_, None) => 0,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;

    fn limits(args: &[&str]) -> Result<Limits, LimitError> {
        let args = ["rhash-server"].iter().chain(args);
        Limits::from_args(&Args::try_parse_from(args).unwrap().limits, 64 << 20)
    }

    #[test]
    fn limits_follow_memory_unless_they_are_given() {
        let default = limits(&[]).unwrap();
        assert_eq!(default, Limits::for_memory(64 << 20));
        assert_eq!(
            (default.connections, default.requests_in_flight_bytes),
            (1024, 4 << 20)
        );
        let given = limits(&[
            "--max-connections=7",
            "--max-key=1K",
            "--max-frame=64K",
            "--idle-timeout=0",
            "--hello-timeout=250ms",
            "--max-answers-in-flight=1M",
        ])
        .unwrap();
        assert_eq!((given.connections, given.key_bytes), (7, 1024));
        assert_eq!((given.idle_time, given.frame_bytes), (None, 64 << 10));
        assert_eq!(given.hello_time, Duration::from_millis(250));
        assert_eq!(given.answers_in_flight_bytes, 1 << 20);
        assert_eq!(given.sessions, default.sessions);
    }

    #[test]
    fn a_limit_that_makes_no_sense_is_named_with_what_does() {
        let text = |args: &[&str]| limits(args).unwrap_err().to_string();
        assert_eq!(
            text(&["--max-connections=0"]),
            "--max-connections 0 is not between 1 and 2048"
        );
        assert_eq!(
            text(&["--max-key=65K"]),
            "--max-key 65 KiB is not between 16 B and 64 KiB"
        );
        assert!(text(&["--max-answers-in-flight=1G"]).contains("and 32 MiB"));
        assert!(text(&["--hello-timeout=0"]).starts_with("--hello-timeout 0 s is not between"));
        assert!(text(&["--max-table-name=256"]).contains("255"));
    }

    #[test]
    fn each_limit_has_a_line_and_a_count() {
        let reached = Reached::default();
        reached.count(Limit::Connections);
        reached.count(Limit::Tokens);
        let used = Used {
            connections: 3,
            connections_before_hello: 0,
            sessions: 0,
            tables: 0,
            requests_in_flight_bytes: 0,
            requests_waited: 8,
            answers_in_flight_bytes: 0,
            answers_waited: 0,
        };
        let lines = figures(&Limits::for_memory(1 << 30), 5, used, &reached);
        let line = |name: &str| lines.iter().find(|line| line.name == name).unwrap();
        assert_eq!(
            (line("connections").used, line("connections").reached),
            (Some(3), 1)
        );
        assert_eq!(
            (line("value_bytes").max, line("invalid_tokens").reached),
            (5, 1)
        );
        let all: u64 = lines.iter().map(|line| line.reached).sum();
        assert_eq!(all, 2 + 8);
    }
}
