//! The control file, by which a server's disk is told what to fail while the server runs.
//!
//! The preloaded library maps it; its layout is that of `struct control` in tests/preload/disk.c.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// What kinds of calls fail, as bits.
pub(super) const WRITE: u32 = 1;
pub(super) const SYNC: u32 = 2;
pub(super) const RENAME: u32 = 4;
pub(super) const READ: u32 = 8;
pub(super) const OPEN: u32 = 16;
pub(super) const CREATE: u32 = 32;
pub(super) const TRUNCATE: u32 = 64;
pub(super) const ALLOCATE: u32 = 128;
pub(super) const REMOVE: u32 = 256;

/// Which files they are of.
pub(super) const LOG: u32 = 1;
pub(super) const RUNS: u32 = 2;
pub(super) const SLED: u32 = 4;
pub(super) const MANIFEST: u32 = 8;
pub(super) const ALL: u32 = 31;

/// The errors, as Linux numbers them.
pub(super) const EIO: u32 = 5;
pub(super) const ENOSPC: u32 = 28;

const BYTES: usize = 64;
const HITS_AT: u64 = 48;

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kinds: u32,
    pub(super) classes: u32,
    pub(super) error: u32,
    /// The first call that fails, from 1, …
    pub(super) from: u64,
    /// … and how many do from there.
    pub(super) count: u64,
    /// The disk is full: only what needs more room than was given back meanwhile fails.
    pub(super) growing: bool,
    /// Every other write that would fail is cut short; what was read to its end once is in the page cache, and is
    /// read again without an error.
    pub(super) mildly: bool,
}

/// The file.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    file: File,
}

impl Control {
    /// Makes one that lets nothing fail.
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let fail = |error| Failure::new(path.display(), error);
        let mut options = File::options();
        options.create(true).truncate(true).read(true).write(true);
        let file = options.open(path).map_err(fail)?;
        let control = Self {
            path: path.to_owned(),
            file,
        };
        control.write(&[0; BYTES], 0)?;
        Ok(control)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets calls fail from now on; they are counted anew.
    pub(super) fn arm(&self, fault: &Fault) -> Result<(), Failure> {
        self.disarm()?;
        let mut bytes = Vec::with_capacity(BYTES);
        for number in [0, fault.kinds, fault.classes, fault.error] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [fault.from, fault.count] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for flag in [fault.growing, fault.mildly] {
            bytes.extend_from_slice(&u32::from(flag).to_le_bytes());
        }
        bytes.resize(BYTES, 0);
        self.write(&bytes, 0)?;
        // IMPORTANT: last, or a call could see half of what it is told.
        self.write(&1u32.to_le_bytes(), 0)
    }

    /// Lets nothing fail any more.
    pub(super) fn disarm(&self) -> Result<(), Failure> {
        self.write(&0u32.to_le_bytes(), 0)
    }

    /// Calls that failed since it was armed.
    pub(super) fn hits(&self) -> u64 {
        self.read(HITS_AT)
    }

    fn read(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_or(0, |()| u64::from_le_bytes(bytes))
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), Failure> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|error| Failure::new(self.path.display(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_layout_of_the_library() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::new(&dir.path().join("control")).unwrap();
        let fault = Fault {
            kinds: SYNC | WRITE,
            classes: SLED,
            error: EIO,
            from: 7,
            count: u64::MAX,
            growing: false,
            mildly: true,
        };
        control.arm(&fault).unwrap();
        let bytes = std::fs::read(control.path()).unwrap();
        assert_eq!(bytes.len(), BYTES);
        assert_eq!(
            bytes[..16],
            [1, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0]
        );
        assert_eq!(bytes[16..24], 7u64.to_le_bytes());
        assert_eq!(bytes[24..32], u64::MAX.to_le_bytes());
        assert_eq!(bytes[32..40], [0, 0, 0, 0, 1, 0, 0, 0]);
        control.disarm().unwrap();
        assert_eq!(std::fs::read(control.path()).unwrap()[0], 0);
        assert_eq!(control.hits(), 0);
    }
}
