//! `cargo xtask start`: how soon a server answers after one with much cold data and a full log was killed.

mod options;
mod entries;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rhash_client::Client;
use tokio::runtime::Runtime;

use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::place;
use crate::sampler::Sampler;
use crate::server::Server;
use crate::sizes::mebibytes;
use entries::{Looked, Written};
use options::Options;

/// No build, and no load, takes longer, nor does the whole task.
const BUILD_DEADLINE: Duration = Duration::from_secs(30 * 60);
const DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);
/// No start or stop takes longer.
const WAIT: Duration = Duration::from_secs(600);
/// The log is filled to this share of what was asked for: one that is filled beyond it would be cut.
const FULL_PERCENT: u64 = 97;
/// It must hold so much at least.
const FULL_PERCENT_MIN: u64 = 90;

/// Runs the start.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        say!("{}", options::HELP);
        return Ok(());
    };
    if options.bin_dir.is_none() && !options.debug && cfg!(debug_assertions) {
        return place::run_released("start", arguments, BUILD_DEADLINE, DEADLINE);
    }
    let given = options.bin_dir.as_deref();
    let binaries = place::binaries_of(options.debug, given, BUILD_DEADLINE)?;
    let stage = match &options.work {
        Some(work) => work.clone(),
        None => place::target_directory()?.join("start"),
    };
    place::empty_directory(&stage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start threads", error))?;
    let start = Start {
        options: &options,
        binary: binaries.join("rhash-server"),
        stage: &stage,
        runtime: &runtime,
    };
    let mut checks = Checklist::default();
    let done = start.run(&mut checks);
    if !options.keep {
        place::empty_directory(&stage)?;
    }
    done?;
    checks.outcome("start")
}

struct Start<'a> {
    options: &'a Options,
    binary: PathBuf,
    stage: &'a Path,
    runtime: &'a Runtime,
}

/// What a start took.
struct Started {
    seconds_ready: f64,
    seconds_answered: f64,
    is_right: bool,
    looked: Looked,
}

impl Start<'_> {
    fn run(&self, checks: &mut Checklist) -> Result<(), Failure> {
        let options = self.options;
        let written = Written {
            seed: options.seed,
            cold: Written::cold_for(options.cold_bytes),
            logged: 0,
        };
        say!(
            "xtask: start: loading {} of cold data, seed {} …",
            mebibytes(options.cold_bytes),
            options.seed
        );
        let began = Instant::now();
        let mut server = self.start("load", options.log_bytes)?;
        self.runtime.block_on(written.load_cold(server.address()))?;
        server.stop(WAIT)?;
        let seconds = began.elapsed().as_secs_f64();
        say!(
            "xtask: start: {} entries in {seconds:.1} s; filling the log …",
            written.cold
        );
        let began = Instant::now();
        // It would be cut at half of its limit.
        let mut server = self.start("fill", options.log_bytes * 2)?;
        let full = options.log_bytes / 100 * FULL_PERCENT;
        let filled = self
            .runtime
            .block_on(written.fill_log(server.address(), full));
        server.kill(WAIT)?;
        let (written, log_bytes) = filled?;
        let seconds = began.elapsed().as_secs_f64();
        say!(
            "xtask: start: {} writes in {seconds:.1} s; killed",
            written.logged
        );
        let name = "the log is full when the server is killed";
        let detail = format!(
            "{} of {}",
            mebibytes(log_bytes),
            mebibytes(options.log_bytes)
        );
        let is_full = log_bytes >= options.log_bytes / 100 * FULL_PERCENT_MIN;
        checks.check(name, is_full, detail);
        self.judge(written, checks)
    }

    /// The command of a server with this limit of its log.
    fn command(&self, log_limit_bytes: u64) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--mem-limit")
            .arg(self.options.mem_limit_bytes.to_string());
        command.arg("--log-limit").arg(log_limit_bytes.to_string());
        command.arg("--data").arg(self.stage.join("data"));
        command
    }

    fn start(&self, name: &str, log_limit_bytes: u64) -> Result<Server, Failure> {
        let log = self.stage.join(format!("{name}.log"));
        let mut server = Server::start(&mut self.command(log_limit_bytes), &log)?;
        server.wait_until_ready(WAIT)?;
        Ok(server)
    }

    /// Starts the server that is timed.
    fn judge(&self, written: Written, checks: &mut Checklist) -> Result<(), Failure> {
        let options = self.options;
        let command = self.command(options.log_bytes);
        let mut server = Server::start_held(&command, &self.stage.join("start.log"))?;
        let limit = options.mem_limit_bytes;
        let mut sampler = Sampler::start(server.id(), limit, &self.stage.join("memory"))?;
        let started = self.timed(&mut server, written);
        let stopped = server.stop(WAIT)?;
        let memory = sampler.finish()?;
        let started = started?;
        // What is built without optimization is not timed.
        let is_timed = !cfg!(debug_assertions);
        let is_soon = started.seconds_answered < options.within.as_secs_f64();
        checks.check(
            "it answers soon after its start",
            started.is_right && (is_soon || !is_timed),
            format!(
                "{:.2} s from its first step to the answer to a get, ready after {:.2} s, of {:?}{}",
                started.seconds_answered,
                started.seconds_ready,
                options.within,
                if is_timed { "" } else { ", a debug build, which is not judged" },
            ),
        );
        let most = memory["own_bytes_max"].as_u64().unwrap_or(u64::MAX);
        checks.check(
            "it keeps its memory limit meanwhile",
            most < limit,
            format!(
                "RssAnon + RssShmem at most {} of {}",
                mebibytes(most),
                mebibytes(limit)
            ),
        );
        let looked = &started.looked;
        let example = looked.example.as_deref().unwrap_or_default();
        checks.check(
            "sampled entries and counts are right",
            looked.wrong == 0 && looked.asked > 0,
            format!("{} of {} are wrong {example}", looked.wrong, looked.asked),
        );
        checks.check("it stops cleanly", stopped.success(), stopped.to_string());
        Ok(())
    }

    fn timed(&self, server: &mut Server, written: Written) -> Result<Started, Failure> {
        let began = Instant::now();
        server.release()?;
        server.wait_until_ready(WAIT)?;
        let seconds_ready = began.elapsed().as_secs_f64();
        let sample = self.options.sample;
        self.runtime.block_on(async {
            let client = Client::connect(server.address()).await?;
            let is_right = written.first_get(&client).await?;
            let seconds_answered = began.elapsed().as_secs_f64();
            let looked = written.look(&client, sample).await?;
            client.shutdown().await?;
            Ok(Started {
                seconds_ready,
                seconds_answered,
                is_right,
                looked,
            })
        })
    }
}
