//! How the allocator gives memory back, which decides what a memory limit means.

use std::{env, io, os::unix::process::CommandExt as _, process::Command};

/// What mimalloc reads when the process starts, before any of our code runs.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";

/// Sees to it that freed pages go back to the system at once, for programs whose allocator is
/// mimalloc: call it first in `main`. By default they stay for a second, in which a server that
/// spills a fifth of its limit goes over it by as much.
///
/// The option can only be given by the environment, so that this starts the program once more in
/// its own place, with the same arguments and process id. Where the option is set already, to
/// whatever value, it does nothing.
///
/// # Errors
/// The program could not be started again; it may go on, and give memory back later.
pub fn give_back_at_once() -> io::Result<()> {
    if env::var_os(PURGE_DELAY).is_some() {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let mut again = Command::new(env::current_exe()?);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // Only an exec that failed returns.
    Err(again.args(arguments).env(PURGE_DELAY, "0").exec())
}
