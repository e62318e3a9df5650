//! Runs of an earlier call: a bench that takes long can be run in pieces, each of which goes on
//! where the one before it ended.

use std::{fs, path::Path};

use rhash_harness::{Machine, Report, Unit};
use serde_json::Value;

/// Adds what an earlier call left in this file, if it had the same facts, seed and source; tells how
/// many runs that are.
pub(crate) fn add(path: &Path, seed: u64, facts: &[(&str, &str)], report: &mut Report) -> u32 {
    let text = fs::read(path).unwrap_or_default();
    let Ok(all) = serde_json::from_slice::<Value>(&text) else {
        return 0;
    };
    let same_facts = facts
        .iter()
        .all(|&(name, value)| all["facts"][name] == *value);
    let source = Machine::look().source;
    if !same_facts || all["seed"] != seed || all["machine"]["source"] != *source {
        return 0;
    }
    let workload = all["workload"].as_str().unwrap_or_default();
    let figures = all["figures"].as_array().map_or(&[][..], Vec::as_slice);
    let mut runs = 0;
    for figure in figures {
        let text = |name: &str| figure[name].as_str().unwrap_or_default();
        let Ok(unit) = serde_json::from_value::<Known>(figure["unit"].clone()) else {
            continue;
        };
        let values = figure["values"].as_array().map_or(&[][..], Vec::as_slice);
        runs = runs.max(values.len() as u32);
        for value in values.iter().filter_map(Value::as_f64) {
            report.add(workload, text("side"), text("metric"), unit.unit(), value);
        }
    }
    runs
}

/// Units, by their names in results.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Known {
    Seconds,
    Microseconds,
    PerSecond,
    Bytes,
    Times,
    Count,
}

impl Known {
    fn unit(self) -> Unit {
        match self {
            Self::Seconds => Unit::Seconds,
            Self::Microseconds => Unit::Microseconds,
            Self::PerSecond => Unit::PerSecond,
            Self::Bytes => Unit::Bytes,
            Self::Times => Unit::Times,
            Self::Count => Unit::Count,
        }
    }
}
