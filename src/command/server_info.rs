//! `rhash tables`, `rhash stats` and `rhash ping`: what the server says of itself.

use std::{
    thread,
    time::{Duration, Instant},
};

use rhash_client::{LimitInfo, Stats, TableInfo, blocking::Client};

use crate::{
    cli,
    failure::Outcome,
    output::{Align, Output, count, size},
};

/// Lists the tables.
///
/// # Errors
/// Those of the client.
pub(crate) fn tables(client: &Client, args: &cli::Figures, out: &mut Output) -> Outcome {
    let tables = client.tables()?;
    if args.json {
        return Ok(out.json(&tables)?);
    }
    list(&tables, out)
}

fn list(tables: &[TableInfo], out: &mut Output) -> Outcome {
    if tables.is_empty() {
        return Ok(out.line("no tables")?);
    }
    let headings = [
        ("TABLE", Align::Left),
        ("KIND", Align::Left),
        ("CODEC", Align::Left),
        ("ENTRIES", Align::Right),
        ("IN MEMORY", Align::Right),
        ("BYTES", Align::Right),
        ("RUNS", Align::Right),
        ("ON DISK", Align::Right),
        ("DURABILITY", Align::Left),
    ];
    let row = |table: &TableInfo| {
        [
            table
                .name
                .clone()
                .unwrap_or_else(|| format!("(temporary {})", table.table)),
            table.kind.name().to_owned(),
            table.codec.clone(),
            format!("~{}", count(table.entries_estimate)),
            count(table.hot_entries),
            size(table.hot_bytes),
            count(table.cold_runs),
            size(table.cold_bytes),
            durability(table),
        ]
    };
    Ok(out.table(headings, &tables.iter().map(row).collect::<Vec<_>>())?)
}

/// A table's level, and whether it follows the server.
fn durability(table: &TableInfo) -> String {
    let level = table.durability.name();
    match &table.name {
        None => "-".to_owned(),
        Some(_) if table.own_durability => level.to_owned(),
        Some(_) => format!("{level} (server's)"),
    }
}

/// Shows the server's figures.
///
/// # Errors
/// Those of the client.
pub(crate) fn stats(client: &Client, args: &cli::Stats, out: &mut Output) -> Outcome {
    if let Some(every) = args.watch {
        return watch(client, every, args, out);
    }
    let stats = client.stats()?;
    if args.json {
        return Ok(out.json(&stats)?);
    }
    for (name, figure) in figures(&stats) {
        out.line(format_args!("{name:<12}{figure}"))?;
    }
    out.line("")?;
    limits(&stats.limits, out)?;
    out.line("")?;
    list(&stats.tables, out)
}

fn limits(limits: &[LimitInfo], out: &mut Output) -> Outcome {
    let headings = [
        ("LIMIT", Align::Left),
        ("MOST", Align::Right),
        ("NOW", Align::Right),
        ("REACHED", Align::Right),
    ];
    let row = |limit: &LimitInfo| {
        let (name, shown): (_, fn(u64) -> String) = match limit.name.rsplit_once('_') {
            Some((name, "bytes")) => (name, size),
            Some((name, "ms")) => (name, |ms| format!("{} s", ms as f64 / 1e3)),
            _ => (limit.name.as_str(), count),
        };
        let most = match limit.max {
            0 => "-".to_owned(),
            max => shown(max),
        };
        [
            name.replace('_', " "),
            most,
            limit.used.map_or_else(String::new, shown),
            count(limit.reached),
        ]
    };
    Ok(out.table(headings, &limits.iter().map(row).collect::<Vec<_>>())?)
}

fn figures(stats: &Stats) -> Vec<(&'static str, String)> {
    let tier = if stats.memory_only {
        ", in memory only"
    } else {
        ""
    };
    let disk_limit = match stats.disk_limit_bytes {
        0 => String::new(),
        limit => format!(" of {}", size(limit)),
    };
    let seconds = |milliseconds: u64| milliseconds as f64 / 1e3;
    vec![
        (
            "server",
            format!(
                "rhash {}, up {:.1} s{tier}",
                stats.version,
                seconds(stats.uptime_ms)
            ),
        ),
        (
            "memory",
            format!(
                "{} of {} ({} at most so far; {} counted)",
                size(stats.resident_bytes),
                size(stats.mem_limit_bytes),
                size(stats.resident_bytes_max),
                size(stats.tracked_bytes),
            ),
        ),
        (
            "disk",
            format!(
                "{}{disk_limit}, of which {} in sled",
                size(stats.disk_bytes),
                size(stats.sled_bytes)
            ),
        ),
        (
            "spilled",
            format!(
                "{} entries, {}",
                count(stats.spilled_entries),
                size(stats.spilled_bytes)
            ),
        ),
        (
            "promoted",
            format!(
                "{} entries; {} cold reads",
                count(stats.promoted_entries),
                count(stats.cold_reads)
            ),
        ),
        (
            "merged",
            format!(
                "{} times, {}",
                count(stats.merges),
                size(stats.merged_bytes)
            ),
        ),
        (
            "stalled",
            format!(
                "{} writes, {:.1} s in all, {:.3} s at most; {} spills waited for merges, {:.1} s",
                count(stats.stalls),
                seconds(stats.stall_ms),
                seconds(stats.stall_ms_max),
                count(stats.merge_stalls),
                seconds(stats.merge_stall_ms)
            ),
        ),
        (
            "log",
            match &stats.log_trouble {
                Some(trouble) => format!("{}; {trouble}", size(stats.log_bytes)),
                None => size(stats.log_bytes),
            },
        ),
        (
            "clients",
            format!(
                "{} connections, {} sessions",
                count(stats.connections),
                count(stats.sessions)
            ),
        ),
        ("operations", count(stats.operations)),
    ]
}

/// Lines of `stats --watch` between two headings.
const LINES_A_PAGE: u64 = 20;

/// Shows what changes, a line at a time, until it is stopped or nobody reads it any more.
fn watch(client: &Client, every: Duration, args: &cli::Stats, out: &mut Output) -> Outcome {
    let mut before = (Instant::now(), client.stats()?);
    for number in 0..args.count.unwrap_or(u64::MAX) {
        // It may wake up early, which makes a shorter line's time and no other difference.
        thread::park_timeout(every);
        let now = (Instant::now(), client.stats()?);
        if args.json {
            out.json(&now.1)?;
        } else {
            if number % LINES_A_PAGE == 0 {
                out.line(WATCH_HEADING)?;
            }
            out.line(watch_line(&before.1, &now.1, now.0 - before.0))?;
        }
        out.flush()?;
        before = now;
    }
    Ok(())
}

const WATCH_HEADING: &str =
    "     OPS/S      MEMORY        DISK   SPILLED/S    MERGED/S  COLD READS/S  STALLS  CLIENTS";

fn watch_line(before: &Stats, now: &Stats, time: Duration) -> String {
    let rate = |before: u64, now: u64| {
        // A server that was started anew counts from nothing.
        let more = now.checked_sub(before).unwrap_or(now);
        (more as f64 / time.as_secs_f64().max(1e-3)) as u64
    };
    format!(
        "{:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:>12}  {:>6}  {:>7}",
        count(rate(before.operations, now.operations)),
        size(now.resident_bytes),
        size(now.disk_bytes),
        size(rate(before.spilled_bytes, now.spilled_bytes)),
        size(rate(before.merged_bytes, now.merged_bytes)),
        count(rate(before.cold_reads, now.cold_reads)),
        count(now.stalls.checked_sub(before.stalls).unwrap_or(now.stalls)),
        count(now.connections),
    )
}

/// Measures round trips.
///
/// # Errors
/// Those of the client.
pub(crate) fn ping(client: &Client, args: &cli::Ping, out: &mut Output) -> Outcome {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let mut times = Vec::new();
    for number in 1..=args.count {
        let time = client.ping()?;
        times.push(time);
        out.line(format_args!(
            "round trip {number}: {:.3} ms",
            milliseconds(time)
        ))?;
        out.flush()?;
    }
    times.sort_unstable();
    if let [least, .., most] = times[..] {
        let median = times[times.len() / 2];
        out.line(format_args!(
            "least {:.3} ms, median {:.3} ms, most {:.3} ms",
            milliseconds(least),
            milliseconds(median),
            milliseconds(most)
        ))?;
    }
    Ok(())
}
