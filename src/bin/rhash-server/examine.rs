//! `--check` and `--repair`: a data directory looked over or mended, and what came of it told.

use std::{
    error::Error,
    io::{self, Write as _},
};

use indicatif::{ProgressBar, ProgressStyle};
use rhash_server::{
    size::ByteSize,
    store::{CheckReport, Damage, RepairReport, StoreConfig, check, repair},
};
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
        tell_damage(&mut out, &report.damage)?;
        if report.damage_unlisted > 0 {
            writeln!(out, "… and {} more", report.damage_unlisted)?;
        }
        for remark in &report.remarks {
            writeln!(out, "note: {remark}")?;
        }
        writeln!(out, "{}", looked_at(&report))?;
        match report.damage.len() as u64 + report.damage_unlisted {
            0 => writeln!(out, "all is as it was written")?,
            count => writeln!(
                out,
                "{count} damaged; --repair keeps all that is sound, or restore a backup"
            )?,
        }
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
        tell_damage(&mut out, &report.dropped)?;
        tell_repair(&mut out, &report)?;
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

fn tell_damage(out: &mut impl io::Write, damage: &[Damage]) -> io::Result<()> {
    for Damage {
        place,
        offset,
        what,
        table,
    } in damage
    {
        let at = offset.map_or_else(String::new, |offset| format!(" at byte {offset}"));
        let of = table
            .as_ref()
            .map_or_else(String::new, |table| format!(" (table \"{table}\")"));
        writeln!(out, "damaged: {place}{at}{of}: {what}")?;
    }
    Ok(())
}

fn looked_at(report: &CheckReport) -> String {
    format!(
        "{} tables, {} runs with {} records ({}), {} log segments with {} records ({})",
        report.tables,
        report.runs,
        report.run_records,
        ByteSize(report.run_bytes),
        report.log_segments,
        report.log_records,
        ByteSize(report.log_bytes)
    )
}

fn tell_repair(out: &mut impl io::Write, report: &RepairReport) -> io::Result<()> {
    if report.dropped.is_empty() {
        return writeln!(out, "nothing is damaged, nothing was changed");
    }
    if report.manifest_rebuilt {
        writeln!(out, "the manifest was made anew")?;
    }
    if report.runs_rewritten + report.runs_dropped > 0 {
        writeln!(
            out,
            "{} runs were written anew from what is sound in them, {} could not be kept; keys in what is lost are as \
             they were before it was written, or gone",
            report.runs_rewritten, report.runs_dropped
        )?;
    }
    if report.log_rewritten {
        writeln!(out, "the log was written down as far as it is sound")?;
    }
    if let Some(aside) = &report.set_aside {
        writeln!(out, "damaged files are in {}", aside.display())?;
    }
    Ok(())
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
