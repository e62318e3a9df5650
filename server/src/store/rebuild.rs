//! The manifest made anew, where it is gone: from the notes of runs, and from the log.

use std::{path::Path, sync::Arc};

use rhash_protocol::packed::Malformed;

use super::{StoreConfig, StoreError, checkpoint::existing_log};
use crate::{
    cold::{ColdError, ColdStore, RunId},
    data_dir::{
        DataDirError,
        manifest::{Manifest, State, TableState},
        note::Note,
        rebuild::{Logged, NotedRun, rebuild},
    },
    key_hash::KeyHasher,
    log::{self, LogError, ReadOnly, Record, Wanted, read_log, read_sound},
    shared::error_text,
};

/// A run that does not say where it belongs.
#[derive(Debug)]
pub(super) struct Unclear {
    pub(super) run: RunId,
    /// Where it lies.
    pub(super) place: String,
    /// Why it does not say.
    pub(super) why: String,
}

/// Makes the manifest anew, if all that is needed for it can be read.
///
/// # Errors
/// [`DataDirError::Unclear`], if a run does not say where it belongs; what the log is refused for; any of reading
/// and writing.
pub(super) fn make_manifest(
    dir: &Path,
    config: &StoreConfig,
    cold: &ColdStore,
    hasher: &KeyHasher,
) -> Result<(), StoreError> {
    let (runs, unclear) = noted_runs(cold)?;
    if let [first, rest @ ..] = &unclear[..] {
        return Err(DataDirError::Unclear {
            dir: dir.to_owned(),
            place: first.place.clone(),
            why: first.why.clone(),
            others: rest.len(),
        }
        .into());
    }
    let state = rebuild(&runs, &read_logged(dir, config, hasher, None)?);
    tracing::warn!(
        dir = %dir.display(),
        tables = state.tables.len(),
        runs = runs.len(),
        "there was no manifest: made it anew from the runs and the log; tables that were closed a moment before may be back"
    );
    Ok(Manifest::make(dir, &state)?)
}

/// Makes the manifest anew from what can be read; returns it, and what could not.
///
/// # Errors
/// Any of reading and writing.
pub(super) fn make_manifest_of_sound(
    dir: &Path,
    config: &StoreConfig,
    cold: &ColdStore,
    hasher: &KeyHasher,
    on_damage: &mut dyn FnMut(LogError),
) -> Result<(State, Vec<Unclear>), StoreError> {
    let (runs, unclear) = noted_runs(cold)?;
    let state = rebuild(&runs, &read_logged(dir, config, hasher, Some(on_damage))?);
    Manifest::make(dir, &state)?;
    Ok((state, unclear))
}

/// What each run of a named table says, and those that say nothing.
fn noted_runs(cold: &ColdStore) -> Result<(Vec<NotedRun>, Vec<Unclear>), StoreError> {
    let (mut runs, mut unclear) = (Vec::new(), Vec::new());
    for found in cold.list()? {
        let id = found.id;
        let said = found
            .summary
            .and_then(|summary| Ok((summary.table, cold.note_of(id)?)));
        let why = match said {
            Ok((table, note)) => match Note::read(&note) {
                Ok(Some(Note::Named(note))) => {
                    let note = *note;
                    runs.push(NotedRun { id, table, note });
                    continue;
                }
                Ok(Some(Note::Temporary)) => continue,
                Ok(None) => "it was written by a version that did not say which table it is of",
                Err(Malformed(what)) => what,
            }
            .to_owned(),
            // What may be gone another time is not guessed at.
            Err(error @ (ColdError::Io { .. } | ColdError::Sled { .. })) => {
                return Err(error.into());
            }
            Err(error) => error_text(&error),
        };
        unclear.push(Unclear {
            run: id,
            place: found.place,
            why,
        });
    }
    Ok((runs, unclear))
}

/// What the log says of tables; with `on_damage`, as far as it can be read. Nothing of it is changed.
///
/// # Errors
/// What the log is refused for; any of reading it.
pub(super) fn read_logged(
    dir: &Path,
    config: &StoreConfig,
    hasher: &KeyHasher,
    on_damage: Option<&mut dyn FnMut(LogError)>,
) -> Result<Logged, StoreError> {
    let mut logged = Logged::default();
    let Some(files) = existing_log(config, dir)? else {
        return Ok(logged);
    };
    let files = ReadOnly(Arc::clone(&files));
    let Some(oldest) = files.oldest()? else {
        return Ok(logged);
    };
    let mark = log::mark_of(hasher);
    let mut apply = |_, record: Record<'_>| {
        if let Record::Table { table, .. }
        | Record::Batch { table, .. }
        | Record::Emptied { table, .. } = &record
        {
            logged.last_table = logged.last_table.max(*table);
        }
        match record {
            Record::Table { table, state } => {
                let state = TableState::from_bytes(state).map_err(|Malformed(what)| what)?;
                logged.tables.insert(table, state);
            }
            Record::Emptied {
                table, close: true, ..
            } => drop(logged.tables.remove(&table)),
            _ => {}
        }
        Ok::<_, String>(())
    };
    let wanted = Wanted::from(oldest);
    match on_damage {
        None => read_log(&files, mark, wanted, &mut apply)?,
        Some(on_damage) => read_sound(&files, mark, wanted, &mut apply, on_damage)?,
    };
    logged.before = Some(oldest - 1);
    Ok(logged)
}
