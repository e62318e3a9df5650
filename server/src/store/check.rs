//! A data directory looked over: everything in it is read and verified, and nothing is changed that a start would not.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::Path,
    sync::Arc,
};

use rhash_protocol::TableId;

use super::{
    StoreConfig, StoreError,
    checkpoint::{check_table, existing_log, wanted},
};
use crate::{
    cold::{BadPiece, ColdError, ColdStore, FoundRun, Record, Run, RunId, RunVisitor},
    data_dir::{
        DataDir,
        manifest::{Manifest, State},
    },
    key_hash::KeyHasher,
    log::{self, LogError, ReadOnly, Wanted, read_sound},
    shared::error_text,
    size::ByteSize,
};

/// So many damaged pieces are listed; the others are counted.
const LISTED_MAX: usize = 10_000;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, or where else it lies.
    pub place: String,
    /// Where in it, if that is known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// The table that it is of, if that is known.
    pub table: Option<String>,
}

/// What a check looked at, and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Named tables.
    pub tables: u64,
    /// Runs of these.
    pub runs: u64,
    /// Their bytes.
    pub run_bytes: u64,
    /// Records in them.
    pub run_records: u64,
    /// Segments of the log.
    pub log_segments: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Records in them.
    pub log_records: u64,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// How much more is.
    pub damage_unlisted: u64,
    /// What is there and is no damage: what the next start removes or cuts.
    pub remarks: Vec<String>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged: {}", self.place)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        if let Some(table) = &self.table {
            write!(f, " (table \"{table}\")")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for damage in &self.damage {
            writeln!(f, "{damage}")?;
        }
        for remark in &self.remarks {
            writeln!(f, "note: {remark}")?;
        }
        writeln!(
            f,
            "{} tables, {} runs with {} records ({}), {} log segments with {} records ({})",
            self.tables,
            self.runs,
            self.run_records,
            ByteSize(self.run_bytes),
            self.log_segments,
            self.log_records,
            ByteSize(self.log_bytes)
        )?;
        match self.damage.len() as u64 + self.damage_unlisted {
            0 => write!(f, "all is as it was written"),
            count => write!(
                f,
                "{count} damaged; --repair keeps all that is sound, or restore a backup"
            ),
        }
    }
}

impl CheckReport {
    /// Whether all is as it was written.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    pub(super) fn add(&mut self, damage: Damage) {
        if self.damage.len() < LISTED_MAX {
            self.damage.push(damage);
        } else {
            self.damage_unlisted += 1;
        }
    }
}

/// Is told how much of how many bytes was looked at.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Reads and verifies all that is in a data directory; no server may be using it.
///
/// # Errors
/// There is no data directory, it is in use, its identity is damaged, or the disk fails. Damage of anything
/// else is in the report.
pub fn check(config: &StoreConfig, progress: Progress<'_>) -> Result<CheckReport, StoreError> {
    let dir = DataDir::open_existing(config.data_dir.as_deref().unwrap_or(Path::new(".")))?;
    let hasher = config.hasher(dir.secret());
    let mut report = CheckReport::default();
    let state = read_manifest(dir.path(), &mut report);
    let mut bytes = Bytes {
        done: 0,
        total: log_bytes(config, dir.path())?,
        progress,
    };
    match ColdStore::open(dir.path(), config.cold_options(&hasher)) {
        Ok(cold) => check_runs(&cold, state.as_ref(), &mut report, &mut bytes)?,
        Err(error) => report.add(Damage {
            place: dir.path().join("sled").display().to_string(),
            offset: None,
            what: error_text(&error),
            table: None,
        }),
    }
    check_log(config, dir.path(), &hasher, state.as_ref(), &mut report)?;
    bytes.advance(report.log_bytes);
    Ok(report)
}

/// How far the look has come.
pub(super) struct Bytes<'a> {
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) progress: Progress<'a>,
}

impl Bytes<'_> {
    pub(super) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        (self.progress)(self.done.min(self.total), self.total);
    }
}

fn read_manifest(dir: &Path, report: &mut CheckReport) -> Option<State> {
    let place = dir.join("MANIFEST").display().to_string();
    let what = match Manifest::read(dir) {
        Ok(Some((state, torn_bytes))) => {
            if torn_bytes > 0 {
                report.remarks.push(format!(
                    "{place} ends with {torn_bytes} bytes that a crash tore; the next start cuts them"
                ));
            }
            report.tables = state.tables.len() as u64;
            return Some(state);
        }
        Ok(None) if Manifest::is_gone(dir) => {
            "it is not there; a start makes it anew if the runs say enough".to_owned()
        }
        Ok(None) => return None,
        Err(error) => error_text(&error),
    };
    report.add(Damage {
        place,
        offset: None,
        what,
        table: None,
    });
    None
}

fn check_runs(
    cold: &ColdStore,
    state: Option<&State>,
    report: &mut CheckReport,
    bytes: &mut Bytes<'_>,
) -> Result<(), StoreError> {
    let found = cold.list()?;
    let places: BTreeMap<RunId, &FoundRun> = found.iter().map(|run| (run.id, run)).collect();
    let mut wanted: Vec<(RunId, TableId, Option<&str>)> = Vec::new();
    match state {
        Some(state) => {
            for (&id, table) in &state.tables {
                let runs = table.ranges.runs().into_iter();
                wanted.extend(runs.map(|run| (run, id, Some(table.name.as_str()))));
            }
        }
        // Without a manifest all runs may be somebody's.
        None => wanted.extend(found.iter().map(|run| {
            let table = run.summary.as_ref().map_or(0, |summary| summary.table);
            (run.id, table, None)
        })),
    }
    let length = |run: &RunId| places.get(run).map_or(0, |run| run.bytes);
    bytes.total += wanted.iter().map(|(run, ..)| length(run)).sum::<u64>();
    for &(id, table, name) in &wanted {
        let run = cold.open_or_lose(id, table)?;
        let place = cold.place_of(id);
        let mut visitor = Checking::new(report, bytes, &place, name);
        run.visit(&mut visitor)?;
        let records = visitor.records;
        check_count(&run, records, &place, name, report);
        report.runs += 1;
        report.run_bytes += run.bytes();
        report.run_records += records;
    }
    let names: HashMap<RunId, Option<&str>> =
        wanted.iter().map(|&(run, _, name)| (run, name)).collect();
    for run in cold.unlisted()? {
        let name = names.get(&run).copied().flatten();
        report.add(unlisted(&cold.place_of(run), name));
    }
    let known: HashSet<RunId> = wanted.iter().map(|(run, ..)| *run).collect();
    let left = found.iter().filter(|run| !known.contains(&run.id)).count();
    if state.is_some() && left > 0 {
        report.remarks.push(format!(
            "{left} runs are of no named table; the next start removes them"
        ));
    }
    Ok(())
}

/// What it says of sled that it has a run and does not list it.
pub(super) fn unlisted(place: &str, table: Option<&str>) -> Damage {
    Damage {
        place: place.to_owned(),
        offset: None,
        what: "it can be opened, and is not among all that there is: sled's tree is damaged"
            .to_owned(),
        table: table.map(str::to_owned),
    }
}

/// Whether a run has as many records as it says.
fn check_count(
    run: &Arc<Run>,
    records: u64,
    place: &str,
    table: Option<&str>,
    report: &mut CheckReport,
) {
    // Where something is damaged that is known already.
    let is_known = report.damage.iter().any(|damage| damage.place == *place);
    if records != run.records() && !is_known {
        report.add(Damage {
            place: place.to_owned(),
            offset: None,
            what: format!("{records} records where it says {}", run.records()),
            table: table.map(str::to_owned),
        });
    }
}

/// Counts a run's records, and lists what is damaged in it.
pub(super) struct Checking<'a, 'b> {
    report: &'a mut CheckReport,
    bytes: &'a mut Bytes<'b>,
    place: &'a str,
    table: Option<&'a str>,
    records: u64,
}

impl<'a, 'b> Checking<'a, 'b> {
    pub(super) fn new(
        report: &'a mut CheckReport,
        bytes: &'a mut Bytes<'b>,
        place: &'a str,
        table: Option<&'a str>,
    ) -> Self {
        Self {
            report,
            bytes,
            place,
            table,
            records: 0,
        }
    }
}

impl RunVisitor for Checking<'_, '_> {
    fn read(&mut self, bytes: u64) {
        self.bytes.advance(bytes);
    }

    fn block(&mut self, _continues: bool) {}

    fn record(&mut self, _record: &Record<'_>) -> Result<(), ColdError> {
        self.records += 1;
        Ok(())
    }

    fn damaged(&mut self, piece: BadPiece) -> Result<(), ColdError> {
        self.report
            .add(damage_of_run(&piece, self.place, self.table));
        Ok(())
    }
}

/// A damaged piece of a run.
fn damage_of_run(piece: &BadPiece, place: &str, table: Option<&str>) -> Damage {
    let (offset, mut what) = match &piece.error {
        ColdError::Damaged { what, offset, .. } => (Some(*offset), (*what).to_owned()),
        error => (None, error_text(error)),
    };
    if let Some(lost) = &piece.lost {
        what.push_str(&format!(
            "; the records of places {:016x} to {:016x} in it are lost",
            lost.start(),
            lost.end()
        ));
    }
    Damage {
        place: place.to_owned(),
        offset,
        what,
        table: table.map(str::to_owned),
    }
}

/// What is wrong with the log.
pub(super) fn damage_of_log(error: &LogError) -> Damage {
    let (path, offset, what) = match error {
        LogError::Damaged {
            path,
            offset,
            lsn,
            what,
        } => {
            let what = format!("{what}; what was acknowledged from record {lsn} on is in doubt");
            (Some(path), Some(*offset), what)
        }
        LogError::Missing { path, lsn } => {
            let what =
                format!("it is missing, and with it what was acknowledged from record {lsn} on");
            (Some(path), None, what)
        }
        LogError::Refused { path, lsn, text } => {
            (Some(path), None, format!("record {lsn} in it: {text}"))
        }
        error => (None, None, error_text(error)),
    };
    Damage {
        place: path.map_or_else(|| "log".to_owned(), |path| path.display().to_string()),
        offset,
        what,
        table: None,
    }
}

fn log_bytes(config: &StoreConfig, dir: &Path) -> Result<u64, StoreError> {
    let Some(files) = existing_log(config, dir)? else {
        return Ok(0);
    };
    let mut bytes = 0;
    for first in files.list().unwrap_or_default() {
        bytes += files.open(first).and_then(|file| file.bytes()).unwrap_or(0);
    }
    Ok(bytes)
}

/// Reads the log through; nothing of it is changed.
pub(super) fn check_log(
    config: &StoreConfig,
    dir: &Path,
    hasher: &KeyHasher,
    state: Option<&State>,
    report: &mut CheckReport,
) -> Result<(), StoreError> {
    let mut damage = Vec::new();
    let must_be = state.filter(|state| state.logs);
    let files = existing_log(config, dir)?.map(ReadOnly);
    let oldest = files.as_ref().map(ReadOnly::oldest).transpose()?.flatten();
    let mut is_there = false;
    if let (Some(files), Some(oldest)) = (&files, oldest) {
        let wanted = state.map_or(Wanted::from(oldest), wanted);
        let mark = log::mark_of(hasher);
        let mut records = 0;
        let mut count = |_, record: log::Record<'_>| {
            records += 1;
            state.map_or(Ok(()), |state| check_table(&record, state.next_table))
        };
        let found = read_sound(files, mark, wanted, &mut count, |error| damage.push(error))?;
        report.log_records = records;
        report.log_segments = found.segments.len() as u64;
        report.log_bytes = found.segments.iter().map(|(_, bytes)| bytes).sum();
        if let Some(torn) = &found.torn {
            report.remarks.push(format!(
                "{} ends at byte {} with {} bytes that a crash tore; the next start cuts them",
                torn.path.display(),
                torn.offset,
                torn.bytes
            ));
        }
        // A start removes what has not even a header, and then misses it.
        is_there = !found.segments.is_empty();
    }
    if let (Some(state), false) = (must_be, is_there) {
        report.add(Damage {
            place: dir.join("log").display().to_string(),
            offset: None,
            what: format!(
                "the log is missing, and with it what was acknowledged from record {} on",
                state.checkpoint + 1
            ),
            table: None,
        });
    }
    damage
        .iter()
        .for_each(|error| report.add(damage_of_log(error)));
    Ok(())
}
