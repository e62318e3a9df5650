//! Where a bench works: the binaries under test, a directory for data, one for results.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{Options, Result, say};

/// The places of one bench. Its work directory is its own, and goes when this is dropped.
#[derive(Debug)]
pub struct Place {
    binaries: PathBuf,
    work: PathBuf,
    results: PathBuf,
}

impl Place {
    /// Builds the binaries, unless the options name some, and makes the directories.
    ///
    /// # Errors
    /// The build failed, or a directory cannot be made.
    pub fn prepare(bench: &str, options: &Options) -> Result<Self> {
        let target = target_directory()?;
        let binaries = match &options.bin_dir {
            Some(directory) => directory.clone(),
            None => {
                build()?;
                target.join("release")
            }
        };
        let work = options.work.clone().unwrap_or_else(|| target.clone());
        let work = work.join(format!("bench-{bench}-{}", std::process::id()));
        let results = options.results.clone().unwrap_or_else(|| {
            let home = options.pick(root().join("benches/results"), target.join("bench-quick"));
            home.join(bench)
        });
        for directory in [&work, &results] {
            fs::create_dir_all(directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        Ok(Self {
            binaries: fs::canonicalize(binaries)?,
            work: fs::canonicalize(work)?,
            results,
        })
    }

    /// The path of a binary of ours.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// Where results go.
    pub fn results(&self) -> &Path {
        &self.results
    }

    /// Where data go.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// An empty directory of this name in the work directory.
    ///
    /// # Errors
    /// It cannot be emptied or made.
    pub fn empty_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.work.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// The bytes that files in a directory take on disk, all below counted.
    pub fn disk_bytes(directory: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => Self::disk_bytes(&entry.path()),
                Ok(metadata) => metadata.blocks() * 512,
                // It went while we looked.
                Err(_) => 0,
            })
            .sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.work) {
            say(format_args!(
                "cannot remove {}: {error}",
                self.work.display()
            ));
        }
    }
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here)
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

fn build() -> Result<()> {
    let mut command = cargo();
    command.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "rhash",
        "--bins",
    ]);
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the release binaries cannot be built: {status}").into())
    }
}

fn target_directory() -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_slice(&command.output()?.stdout)?;
    let target = metadata["target_directory"].as_str();
    Ok(target
        .ok_or("cargo metadata names no target directory")?
        .into())
}
