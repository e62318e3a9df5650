//! Files mapped into memory; the one place that names memmap2.
//!
//! Only leaves and directories are read through a map, each after it was read and verified by an
//! ordinary read once, so that a bad page is an error and not a signal.

use std::{fs::File, io, path::Path};

use memmap2::{Advice, Mmap};

use super::error::ColdError;

/// A whole file, mapped for reading.
#[derive(Debug)]
pub(super) struct Mapped(Mmap);

impl Mapped {
    /// Maps a file that nobody writes any more.
    #[expect(
        unsafe_code,
        reason = "mapping a file is unsafe whatever one does about it"
    )]
    pub(super) fn new(file: &File, path: &Path) -> Result<Self, ColdError> {
        let fail = |source: io::Error| ColdError::io("map", path, source);
        // SAFETY: a run file is complete before it is mapped, is never written or cut after that
        // by this process, and the lock on the data directory keeps other servers out of it.
        let map = unsafe { Mmap::map(file) }.map_err(fail)?;
        // Leaves lie a section apart: what the kernel would read around one is not wanted.
        if !map.is_empty() {
            map.advise(Advice::Random).map_err(fail)?;
        }
        Ok(Self(map))
    }

    /// The file's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
