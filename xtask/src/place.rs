//! Where long checks happen: the binaries, directories, and the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::process::Process;
use crate::step;

/// The release binaries of rhash: those in `given`, or else built now.
pub(crate) fn binaries(given: Option<&Path>, deadline: Duration) -> Result<PathBuf, Failure> {
    if let Some(directory) = given {
        return absolute(directory);
    }
    let mut build = step::cargo();
    build.args(["build", "--release", "--package", "rhash", "--bins"]);
    step::run("release build", &mut build, deadline)?;
    Ok(target_directory()?.join("release"))
}

/// The binaries of the build that is asked for: the tests' one, built now, or those of [`binaries`].
pub(crate) fn binaries_of(
    debug: bool,
    given: Option<&Path>,
    deadline: Duration,
) -> Result<PathBuf, Failure> {
    if !debug {
        return binaries(given, deadline);
    }
    let mut build = step::cargo();
    build.args(["build", "--package", "rhash", "--bins"]);
    step::run("build", &mut build, deadline)?;
    Ok(target_directory()?.join("debug"))
}

/// Runs a task with release builds of itself and of rhash.
pub(crate) fn run_released(
    task: &str,
    arguments: &[String],
    build_limit: Duration,
    limit: Duration,
) -> Result<(), Failure> {
    let binaries = binaries(None, build_limit)?;
    let mut build = step::cargo();
    build.args(["build", "--release", "--package", "xtask"]);
    step::run("release build of the task", &mut build, build_limit)?;
    let mut command = Command::new(binaries.join("xtask"));
    command.arg(task).args(arguments);
    command.arg("--bin-dir").arg(&binaries);
    command.current_dir(step::root());
    let status = Process::start("xtask", &mut command, |_| ())?
        .0
        .wait(limit)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Failed(format!("{task} failed, as said above")))
}

/// Where cargo builds.
pub(crate) fn target_directory() -> Result<PathBuf, Failure> {
    let output = step::cargo()
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .map_err(|error| Failure::new("cannot run cargo metadata", error))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new("cargo metadata", error))?;
    let target = metadata["target_directory"].as_str();
    target
        .map(PathBuf::from)
        .ok_or_else(|| Failure::Failed("cargo metadata names no target directory".to_owned()))
}

/// Makes a directory where there is none.
pub(crate) fn directory(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path).map_err(|error| Failure::new(path.display(), error))
}

/// Makes a directory, and empties one that is there.
pub(crate) fn empty_directory(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::new(path.display(), error));
        }
        _ => {}
    }
    directory(path)
}

/// The path without links, so that all programs see the same.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path).map_err(|error| Failure::new(path.display(), error))
}

/// What is said of the machine beside figures.
pub(crate) fn describe_machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo")
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({ "cores": cores, "memory": memory, "kernel": kernel })
}

/// Replaces the home directory by `~`: nothing that names this machine's user is kept.
pub(crate) fn without_home(text: &str) -> String {
    match std::env::var("HOME") {
        Ok(home) if home.len() > 1 => text.replace(&home, "~"),
        _ => text.to_owned(),
    }
}
