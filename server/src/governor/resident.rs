//! What the kernel says that this process takes.

use std::{fs::File, os::unix::fs::FileExt as _};

/// The kernel's page, as `statm` counts; every platform that rhash runs on has this one.
const PAGE_BYTES: u64 = 4096;
/// `statm` is seven numbers.
const STATM_BYTES_MAX: usize = 256;

/// Reads the process's own memory figures.
#[derive(Debug)]
pub(crate) struct Resident {
    statm: Option<File>,
}

impl Resident {
    /// Opens the figures; where there are none, they read as 0.
    pub(crate) fn new() -> Self {
        Self {
            statm: File::open("/proc/self/statm").ok(),
        }
    }

    /// Anonymous memory: all that is resident, less what is backed by files or shared.
    pub(crate) fn anonymous_bytes(&self) -> u64 {
        let Some(statm) = &self.statm else { return 0 };
        let mut buffer = [0; STATM_BYTES_MAX];
        let Ok(length) = statm.read_at(&mut buffer, 0) else {
            return 0;
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        let mut pages = text
            .split_ascii_whitespace()
            .map(|word| word.parse::<u64>().unwrap_or(0));
        let (_, resident, shared) = (pages.next(), pages.next(), pages.next());
        resident.unwrap_or(0).saturating_sub(shared.unwrap_or(0)) * PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_touched_is_counted() {
        let resident = Resident::new();
        let before = resident.anonymous_bytes();
        let held = vec![1u8; 32 << 20];
        assert!(
            resident.anonymous_bytes() >= before + (30 << 20),
            "{}",
            held.len()
        );
    }
}
