//! Threads that work behind the requests: they take the processor when nothing else wants it.
//!
//! On few cores a spill or a merge that runs like everybody else stops a request's thread in the
//! middle of its work, and with it everybody who waits for the same lock. Stepping back costs a load
//! a few hundredths of its rate: where spills fall behind, writers wait for RAM, and leave the
//! processor to them.

/// How far background threads step back, of 19 steps that there are.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Lowers the priority of the calling thread for as long as it lives.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library cannot set priorities")]
pub(crate) fn step_back() {
    // SAFETY: it passes numbers and no memory. On Linux a priority is a thread's own, and 0 is the
    // calling one; where it is refused, the thread goes on as it was.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Does nothing where a priority is the whole process's.
#[cfg(not(target_os = "linux"))]
pub(crate) fn step_back() {}
