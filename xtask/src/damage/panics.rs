//! Panics of any thread, taken down instead of printed.

use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Those that nobody has taken yet, as many as are worth a look.
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
const SEEN_MAX: usize = 10;

/// Takes down panics from now on.
pub(super) fn watch() {
    panic::set_hook(Box::new(|panic| {
        let mut seen = seen();
        if seen.len() < SEEN_MAX {
            seen.push(panic.to_string().replace('\n', " "));
        }
    }));
}

/// The panics since they were last taken.
pub(super) fn take() -> Vec<String> {
    std::mem::take(&mut *seen())
}

fn seen() -> MutexGuard<'static, Vec<String>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}
