//! `--check` and `--repair`: a data directory looked over or mended, and what came of it told.

use std::{
    error::Error,
    io::{self, Write as _},
};

use indicatif::{ProgressBar, ProgressStyle};
use rhash_server::store::{CheckReport, Damage, RepairReport, StoreConfig, check, repair};
use serde_json::{Value, json};

/// Checks the directory; says whether all in it is as it was written.
///
/// # Errors
/// It cannot be read.
pub(crate) fn run_check(config: &StoreConfig, as_json: bool) -> Result<bool, Box<dyn Error>> {
    let report = with_bar("checked", |progress| check(config, progress))?;
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", check_json(&report))?;
    } else {
        writeln!(out, "{report}")?;
    }
    out.flush()?;
    Ok(report.is_sound())
}

/// Repairs the directory; says whether nothing had to be left out.
///
/// # Errors
/// It cannot be read or written.
pub(crate) fn run_repair(config: &StoreConfig, as_json: bool) -> Result<bool, Box<dyn Error>> {
    let report = with_bar("looked at", |progress| repair(config, progress))?;
    let mut out = io::stdout().lock();
    if as_json {
        writeln!(out, "{}", repair_json(&report))?;
    } else {
        writeln!(out, "{report}")?;
    }
    out.flush()?;
    Ok(report.dropped.is_empty())
}

/// Shows on a terminal how far `work` has come.
fn with_bar<T>(verb: &str, work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    let bar = ProgressBar::new(0);
    let template = "{bar:40} {bytes} of {total_bytes} {msg}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(verb.to_owned());
    let done = work(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    done
}

fn damage_json(damage: &[Damage]) -> Vec<Value> {
    let one = |damage: &Damage| {
        json!({
            "place": damage.place,
            "offset": damage.offset,
            "what": damage.what,
            "table": damage.table,
        })
    };
    damage.iter().map(one).collect()
}

fn check_json(report: &CheckReport) -> Value {
    json!({
        "sound": report.is_sound(),
        "tables": report.tables,
        "runs": report.runs,
        "run_records": report.run_records,
        "run_bytes": report.run_bytes,
        "log_segments": report.log_segments,
        "log_records": report.log_records,
        "log_bytes": report.log_bytes,
        "damage": damage_json(&report.damage),
        "damage_unlisted": report.damage_unlisted,
        "remarks": report.remarks,
    })
}

fn repair_json(report: &RepairReport) -> Value {
    json!({
        "dropped": damage_json(&report.dropped),
        "runs_rewritten": report.runs_rewritten,
        "runs_dropped": report.runs_dropped,
        "manifest_rebuilt": report.manifest_rebuilt,
        "log_rewritten": report.log_rewritten,
        "set_aside": report.set_aside,
    })
}
