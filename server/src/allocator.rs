//! How the system's allocator gives memory back, which decides what a memory limit means.

/// Longer allocations get a map of their own, which goes back when they are freed.
const MAP_FROM_BYTES: i32 = 128 * 1024;
/// An arena keeps at most about this much free memory at its end.
const KEEP_BYTES_MAX: i32 = 256 * 1024;
/// Threads share so many arenas; what one keeps, all keep.
const ARENAS_MAX: i32 = 4;

/// Sets bounds for what the allocator keeps of what was freed; call it first in `main`.
///
/// By default glibc learns from each long allocation that is freed to keep twice as much, up to
/// 64 MiB an arena, with eight arenas a core. Other C libraries are left as they are.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library has no other way to be told")]
pub fn give_back_soon() {
    for (option, value) in [
        (libc::M_MMAP_THRESHOLD, MAP_FROM_BYTES),
        (libc::M_TRIM_THRESHOLD, KEEP_BYTES_MAX),
        (libc::M_ARENA_MAX, ARENAS_MAX),
    ] {
        // SAFETY: it only sets numbers of the allocator, under the allocator's own lock. One that
        // it does not take leaves things as they were.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Sets bounds for what the allocator keeps of what was freed, where it can be told.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_soon() {}

/// Gives back the whole pages of all that was freed, wherever in the heap they lie. Freed values
/// between live ones are not at an arena's end, and would be kept for later ones of their size.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library has no other way to be told")]
pub(crate) fn give_back_now() {
    // SAFETY: it changes nothing that is in use, and takes the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Gives back what was freed, where the allocator can be told.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back_now() {}
