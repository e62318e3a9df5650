//! How the package survives a fork: the child has no threads but one, and must not touch what the
//! others held.
//!
//! Python calls [`forked`] in the child. From then on whatever was made before belongs to another
//! generation; its owner forgets it, without running its destructor, and makes it anew.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;

static GENERATION: AtomicU64 = AtomicU64::new(0);

fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// This process is a child, made by a fork just now.
#[pyfunction]
pub(crate) fn forked() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Something that only the process that made it may use or drop; dropping it may wait, so it lets go
/// of the interpreter.
#[derive(Debug)]
pub(crate) struct Owned<T: Send> {
    thing: Option<T>,
    generation: u64,
}

impl<T: Send> Owned<T> {
    pub(crate) fn new(thing: T) -> Self {
        Self {
            thing: Some(thing),
            generation: generation(),
        }
    }

    /// The thing; none in a child of the process that made it.
    pub(crate) fn get(&self) -> Option<&T> {
        self.thing.as_ref().filter(|_| self.is_ours())
    }

    /// Takes the thing out; none in a child of the process that made it.
    pub(crate) fn into_inner(mut self) -> Option<T> {
        if self.is_ours() {
            self.thing.take()
        } else {
            None
        }
    }

    /// Whether this process made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.generation == generation()
    }
}

impl<T: Send> Drop for Owned<T> {
    fn drop(&mut self) {
        let Some(thing) = self.thing.take() else {
            return;
        };
        if self.is_ours() {
            let mut thing = Some(thing);
            // Where Python has ended, nobody waits for the interpreter.
            if Python::try_attach(|py| py.detach(|| drop(thing.take()))).is_none() {
                drop(thing);
            }
        } else {
            std::mem::forget(thing);
        }
    }
}
