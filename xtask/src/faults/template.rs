//! Data directories to begin with, made once and copied for each case.

use std::path::Path;

use super::client::Hand;
use super::ledger::{BALLAST_BEFORE, KEYS_BEFORE, Ledger};
use crate::failure::Failure;
use crate::place;
use crate::power::draws::Draws;
use crate::power::journal::BALLAST;
use crate::power::plan::Batch;
use crate::power::stage::Stage;
use crate::power::trial::{DEADLINE, log_tail, runtime, server_command};
use crate::server::Server;

/// Batches of small tables before the disk fails.
const BATCHES_BEFORE: u32 = 600;
/// Batches behind the last stop of the server that is then killed: enough for a checkpoint, and a log behind it.
const BATCHES_LOGGED: u32 = 150;
/// Keys of a batch.
const KEYS_AT_ONCE: u32 = 5;

/// What was written to a directory, and where that is in the stage.
#[derive(Debug)]
pub(super) struct Template {
    name: &'static str,
    pub(super) ledger: Ledger,
}

/// A directory whose server was stopped, with runs in files and in sled; and one whose server was then
/// killed, with a log to be replayed.
pub(super) fn make(
    stage: &Stage,
    binary: &Path,
    seed: u64,
) -> Result<(Template, Template), Failure> {
    let mut draws = Draws::new(seed, 1000);
    let mut ledger = Ledger::new();
    let root = stage.empty("stopped")?;
    run_server(&root, binary, Ended::Stopped, async |hand| {
        for batch in 0..BALLAST_BEFORE / KEYS_AT_ONCE {
            let keys: Vec<u32> = (batch * KEYS_AT_ONCE..(batch + 1) * KEYS_AT_ONCE).collect();
            let planned = ledger.plan_before(BALLAST, &keys, &mut draws);
            hand.write_or_fail(&planned, &mut ledger).await?;
        }
        for _ in 0..BATCHES_BEFORE {
            let table = draws.below(BALLAST as u64) as usize;
            let keys: Vec<u32> = (0..KEYS_AT_ONCE)
                .map(|_| draws.below(u64::from(KEYS_BEFORE)) as u32)
                .collect();
            let planned = ledger.plan_before(table, &keys, &mut draws);
            hand.write_or_fail(&planned, &mut ledger).await?;
        }
        Ok(())
    })?;
    let stopped = Template {
        name: "stopped",
        ledger: ledger.clone(),
    };
    let root = stage.empty("killed")?;
    stopped.copy(stage, &root)?;
    run_server(&root, binary, Ended::Killed, async |hand| {
        for _ in 0..BATCHES_LOGGED {
            let planned = ledger.plan(&mut draws);
            hand.write_or_fail(&planned, &mut ledger).await?;
        }
        Ok(())
    })?;
    let killed = Template {
        name: "killed",
        ledger,
    };
    Ok((stopped, killed))
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Stopped,
    Killed,
}

fn run_server(
    root: &Path,
    binary: &Path,
    ended: Ended,
    work: impl AsyncFnOnce(&mut Hand) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let log = root.join("server.log");
    let mut server = Server::start(&mut server_command(binary, "everysec", root), &log)?;
    server.wait_until_ready(DEADLINE)?;
    let address = server.address().to_owned();
    runtime()?.block_on(async {
        let mut hand = Hand::connect(&address).await?;
        work(&mut hand).await
    })?;
    match ended {
        Ended::Killed => server.kill(DEADLINE).map(drop),
        Ended::Stopped => {
            let status = server.stop(DEADLINE)?;
            match status.success() {
                true => Ok(()),
                false => Err(Failure::new(status, log_tail(&log))),
            }
        }
    }
}

impl Hand {
    async fn write_or_fail(&mut self, batch: &Batch, ledger: &mut Ledger) -> Result<(), Failure> {
        match self.write(batch, ledger).await? {
            None => Ok(()),
            Some(error) => Err(Failure::new("a write to a healthy server", error.text)),
        }
    }
}

impl Template {
    /// Copies the data directory to one below `root`.
    pub(super) fn copy(&self, stage: &Stage, root: &Path) -> Result<(), Failure> {
        copy_dir(&stage.path(self.name).join("data"), &root.join("data"))
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<(), Failure> {
    place::directory(to)?;
    let fail = |error| Failure::new(from.display(), error);
    for entry in std::fs::read_dir(from).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        let target = to.join(name);
        if path.is_dir() {
            copy_dir(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).map_err(|error| Failure::new(path.display(), error))?;
        }
    }
    Ok(())
}
