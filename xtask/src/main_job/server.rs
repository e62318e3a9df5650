//! A server under test: started, found, and stopped.

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::workplace::Workplace;
use super::{Phase, QUICK};
use crate::failure::Failure;
use crate::process::Process;

/// What the server says, once, when it takes connections.
const READY: &str = "listening on ";

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    process: Process,
    address: String,
}

impl Server {
    /// Starts the phase's server on a free port and waits until it is ready.
    pub(super) fn start(phase: &Phase<'_>, workplace: &Workplace) -> Result<Self, Failure> {
        let mut command = workplace.binary("rhash-server");
        command.args(["--listen", "127.0.0.1:0", "--mem-limit", phase.limit]);
        if phase.memory_only {
            command.arg("--memory-only");
        } else {
            command.arg("--data").arg(workplace.data());
        }
        let log = format!("{}-server.err", phase.name);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(workplace.log(&log)?);
        let (process, output) =
            Process::start("rhash-server", &mut command, |child| child.stdout.take())?;
        let no_address = || {
            let place = workplace.log_path(&log);
            Failure::Failed(format!(
                "the server said no address; see {}",
                place.display()
            ))
        };
        let addresses = watch(output.ok_or_else(no_address)?);
        let address = addresses.recv_timeout(QUICK).ok().ok_or_else(no_address)?;
        Ok(Self { process, address })
    }

    /// The process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Stops it with SIGTERM.
    pub(super) fn stop(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        self.process.stop(limit)
    }
}

/// Reads all that the server prints, so that it never waits for a reader, and passes on the address.
fn watch(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix(READY) {
                // Only the first is waited for.
                sender.try_send(address.trim().to_owned()).ok();
            }
        }
    });
    receiver
}
