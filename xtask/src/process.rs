//! A child process with a deadline.
//!
//! A `Process` never outlives its owner: dropping one that still runs kills it, by its own id.
//! Waiting is done by a thread of its own, so that it can be given up.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::failure::Failure;

/// How long a killed process may take to be gone.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// A running child process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    id: u32,
    ended: Receiver<std::io::Result<ExitStatus>>,
    has_ended: bool,
}

/// What to tell a process to do.
#[derive(Clone, Copy, Debug)]
enum Signal {
    Terminate,
    Kill,
}

impl Process {
    /// Starts the command. `take` sees the child first, to take its pipes.
    pub(crate) fn start<T>(
        name: &str,
        command: &mut Command,
        take: impl FnOnce(&mut Child) -> T,
    ) -> Result<(Self, T), Failure> {
        let mut child = command
            .spawn()
            .map_err(|error| Failure::new(format_args!("cannot start {name}"), error))?;
        let id = child.id();
        let taken = take(&mut child);
        let (sender, ended) = sync_channel(1);
        std::thread::spawn(move || {
            // The receiver may have given up; then nobody wants to know.
            sender.send(child.wait()).ok();
        });
        Ok((
            Self {
                name: name.to_owned(),
                id,
                ended,
                has_ended: false,
            },
            taken,
        ))
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Waits until the process ends; an error if it takes longer than `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        match self.ended.recv_timeout(limit) {
            Ok(result) => {
                self.has_ended = true;
                result.map_err(|error| {
                    Failure::new(format_args!("cannot wait for {}", self.name), error)
                })
            }
            Err(RecvTimeoutError::Timeout) => Err(Failure::Failed(format!(
                "{} did not end within {limit:?}",
                self.name
            ))),
            Err(RecvTimeoutError::Disconnected) => Err(Failure::Failed(format!(
                "{} was waited for twice",
                self.name
            ))),
        }
    }

    /// Asks the process to stop (SIGTERM) and waits until it has.
    pub(crate) fn stop(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        self.signal(Signal::Terminate);
        self.wait(limit)
    }

    /// Kills the process (SIGKILL) and waits until it is gone.
    pub(crate) fn kill(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        self.signal(Signal::Kill);
        self.wait(limit)
    }

    fn signal(&self, signal: Signal) {
        let flag = match signal {
            Signal::Terminate => "-TERM",
            Signal::Kill => "-KILL",
        };
        // The shell's own `kill`: the program of that name is not on every machine. It fails if the
        // process has just ended, which is what was wanted.
        Command::new("sh")
            .args(["-c", "kill \"$1\" \"$2\"", "sh", flag, &self.id.to_string()])
            .stderr(Stdio::null())
            .status()
            .ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended && self.ended.try_recv().is_err() {
            self.signal(Signal::Kill);
            self.ended.recv_timeout(KILL_WAIT).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start("sh", Command::new("sh").args(["-c", script]), |_| ())
            .unwrap()
            .0
    }

    #[test]
    fn the_exit_status_is_told() {
        let status = shell("exit 3").wait(Duration::from_secs(30)).unwrap();
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_process_that_takes_too_long_is_an_error_and_is_killed_when_dropped() {
        // A process whose input stays open never ends by itself.
        let (mut process, _input) = {
            let mut command_line = Command::new("cat");
            command_line.stdin(Stdio::piped());
            Process::start("cat", &mut command_line, |child| child.stdin.take()).unwrap()
        };
        let failure = process.wait(Duration::from_millis(20)).unwrap_err();
        assert!(failure.to_string().contains("did not end"), "{failure}");
        let id = process.id();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn stopping_sends_the_signal_that_can_be_caught() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "trap 'exit 7' TERM; echo ready; while :; do read line; done",
        ]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (mut process, (input, output)) = Process::start("sh", &mut command, |child| {
            (child.stdin.take(), child.stdout.take())
        })
        .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output.unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        let status = process.stop(Duration::from_secs(30)).unwrap();
        assert_eq!(status.code(), Some(7));
        drop(input);
    }
}
