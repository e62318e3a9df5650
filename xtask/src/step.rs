//! One step of a task: a program that must succeed, and a line that says how long it took.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::process::Process;

/// Runs the command to its end, its output going to the terminal, and says its time in one line.
pub(crate) fn run(name: &str, command: &mut Command, limit: Duration) -> Result<(), Failure> {
    say!("xtask: {name} …");
    let began = Instant::now();
    let status = Process::start(name, command, |_| ())?.0.wait(limit)?;
    let seconds = began.elapsed().as_secs_f64();
    if status.success() {
        say!("xtask: {name}: ok, {seconds:.1} s");
        Ok(())
    } else {
        Err(Failure::Failed(format!(
            "{name}: failed ({status}), {seconds:.1} s"
        )))
    }
}

/// The cargo that runs this task.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What cargo says of this package to its process: build scripts that look for it would run again, and much be
    // compiled anew, each time that a build is begun by a task and by hand in turn.
    for (name, _) in std::env::vars_os() {
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        let text = name.to_string_lossy();
        if of_package.iter().any(|begin| text.starts_with(begin)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Python 3, without leaving compiled files in the tree.
pub(crate) fn python() -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root());
    command
}

/// The root of the workspace.
pub(crate) fn root() -> &'static std::path::Path {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}
