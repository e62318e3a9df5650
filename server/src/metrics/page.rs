//! The server's figures in the text format of Prometheus, version 0.0.4.
//!
//! Names end with their units; what only grows ends with `_total`. Entries, bytes and runs are told
//! per table and per tier.

use std::fmt::{self, Write as _};

use rhash_protocol::{Stats, TableInfo};

/// The most tables that have lines of their own, the largest; the others share some. Each line costs
/// whoever keeps them, too.
const TABLES_MAX: usize = 1000;

/// What tables without a line of their own are called. No table's name hides behind these: their
/// lines have a label that those of named tables have not.
const OTHERS: &str = "others";
const TEMPORARY: &str = "temporary";

/// The page.
pub(super) fn page(stats: &Stats) -> String {
    let mut page = Page(String::new());
    if let Err(error) = write_all(&mut page, stats) {
        // Cannot happen: a string takes whatever is written.
        tracing::error!(%error, "the figures cannot be written");
    }
    page.0
}

fn write_all(page: &mut Page, stats: &Stats) -> fmt::Result {
    let seconds = |ms: u64| ms as f64 / 1e3;
    page.head("build_info", "gauge", "The server's version.")?;
    page.line("build_info", &[("version", &stats.version)], 1.0)?;
    let singles: [(&str, &str, &str, f64); 23] = [
        (
            "uptime_seconds",
            "gauge",
            "How long it has run.",
            seconds(stats.uptime_ms),
        ),
        (
            "memory_limit_bytes",
            "gauge",
            "The memory limit.",
            stats.mem_limit_bytes as f64,
        ),
        (
            "memory_resident_bytes",
            "gauge",
            "Anonymous and shared memory, as the kernel counts it.",
            stats.resident_bytes as f64,
        ),
        (
            "memory_resident_max_bytes",
            "gauge",
            "The most of that so far.",
            stats.resident_bytes_max as f64,
        ),
        (
            "memory_tracked_bytes",
            "gauge",
            "What the server itself counts.",
            stats.tracked_bytes as f64,
        ),
        (
            "disk_bytes",
            "gauge",
            "Files of the data directory.",
            stats.disk_bytes as f64,
        ),
        (
            "sled_bytes",
            "gauge",
            "Runs that are kept in sled.",
            stats.sled_bytes as f64,
        ),
        (
            "spilled_entries_total",
            "counter",
            "Entries written to the cold tier by spills.",
            stats.spilled_entries as f64,
        ),
        (
            "spilled_bytes_total",
            "counter",
            "Bytes written to the cold tier by spills.",
            stats.spilled_bytes as f64,
        ),
        (
            "promoted_entries_total",
            "counter",
            "Entries brought back to memory by reads.",
            stats.promoted_entries as f64,
        ),
        (
            "merges_total",
            "counter",
            "Merges of runs.",
            stats.merges as f64,
        ),
        (
            "merged_bytes_total",
            "counter",
            "Bytes written by merges.",
            stats.merged_bytes as f64,
        ),
        (
            "cold_reads_total",
            "counter",
            "Blocks read from the cold tier for gets.",
            stats.cold_reads as f64,
        ),
        (
            "stalls_total",
            "counter",
            "Writes that waited for memory.",
            stats.stalls as f64,
        ),
        (
            "stall_seconds_total",
            "counter",
            "How long they did.",
            seconds(stats.stall_ms),
        ),
        (
            "stall_longest_seconds",
            "gauge",
            "The longest of them.",
            seconds(stats.stall_ms_max),
        ),
        (
            "merge_stalls_total",
            "counter",
            "Spills that waited for merges.",
            stats.merge_stalls as f64,
        ),
        (
            "merge_stall_seconds_total",
            "counter",
            "How long they did.",
            seconds(stats.merge_stall_ms),
        ),
        (
            "log_bytes",
            "gauge",
            "The log of named tables on disk.",
            stats.log_bytes as f64,
        ),
        (
            "log_troubled",
            "gauge",
            "Whether the log takes no writes, as its disk is full or has failed.",
            f64::from(u8::from(stats.log_trouble.is_some())),
        ),
        (
            "connections",
            "gauge",
            "Connections now.",
            stats.connections as f64,
        ),
        (
            "sessions",
            "gauge",
            "Sessions, also those within their lease.",
            stats.sessions as f64,
        ),
        (
            "operations_total",
            "counter",
            "Operations answered.",
            stats.operations as f64,
        ),
    ];
    for (name, kind, help, value) in singles {
        page.head(name, kind, help)?;
        page.line(name, &[], value)?;
    }
    limits(page, stats)?;
    tables(page, &stats.tables)
}

fn limits(page: &mut Page, stats: &Stats) -> fmt::Result {
    page.head(
        "limit",
        "gauge",
        "What clients may ask at most; its name ends with its unit.",
    )?;
    for limit in &stats.limits {
        page.line("limit", &[("limit", &limit.name)], limit.max as f64)?;
    }
    page.head("limit_used", "gauge", "What is used of it now.")?;
    for limit in &stats.limits {
        if let Some(used) = limit.used {
            page.line("limit_used", &[("limit", &limit.name)], used as f64)?;
        }
    }
    page.head(
        "limit_reached_total",
        "counter",
        "How often it was reached.",
    )?;
    for limit in &stats.limits {
        page.line(
            "limit_reached_total",
            &[("limit", &limit.name)],
            limit.reached as f64,
        )?;
    }
    Ok(())
}

/// The figures of one table, or of several together.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    tables: u64,
    hot_entries: u64,
    hot_bytes: u64,
    cold_bytes: u64,
    cold_runs: u64,
    entries_estimate: u64,
    sessions: u64,
}

impl Sum {
    fn add(&mut self, table: &TableInfo) {
        let pairs = [
            (&mut self.tables, 1),
            (&mut self.hot_entries, table.hot_entries),
            (&mut self.hot_bytes, table.hot_bytes),
            (&mut self.cold_bytes, table.cold_bytes),
            (&mut self.cold_runs, table.cold_runs),
            (&mut self.entries_estimate, table.entries_estimate),
            (&mut self.sessions, table.sessions),
        ];
        for (sum, more) in pairs {
            *sum = sum.saturating_add(more);
        }
    }
}

/// A tier's name, or none, and a figure of it.
type Tier = (&'static str, fn(&Sum) -> u64);

fn tables(page: &mut Page, tables: &[TableInfo]) -> fmt::Result {
    let mut named: Vec<&TableInfo> = tables.iter().filter(|table| table.name.is_some()).collect();
    named.sort_by_key(|table| std::cmp::Reverse(table.hot_bytes.saturating_add(table.cold_bytes)));
    let mut lines: Vec<([(&str, &str); 1], Sum)> = Vec::new();
    let (mut others, mut temporary) = (Sum::default(), Sum::default());
    for (number, table) in named.into_iter().enumerate() {
        match &table.name {
            Some(name) if number < TABLES_MAX => {
                let mut sum = Sum::default();
                sum.add(table);
                lines.push(([("table", name)], sum));
            }
            _ => others.add(table),
        }
    }
    tables
        .iter()
        .filter(|table| table.name.is_none())
        .for_each(|table| temporary.add(table));
    lines.push(([("tables", OTHERS)], others));
    lines.push(([("tables", TEMPORARY)], temporary));
    let families: [(&str, &str, &[Tier]); 6] = [
        ("tables", "Tables.", &[("", |sum| sum.tables)]),
        (
            "table_entries",
            "Entries in memory.",
            &[("hot", |sum| sum.hot_entries)],
        ),
        (
            "table_entries_estimate",
            "Entries, about: those that are in both tiers count twice.",
            &[("", |sum| sum.entries_estimate)],
        ),
        (
            "table_bytes",
            "What they take.",
            &[("hot", |sum| sum.hot_bytes), ("cold", |sum| sum.cold_bytes)],
        ),
        (
            "table_runs",
            "Runs on disk.",
            &[("cold", |sum| sum.cold_runs)],
        ),
        (
            "table_sessions",
            "Sessions that have it open.",
            &[("", |sum| sum.sessions)],
        ),
    ];
    for (name, help, figures) in families {
        page.head(name, "gauge", help)?;
        for (label, sum) in &lines {
            for (tier, figure) in figures {
                let value = figure(sum) as f64;
                match *tier {
                    "" => page.line(name, label, value)?,
                    tier => page.line(name, &[label[0], ("tier", tier)], value)?,
                }
            }
        }
    }
    Ok(())
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(
            self.0,
            "# HELP rhash_{name} {help}\n# TYPE rhash_{name} {kind}"
        )
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) -> fmt::Result {
        write!(self.0, "rhash_{name}")?;
        for (number, (label, text)) in labels.iter().enumerate() {
            let begin = if number == 0 { '{' } else { ',' };
            write!(self.0, "{begin}{label}=\"")?;
            for sign in text.chars() {
                match sign {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    sign => self.0.push(sign),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        writeln!(self.0, " {value}")
    }
}

#[cfg(test)]
mod tests {
    use rhash_protocol::{Durability, LimitInfo, TableKind};

    use super::*;

    fn table(name: Option<&str>, hot_bytes: u64) -> TableInfo {
        TableInfo {
            name: name.map(str::to_owned),
            table: 1,
            kind: TableKind::Values,
            codec: "bytes".to_owned(),
            entries_estimate: 2,
            hot_entries: 1,
            hot_bytes,
            cold_runs: 3,
            cold_bytes: 4,
            sessions: 1,
            durability: Durability::EverySec,
            own_durability: false,
        }
    }

    #[test]
    fn figures_have_units_and_tables_have_tiers() {
        let stats = Stats {
            version: "1".to_owned(),
            stall_ms: 1500,
            limits: vec![LimitInfo {
                name: "key_bytes".to_owned(),
                max: 7,
                used: None,
                reached: 2,
            }],
            tables: vec![table(Some("a\"b\\"), 10), table(None, 5), table(None, 6)],
            ..Stats::default()
        };
        let page = page(&stats);
        for line in [
            "# TYPE rhash_stall_seconds_total counter",
            "rhash_stall_seconds_total 1.5",
            "rhash_build_info{version=\"1\"} 1",
            "rhash_limit{limit=\"key_bytes\"} 7",
            "rhash_limit_reached_total{limit=\"key_bytes\"} 2",
            "rhash_table_bytes{table=\"a\\\"b\\\\\",tier=\"hot\"} 10",
            "rhash_table_bytes{table=\"a\\\"b\\\\\",tier=\"cold\"} 4",
            "rhash_table_bytes{tables=\"temporary\",tier=\"hot\"} 11",
            "rhash_tables{tables=\"temporary\"} 2",
            "rhash_tables{tables=\"others\"} 0",
        ] {
            assert!(page.lines().any(|has| has == line), "no {line} in:\n{page}");
        }
        let names = page.lines().filter(|line| !line.starts_with('#'));
        assert!(names.clone().all(|line| line.starts_with("rhash_")));
        // Each family is told once, and all its lines follow its head.
        let mut heads: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let all = heads.len();
        heads.sort_unstable();
        heads.dedup();
        assert_eq!(heads.len(), all);
    }

    #[test]
    fn the_largest_tables_have_lines_and_the_others_share_some() {
        let count = TABLES_MAX as u64 + 10;
        let names: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
        let tables = (0..)
            .zip(&names)
            .map(|(bytes, name)| table(Some(name), bytes));
        let stats = Stats {
            tables: tables.collect(),
            ..Stats::default()
        };
        let page = page(&stats);
        assert!(page.contains("rhash_tables{tables=\"others\"} 10\n"));
        assert!(page.contains("rhash_tables{table=\"t1009\"} 1\n"));
        assert!(!page.contains("rhash_tables{table=\"t9\"}"));
    }
}
