//! The memory sampler beside a server.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::failure::Failure;
use crate::process::Process;
use crate::step;

/// How long it may take to write what it found.
const WRITE_WAIT: Duration = Duration::from_secs(60);

/// What it says when it has taken its first sample.
const SAMPLING: &str = "sampling";

/// A sampler that watches one process until that ends.
#[derive(Debug)]
pub(crate) struct Sampler {
    process: Process,
    output: PathBuf,
}

impl Sampler {
    /// Starts to sample the process every 20 ms; it has taken a sample when this returns. `output`
    /// is where its files go, without a suffix.
    pub(crate) fn start(id: u32, limit_bytes: u64, output: &Path) -> Result<Self, Failure> {
        let output = std::path::absolute(output).map_err(|e| Failure::new(output.display(), e))?;
        let mut command = step::python();
        command
            .args(["tests/independent/sample_memory.py", &id.to_string()])
            .args(["--every-ms", "20"])
            .args(["--limit-bytes", &limit_bytes.to_string()])
            .arg("--output")
            .arg(&output);
        command.stdout(Stdio::piped());
        let (process, said) = Process::start("the memory sampler", &mut command, |child| {
            child.stdout.take()
        })?;
        let sampler = Self { process, output };
        let mut line = String::new();
        if let Some(said) = said {
            let read = BufReader::new(said).read_line(&mut line);
            read.map_err(|error| Failure::new("the memory sampler", error))?;
        }
        if line.trim_end() == SAMPLING {
            Ok(sampler)
        } else {
            Err(Failure::Failed(
                "the memory sampler did not start".to_owned(),
            ))
        }
    }

    /// Waits for its end, after that of the process, and returns what it found.
    pub(crate) fn finish(&mut self) -> Result<Value, Failure> {
        if !self.process.wait(WRITE_WAIT)?.success() {
            return Err(Failure::Failed("the memory sampler failed".to_owned()));
        }
        let result = self.output.with_extension("json");
        let text = std::fs::read(&result).map_err(|e| Failure::new(result.display(), e))?;
        serde_json::from_slice(&text).map_err(|e| Failure::new(result.display(), e))
    }

    /// The chart that it has drawn.
    pub(crate) fn chart(&self) -> PathBuf {
        self.output.with_extension("svg")
    }

    /// The most memory in each of `columns` equal parts of the time, once it is finished.
    pub(crate) fn curve(&self, columns: usize) -> Result<Vec<u64>, Failure> {
        let path = self.output.with_extension("csv");
        let text = std::fs::read_to_string(&path).map_err(|e| Failure::new(path.display(), e))?;
        Ok(curve(&text, columns))
    }
}

fn curve(csv: &str, columns: usize) -> Vec<u64> {
    let rows: Vec<(f64, u64)> = csv
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split(',');
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .collect();
    let seconds_max = rows.last().map_or(0.0, |row| row.0).max(f64::MIN_POSITIVE);
    let mut curve = vec![0; columns.min(rows.len())];
    for (seconds, bytes) in rows {
        let at = (seconds / seconds_max * curve.len() as f64) as usize;
        let at = at.min(curve.len() - 1);
        curve[at] = bytes.max(curve[at]);
    }
    // A part of the time without a sample goes on as the one before.
    for at in 1..curve.len() {
        if curve[at] == 0 {
            curve[at] = curve[at - 1];
        }
    }
    curve
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_keeps_the_most_of_each_part() {
        let csv = "seconds,own_bytes,file_bytes\n0.0,5,1\n0.1,9,1\n0.5,2,1\n1.0,3,1\n";
        assert_eq!(curve(csv, 2), [9, 3]);
        assert_eq!(curve(csv, 4), [9, 9, 2, 3]);
        assert!(curve("seconds,own_bytes,file_bytes\n", 4).is_empty());
    }
}
