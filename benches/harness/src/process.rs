//! Processes under test: started, in a memory group if need be, and never left behind.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Group, Result};

/// How often an ending is looked for.
const LOOK: Duration = Duration::from_millis(2);

/// A process to start.
#[derive(Debug)]
pub struct Launch<'a> {
    name: &'a str,
    program: &'a Path,
    arguments: Vec<&'a OsStr>,
    group: Option<&'a Group>,
    log: Option<&'a Path>,
}

impl<'a> Launch<'a> {
    /// A process of this program; the name is for messages.
    pub fn new(name: &'a str, program: &'a Path) -> Self {
        Self {
            name,
            program,
            arguments: Vec::new(),
            group: None,
            log: None,
        }
    }

    /// Adds arguments.
    pub fn args<T: AsRef<OsStr> + ?Sized + 'a>(
        mut self,
        arguments: impl IntoIterator<Item = &'a T>,
    ) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(AsRef::as_ref));
        self
    }

    /// Puts the process into a group before it does anything.
    pub fn group(mut self, group: Option<&'a Group>) -> Self {
        self.group = group;
        self
    }

    /// Sends its standard error into a file. Default: nowhere.
    pub fn log(mut self, log: &'a Path) -> Self {
        self.log = Some(log);
        self
    }

    /// Starts it, with pipes at its standard input and output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(self) -> Result<Process> {
        let mut command = match self.group {
            None => Command::new(self.program),
            Some(group) => {
                let mut command = Command::new("sh");
                // The shell goes into the group and then becomes the program, under the same id.
                command
                    .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
                    .arg(group.members())
                    .arg(self.program);
                command
            }
        };
        let errors = match self.log {
            Some(path) => Stdio::from(
                std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)?,
            ),
            None => Stdio::null(),
        };
        let child = command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        Ok(Process {
            name: self.name.to_owned(),
            child,
        })
    }
}

/// A process that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The way to its standard input, once.
    pub fn input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The way from its standard output, once.
    pub fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It has not ended in time.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if begin.elapsed() > limit {
                return Err(format!("{} did not end within {limit:?}", self.name).into());
            }
            thread::park_timeout(LOOK);
        }
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    /// It has not ended in time.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        let id = self.id().to_string();
        Command::new("kill").args(["-s", "TERM", &id]).status()?;
        self.wait(limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A program on this machine's path, as a shell would find it.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_when_told() {
        let program = find_program("sleep").unwrap();
        let mut process = Launch::new("sleep", &program).args(["60"]).start().unwrap();
        assert!(process.ended().unwrap().is_none());
        assert!(!process.stop(Duration::from_secs(20)).unwrap().success());
    }

    #[test]
    fn a_program_that_is_nowhere_is_not_found() {
        assert_eq!(find_program("no program has this name"), None);
    }
}
