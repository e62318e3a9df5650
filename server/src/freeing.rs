//! What a table had, freed behind the answer to its close where that takes long.
//!
//! To remove a file of a gigabyte can take a file system a second, in which nobody waits for anything but that.

use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

/// Less disk than this is freed at once.
const AT_ONCE_BYTES_MAX: u64 = 256 << 20;
/// So many threads free something at a time; beyond that who asks does it.
const THREADS_MAX: usize = 4;
/// They drop things, and call nothing deep.
const STACK_BYTES: usize = 256 * 1024;

/// The threads that free something.
#[derive(Debug, Default)]
pub(crate) struct Freeing {
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Freeing {
    /// Drops what takes so much disk, which is then given back: at once, or in a moment.
    pub(crate) fn free(&self, what: impl Send + 'static, disk_bytes: u64) {
        if disk_bytes <= AT_ONCE_BYTES_MAX {
            return drop(what);
        }
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        if threads.len() < THREADS_MAX {
            let freeing = thread::Builder::new()
                .name("free".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || drop(what));
            // Without a thread it was dropped here.
            threads.extend(freeing);
        }
    }

    /// Waits until all is freed.
    pub(crate) fn finish(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that freed a table had panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tells the thread that drops it.
    struct Told(mpsc::Sender<thread::ThreadId>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).expect("it is awaited");
        }
    }

    #[test]
    fn what_is_large_is_freed_by_another_thread_and_awaited_at_the_end() {
        let freeing = Freeing::default();
        let (sender, freed) = mpsc::channel();
        let here = thread::current().id();
        freeing.free(Told(sender.clone()), AT_ONCE_BYTES_MAX);
        assert_eq!(freed.try_recv(), Ok(here));
        freeing.free(Told(sender), AT_ONCE_BYTES_MAX + 1);
        freeing.finish();
        let by = freed.try_recv().expect("all is freed");
        assert_ne!(by, here);
    }
}
