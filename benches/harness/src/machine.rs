//! The machine that figures come from.

use std::{fs, process::Command};

use serde::Serialize;

/// What of a machine matters to figures.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor, as it calls itself.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Memory.
    pub memory_bytes: u64,
    /// The kernel.
    pub kernel: String,
    /// The compiler.
    pub rustc: String,
    /// The source, as git names it.
    pub source: String,
}

impl Machine {
    /// Looks at this one.
    pub fn look() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kilobytes = line_of(&memory, "MemTotal:").trim_end_matches(" kB");
        Self {
            processor: line_of(&processors, "model name\t:").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes.parse::<u64>().unwrap_or(0) * 1024,
            kernel: format!("Linux {}", kernel.trim()),
            rustc: said_by("rustc", &["--version"]),
            source: said_by("git", &["describe", "--always", "--dirty"]),
        }
    }

    /// One line of it.
    pub fn line(&self) -> String {
        let memory = self.memory_bytes >> 30;
        format!(
            "{}, {} cores, {memory} GiB, {}, {}, rhash {}",
            self.processor, self.cores, self.kernel, self.rustc, self.source
        )
    }
}

fn line_of<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim()
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command
        .args(arguments)
        .current_dir(crate::place::root())
        .output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.unwrap_or_default()
}
