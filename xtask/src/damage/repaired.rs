//! What a repair makes of a damaged directory: one that a check finds nothing wrong with, that a server starts on,
//! and where each key is what it once was, or gone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rhash_client::TableKind;
use rhash_server::store::{Store, StoreConfig, StoreError, check, repair};
use tokio::runtime::Runtime;

use super::base::FileKind;
use super::case::with_causes;
use super::content::{Content, TABLES};
use super::judge::judge;
use super::reader::{InProcess, Reader};

/// How much of what should be there is there after a repair.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    /// Keys that are as they were last.
    pub(super) right: u64,
    /// Of so many.
    pub(super) keys: u64,
}

/// What came of a repair.
#[derive(Debug, Default)]
pub(super) struct Repaired {
    /// None where nothing could be read, or had to be.
    pub(super) kept: Option<Kept>,
    pub(super) violations: Vec<String>,
}

impl Repaired {
    fn wrong(text: String) -> Self {
        Self {
            kept: None,
            violations: vec![text],
        }
    }
}

/// Repairs the directory of `config`, where a file of this kind was damaged, and reads what is left.
pub(super) fn repair_and_look(
    config: &StoreConfig,
    damaged: FileKind,
    content: &Content,
    given_up_max: usize,
    runtime: &Runtime,
) -> Repaired {
    let report = match tried(|| repair(config, &mut |_done, _total| ())) {
        Ok(report) => report,
        // Whose directory it is nobody knows then.
        Err(_) if damaged == FileKind::Identity => return Repaired::default(),
        Err(text) => return Repaired::wrong(format!("--repair failed: {text}")),
    };
    match tried(|| check(config, &mut |_done, _total| ())) {
        Ok(report) if report.damage.is_empty() => {}
        Ok(report) => {
            let first = report.damage.first().map(ToString::to_string);
            let first = first.unwrap_or_default();
            return Repaired::wrong(format!("a check finds damage after a repair: {first}"));
        }
        Err(text) => return Repaired::wrong(format!("a check fails after a repair: {text}")),
    }
    let store = match tried(|| Store::open(config.clone())) {
        Ok(store) => store,
        Err(text) => return Repaired::wrong(format!("a start fails after a repair: {text}")),
    };
    let mut reader = InProcess::new(&store, runtime);
    if report.dropped.is_empty() {
        let judgement = judge(&mut reader, content, given_up_max);
        let mut violations = judgement.violations;
        violations.extend(judgement.texts);
        for violation in &mut violations {
            violation.insert_str(0, "after a repair that found no damage: ");
        }
        return Repaired {
            kept: None,
            violations,
        };
    }
    look(&mut reader, content)
}

fn tried<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| with_causes(&error)),
        // The hook has its words.
        Err(_panic) => Err("a panic".to_owned()),
    }
}

/// Reads all tables that are left.
fn look(reader: &mut dyn Reader, content: &Content) -> Repaired {
    let mut kept = Kept::default();
    let mut violations = Vec::new();
    let names = match reader.names() {
        Ok(names) => names,
        Err(fault) => {
            return Repaired::wrong(format!("the tables cannot be listed: {}", fault.text));
        }
    };
    for table in content.tables() {
        let name = TABLES[table].0;
        if !names.iter().any(|other| other == name) {
            let must = content.len(table, content.end());
            kept.keys += must;
            continue;
        }
        if let Err(text) = look_at(reader, content, table, &mut kept) {
            violations.push(format!("after a repair, table \"{name}\": {text}"));
        }
    }
    Repaired {
        kept: Some(kept),
        violations,
    }
}

/// Reads a table; says what is wrong with it.
fn look_at(
    reader: &mut dyn Reader,
    content: &Content,
    table: usize,
    kept: &mut Kept,
) -> Result<(), String> {
    let mut present = 0;
    for key in content.keys(table) {
        let found = reader.get(table, &[key]).map_err(|fault| fault.text)?;
        let value = found.first().and_then(Option::as_deref);
        present += u64::from(value.is_some());
        let last = content.at(table, key, content.end());
        kept.keys += u64::from(last.is_some());
        kept.right += u64::from(last.is_some() && last == value);
        may_be(content, table, key, value)?;
    }
    let count = reader.count(table).map_err(|fault| fault.text)?;
    let scanned = reader.scan(table);
    if let Some(fault) = scanned.fault {
        return Err(fault.text);
    }
    let scanned_count = scanned.entries.len() as u64;
    if count != present || scanned_count != present {
        return Err(format!(
            "{present} keys are there, {count} are counted, {scanned_count} scanned"
        ));
    }
    for (key, value) in &scanned.entries {
        may_be(content, table, key, Some(value))?;
    }
    Ok(())
}

/// A value must be one that the key once had. Of a list or a counter parts may be gone.
fn may_be(content: &Content, table: usize, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
    let is_whole = TABLES[table].1 == TableKind::Values;
    match value {
        Some(value) if is_whole && !content.was(table, key, value) => Err(format!(
            "\"{}\" has {} bytes that it never had",
            String::from_utf8_lossy(key),
            value.len()
        )),
        _ => Ok(()),
    }
}
