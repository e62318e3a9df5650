//! The tests of the Python package, run on a wheel in a fresh virtual environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::failure::Failure;
use crate::step::{python, root, run};

/// Most tests wait for something half of their time: two at a time take three fifths as long on two cores.
const PROCESSES: &str = "2";

/// What builds the wheel.
const BUILDER: &str = "maturin>=1.8,<2";

/// Builds the wheel, installs it with what its tests need, and runs them.
///
/// Nothing of an earlier environment is left: what is tested is what a user gets.
pub(crate) fn test(release: bool, limit: Duration) -> Result<(), Failure> {
    let place = target_directory().join("python-tests");
    let (environment, wheels) = (place.join("environment"), place.join("wheels"));
    for directory in [&environment, &wheels] {
        if directory.exists() {
            fs::remove_dir_all(directory)
                .map_err(|error| Failure::Failed(format!("{}: {error}", directory.display())))?;
        }
    }
    run(
        "environment for Python",
        python().args(["-m", "venv"]).arg(&environment),
        limit,
    )?;
    let inside = environment.join("bin").join("python");
    run(
        "tools for the Python package",
        pip(&inside)
            .arg(BUILDER)
            .args(["--requirement", "python/tests/requirements.txt"]),
        limit,
    )?;
    let mut build = command(&inside);
    build
        .args(["-m", "maturin", "build", "--locked", "--manifest-path"])
        .arg("python/Cargo.toml")
        .args(["--interpreter"])
        .arg(&inside)
        .arg("--out")
        .arg(&wheels);
    if release {
        build.arg("--release");
    }
    run("wheel of the Python package", &mut build, limit)?;
    run(
        "installing the wheel",
        pip(&inside)
            .args(["--no-index", "--find-links"])
            .arg(&wheels)
            .arg("mivrhash"),
        limit,
    )?;
    run(
        "tests of the Python package",
        command(&inside).args([
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--numprocesses",
            PROCESSES,
            "python/tests",
        ]),
        limit,
    )
}

fn pip(inside: &Path) -> Command {
    let mut pip = command(inside);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    pip
}

/// The environment's Python, in the root and without leaving compiled files in the tree.
fn command(inside: &Path) -> Command {
    let mut command = Command::new(inside);
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(root());
    command
}

/// Where cargo puts what it builds.
fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}
