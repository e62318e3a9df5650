//! Ctrl-C or SIGTERM while an index is built: the first ends it in order, a second Ctrl-C at once.

use std::{process, thread};

use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

/// What a program returns that an interrupt ended.
const INTERRUPTED_EXIT_CODE: i32 = 130;

/// Calls `stop` at the first interrupt or SIGTERM, from a thread of its own.
pub(crate) fn on_interrupt(stop: impl Fn() + Send + 'static) {
    thread::spawn(move || {
        // Without a handler, an interrupt ends the program at once, as it would anyway.
        let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stop();
            crate::output::note("stopping in order; Ctrl-C once more to stop at once");
            interrupt.recv().await;
            process::exit(INTERRUPTED_EXIT_CODE);
        });
    });
}
