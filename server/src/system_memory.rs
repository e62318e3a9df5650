//! What the system says of memory: of the host, and of the control groups around this process.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A figure of `/proc/meminfo` below `root`, in bytes.
pub(crate) fn host_bytes(root: &Path, name: &str) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let line = line.strip_prefix(':')?.trim();
    let kib: u64 = line.strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A control group that may have a limit for memory.
#[derive(Debug)]
pub(crate) struct Group {
    dir: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy)]
enum Version {
    One,
    Two,
}

/// The groups that `/proc/self/cgroup` lists: a group itself, and all groups around it, since the least limit of
/// them holds.
pub(crate) fn groups(root: &Path) -> Vec<Group> {
    let lines = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut groups = Vec::new();
    for line in lines.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (mount, version) = if controllers.is_empty() {
            ("sys/fs/cgroup", Version::Two)
        } else if controllers
            .split(',')
            .any(|controller| controller == "memory")
        {
            ("sys/fs/cgroup/memory", Version::One)
        } else {
            continue;
        };
        // In a container the mount may show the group itself as its root, which the last of the
        // ancestors, the empty path, stands for.
        for ancestor in Path::new(group.trim_start_matches('/')).ancestors() {
            groups.push(Group {
                dir: root.join(mount).join(ancestor),
                version,
            });
        }
    }
    groups
}

impl Group {
    /// The most memory that it may use. A group without a limit says `max`, which is no number, or a number beyond any
    /// host.
    pub(crate) fn limit_bytes(&self) -> Option<u64> {
        self.number(match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        })
    }

    /// What it may still use, and what of that it uses for pages of files.
    pub(crate) fn files_bytes_max(&self) -> Option<u64> {
        let usage = self.number(match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        })?;
        let stat = fs::read_to_string(self.dir.join("memory.stat")).ok()?;
        let prefix = match self.version {
            Version::One => "total_",
            Version::Two => "",
        };
        let figure = |name: &str| -> Option<u64> {
            let mut lines = stat.lines().filter_map(|line| line.strip_prefix(prefix));
            let figure = lines.find_map(|line| line.strip_prefix(name))?;
            figure.trim().parse().ok()
        };
        let files = figure("inactive_file ")?.saturating_add(figure("active_file ")?);
        let free = self.limit_bytes()?.saturating_sub(usage);
        Some(free.saturating_add(files))
    }

    fn number(&self, file: &str) -> Option<u64> {
        let text = fs::read_to_string(self.dir.join(file)).ok()?;
        text.trim().parse().ok()
    }
}

/// A directory with these files.
#[cfg(test)]
pub(crate) fn pretend(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}
