//! A server in a process of its own, so that what it takes of memory is its own and not that of
//! the measuring: this same program, called with a command that people do not see.
//!
//! The child ends when its standard input does, so that none outlives its parent, whatever ends that.

use std::{
    io::{self, BufRead, BufReader, Read},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use super::plan::ServerPlace;
use crate::{
    cli::SERVE_COMMAND,
    failure::{Failure, Outcome},
};

/// How long a server may take to start. Its directory is empty.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long a server may take to end before it is killed.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// How the line begins that a server prints when it is ready.
pub(crate) const READY: &str = "listening on ";

/// A server to measure.
#[derive(Debug)]
pub(crate) struct Server {
    address: String,
    /// Ends with this.
    _started: Option<Started>,
}

/// What ends with a server that was started here.
#[derive(Debug)]
struct Started {
    child: Child,
    /// Held open for as long as the server shall run.
    stdin: Option<ChildStdin>,
    /// Disconnected when the child's standard output ends.
    lines: Receiver<String>,
    /// Removed at the end.
    _directory: Option<TempDir>,
}

impl Server {
    /// Starts the server of a setup with its data in a directory of its own inside `data`, or says
    /// where it is.
    ///
    /// # Errors
    /// It cannot be started, or the directory not be made.
    pub(crate) fn start(place: &ServerPlace, data: &Path) -> Outcome<Self> {
        let limit_bytes = match place {
            ServerPlace::Elsewhere { address } => {
                return Ok(Self {
                    address: address.clone(),
                    _started: None,
                });
            }
            ServerPlace::MemoryOnly { limit_bytes } | ServerPlace::Spill { limit_bytes } => {
                *limit_bytes
            }
        };
        let directory = match place {
            ServerPlace::Spill { .. } => Some(new_directory(data)?),
            _ => None,
        };
        let program = std::env::current_exe().map_err(cannot_start)?;
        let mut command = Command::new(program);
        command
            .args([SERVE_COMMAND, "--mem-limit", &limit_bytes.to_string()])
            // Ctrl-C is for this process, which then ends the child in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        match &directory {
            Some(directory) => command.arg("--data").arg(directory.path()),
            None => command.arg("--memory-only"),
        };
        let mut child = command.spawn().map_err(cannot_start)?;
        let stdin = child.stdin.take();
        let lines = read_lines(child.stdout.take());
        let started = Started {
            child,
            stdin,
            lines,
            _directory: directory,
        };
        let line = started.lines.recv_timeout(START_DEADLINE);
        let address = line
            .ok()
            .and_then(|line| Some(line.strip_prefix(READY)?.trim().to_owned()))
            .ok_or_else(|| Failure::plain("the server to measure did not start"))?;
        Ok(Self {
            address,
            _started: Some(started),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let ended = loop {
            match self.lines.recv_timeout(END_DEADLINE) {
                Ok(_more) => {}
                Err(RecvTimeoutError::Disconnected) => break true,
                Err(RecvTimeoutError::Timeout) => break false,
            }
        };
        if !ended {
            // It may have ended meanwhile; then there is nothing to kill.
            let _gone = self.child.kill();
        }
        let _status = self.child.wait();
    }
}

/// Waits until the standard input ends, as it does with the process that holds its other end.
pub(crate) fn wait_for_parent() {
    let mut bytes = [0; 64];
    let mut stdin = io::stdin().lock();
    while matches!(stdin.read(&mut bytes), Ok(count) if count > 0) {}
}

fn read_lines(from: Option<impl Read + Send + 'static>) -> Receiver<String> {
    // The server prints one line; there is room for it before anybody looks.
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        for line in from
            .into_iter()
            .flat_map(|from| BufReader::new(from).lines())
        {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn new_directory(data: &Path) -> Outcome<TempDir> {
    std::fs::create_dir_all(data)
        .and_then(|()| {
            tempfile::Builder::new()
                .prefix("rhash-bench-")
                .tempdir_in(data)
        })
        .map_err(|error| {
            Failure::plain(format!(
                "cannot make a directory for the server's data in {}: {error}; name another \
                 with --data",
                data.display()
            ))
        })
}

fn cannot_start(error: io::Error) -> Failure {
    Failure::plain(format!("cannot start a server to measure: {error}"))
}
