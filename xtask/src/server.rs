//! A server under test: started, found, and stopped.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use crate::failure::Failure;
use crate::process::Process;

/// A free port.
const ANY_PORT: &str = "127.0.0.1:0";

/// What the server says, once, when it takes connections.
const READY: &str = "listening on ";

/// A shell that becomes the server as soon as its input says so, under the same process id.
const HELD: &str = "read -r go && exec \"$@\" < /dev/null";

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    /// What a held server waits for.
    go: Option<ChildStdin>,
    addresses: Receiver<String>,
    address: String,
    log: PathBuf,
}

impl Server {
    /// Starts a server on a free port. `command` holds all its other arguments; it logs to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, Failure> {
        command.stdin(Stdio::null());
        Self::spawn(command, ANY_PORT, log)
    }

    /// Starts a server at an address, where an earlier one may have been.
    pub(crate) fn start_at(
        command: &mut Command,
        listen: &str,
        log: &Path,
    ) -> Result<Self, Failure> {
        command.stdin(Stdio::null());
        Self::spawn(command, listen, log)
    }

    /// Makes the server's process and holds it before its first step, so that what watches it sees
    /// all of it; [`release`](Self::release) lets it go on.
    pub(crate) fn start_held(command: &Command, log: &Path) -> Result<Self, Failure> {
        let mut held = Command::new("sh");
        held.args(["-c", HELD, "sh"]).arg(command.get_program());
        held.args(command.get_args()).stdin(Stdio::piped());
        Self::spawn(&mut held, ANY_PORT, log)
    }

    fn spawn(command: &mut Command, listen: &str, log: &Path) -> Result<Self, Failure> {
        let file = File::create(log).map_err(|error| Failure::new(log.display(), error))?;
        command
            .args(["--listen", listen])
            .stdout(Stdio::piped())
            .stderr(file);
        let (process, (go, output)) = Process::start("rhash-server", command, |child| {
            (child.stdin.take(), child.stdout.take())
        })?;
        let addresses = watch(output.ok_or_else(|| no_address(log))?);
        Ok(Self {
            process,
            go,
            addresses,
            address: String::new(),
            log: log.to_owned(),
        })
    }

    /// Lets a held server go on.
    pub(crate) fn release(&mut self) -> Result<(), Failure> {
        match self.go.take() {
            Some(mut go) => writeln!(go).map_err(|error| Failure::new("the server", error)),
            None => Ok(()),
        }
    }

    /// Waits until it takes connections.
    pub(crate) fn wait_until_ready(&mut self, limit: Duration) -> Result<(), Failure> {
        let address = self.addresses.recv_timeout(limit);
        self.address = address.ok().ok_or_else(|| no_address(&self.log))?;
        Ok(())
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens, once it is ready.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        self.process.wait(limit)
    }

    /// Stops it with SIGTERM.
    pub(crate) fn stop(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        self.process.stop(limit)
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        self.process.kill(limit)
    }
}

fn no_address(log: &Path) -> Failure {
    Failure::Failed(format!("the server said no address; see {}", log.display()))
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
