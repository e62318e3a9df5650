//! How much memory this process may have: the host's, or less if a control group says so.

use std::path::Path;

use crate::system_memory::{Group, groups, host_bytes};

/// The memory that this process may use, in bytes; none where the system does not say.
pub(crate) fn memory_available_bytes() -> Option<u64> {
    memory_under(Path::new("/"))
}

/// Like [`memory_available_bytes`], with the system's files below `root`.
fn memory_under(root: &Path) -> Option<u64> {
    let host = host_bytes(root, "MemTotal");
    let group = groups(root).iter().filter_map(Group::limit_bytes).min();
    match (host, group) {
        (Some(host), Some(group)) => Some(group.min(host)),
        (host, group) => host.or(group),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system_memory::pretend;

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:        1000 kB\nMemFree:          10 kB\n",
    );

    #[test]
    fn a_host_without_groups_has_its_own_memory() {
        assert_eq!(memory_under(pretend(&[MEMINFO]).path()), Some(1_024_000));
        assert_eq!(memory_under(pretend(&[]).path()), None);
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_around_it_holds() {
        let root = pretend(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "700000\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
        ]);
        assert_eq!(memory_under(root.path()), Some(700_000));
    }

    #[test]
    fn a_group_of_the_first_version_is_found() {
        let root = pretend(&[
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
        let root = pretend(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/docker/1234\n"),
            ("sys/fs/cgroup/memory.max", "200000\n"),
        ]);
        assert_eq!(memory_under(root.path()), Some(200_000));
    }

    #[test]
    fn a_limit_beyond_the_host_is_none() {
        let root = pretend(&[
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
