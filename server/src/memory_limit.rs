//! How much memory this process may have: the host's, or less if a control group says so.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The memory that this process may use, in bytes; none where the system does not say.
pub(crate) fn memory_available_bytes() -> Option<u64> {
    memory_under(Path::new("/"))
}

/// Like [`memory_available_bytes`], with the system's files below `root`.
fn memory_under(root: &Path) -> Option<u64> {
    let host = fs::read_to_string(root.join("proc/meminfo"))
        .ok()
        .and_then(|text| total(&text));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let group: Option<u64> = limit_files(root, &groups)
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .min();
    // A group without a limit says `max`, which is no number, or a number beyond any host.
    match (host, group) {
        (Some(host), Some(group)) => Some(group.min(host)),
        (host, group) => host.or(group),
    }
}

/// The total of a `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The files that may hold a limit of the groups that `/proc/self/cgroup` lists: a group's own, and
/// those of all groups around it, since the least of them holds.
fn limit_files(root: &Path, groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (mount, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers
            .split(',')
            .any(|controller| controller == "memory")
        {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        // In a container the mount may show the group itself as its root, which the last of the
        // ancestors, the empty path, stands for.
        for ancestor in Path::new(group.trim_start_matches('/')).ancestors() {
            files.push(root.join(mount).join(ancestor).join(file));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:        1000 kB\nMemFree:          10 kB\n",
    );

    #[test]
    fn a_host_without_groups_has_its_own_memory() {
        assert_eq!(memory_under(system(&[MEMINFO]).path()), Some(1_024_000));
        assert_eq!(memory_under(system(&[]).path()), None);
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_around_it_holds() {
        let root = system(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "700000\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
        ]);
        assert_eq!(memory_under(root.path()), Some(700_000));
    }

    #[test]
    fn a_group_of_the_first_version_is_found() {
        let root = system(&[
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a\n0::/\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "300000\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert_eq!(memory_under(root.path()), Some(300_000));
    }

    #[test]
    fn a_container_that_shows_its_own_group_as_the_root_is_limited_too() {
        let root = system(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/docker/1234\n"),
            ("sys/fs/cgroup/memory.max", "200000\n"),
        ]);
        assert_eq!(memory_under(root.path()), Some(200_000));
    }

    #[test]
    fn a_limit_beyond_the_host_is_none() {
        let root = system(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "99999999999\n"),
        ]);
        assert_eq!(memory_under(root.path()), Some(1_024_000));
    }

    #[test]
    fn this_host_says_something() {
        assert!(memory_available_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
