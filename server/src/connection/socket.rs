//! A connection's two directions, in the clear or by TLS, each with a meter of the bytes that have
//! gone through.

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
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

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
pub(crate) struct Source {
    half: Box<dyn AsyncRead + Send + Unpin>,
    meter: Meter,
}

/// What goes to a peer.
pub(crate) struct Sink {
    half: Box<dyn AsyncWrite + Send + Unpin>,
    meter: Meter,
}

/// The two directions of a connection in the clear.
pub(crate) fn split(stream: TcpStream) -> (Source, Sink) {
    let (source, sink) = stream.into_split();
    metered(source, sink)
}

/// Those of one by TLS.
pub(crate) fn split_tls(stream: TlsStream<TcpStream>) -> (Source, Sink) {
    let (source, sink) = tokio::io::split(stream);
    metered(source, sink)
}

fn metered(
    source: impl AsyncRead + Send + Unpin + 'static,
    sink: impl AsyncWrite + Send + Unpin + 'static,
) -> (Source, Sink) {
    let source = Source {
        half: Box::new(source),
        meter: Meter::default(),
    };
    let sink = Sink {
        half: Box::new(sink),
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
