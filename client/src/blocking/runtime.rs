//! The thread that drives a blocking client.
//!
//! Calls hand their work to this thread's runtime and wait on a plain channel, never in
//! `block_on`, which panics inside of another runtime.

use std::{sync::mpsc, thread};

use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    client::Client,
    error::{Error, ErrorKind, Result},
    pipeline,
};

/// Drives a client until the last owner is gone; then flushes, and ends.
#[derive(Debug)]
pub(super) struct Driver {
    handle: Handle,
    /// Gives the thread the client that it flushes before it ends.
    stop: Option<oneshot::Sender<Client>>,
    thread: Option<thread::JoinHandle<()>>,
    client: Option<Client>,
}

impl Driver {
    /// Starts the thread and connects on it.
    pub(super) fn start(
        connect: impl Future<Output = Result<Client>> + Send + 'static,
    ) -> Result<(Self, Client)> {
        let failed = |error: std::io::Error| {
            Error::with_source(
                ErrorKind::Usage,
                format!("cannot start a thread: {error}"),
                error,
            )
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<Client>();
        let thread = thread::Builder::new()
            .name("rhash-client".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    if let Ok(client) = stopped.await
                        && let Err(error) = client.shutdown().await
                    {
                        tracing::error!(%error, "cached writes were lost");
                    }
                });
            })
            .map_err(failed)?;
        let mut driver = Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
            client: None,
        };
        let client = driver.run(connect)?;
        driver.client = Some(client.clone());
        Ok((driver, client))
    }

    /// Runs a future on the thread and waits for it.
    pub(super) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.wait(future)?
    }

    /// Like [`run`](Self::run), for futures whose output is no result.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        drop(self.handle.spawn(async move {
            // The caller waits for as long as this future lives.
            drop(sender.send(future.await));
        }));
        receiver.recv().map_err(|_ended| pipeline::shut_down())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let (Some(stop), Some(client)) = (self.stop.take(), self.client.take()) {
            // A thread that ended has nothing to flush.
            drop(stop.send(client));
        }
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the client's thread panicked");
        }
    }
}
