//! A connection whose answers are lines and counted bytes, as those of Redis and memcached are.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
};

use rhash_harness::Result;

use super::SEND_BYTES;

/// Sends what is gathered, reads what comes.
pub(super) struct Lines {
    input: BufReader<TcpStream>,
    /// What is to be sent.
    pub(super) out: Vec<u8>,
    line: Vec<u8>,
    bytes: Vec<u8>,
}

impl Lines {
    /// Connects.
    pub(super) fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            input: BufReader::with_capacity(SEND_BYTES, stream),
            out: Vec::with_capacity(2 * SEND_BYTES),
            line: Vec::new(),
            bytes: Vec::new(),
        })
    }

    /// Sends all that is gathered.
    pub(super) fn send(&mut self) -> Result<()> {
        self.input.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self) -> Result<&[u8]> {
        self.line.clear();
        self.input.read_until(b'\n', &mut self.line)?;
        match self.line.strip_suffix(b"\r\n") {
            Some(line) => Ok(line),
            None => Err("the server closed the connection".into()),
        }
    }

    /// So many bytes and the end of a line.
    pub(super) fn bytes(&mut self, count: usize) -> Result<&[u8]> {
        self.bytes.resize(count + 2, 0);
        self.input.read_exact(&mut self.bytes)?;
        match self.bytes.strip_suffix(b"\r\n") {
            Some(bytes) => Ok(bytes),
            None => Err("an answer without an end".into()),
        }
    }

    /// The next line, which must begin like this, as an error if it does not.
    pub(super) fn expect(&mut self, begin: &str) -> Result<()> {
        let line = self.line()?;
        if line.starts_with(begin.as_bytes()) {
            return Ok(());
        }
        Err(unexpected(line))
    }
}

/// An answer that was not asked for.
pub(super) fn unexpected(line: &[u8]) -> rhash_harness::Error {
    format!("the server said {:?}", String::from_utf8_lossy(line)).into()
}

/// A number among words.
pub(super) fn number(text: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(text)?;
    Ok(text.parse()?)
}
