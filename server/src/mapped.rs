//! Memory that comes from the kernel by maps; the one place that names memmap2.
//!
//! Of files, only leaves and directories are read through a map, each after it was read and verified by an
//! ordinary read once, so that a bad page is an error and not a signal. Anonymous memory is
//! for entries (see `pages`).

use std::{fs::File, io, path::Path};

use memmap2::{Advice, Mmap, MmapOptions};

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
        // Leaves lie a section apart: what the kernel would read around one, megabytes on some disks, is not wanted. In
        // exchange it does not see which pages are read: who reads them says so (`RunBytes::note_use`).
        if !map.is_empty() {
            map.advise(Advice::Random).map_err(fail)?;
        }
        Ok(Self(map))
    }

    /// Begins to read pages that are not in RAM; does not wait for them.
    pub(crate) fn begin_to_fetch(&self, start: usize, bytes: usize) {
        if start.saturating_add(bytes) <= self.0.len() {
            // A hint; who does not take it loses nothing.
            drop(self.0.advise_range(Advice::WillNeed, start, bytes));
        }
    }

    /// Whether these bytes are in the page cache; where the system does not say, they are.
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "the map's owner has no method for it")]
    pub(crate) fn are_resident(&self, start: usize, bytes: usize) -> bool {
        /// No more is asked for.
        const PAGES_MAX: usize = 4;
        let mut pages = [0; PAGES_MAX];
        // SAFETY: the pages that are asked about lie in the map, whose start is that of a page, and there is a byte for
        // each of them.
        unsafe {
            let page_bytes = libc::sysconf(libc::_SC_PAGESIZE).max(1) as usize;
            let from = start - start % page_bytes;
            let Some(asked) = self.0.get(from..start.saturating_add(bytes)) else {
                return true;
            };
            let Some(pages) = pages.get_mut(..asked.len().div_ceil(page_bytes)) else {
                return true;
            };
            let map = asked.as_ptr().cast_mut().cast();
            let failed = libc::mincore(map, asked.len(), pages.as_mut_ptr()) != 0;
            failed || pages.iter().all(|page| page & 1 == 1)
        }
    }

    /// Whether these bytes are in the page cache, as far as is known here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn are_resident(&self, _start: usize, _bytes: usize) -> bool {
        true
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// `bytes` of memory of this process alone, zero at first, whose pages take RAM once they are written
/// to; none where the kernel has no more address space, or no more maps.
pub(crate) fn anonymous_for_ever(bytes: usize) -> Option<&'static mut [u8]> {
    let mut options = MmapOptions::new();
    let map = options.len(bytes).no_reserve_swap().map_anon().ok()?;
    // Huge pages would take RAM for what nobody has written to. A kernel without them may refuse.
    #[cfg(target_os = "linux")]
    drop(map.advise(Advice::NoHugePage));
    Some(&mut Box::leak(Box::new(map))[..])
}

/// Gives the RAM of whole pages back to the kernel; what they held is lost, and they read as anything.
#[cfg(unix)]
#[expect(unsafe_code, reason = "the C library has no other way to be told")]
pub(crate) fn give_back(memory: &mut [u8]) {
    // SAFETY: the memory is borrowed mutably and has plain bytes, so that their change under
    // the borrow is like a write. The kernel would round the length up, so that of pages that are
    // longer than pieces nothing is given back. Where this is not a map, the call refuses.
    unsafe {
        let page_bytes = libc::sysconf(libc::_SC_PAGESIZE).max(1) as usize;
        if !memory.as_ptr().addr().is_multiple_of(page_bytes)
            || !memory.len().is_multiple_of(page_bytes)
        {
            return;
        }
        libc::madvise(
            memory.as_mut_ptr().cast(),
            memory.len(),
            libc::MADV_DONTNEED,
        );
    }
}

/// Gives the RAM of whole pages back, where the kernel can be told.
#[cfg(not(unix))]
pub(crate) fn give_back(_memory: &mut [u8]) {}
