//! Memory that comes from the kernel by maps; the one place that names memmap2.
//!
//! Of files, only leaves and directories are read through a map, each after it was read and verified by an
//! ordinary read once, so that a bad page is an error and not a signal. Anonymous maps hold entries: what is unmapped is given back
//! at that moment, whichever thread does it, where an allocator may keep it for its next use.

use std::{fs::File, io, path::Path};

use memmap2::{Advice, Mmap, MmapMut};

use crate::cold::ColdError;

/// A whole file, mapped for reading.
#[derive(Debug)]
pub(crate) struct Mapped(Mmap);

impl Mapped {
    /// Maps a file that nobody writes any more.
    #[expect(
        unsafe_code,
        reason = "mapping a file is unsafe whatever one does about it"
    )]
    pub(crate) fn new(file: &File, path: &Path) -> Result<Self, ColdError> {
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
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Memory of this process alone, zero at first; only what is written to takes RAM.
#[derive(Debug)]
pub(crate) struct Anonymous(MmapMut);

impl Anonymous {
    /// `bytes` of memory; none where the kernel has none, or no more maps.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        MmapMut::map_anon(bytes).ok().map(Self)
    }

    /// The memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The memory, to be written to.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
