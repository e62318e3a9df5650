//! What is let fail, and when: kinds of calls, errors, files, and the first, a later or every such call.

use super::control::{
    ALL, ALLOCATE, CREATE, EIO, ENOSPC, Fault, LOG, MANIFEST, OPEN, READ, REMOVE, RENAME, RUNS,
    SLED, SYNC, TRUNCATE, WRITE,
};

/// When faults come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// While a loaded server runs.
    Running,
    /// While a server starts on what a killed one left.
    Starting,
    /// While a server with a fresh directory runs, whose disk's power is then cut.
    BeforeACut,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) phase: Phase,
    /// What it is counted with.
    pub(super) group: String,
    pub(super) name: String,
    pub(super) fault: Fault,
    pub(super) level: &'static str,
    /// The server must say that its log failed, if a call did.
    pub(super) log_must_fail: bool,
    /// Writes must go on by themselves once nothing fails any more.
    pub(super) must_resume: bool,
    /// Discards must go on meanwhile.
    pub(super) discards_go_on: bool,
}

const KINDS: [(&str, u32, &[&str]); 9] = [
    ("write", WRITE, &["log", "runs", "sled", "manifest", "all"]),
    ("sync", SYNC, &["log", "runs", "sled", "manifest", "all"]),
    ("rename", RENAME, &["runs", "manifest", "all"]),
    ("read", READ, &["runs", "sled", "all"]),
    ("open", OPEN, &["log", "runs", "all"]),
    (
        "create",
        CREATE,
        &["log", "runs", "sled", "manifest", "all"],
    ),
    ("truncate", TRUNCATE, &["log", "sled", "all"]),
    ("allocate", ALLOCATE, &["log"]),
    ("remove", REMOVE, &["log", "runs", "sled", "all"]),
];

/// The first call that fails, and how many do.
const POSITIONS: [(&str, u64, u64); 4] = [
    ("first", 1, 1),
    ("4th", 4, 1),
    ("17th", 17, 2),
    ("every", 1, u64::MAX),
];

fn classes(name: &str) -> u32 {
    match name {
        "log" => LOG,
        "runs" => RUNS,
        "sled" => SLED,
        "manifest" => MANIFEST,
        _ => ALL,
    }
}

/// All cases, or a few of each kind.
pub(super) fn cases(quick: bool) -> Vec<Case> {
    let mut cases = full_disks();
    for phase in [Phase::Running, Phase::Starting] {
        for (kind, kinds, names) in KINDS {
            for (error_name, error) in [("EIO", EIO), ("ENOSPC", ENOSPC)] {
                let reads = kinds == READ || kinds == OPEN;
                if reads && error == ENOSPC {
                    continue;
                }
                for class in names {
                    for (position, from, count) in POSITIONS {
                        let fault = Fault {
                            kinds,
                            classes: classes(class),
                            error,
                            from,
                            count,
                            growing: false,
                            mildly: (kinds == WRITE && count > 1)
                                || (kinds == READ && phase == Phase::Starting),
                        };
                        let name = format!("{kind} {error_name} {class} {position}");
                        let group = format!("{kind} {error_name}");
                        cases.push(case(phase, group, name, fault, cases.len()));
                    }
                }
            }
        }
    }
    cases.extend(before_cuts());
    if quick {
        // Every call, and the first or a later one in turn.
        let mut turn = 0;
        cases.retain(|case| {
            turn += 1;
            case.fault.growing
                || (case.fault.count == u64::MAX && turn % 3 == 0)
                || (case.fault.count != u64::MAX && turn % 11 == 0)
        });
    }
    cases
}

fn case(phase: Phase, group: String, name: String, fault: Fault, number: usize) -> Case {
    let every = fault.count == u64::MAX && fault.from == 1;
    let of_log = fault.classes & LOG != 0;
    let breaks_log = fault.kinds == SYNC || (fault.kinds == WRITE && fault.error == EIO);
    let when = match phase {
        Phase::Running => "running",
        Phase::Starting => "starting",
        Phase::BeforeACut => "before a power cut",
    };
    Case {
        phase,
        group: format!("{when}: {group}"),
        name: format!("{when}: {name}"),
        fault,
        level: match number % 2 {
            0 => "always",
            _ => "everysec",
        },
        log_must_fail: phase == Phase::Running && every && of_log && breaks_log,
        // What a failed sync left behind is not known, whatever the error says.
        must_resume: fault.error == ENOSPC && fault.kinds != SYNC,
        discards_go_on: fault.growing,
    }
}

/// A disk, or a part of it, without room.
fn full_disks() -> Vec<Case> {
    let mut cases = Vec::new();
    for level in ["always", "everysec"] {
        for class in ["all", "log", "runs", "sled", "manifest"] {
            let fault = Fault {
                kinds: WRITE | CREATE | ALLOCATE,
                classes: classes(class),
                error: ENOSPC,
                from: 1,
                count: u64::MAX,
                growing: true,
                mildly: false,
            };
            let name = format!("no room for {class}, {level}");
            let full = case(Phase::Running, "a full disk".to_owned(), name, fault, 0);
            // Where there is room for the log alone, it soon has all that it may take.
            let discards_go_on = matches!(class, "all" | "log");
            cases.push(Case {
                level,
                discards_go_on,
                ..full
            });
        }
    }
    cases
}

/// Syncs and writes that fail, after which the power goes: nothing that the kernel only says to have is there.
fn before_cuts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, kinds) in [("sync", SYNC), ("write", WRITE)] {
        for class in ["log", "runs", "sled", "manifest"] {
            for (position, from, count) in POSITIONS {
                let fault = Fault {
                    kinds,
                    classes: classes(class),
                    error: EIO,
                    from,
                    count,
                    growing: false,
                    mildly: false,
                };
                let name = format!("{kind} EIO {class} {position}");
                let group = format!("{kind} EIO");
                let case = case(Phase::BeforeACut, group, name, fault, 0);
                cases.push(case);
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_a_name_of_its_own_and_a_few_stand_for_all() {
        let all = cases(false);
        let mut names: Vec<&str> = all.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let few = cases(true);
        assert!(few.len() * 4 < all.len(), "{} of {}", few.len(), all.len());
        for phase in [Phase::Running, Phase::Starting, Phase::BeforeACut] {
            assert!(few.iter().any(|case| case.phase == phase), "{phase:?}");
        }
    }
}
