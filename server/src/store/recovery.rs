//! What a start finds in its directory: the tables that the manifest names, and what a crash left.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{Store, StoreError};
use crate::{
    cold::{ColdStore, Run, RunId},
    data_dir::manifest::State as ManifestState,
    table::{Table, TableSpec},
};

impl Store {
    /// Opens the tables that the manifest names, and removes runs that belong to none.
    pub(super) fn find_tables(&self) -> Result<(), StoreError> {
        let (Some(cold), Some(manifest)) = (&self.shared.cold, &self.shared.manifest) else {
            return Ok(());
        };
        let state = manifest.lock().state().clone();
        self.next_table.fetch_max(state.next_table, Relaxed);
        if !state.stopped {
            warn_of_crash(&state);
        }
        let mut used = Vec::new();
        for (&id, table) in &state.tables {
            let mut opened: HashMap<RunId, Arc<Run>> = HashMap::new();
            for run in table.ranges.runs() {
                match cold.open_run(run) {
                    Ok(open) => drop(opened.insert(run, open)),
                    Err(error) => tracing::error!(
                        table = table.name, run, error = %crate::shared::error_text(&error),
                        "dropped a run that cannot be opened; its entries are missing"
                    ),
                }
                used.push(run);
            }
            let ranges = table.ranges.map(|run| opened.get(run).cloned());
            let spec = TableSpec {
                id,
                name: Some(table.name.clone()),
                kind: table.kind,
                codec: table.codec.clone(),
            };
            self.tables.by_name.lock().insert(table.name.clone(), id);
            let table = Table::new(spec, Arc::clone(&self.shared), ranges);
            self.tables.by_id.write().insert(id, table);
        }
        used.sort_unstable();
        self.remove_leftovers(cold, &used)
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

fn warn_of_crash(state: &ManifestState) {
    let tables: Vec<&str> = state
        .tables
        .values()
        .map(|table| table.name.as_str())
        .collect();
    tracing::warn!(
        ?tables,
        "the server was not stopped cleanly: entries of these tables that were only in RAM are lost"
    );
}
