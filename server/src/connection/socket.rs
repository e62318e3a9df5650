//! A connection's two directions, each with a meter of the bytes that have gone through.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// How many bytes have gone one way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

impl Meter {
    /// The bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Counts more of them.
    pub(crate) fn count(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Relaxed);
    }
}

/// What comes from a peer.
#[derive(Debug)]
pub(crate) struct Source {
    half: OwnedReadHalf,
    meter: Meter,
}

/// What goes to a peer.
#[derive(Debug)]
pub(crate) struct Sink {
    half: OwnedWriteHalf,
    meter: Meter,
}

/// The two directions of a connection.
pub(crate) fn split(stream: TcpStream) -> (Source, Sink) {
    let (source, sink) = stream.into_split();
    let source = Source {
        half: source,
        meter: Meter::default(),
    };
    let sink = Sink {
        half: sink,
        meter: Meter::default(),
    };
    (source, sink)
}

impl Source {
    /// What has come.
    pub(crate) fn meter(&self) -> Meter {
        self.meter.clone()
    }
}

impl Sink {
    /// What has gone.
    pub(crate) fn meter(&self) -> Meter {
        self.meter.clone()
    }
}

impl AsyncRead for Source {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.half).poll_read(context, buffer))?;
        this.meter.count(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.half).poll_write(context, bytes))?;
        this.meter.count(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.half).poll_write_vectored(context, parts))?;
        this.meter.count(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.half.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().half).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().half).poll_shutdown(context)
    }
}
