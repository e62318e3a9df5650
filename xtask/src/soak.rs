//! `cargo xtask soak`: a server under mixed load for a long time, with four times the data that its
//! memory holds and connections that come and go. What it does in the end it does as fast as in the
//! beginning, and nothing has grown that should not.

mod load;
mod options;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rhash_client::Client;

use crate::checklist::Checklist;
use crate::failure::Failure;
use crate::place;
use crate::server::Server;
use crate::sizes::mebibytes;
use load::{Counts, ENTRY_BYTES, Load};
use options::Options;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The first and the last part of the time that are held against each other.
const PART: usize = 6;

/// The last part's throughput is at least this much of the first's.
const THROUGHPUT_MIN: f64 = 0.8;

/// A shorter soak says more of the host's other work than of the server's pace.
const THROUGHPUT_TIME_MIN: Duration = Duration::from_secs(600);

/// Descriptors and threads come and go with connections and runs; so many are no growth.
const SLACK: f64 = 1.2;
const SLACK_COUNT: u64 = 16;

/// What may lie on disk, times the bytes of live entries: garbage, and what merges write anew.
const DISK_FACTOR: u64 = 3;
const DISK_SLACK_BYTES: u64 = 64 << 20;
/// What the log may take of that; half of it, before a checkpoint begins.
const LOG_LIMIT: &str = "256M";

/// No start, stop or call takes longer.
const DEADLINE: Duration = Duration::from_secs(300);

/// What is seen of the server at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// Operations since the look before.
    operations: u64,
    descriptors: u64,
    threads: u64,
    memory_bytes: u64,
    disk_bytes: u64,
}

/// A figure of a look.
type Figure = fn(&Look) -> u64;

/// Runs the soak.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let Some(options) = Options::parse(arguments)? else {
        say!("{}", options::HELP);
        return Ok(());
    };
    let given = options.bin_dir.as_deref();
    let binaries = place::binaries_of(options.debug, given, DEADLINE * 6)?;
    let stage = place::target_directory()?.join("soak");
    place::empty_directory(&stage)?;
    let mut command = Command::new(binaries.join("rhash-server"));
    command
        .arg("--mem-limit")
        .arg(options.mem_limit_bytes.to_string());
    command.arg("--data").arg(stage.join("data"));
    command.args(["--lease", "2s", "--log", "warn"]);
    command.args(["--log-limit", LOG_LIMIT]);
    let mut server = Server::start(&mut command, &stage.join("server.log"))?;
    server.wait_until_ready(DEADLINE)?;
    let mut checks = Checklist::default();
    let soaked = soak(&options, &server, &stage, &mut checks);
    let stopped = server.stop(DEADLINE)?;
    soaked?;
    checks.check("it stops cleanly", stopped.success(), stopped.to_string());
    let log = fs::read_to_string(stage.join("server.log"))
        .map_err(|error| Failure::new("the server's log", error))?;
    checks.check(
        "it logs no trouble",
        log.is_empty(),
        format!("{} bytes of warnings", log.len()),
    );
    checks.outcome("soak")
}

fn soak(
    options: &Options,
    server: &Server,
    stage: &Path,
    checks: &mut Checklist,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new("cannot start threads", error))?;
    let entries = 4 * options.mem_limit_bytes / ENTRY_BYTES;
    let counts = Arc::new(Counts::default());
    let load = Load {
        address: server.address().to_owned(),
        entries,
        seed: options.seed,
        counts: Arc::clone(&counts),
    };
    say!(
        "xtask: soak: {entries} entries of {ENTRY_BYTES} bytes under a limit of {}, seed {} …",
        mebibytes(options.mem_limit_bytes),
        options.seed
    );
    let looks = runtime.block_on(async {
        load.fill().await?;
        let mut tasks = load.start();
        // Until as much is garbage as is kept, and caches have found what is in use.
        tokio::time::sleep(options.time / PART as u32).await;
        let looks = watch(options.time, server.id(), stage, &counts).await;
        counts.stop.store(true, Relaxed);
        let ended = tokio::time::timeout(DEADLINE, async {
            while let Some(ended) = tasks.join_next().await {
                ended.map_err(|error| Failure::new("a part of the load", error))??;
            }
            Ok::<_, Failure>(())
        });
        ended
            .await
            .map_err(|error| Failure::new("the load does not end", error))??;
        looks
    })?;
    judge(options, &looks, checks);
    let wrong = counts.wrong.load(Relaxed);
    let asked = counts.operations.load(Relaxed);
    checks.check(
        "every answer is right",
        wrong == 0,
        format!("{wrong} of {asked} are not"),
    );
    let came = counts.connections.load(Relaxed);
    checks.check(
        "connections came and went",
        came > 0,
        format!("{came} of them"),
    );
    let live = runtime.block_on(live_bytes(server.address()))?;
    say!("xtask: soak: {} of entries in the end", mebibytes(live));
    Ok(())
}

async fn live_bytes(address: &str) -> Result<u64, Failure> {
    let failed = |error| Failure::new("the figures", error);
    let client = Client::connect(address).await.map_err(failed)?;
    let tables = client.tables().await.map_err(failed)?;
    let bytes = tables
        .iter()
        .map(|table| table.hot_bytes.saturating_add(table.cold_bytes));
    Ok(bytes.sum())
}

async fn watch(
    time: Duration,
    id: u32,
    stage: &Path,
    counts: &Counts,
) -> Result<Vec<Look>, Failure> {
    let began = Instant::now();
    let mut ticks = tokio::time::interval(LOOK);
    let mut looks = Vec::new();
    let mut before = counts.operations.load(Relaxed);
    ticks.tick().await;
    while began.elapsed() < time {
        ticks.tick().await;
        let operations = counts.operations.load(Relaxed);
        looks.push(Look {
            operations: operations - before,
            descriptors: entries_of(&format!("/proc/{id}/fd"))?,
            threads: entries_of(&format!("/proc/{id}/task"))?,
            memory_bytes: anonymous_bytes(id)?,
            disk_bytes: files_bytes(&stage.join("data")),
        });
        before = operations;
        if looks.len().is_multiple_of(60) {
            let minute = looks.get(looks.len() - 60..).unwrap_or_default();
            let rate = minute.iter().map(|look| look.operations).sum::<u64>() / 60;
            say!(
                "xtask: soak: {} s, {rate} operations/s, {:?}",
                looks.len(),
                looks.last()
            );
        }
    }
    Ok(looks)
}

fn judge(options: &Options, looks: &[Look], checks: &mut Checklist) {
    let part = (looks.len() / PART).max(1);
    let first = looks.get(..part).unwrap_or_default();
    let last = looks
        .get(looks.len().saturating_sub(part)..)
        .unwrap_or_default();
    let rate = |part: &[Look]| {
        let operations: u64 = part.iter().map(|look| look.operations).sum();
        operations as f64 / part.len().max(1) as f64
    };
    let (early, late) = (rate(first), rate(last));
    let is_long = options.time >= THROUGHPUT_TIME_MIN;
    let is_as_fast = late >= THROUGHPUT_MIN * early || !is_long;
    let judged = if is_long {
        ""
    } else {
        ", too short to be judged"
    };
    checks.check(
        "it is as fast in the end as in the beginning",
        is_as_fast && late > 0.0,
        format!("{late:.0} operations/s after {early:.0}{judged}"),
    );
    let most = |part: &[Look], figure: Figure| part.iter().map(figure).max().unwrap_or(0);
    let figures: [(&str, Figure); 2] = [
        ("descriptors do not grow", |look| look.descriptors),
        ("threads do not grow", |look| look.threads),
    ];
    let first_half = looks.get(..looks.len().div_ceil(2)).unwrap_or_default();
    for (name, figure) in figures {
        let (early, late) = (most(first_half, figure), most(last, figure));
        let allowed = (early as f64 * SLACK) as u64 + SLACK_COUNT;
        checks.check(
            name,
            late <= allowed,
            format!("{late} at most after {early}"),
        );
    }
    let memory = most(looks, |look| look.memory_bytes);
    checks.check(
        "memory keeps its limit",
        memory <= options.mem_limit_bytes,
        format!(
            "{} of {}",
            mebibytes(memory),
            mebibytes(options.mem_limit_bytes)
        ),
    );
    let disk = most(looks, |look| look.disk_bytes);
    let live = 4 * options.mem_limit_bytes;
    let allowed = DISK_FACTOR * live + DISK_SLACK_BYTES;
    checks.check(
        "disk keeps within what live entries explain",
        disk <= allowed,
        format!(
            "{} of {} for {}",
            mebibytes(disk),
            mebibytes(allowed),
            mebibytes(live)
        ),
    );
}

fn entries_of(directory: &str) -> Result<u64, Failure> {
    let entries = fs::read_dir(directory).map_err(|error| Failure::new(directory, error))?;
    Ok(entries.count() as u64)
}

fn anonymous_bytes(id: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{id}/status");
    let status = fs::read_to_string(&path).map_err(|error| Failure::new(&path, error))?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok((kib("RssAnon:") + kib("RssShmem:")) * 1024)
}

/// The bytes of all files below a directory; one that goes meanwhile counts for nothing.
fn files_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => files_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_gone) => 0,
    });
    bytes.sum()
}
