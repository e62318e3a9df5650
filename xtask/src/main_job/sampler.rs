//! The memory sampler beside a server.

use std::path::PathBuf;

use serde_json::Value;

use super::QUICK;
use super::workplace::Workplace;
use crate::failure::Failure;
use crate::process::Process;
use crate::step;

/// A sampler that watches one process until that ends.
#[derive(Debug)]
pub(super) struct Sampler {
    process: Process,
    output: PathBuf,
    chart: PathBuf,
}

impl Sampler {
    /// Starts to sample the process.
    pub(super) fn start(
        name: &str,
        id: u32,
        limit_bytes: u64,
        workplace: &Workplace,
    ) -> Result<Self, Failure> {
        let output = workplace.work.join(name);
        let mut command = step::python();
        command
            .args(["tests/independent/sample_memory.py", &id.to_string()])
            .args([
                "--every-ms",
                "20",
                "--limit-bytes",
                &limit_bytes.to_string(),
            ])
            .arg("--output")
            .arg(std::path::absolute(&output).map_err(|e| Failure::new(output.display(), e))?);
        let process = Process::start("the memory sampler", &mut command, |_| ())?.0;
        let chart = workplace.results.join(format!("memory-{name}.svg"));
        Ok(Self {
            process,
            output,
            chart,
        })
    }

    /// Waits for its end, after that of the process, and returns what it found.
    pub(super) fn finish(mut self) -> Result<Value, Failure> {
        if !self.process.wait(QUICK)?.success() {
            return Err(Failure::Failed("the memory sampler failed".to_owned()));
        }
        let result = self.output.with_extension("json");
        let text = std::fs::read(&result).map_err(|e| Failure::new(result.display(), e))?;
        std::fs::copy(self.output.with_extension("svg"), &self.chart)
            .map_err(|e| Failure::new(self.chart.display(), e))?;
        serde_json::from_slice(&text).map_err(|e| Failure::new(result.display(), e))
    }
}
