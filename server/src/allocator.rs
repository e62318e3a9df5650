//! How the system's allocator gives memory back, which decides what a memory limit means.

#[cfg(target_env = "gnu")]
use std::{
    env,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    process::Command,
};

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

/// Begins the process anew, with the same arguments, without the caches in which the allocator keeps for each thread
/// what it freed. Nobody can have those given back: they pin the pages that they lie in for as long as their thread
/// lives, and threads of a server live long. Call it first in `main`; it returns where there is nothing to do, and
/// where it fails, which costs a server some 4 MB.
///
/// Arenas have locks, but few threads to share them: no load and no get is slower by a measurable part.
#[cfg(target_env = "gnu")]
pub fn without_thread_caches() {
    const VARIABLE: &str = "GLIBC_TUNABLES";
    const TUNABLE: &str = "glibc.malloc.tcache_count";

    let mut tunables = env::var_os(VARIABLE).unwrap_or_default();
    let is_set = |tunable: &[u8]| tunable.starts_with(TUNABLE.as_bytes());
    // IMPORTANT: whatever it is set to; or a process that is not heard would begin anew for ever.
    if tunables.as_bytes().split(|&byte| byte == b':').any(is_set) {
        return;
    }
    if !tunables.is_empty() {
        tunables.push(":");
    }
    tunables.push(format!("{TUNABLE}=0"));
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // It returns only what went wrong.
    drop(command.args(arguments).env(VARIABLE, tunables).exec());
}

/// Where the C library is another, it has no such caches, or nobody can say.
#[cfg(not(target_env = "gnu"))]
pub fn without_thread_caches() {}

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
