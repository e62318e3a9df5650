//! One disk after a power cut: a server is started on it, and what it has is held against the journals.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::disk::Image;
use super::found::{Cut, Found};
use super::load::Done;
use super::peer::Peer;
use super::stage::Stage;
use crate::failure::Failure;
use crate::server::Server;

/// No start, stop or kill takes longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// One image in so many is used by a second server, after the first was killed.
const AGAIN_ONE_IN: usize = 16;

/// What of a server's log is told.
const LOG_BYTES_MAX: usize = 2000;

/// What all trials share.
#[derive(Debug)]
pub(crate) struct Trials<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) level: &'a str,
    pub(crate) stage: &'a Stage,
    pub(crate) done: &'a Done,
}

/// One trial.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) number: usize,
    pub(crate) image: Image,
    pub(crate) cut: Cut,
    /// Where in the trace the cut is, and what it left, in words.
    pub(crate) what: String,
}

/// A server on the data directory below a root.
pub(crate) fn server_command(binary: &Path, level: &str, root: &Path) -> Command {
    let mut command = Command::new(binary);
    command.args(["--mem-limit", "24M", "--log-limit", "1M", "--log", "warn"]);
    command.args(["--durability", level, "--drain-timeout", "2s", "--data"]);
    command.arg(root.join("data"));
    command
}

/// A runtime for one thread's client.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("a runtime", error))
}

/// What a server said on standard error, from the end.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let from = text.ceil_char_boundary(text.len().saturating_sub(LOG_BYTES_MAX));
    text[from..].to_owned()
}

impl Trials<'_> {
    /// Tries one image, in the place of a worker.
    pub(crate) fn run(
        &self,
        runtime: &Runtime,
        worker: usize,
        trial: &Trial,
    ) -> Result<(), String> {
        let place = self.stage.empty(&format!("image-{worker}"));
        let root = place.map_err(|failure| failure.to_string())?;
        let written = trial.image.write(&root);
        written.map_err(|failure| failure.to_string())?;
        self.start_and_check(runtime, &root, trial)?;
        if trial.number.is_multiple_of(AGAIN_ONE_IN) {
            let again = self.start_and_check(runtime, &root, trial);
            again.map_err(|why| format!("started once more: {why}"))?;
        }
        Ok(())
    }

    fn start_and_check(&self, runtime: &Runtime, root: &Path, trial: &Trial) -> Result<(), String> {
        let log: PathBuf = root.join("server.log");
        let mut command = server_command(self.binary, self.level, root);
        let with_log = |failure: Failure| format!("{failure}; its log: {}", log_tail(&log));
        let mut server = Server::start(&mut command, &log).map_err(with_log)?;
        server.wait_until_ready(DEADLINE).map_err(with_log)?;
        let address = server.address().to_owned();
        let found = runtime.block_on(async {
            let mut peer = Peer::connect(&address).await?;
            Found::read(&mut peer, trial.number as u32).await
        });
        let found = found.map_err(with_log)?;
        found
            .check(self.done, trial.cut)
            .map_err(|why| format!("{why}; its log: {}", log_tail(&log)))?;
        server.kill(DEADLINE).map_err(with_log)?;
        let said = log_tail(&log);
        match said.contains("ERROR") || said.contains("panicked") {
            true => Err(format!("it logged trouble: {said}")),
            false => Ok(()),
        }
    }
}
