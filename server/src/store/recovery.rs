//! What a start finds in its directory: the tables that the manifest names, and what a crash left.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use rhash_protocol::{Durability, TableId};

use super::{Store, StoreError};
use crate::{
    cold::{ColdStore, Run, RunId},
    data_dir::manifest::{Edit, State as ManifestState},
    shared::error_text,
    table::{Table, TableSpec},
};

/// After a crash so many numbers of tables are not given: more than a server has temporary tables in its life.
const TABLES_SKIPPED: TableId = 1 << 32;

impl Store {
    /// Opens the tables that the manifest names, and removes runs that belong to none.
    pub(super) fn find_tables(&self) -> Result<(), StoreError> {
        let (Some(cold), Some(manifest)) = (&self.shared.cold, &self.shared.manifest) else {
            return Ok(());
        };
        let (state, was_stopped) = {
            let mut manifest = manifest.lock();
            manifest.begin()?;
            (manifest.state().clone(), manifest.was_stopped())
        };
        self.next_table.fetch_max(state.next_table, Relaxed);
        if !was_stopped {
            self.warn_of_crash(&state);
        }
        let mut used = Vec::new();
        for (&id, table) in &state.tables {
            let named = table.ranges.runs();
            let mut opened: HashMap<RunId, Arc<Run>> = HashMap::new();
            for &run in &named {
                // IMPORTANT: a number that the manifest names is never given again, or another
                // table's run would be taken for this one's.
                cold.number_from(run.saturating_add(1));
                opened.insert(run, open_run(cold, id, &table.name, run)?);
            }
            let ranges = table.ranges.map(|run| opened.get(run).cloned());
            used.extend(named);
            let spec = TableSpec {
                id,
                name: Some(table.name.clone()),
                kind: table.kind,
                codec: table.codec.clone(),
                durability: table.durability,
            };
            self.tables.by_name.lock().insert(table.name.clone(), id);
            let table = Table::new(spec, Arc::clone(&self.shared), ranges);
            self.tables.by_id.write().insert(id, table);
        }
        used.sort_unstable();
        mend(cold)?;
        self.remove_leftovers(cold, &used)?;
        if !was_stopped {
            // Clients may still have the numbers of temporary tables that nobody wrote down.
            let next_table = self.next_table.fetch_add(TABLES_SKIPPED, Relaxed) + TABLES_SKIPPED;
            manifest.lock().record(Edit::Started { next_table })?;
        }
        Ok(cold.started()?)
    }

    /// Names the tables that no log tells of.
    fn warn_of_crash(&self, state: &ManifestState) {
        let tables = state.tables.values().filter(|table| {
            !state.logs || table.durability.unwrap_or(self.shared.durability) == Durability::None
        });
        let tables: Vec<&str> = tables.map(|table| table.name.as_str()).collect();
        if !state.logs || !tables.is_empty() {
            tracing::warn!(
                ?tables,
                "the server was not stopped cleanly: entries of these tables that were only in RAM are lost"
            );
        }
    }

    fn remove_leftovers(&self, cold: &ColdStore, used: &[RunId]) -> Result<(), StoreError> {
        let (mut runs, mut bytes) = (0u64, 0u64);
        for found in cold.list()? {
            if let Ok(summary) = &found.summary {
                self.next_table
                    .fetch_max(summary.table.saturating_add(1), Relaxed);
            }
            if used.binary_search(&found.id).is_err() {
                cold.remove(found.id)?;
                runs += 1;
                bytes += found.bytes;
            }
        }
        if runs > 0 {
            tracing::info!(
                runs,
                bytes,
                "removed runs of temporary tables and unfinished work"
            );
        }
        Ok(())
    }
}

/// Where sled's tree was set back, writes what it holds anew, before anything is changed there.
fn mend(cold: &ColdStore) -> Result<(), StoreError> {
    let runs = cold.mend()?;
    if !runs.is_empty() {
        tracing::error!(
            ?runs,
            "sled's tree is damaged, so that it did not list these runs; what it holds was written anew, and its \
             directory is set aside, in damaged/; --check tells whether anything is lost"
        );
    }
    Ok(())
}

/// Opens a run of a table, or what answers in its place why it cannot be read.
fn open_run(
    cold: &ColdStore,
    table: TableId,
    name: &str,
    run: RunId,
) -> Result<Arc<Run>, StoreError> {
    let open = cold.open_or_lose(run, table)?;
    if let Some(error) = open.lost_error() {
        tracing::error!(
            table = name,
            run,
            place = cold.place_of(run),
            error = error_text(&error),
            "a run cannot be read; gets of its keys get this error; restore it, or repair the directory with --repair"
        );
    }
    Ok(open)
}
