//! A damaged data directory made one that a server can use: all that is sound stays, and what does not is told.
//!
//! Damaged files are not removed but set aside, in `damaged/`. First the manifest, then the runs, then the log: each
//! step leaves a directory that the next repair, or a start, can go on with.

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rhash_protocol::{TableId, TableKind};

use super::{
    Store, StoreConfig, StoreError,
    check::{Bytes, CheckReport, Checking, Damage, Progress, check_log, unlisted},
    rebuild::{make_manifest_of_sound, read_logged},
};
use crate::{
    aside::Aside,
    cold::{
        BadPiece, Claim, ColdError, ColdStore, Purpose, Record, RecordKind, Run, RunVisitor,
        RunWriter, sled_directories, sled_extras,
    },
    data_dir::{
        DataDir, io_error,
        manifest::{Manifest, State, TableState},
        note::{Named, Note},
    },
    key_hash::{KeyHash, KeyHasher},
    shared::error_text,
    table::read_note,
};

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// What was damaged, and what is lost with it.
    pub dropped: Vec<Damage>,
    /// Runs that were written anew from what is sound in them.
    pub runs_rewritten: u64,
    /// Runs of which nothing could be kept.
    pub runs_dropped: u64,
    /// Whether the manifest was made anew.
    pub manifest_rebuilt: bool,
    /// Whether the log was written down as far as it is sound, and begun anew.
    pub log_rewritten: bool,
    /// Where damaged files are now, if there are any.
    pub set_aside: Option<PathBuf>,
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped.is_empty() {
            return write!(f, "nothing is damaged, and nothing was changed");
        }
        for damage in &self.dropped {
            writeln!(f, "{damage}")?;
        }
        if self.manifest_rebuilt {
            writeln!(f, "the manifest was made anew")?;
        }
        if self.runs_rewritten + self.runs_dropped > 0 {
            writeln!(
                f,
                "{} runs were written anew from what is sound in them, {} could not be kept; keys in what is lost are \
                 as they were before it was written, or gone",
                self.runs_rewritten, self.runs_dropped
            )?;
        }
        if self.log_rewritten {
            writeln!(f, "the log was written down as far as it is sound")?;
        }
        match &self.set_aside {
            Some(aside) => write!(f, "damaged files are in {}", aside.display()),
            None => write!(f, "the directory can be used again"),
        }
    }
}

impl RepairReport {
    fn was_needed(&self) -> bool {
        !self.dropped.is_empty()
    }
}

/// Repairs a data directory that no server is using: keeps all that is sound, and says what is not.
///
/// # Errors
/// There is no data directory, it is in use, its identity is damaged, or the disk fails; a second repair goes on
/// where this one stopped.
pub fn repair(config: &StoreConfig, progress: Progress<'_>) -> Result<RepairReport, StoreError> {
    let path = config.data_dir.as_deref().unwrap_or(Path::new("."));
    let mut report = RepairReport::default();
    let log_is_damaged = {
        let dir = DataDir::open_existing(path)?;
        let hasher = config.hasher(dir.secret());
        let aside = Aside::of(dir.path());
        let cold = open_runs(config, &dir, &hasher, &aside, &mut report)?;
        let state = repair_manifest(config, &dir, &hasher, &cold, &aside, &mut report)?;
        repair_sled(&cold, &state, &mut report)?;
        repair_runs(&dir, &cold, state.clone(), &aside, &mut report, progress)?;
        let log = look_at_log(config, &dir, &hasher, &state, &aside)?;
        let is_damaged = !log.is_empty();
        report.dropped.extend(log);
        is_damaged
    };
    if log_is_damaged {
        // What can be read of it is written to runs; it then begins anew.
        let mut salvaging = config.clone();
        salvaging.salvages = true;
        Store::open(salvaging)?.stop()?;
        report.log_rewritten = true;
    }
    report.set_aside = Aside::of(path).existing().filter(|_| report.was_needed());
    Ok(report)
}

fn made(aside: &Aside) -> Result<&Path, StoreError> {
    Ok(aside
        .make()
        .map_err(io_error("make the directory", aside.path()))?)
}

/// Takes away what sled makes anew from the rest, its snapshots and how it was configured, and keeps a copy of all:
/// without them it may take what else is damaged for the end of what there is, and write over it.
fn begin_sled_from_its_log(data_dir: &Path, aside: &Aside) -> Result<(), StoreError> {
    for dir in sled_directories(data_dir)? {
        aside.copy_here(&dir).map_err(io_error("copy", &dir))?;
        for extra in sled_extras(&dir)? {
            fs::remove_file(&extra).map_err(io_error("remove", &extra))?;
        }
    }
    Ok(())
}

/// Sets all directories of sled aside, so that a new one can be begun.
fn set_sled_aside(data_dir: &Path, aside: &Aside) -> Result<(), StoreError> {
    for dir in sled_directories(data_dir)? {
        aside.move_here(&dir).map_err(io_error("set aside", &dir))?;
    }
    Ok(())
}

/// What may let sled be opened again.
type SledStep = fn(&Path, &Aside) -> Result<(), StoreError>;

/// Opens the cold tier. Where sled cannot be read whole, as far as it can be, or else without what it can do without, or
/// else without it.
fn open_runs(
    config: &StoreConfig,
    dir: &DataDir,
    hasher: &KeyHasher,
    aside: &Aside,
    report: &mut RepairReport,
) -> Result<ColdStore, StoreError> {
    let steps: [(SledStep, &str); 3] = [
        (|_, _| Ok(()), "written anew as far as it can be read"),
        (begin_sled_from_its_log, "begun without its snapshots"),
        (set_sled_aside, "set aside, with all runs in it"),
    ];
    let mut options = config.cold_options(hasher);
    let mut opened = ColdStore::open(dir.path(), options.clone());
    // What is begun anew may still lack something, and say so or not.
    options.salvages = true;
    for (step, what) in steps {
        let error = match opened {
            Err(error @ ColdError::Sled { .. }) => error,
            opened => return Ok(opened?),
        };
        step(dir.path(), aside)?;
        opened = ColdStore::open(dir.path(), options.clone());
        if opened.is_ok() {
            report.dropped.push(Damage {
                place: dir.path().join("sled").display().to_string(),
                offset: None,
                what: format!("{}; {what}", error_text(&error)),
                table: None,
            });
        }
    }
    Ok(opened?)
}

fn repair_manifest(
    config: &StoreConfig,
    dir: &DataDir,
    hasher: &KeyHasher,
    cold: &ColdStore,
    aside: &Aside,
    report: &mut RepairReport,
) -> Result<State, StoreError> {
    let path = dir.path().join("MANIFEST");
    let what = match Manifest::read(dir.path()) {
        Ok(Some((state, _torn))) => {
            let logged = read_logged(dir.path(), config, hasher, Some(&mut |_told_later| {}))?;
            if logged.last_table < state.next_table {
                return Ok(state);
            }
            // What is lost with its end is more than this table.
            format!(
                "the log tells of table {}, and it knows of tables below {} alone, so its end is lost",
                logged.last_table, state.next_table
            )
        }
        Ok(None) if !Manifest::is_gone(dir.path()) => return Ok(State::default()),
        Ok(None) => "it was not there".to_owned(),
        Err(error) => error_text(&error),
    };
    if path.exists() {
        aside
            .move_here(&path)
            .map_err(io_error("set aside", &path))?;
    }
    // The log's own damage is told of later.
    let (state, unclear) =
        make_manifest_of_sound(dir.path(), config, cold, hasher, &mut |_told_later| {})?;
    report.dropped.push(Damage {
        place: path.display().to_string(),
        offset: None,
        what: format!("{what}; made anew from the runs and the log"),
        table: None,
    });
    report.manifest_rebuilt = true;
    for unclear in unclear {
        cold.set_aside(unclear.run, made(aside)?)?;
        report.runs_dropped += 1;
        report.dropped.push(Damage {
            what: format!("{}; it is not known which table it was of", unclear.why),
            place: unclear.place,
            offset: None,
            table: None,
        });
    }
    Ok(state)
}

/// Writes sled anew where its tree is damaged and it does not say so.
fn repair_sled(
    cold: &ColdStore,
    state: &State,
    report: &mut RepairReport,
) -> Result<(), StoreError> {
    let mut names = HashMap::new();
    for (&id, table) in &state.tables {
        for run in table.ranges.runs() {
            // A number that the manifest names is never given again.
            cold.number_from(run.saturating_add(1));
            cold.open_or_lose(run, id)?;
            names.insert(run, table.name.as_str());
        }
    }
    for run in cold.mend()? {
        report
            .dropped
            .push(unlisted(&cold.place_of(run), names.get(&run).copied()));
    }
    Ok(())
}

/// Replaces damaged runs by what is sound in them.
fn repair_runs(
    dir: &DataDir,
    cold: &ColdStore,
    mut state: State,
    aside: &Aside,
    report: &mut RepairReport,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    let tables: Vec<TableId> = state.tables.keys().copied().collect();
    let mut bytes = Bytes {
        done: 0,
        total: cold.list()?.iter().map(|run| run.bytes).sum(),
        progress,
    };
    let mut damaged = Vec::new();
    for id in tables {
        let Some(table) = state.tables.get_mut(&id) else {
            continue;
        };
        for run in table.ranges.runs() {
            let open = cold.open_or_lose(run, id)?;
            let bad = damage_in(&open, cold, &table.name, &mut bytes)?;
            if bad.is_empty() {
                continue;
            }
            report.dropped.extend(bad);
            let note = note_for(&open, table);
            let kept = salvage(&open, cold, table.kind, note)?;
            match &kept {
                Some(_) => report.runs_rewritten += 1,
                None => report.runs_dropped += 1,
            }
            let kept = kept.map(|kept| kept.id());
            table.ranges = table
                .ranges
                .map(|other| if *other == run { kept } else { Some(*other) });
            damaged.push(run);
        }
    }
    if damaged.is_empty() {
        return Ok(());
    }
    // IMPORTANT: what is kept is on stable storage before the manifest names it, and that before what it was
    // made of is out of reach.
    cold.sync()?;
    Manifest::make(dir.path(), &state)?;
    for run in damaged {
        cold.set_aside(run, made(aside)?)?;
    }
    Ok(())
}

/// What is damaged in a run.
fn damage_in(
    run: &Arc<Run>,
    cold: &ColdStore,
    table: &str,
    bytes: &mut Bytes<'_>,
) -> Result<Vec<Damage>, StoreError> {
    let place = cold.place_of(run.id());
    let mut report = CheckReport::default();
    run.visit(&mut Checking::new(&mut report, bytes, &place, Some(table)))?;
    Ok(report.damage)
}

/// What the run that replaces a damaged one says of itself: what that one did, or what the manifest tells.
fn note_for(run: &Arc<Run>, table: &TableState) -> Vec<u8> {
    let said = read_note(run).ok().flatten();
    let named = said.unwrap_or_else(|| Named {
        table: table.bare(),
        checkpoint: 0,
        first: run.first_place(),
        last: run.last_place(),
        oldest: run.id(),
        newest: run.id(),
    });
    Note::Named(Box::new(named)).to_bytes()
}

/// Writes what is sound in a run to a new one; none if nothing is.
fn salvage(
    run: &Arc<Run>,
    cold: &ColdStore,
    kind: TableKind,
    note: Vec<u8>,
) -> Result<Option<Arc<Run>>, StoreError> {
    if run.lost_error().is_some() {
        return Ok(None);
    }
    // To a file, however short: sled may be what is damaged.
    let claim = Claim {
        purpose: Purpose::Keep,
        bytes: run.bytes(),
    };
    let mut writer = cold.begin_for(claim, run.table(), u64::MAX)?;
    writer.set_note(note);
    let mut salvage = Salvage {
        writer,
        kind,
        pending: Pending::default(),
        lost_before: false,
        records: 0,
    };
    run.visit(&mut salvage)?;
    salvage.write_pending()?;
    if salvage.records == 0 {
        return Ok(None);
    }
    Ok(Some(salvage.writer.finish(true)?))
}

/// Copies sound records. A value in several records is copied only if all of them are there: a part of a value
/// would be a wrong one.
struct Salvage {
    writer: RunWriter,
    kind: TableKind,
    pending: Pending,
    /// What lies before the next record is lost, and that may belong to it.
    lost_before: bool,
    records: u64,
}

/// The records of one key, until it is known whether they are all.
#[derive(Default)]
struct Pending {
    key: Vec<u8>,
    hash: Option<KeyHash>,
    parts: Vec<(RecordKind, Vec<u8>)>,
    is_cut: bool,
}

impl Salvage {
    fn write_pending(&mut self) -> Result<(), ColdError> {
        let pending = std::mem::take(&mut self.pending);
        let Some(hash) = pending.hash else {
            return Ok(());
        };
        if pending.is_cut {
            return Ok(());
        }
        for (kind, part) in &pending.parts {
            self.writer.push(&Record {
                hash,
                kind: *kind,
                key: &pending.key,
                part,
            })?;
            self.records += 1;
        }
        Ok(())
    }
}

impl RunVisitor for Salvage {
    fn read(&mut self, _bytes: u64) {}

    fn block(&mut self, continues: bool) {
        // What the block begins with may go on from a block that is lost.
        self.lost_before &= continues;
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), ColdError> {
        if self.kind != TableKind::Values {
            // Lists and counters are sums of what there is, and may be longer than memory.
            self.writer.push(record)?;
            self.records += 1;
            return Ok(());
        }
        let goes_on = self.pending.hash == Some(record.hash)
            && self.pending.key == record.key
            && record.kind == RecordKind::Fragment;
        if !goes_on {
            self.write_pending()?;
            self.pending.hash = Some(record.hash);
            self.pending.key.extend_from_slice(record.key);
            let may_go_on = std::mem::take(&mut self.lost_before);
            self.pending.is_cut = may_go_on && record.kind == RecordKind::Fragment;
        }
        self.pending.parts.push((record.kind, record.part.to_vec()));
        Ok(())
    }

    fn damaged(&mut self, piece: BadPiece) -> Result<(), ColdError> {
        if piece.lost.is_some() {
            self.pending.is_cut |= piece.continues;
            self.write_pending()?;
            self.lost_before = true;
        }
        Ok(())
    }
}

/// What is damaged in the log; the segments concerned are copied, since the log will begin anew.
fn look_at_log(
    config: &StoreConfig,
    dir: &DataDir,
    hasher: &KeyHasher,
    state: &State,
    aside: &Aside,
) -> Result<Vec<Damage>, StoreError> {
    let mut report = CheckReport::default();
    check_log(config, dir.path(), hasher, Some(state), &mut report)?;
    let mut copied = Vec::new();
    for damage in &report.damage {
        let path = Path::new(&damage.place);
        if path.is_file() && !copied.contains(&path) {
            aside.copy_here(path).map_err(io_error("copy", path))?;
            copied.push(path);
        }
    }
    Ok(report.damage)
}
