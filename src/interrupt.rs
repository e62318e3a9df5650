//! Ctrl-C while an index is built: the first one ends it in order, the second one at once.

use std::{process, thread};

use tokio::{runtime, signal};

/// What a program returns that an interrupt ended.
const INTERRUPTED_EXIT_CODE: i32 = 130;

/// Calls `stop` at the first interrupt, from a thread of its own.
pub(crate) fn on_interrupt(stop: impl Fn() + Send + 'static) {
    thread::spawn(move || {
        // Without a handler, an interrupt ends the program at once, as it would anyway.
        let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        if runtime.block_on(signal::ctrl_c()).is_ok() {
            stop();
            crate::output::note("stopping in order; once more to stop at once");
        }
        if runtime.block_on(signal::ctrl_c()).is_ok() {
            process::exit(INTERRUPTED_EXIT_CODE);
        }
    });
}
