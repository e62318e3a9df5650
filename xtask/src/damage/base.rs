//! The directories that are damaged: built once, by real servers under a small limit, and from a seed.
//!
//! - `stopped`: two generations of everything in runs, some of them files and some in sled, and a clean stop.
//! - `everysec` and `always`: the same, then a log that was filled until a checkpoint cut it, then small batches, a
//!   sync, some more that say that the ones before were on stable storage, and a kill.
//!
//! Beside each lie copies of it as it was earlier.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rhash_client::{BytesCodec, CachePolicy, Client, Counter, List, RemoteHash, TableKind};
use tokio::runtime::Runtime;

use super::content::{Batch, Change, Content, History, TABLES};
use super::log_file;
use crate::failure::Failure;
use crate::place;
use crate::server::Server;

/// The limit of the servers that build, and of those that are started on what is damaged.
pub(super) const MEM_LIMIT: &str = "24M";
/// Runs below this go to sled, so that little data makes files, too.
pub(super) const SMALL_RUN_BYTES: u64 = 40 << 10;
/// A short log, which is cut soon.
pub(super) const LOG_LIMIT_BYTES: u64 = 1 << 20;

/// No start, stop or wait takes longer.
const DEADLINE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A directory that is alike in so many looks is at rest.
const LOOKS_ALIKE: u32 = 10;

/// The bases by their names.
pub(super) const NAMES: [&str; 3] = ["stopped", "everysec", "always"];

/// What a file of a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileKind {
    Identity,
    Manifest,
    LogEnd,
    LogBefore,
    Run,
    SledDb,
    SledSnapshot,
    SledOther,
}

impl FileKind {
    /// All of them.
    pub(super) const ALL: [Self; 8] = [
        Self::Identity,
        Self::Manifest,
        Self::LogEnd,
        Self::LogBefore,
        Self::Run,
        Self::SledDb,
        Self::SledSnapshot,
        Self::SledOther,
    ];

    /// What it is called in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identity => "IDENTITY",
            Self::Manifest => "MANIFEST",
            Self::LogEnd => "last log segment",
            Self::LogBefore => "other log segments",
            Self::Run => "run files",
            Self::SledDb => "sled: db",
            Self::SledSnapshot => "sled: snapshots",
            Self::SledOther => "sled: conf, blobs",
        }
    }

    /// How often it is damaged, compared to the others.
    pub(super) fn weight(self) -> usize {
        match self {
            Self::Identity => 4,
            Self::Manifest => 18,
            Self::LogEnd => 18,
            Self::LogBefore => 8,
            Self::Run => 28,
            Self::SledDb => 16,
            Self::SledSnapshot => 5,
            Self::SledOther => 3,
        }
    }

    /// Whether it is one of sled's.
    pub(super) fn is_sled(self) -> bool {
        matches!(self, Self::SledDb | Self::SledSnapshot | Self::SledOther)
    }
}

/// A file of a base, by its path inside.
#[derive(Debug, Clone)]
pub(super) struct BaseFile {
    pub(super) path: PathBuf,
    pub(super) kind: FileKind,
}

/// A directory to damage.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) name: &'static str,
    pub(super) dir: PathBuf,
    pub(super) older: Vec<PathBuf>,
    pub(super) files: Vec<BaseFile>,
    pub(super) content: Content,
}

impl Base {
    /// The base of this name below `bases`, as it was built from a seed.
    pub(super) fn open(
        bases: &Path,
        name: &'static str,
        history: &History,
    ) -> Result<Self, Failure> {
        let dir = bases.join(name);
        let older = (0..)
            .map(|number| bases.join(format!("{name}.{number}")))
            .take_while(|older| older.is_dir())
            .collect();
        let mut files = Vec::new();
        for path in paths(&dir)? {
            files.extend(kind_of(&path).map(|kind| BaseFile { path, kind }));
        }
        mark_last_segment(&dir, &mut files)?;
        let parts = [
            &history.first,
            &history.second,
            &history.logged,
            &history.last,
            &history.tail,
        ];
        let count = if name == "stopped" { 2 } else { parts.len() };
        let content = Content::of(parts[..count].iter().copied().flatten());
        Ok(Self {
            name,
            dir,
            older,
            files,
            content,
        })
    }

    /// The level of the servers that use it.
    pub(super) fn durability(&self) -> &'static str {
        if self.name == "always" {
            "always"
        } else {
            "everysec"
        }
    }

    /// What is in it, in a line.
    pub(super) fn describe(&self) -> String {
        let kinds = FileKind::ALL.iter().filter_map(|kind| {
            let count = self.files.iter().filter(|file| file.kind == *kind).count();
            (count > 0).then(|| format!("{count} x {}", kind.name()))
        });
        let kinds: Vec<String> = kinds.collect();
        format!(
            "{}: {}; {} batches",
            self.name,
            kinds.join(", "),
            self.content.end()
        )
    }

    /// The older copies of a file that differ from it.
    pub(super) fn older_copies(&self, path: &Path, bytes: &[u8]) -> Vec<Vec<u8>> {
        let copies = self
            .older
            .iter()
            .flat_map(|older| fs::read(older.join(path)));
        copies.filter(|copy| copy != bytes).collect()
    }

    /// A copy of the base at `to`. Run files are linked, but for `damaged`: nothing ever writes to them.
    pub(super) fn copy(&self, to: &Path, damaged: &Path) -> Result<(), Failure> {
        place::empty_directory(to)?;
        copy_tree(&self.dir, to, &|path| {
            path.extension().is_some_and(|end| end == "run") && path != damaged
        })
    }
}

/// Which kind of file this is; none for those that say nothing.
fn kind_of(path: &Path) -> Option<FileKind> {
    let name = path.file_name()?.to_str()?;
    let dir = path.iter().next()?.to_str()?;
    Some(match dir {
        "IDENTITY" => FileKind::Identity,
        "MANIFEST" => FileKind::Manifest,
        "log" => FileKind::LogBefore,
        "runs" => FileKind::Run,
        _ if !dir.starts_with("sled") => return None,
        _ if name == "db" => FileKind::SledDb,
        _ if name.starts_with("snap") => FileKind::SledSnapshot,
        _ => FileKind::SledOther,
    })
}

/// Finds the last segment that has records.
fn mark_last_segment(dir: &Path, files: &mut [BaseFile]) -> Result<(), Failure> {
    for file in files.iter_mut().rev() {
        if file.kind == FileKind::LogBefore
            && !log_file::records(&read(dir, &file.path)?).is_empty()
        {
            file.kind = FileKind::LogEnd;
            break;
        }
    }
    Ok(())
}

/// A file of a directory.
pub(super) fn read(dir: &Path, path: &Path) -> Result<Vec<u8>, Failure> {
    let path = dir.join(path);
    fs::read(&path).map_err(|error| Failure::new(path.display(), error))
}

/// All files below a directory by their paths inside, in order.
fn paths(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(inside) = left.pop() {
        let here = dir.join(&inside);
        let fail = |error| Failure::new(here.display(), error);
        for entry in fs::read_dir(&here).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let path = inside.join(entry.file_name());
            match entry.file_type().map_err(fail)?.is_dir() {
                true => left.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies all files below a directory; those for which `is_linked` holds become links. A file that goes
/// meanwhile is left out.
fn copy_tree(from: &Path, to: &Path, is_linked: &dyn Fn(&Path) -> bool) -> Result<(), Failure> {
    for path in paths(from)? {
        let (source, target) = (from.join(&path), to.join(&path));
        if let Some(parent) = target.parent() {
            place::directory(parent)?;
        }
        let copied = match is_linked(&path) {
            true => fs::hard_link(&source, &target),
            false => fs::copy(&source, &target).map(drop),
        };
        match copied {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::new(source.display(), error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Builds all bases below `bases`.
pub(super) fn build(
    binary: &Path,
    bases: &Path,
    history: &History,
    runtime: &Runtime,
) -> Result<(), Failure> {
    place::empty_directory(bases)?;
    for level in ["everysec", "always"] {
        let builder = Builder {
            binary,
            level,
            dir: bases.join(level),
            runtime,
        };
        let copy = |number: u32| builder.copy(&bases.join(format!("{level}.{number}")));
        builder.run(&[&history.first])?.stop()?;
        copy(0)?;
        builder.run(&[&history.second])?.stop()?;
        copy(1)?;
        if level == "everysec" {
            builder.copy(&bases.join("stopped"))?;
            copy_tree(&bases.join("everysec.0"), &bases.join("stopped.0"), &|_| {
                false
            })?;
        }
        let filled = builder.run(&[&history.logged])?;
        filled.rest()?;
        copy(2)?;
        filled.write(&[&history.last])?;
        filled.sync()?;
        filled.write(&[&history.tail])?;
        filled.kill()?;
    }
    Ok(())
}

/// Builds one directory.
struct Builder<'a> {
    binary: &'a Path,
    level: &'a str,
    dir: PathBuf,
    runtime: &'a Runtime,
}

/// A server that is being filled.
struct Filling<'a> {
    builder: &'a Builder<'a>,
    server: Server,
    client: Client,
}

impl Builder<'_> {
    /// Starts a server on the directory, and writes.
    fn run(&self, parts: &[&Vec<Batch>]) -> Result<Filling<'_>, Failure> {
        let mut command = server_command(self.binary, &self.dir, self.level);
        let mut server = Server::start(&mut command, &self.dir.with_extension("err"))?;
        server.wait_until_ready(DEADLINE)?;
        let client = self.runtime.block_on(Client::connect(server.address()))?;
        let filling = Filling {
            builder: self,
            server,
            client,
        };
        filling.write(parts)?;
        Ok(filling)
    }

    fn copy(&self, to: &Path) -> Result<(), Failure> {
        copy_tree(&self.dir, to, &|_| false)
    }
}

/// The server that uses a directory at a level.
pub(super) fn server_command(binary: &Path, dir: &Path, level: &str) -> Command {
    let mut command = Command::new(binary);
    command.args(["--mem-limit", MEM_LIMIT, "--durability", level]);
    command.args(["--small-run", &SMALL_RUN_BYTES.to_string()]);
    command.args(["--log-limit", &LOG_LIMIT_BYTES.to_string()]);
    command.args(["--log", "warn", "--read-threads", "4"]);
    command.arg("--data").arg(dir);
    command
}

impl Filling<'_> {
    /// Writes batch after batch, each of which is a record of the log.
    fn write(&self, parts: &[&Vec<Batch>]) -> Result<(), Failure> {
        self.builder.runtime.block_on(async {
            for batch in parts.iter().copied().flatten() {
                write(&self.client, batch).await?;
            }
            Ok::<_, Failure>(())
        })
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.builder.runtime.block_on(self.client.sync())?)
    }

    /// Waits until a checkpoint has cut the log, and nothing changes any more.
    fn rest(&self) -> Result<(), Failure> {
        self.sync()?;
        let began = Instant::now();
        let (mut before, mut alike) = (Vec::new(), 0);
        while alike < LOOKS_ALIKE {
            if began.elapsed() > DEADLINE {
                let text = "no checkpoint cut the log, or the directory does not come to rest";
                return Err(Failure::Failed(text.to_owned()));
            }
            std::thread::park_timeout(LOOK_EVERY);
            let stats = self.builder.runtime.block_on(self.client.stats())?;
            let now = listing(&self.builder.dir)?;
            let is_cut = stats.log_bytes < LOG_LIMIT_BYTES / 2;
            alike = if is_cut && now == before {
                alike + 1
            } else {
                0
            };
            before = now;
        }
        Ok(())
    }

    fn stop(mut self) -> Result<(), Failure> {
        self.builder.runtime.block_on(self.client.shutdown())?;
        let status = self.server.stop(DEADLINE)?;
        if status.success() {
            return Ok(());
        }
        let dir = self.builder.dir.display();
        Err(Failure::Failed(format!(
            "the server of {dir} stopped with {status}"
        )))
    }

    fn kill(mut self) -> Result<(), Failure> {
        self.server.kill(DEADLINE)?;
        // There is nobody any more to say goodbye to.
        self.builder.runtime.block_on(async {
            tokio::time::timeout(LOOK_EVERY, self.client.shutdown())
                .await
                .ok();
        });
        Ok(())
    }
}

/// All files with their lengths.
fn listing(dir: &Path) -> Result<Vec<(PathBuf, u64)>, Failure> {
    let length = |path: PathBuf| {
        let bytes = fs::metadata(dir.join(&path)).map_or(0, |metadata| metadata.len());
        (path, bytes)
    };
    Ok(paths(dir)?.into_iter().map(length).collect())
}

/// Writes one batch past the cache.
async fn write(client: &Client, batch: &Batch) -> Result<(), Failure> {
    let (name, kind) = TABLES[batch.table];
    let builder = client.table(name).cache_policy(CachePolicy::None);
    let odd = || Failure::Failed(format!("no such change of a table of {}", kind.name()));
    match kind {
        TableKind::Values => {
            let table: RemoteHash<Vec<u8>, Vec<u8>, BytesCodec> = builder.open().await?;
            let mut bulk = table.bulk();
            for (key, change) in &batch.changes {
                match change {
                    Change::Put(value) => bulk.insert(key, value)?,
                    Change::Discard => bulk.discard(key)?,
                    _ => return Err(odd()),
                }
            }
            bulk.finish().await?;
        }
        TableKind::Lists => {
            let table: RemoteHash<Vec<u8>, List<u8>, BytesCodec> = builder.open().await?;
            let mut bulk = table.bulk();
            for (key, change) in &batch.changes {
                match change {
                    Change::Append(bytes) => bulk.append(key, bytes)?,
                    Change::Discard => bulk.discard(key)?,
                    _ => return Err(odd()),
                }
            }
            bulk.finish().await?;
        }
        TableKind::Counters => {
            let table: RemoteHash<Vec<u8>, Counter, BytesCodec> = builder.open().await?;
            let mut bulk = table.bulk();
            for (key, change) in &batch.changes {
                match change {
                    Change::Add(delta) => bulk.add(key, *delta)?,
                    Change::Discard => bulk.discard(key)?,
                    _ => return Err(odd()),
                }
            }
            bulk.finish().await?;
        }
    }
    Ok(())
}

/// Copies all bases to where they are used.
pub(super) fn copy_all(from: &Path, to: &Path) -> Result<(), Failure> {
    copy_tree(from, to, &|_| false)
}

/// What tells whether anything below a directory has changed.
pub(super) fn digest(dir: &Path) -> Result<u64, Failure> {
    let mut hasher = DefaultHasher::new();
    for path in paths(dir)? {
        read(dir, &path)?.hash(&mut hasher);
        path.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_where_they_are() {
        let kind = |path: &str| kind_of(Path::new(path));
        assert_eq!(kind("MANIFEST"), Some(FileKind::Manifest));
        assert_eq!(kind("LOCK"), None);
        assert_eq!(kind("runs/000000000000000a.run"), Some(FileKind::Run));
        assert_eq!(kind("sled/db"), Some(FileKind::SledDb));
        assert_eq!(kind("sled-1/snap.00001"), Some(FileKind::SledSnapshot));
        assert_eq!(kind("sled/conf"), Some(FileKind::SledOther));
        assert_eq!(
            kind("log/00000000000000000001.log"),
            Some(FileKind::LogBefore)
        );
    }

    #[test]
    fn a_copy_links_what_it_is_told_to() -> Result<(), Failure> {
        let dir = tempfile::tempdir().map_err(|error| Failure::new("a directory", error))?;
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        place::directory(&from.join("runs"))?;
        for path in ["runs/1.run", "runs/2.run", "MANIFEST"] {
            fs::write(from.join(path), path).map_err(|error| Failure::new(path, error))?;
        }
        let before = digest(&from)?;
        copy_tree(&from, &to, &|path| path.ends_with("1.run"))?;
        assert_eq!(paths(&to)?, paths(&from)?);
        assert_eq!(digest(&to)?, before);
        let inode = |path: PathBuf| {
            use std::os::unix::fs::MetadataExt as _;
            fs::metadata(path).map_or(0, |metadata| metadata.ino())
        };
        assert_eq!(inode(from.join("runs/1.run")), inode(to.join("runs/1.run")));
        assert_ne!(inode(from.join("runs/2.run")), inode(to.join("runs/2.run")));
        fs::write(to.join("MANIFEST"), "else").map_err(|error| Failure::new("a file", error))?;
        assert_ne!(digest(&to)?, before);
        Ok(())
    }
}
