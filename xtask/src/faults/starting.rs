//! Faults under a server that starts: it ends with an error that names the file, or starts and has everything.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::cases::Case;
use super::client::{self, Board, Hand};
use super::control::Control;
use super::outcome::Outcome;
use super::running::Bench;
use crate::failure::Failure;
use crate::power::draws::Draws;
use crate::power::preload::Preload;
use crate::power::trial::{DEADLINE, runtime, server_command};
use crate::server::Server;

/// Reads of a server that started all the same.
const READS: u32 = 40;
/// A server that cannot start ends soon.
const END_LIMIT: Duration = Duration::from_secs(20);

impl Bench<'_> {
    /// A case of a server that starts, in the place of a worker.
    pub(super) fn run_start(
        &self,
        case: &Case,
        worker: usize,
        number: u64,
    ) -> Result<Outcome, Failure> {
        let root = self.stage.empty(&format!("case-{worker}"))?;
        self.killed.copy(self.stage, &root)?;
        let control = Control::new(&self.stage.path(&format!("control-{worker}")))?;
        control.arm(&case.fault)?;
        let log = root.join("server.log");
        let mut command = server_command(self.binary, case.level, &root);
        self.preload.put_before(&mut command, &root);
        Preload::control(&mut command, control.path());
        let mut server = Server::start(&mut command, &log)?;
        let board = Board::default();
        let mut trouble = Vec::new();
        match server.wait_until_ready(DEADLINE) {
            Ok(()) => {
                let reading = self.read_some(server.address(), &board, number);
                if let Err(failure) = runtime()?.block_on(reading) {
                    trouble.push(failure.to_string());
                }
                server.kill(DEADLINE)?;
            }
            Err(_no_address) => match server.wait(END_LIMIT) {
                Err(failure) => {
                    trouble.push(failure.to_string());
                    server.kill(DEADLINE)?;
                }
                Ok(status) => {
                    if status.success() || status.code().is_none() {
                        trouble.push(format!("it ended with {status}"));
                    }
                    trouble.extend(names_no_file(&log, &root));
                }
            },
        }
        control.disarm()?;
        let mut outcome = Outcome::new(case, &control, &board);
        outcome.wrong.extend(trouble);
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        if said.contains("panicked") {
            outcome.wrong(format!("it panicked: {said}"));
        }
        if let Some(last) = said.lines().last() {
            outcome.note(format!("its last word: {last}"));
        }
        if let Err(why) = self.check_restarted(&root, case.level, &self.killed.ledger) {
            outcome.wrong(why);
        }
        Ok(outcome)
    }

    async fn read_some(&self, address: &str, board: &Board, number: u64) -> Result<(), Failure> {
        let mut hand = Hand::connect(address).await?;
        let mut draws = Draws::new(self.seed, number);
        for _ in 0..READS {
            client::read_some(&mut hand, &self.stopped.ledger, board, &mut draws).await?;
        }
        board.acked.store(0, Relaxed);
        Ok(())
    }
}

/// What is wrong with the last word of a server that did not start.
fn names_no_file(log: &Path, root: &Path) -> Option<String> {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let last = said.lines().last().unwrap_or_default();
    let names = last.starts_with("rhash-server: ") && last.contains(&root.display().to_string());
    (!names).then(|| format!("its last word names no file: {last:?}"))
}
