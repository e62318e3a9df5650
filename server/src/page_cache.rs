//! How much of files the system could keep in RAM for this process.

use std::path::Path;

use crate::system_memory::{groups, host_bytes};

/// The bytes of files that the page cache may come to hold for this process: what is free, and what it has of files already,
/// in the host or in the narrowest control group. None where the system does not say.
pub(crate) fn may_hold_bytes() -> Option<u64> {
    may_hold_under(Path::new("/"))
}

/// Like [`may_hold_bytes`], with the system's files below `root`.
fn may_hold_under(root: &Path) -> Option<u64> {
    let host = host_bytes(root, "MemAvailable")?;
    let groups = groups(root);
    let group = groups.iter().filter_map(|group| group.files_bytes_max());
    Some(group.fold(host, u64::min))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system_memory::pretend;

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:    9000 kB\nMemFree:   10 kB\nMemAvailable:   1000 kB\n",
    );

    #[test]
    fn a_host_without_groups_has_what_is_available() {
        assert_eq!(may_hold_under(pretend(&[MEMINFO]).path()), Some(1_024_000));
        assert_eq!(may_hold_under(pretend(&[]).path()), None);
    }

    #[test]
    fn a_group_has_what_it_has_of_files_and_what_it_does_not_use() {
        let root = pretend(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/memory.current", "900000\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "700000\n"),
            ("sys/fs/cgroup/outer/inner/memory.current", "600000\n"),
            (
                "sys/fs/cgroup/outer/inner/memory.stat",
                "anon 1\ninactive_file 2000\nactive_file 3000\n",
            ),
        ]);
        assert_eq!(may_hold_under(root.path()), Some(105_000));
    }

    #[test]
    fn a_group_of_the_first_version_counts_what_is_below_it() {
        let root = pretend(&[
            MEMINFO,
            ("proc/self/cgroup", "4:memory:/a\n0::/\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "300000\n"),
            ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "400000\n"),
            (
                "sys/fs/cgroup/memory/a/memory.stat",
                "inactive_file 1\nactive_file 1\ntotal_inactive_file 70\ntotal_active_file 7\n",
            ),
        ]);
        assert_eq!(may_hold_under(root.path()), Some(77));
    }
}
