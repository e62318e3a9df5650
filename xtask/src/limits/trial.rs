//! A server under watch: started, driven, sampled, stopped, judged.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rhash_client::{Client, Stats};
use serde_json::{Value, json};

use super::cgroup::Cgroup;
use super::options::{Amounts, Options};
use super::report::Report;
use crate::failure::Failure;
use crate::place;
use crate::sampler::Sampler;
use crate::server::Server;

/// A server is ready within this, whatever it finds on its disk.
const READY_WAIT: Duration = Duration::from_secs(120);
/// A clean stop takes at most this: what is in memory is written.
const STOP_WAIT: Duration = Duration::from_secs(180);
/// Columns of a memory curve.
const CURVE_COLUMNS: usize = 120;

/// What all scenarios share.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) amounts: Amounts,
    pub(super) seed: u64,
    pub(super) mem_limit_bytes: u64,
    pub(super) results: PathBuf,
    binaries: PathBuf,
    work: PathBuf,
    deadline: Duration,
    in_cgroup: bool,
}

impl Stage {
    /// Finds the binaries and makes the directories.
    pub(super) fn prepare(options: &Options) -> Result<Self, Failure> {
        let binaries = place::binaries(options.bin_dir.as_deref(), options.deadline)?;
        let work = match &options.work {
            Some(work) => work.clone(),
            None => place::target_directory()?.join("limits"),
        };
        let results = options.results.clone();
        let results = results.unwrap_or_else(|| crate::step::root().join("benches/results/limits"));
        place::directory(&results)?;
        place::empty_directory(&work.join("logs"))?;
        let stage = Self {
            amounts: options.amounts.clone(),
            seed: options.seed,
            mem_limit_bytes: options.mem_limit_bytes,
            results,
            binaries,
            work,
            deadline: options.deadline,
            in_cgroup: options.cgroup,
        };
        place::empty_directory(&stage.data())?;
        Ok(stage)
    }

    /// The data directory of the servers.
    pub(super) fn data(&self) -> PathBuf {
        self.work.join("data")
    }

    /// Empties the data directory after a scenario.
    pub(super) fn clean_up(&self, options: &Options) -> Result<(), Failure> {
        if options.keep {
            return Ok(());
        }
        place::empty_directory(&self.data())
    }

    /// What the data directory takes on the disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.data())
    }
}

/// The disk that the files below a directory take. A file that goes meanwhile counts as gone.
fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(listed) = std::fs::read_dir(directory) else {
        return 0;
    };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    listed.flatten().map(bytes).sum()
}

/// How a trial's server keeps what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// In memory and on disk.
    Spilling,
    /// In memory alone.
    MemoryOnly,
}

/// One server, and what watches it.
#[derive(Debug)]
pub(super) struct Trial {
    part: String,
    server: Server,
    sampler: Sampler,
    cgroup: Option<Cgroup>,
    deadline: Duration,
    start_seconds: f64,
}

impl Trial {
    /// Starts a server on the stage's data. `part` tells it from others of its scenario.
    pub(super) fn start(stage: &Stage, part: &str, keeping: Keeping) -> Result<Self, Failure> {
        let cgroup = stage
            .in_cgroup
            .then(|| Cgroup::make(part, stage.mem_limit_bytes))
            .transpose()?;
        let program = stage.binaries.join("rhash-server");
        let mut command = match &cgroup {
            Some(cgroup) => cgroup.command(&program),
            None => Command::new(&program),
        };
        command.args(["--mem-limit", &stage.mem_limit_bytes.to_string()]);
        match keeping {
            Keeping::Spilling => command.arg("--data").arg(stage.data()),
            Keeping::MemoryOnly => command.arg("--memory-only"),
        };
        let log = stage.work.join("logs").join(format!("{part}.err"));
        let mut server = Server::start_held(&command, &log)?;
        let sampler = Sampler::start(server.id(), stage.mem_limit_bytes, &stage.work.join(part))?;
        let began = Instant::now();
        server.release()?;
        server.wait_until_ready(READY_WAIT)?;
        Ok(Self {
            part: part.to_owned(),
            server,
            sampler,
            cgroup,
            deadline: stage.deadline,
            start_seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// Where the server listens.
    pub(super) fn address(&self) -> String {
        self.server.address().to_owned()
    }

    /// The server's process.
    pub(super) fn id(&self) -> u32 {
        self.server.id()
    }

    /// How long the server took until it listened.
    pub(super) fn start_seconds(&self) -> f64 {
        self.start_seconds
    }

    /// Runs a driver to its end, within the deadline.
    pub(super) fn drive<T>(
        &self,
        driver: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::new("no runtime", error))?;
        let driven = runtime.block_on(async {
            tokio::time::timeout(self.deadline, driver)
                .await
                .map_err(|_elapsed| {
                    Failure::Failed(format!("it did not end within {:?}", self.deadline))
                })
        });
        runtime.shutdown_background();
        driven?
    }

    /// Stops the server and judges what was seen of it.
    pub(super) fn finish(self, report: &mut Report) -> Result<(), Failure> {
        self.end(report, false)
    }

    /// Kills the server as a crash would, and judges what was seen of it.
    pub(super) fn crash(self, report: &mut Report) -> Result<(), Failure> {
        self.end(report, true)
    }

    fn end(mut self, report: &mut Report, by_kill: bool) -> Result<(), Failure> {
        let stats = self.stats();
        let began = Instant::now();
        let ended = if by_kill {
            self.server.kill(STOP_WAIT)
        } else {
            self.server.stop(STOP_WAIT)
        };
        let stop_seconds = began.elapsed().as_secs_f64();
        let part = &self.part;
        match &ended {
            Ok(status) => {
                let passed = by_kill || status.success();
                let detail = format!("{status}, {stop_seconds:.2} s");
                report.check(
                    &format!("{part}: it runs until it is stopped"),
                    passed,
                    detail,
                );
            }
            Err(failure) => {
                let name = format!("{part}: it stops when it is told to");
                report.check(&name, false, failure.to_string());
                self.server.kill(STOP_WAIT)?;
            }
        }
        let memory = self.sampler.finish()?;
        report.judge_memory(part, &memory);
        if let Some(cgroup) = &self.cgroup {
            report.judge_cgroup(part, &cgroup.figures());
        }
        let curve = self.sampler.curve(CURVE_COLUMNS)?;
        report.add_part(json!({
            "part": part,
            "start_seconds": self.start_seconds,
            "stop_seconds": stop_seconds,
            "memory": memory,
            "curve": curve,
            "cgroup": self.cgroup.as_ref().map(Cgroup::figures),
            "stats": stats.map_or_else(|failure| json!(failure.to_string()), brief),
        }));
        Ok(())
    }

    fn stats(&self) -> Result<Stats, Failure> {
        let address = self.address();
        self.drive(async move {
            let client = Client::connect(&address).await?;
            Ok(client.stats().await?)
        })
    }
}

/// The figures of a server that are kept.
fn brief(stats: Stats) -> Value {
    json!({
        "resident_bytes_max": stats.resident_bytes_max,
        "disk_bytes": stats.disk_bytes,
        "spilled_bytes": stats.spilled_bytes,
        "merges": stats.merges,
        "merged_bytes": stats.merged_bytes,
        "cold_reads": stats.cold_reads,
        "stall_ms": stats.stall_ms,
        "operations": stats.operations,
        "tables": stats.tables.len(),
    })
}
