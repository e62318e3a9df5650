//! The server's half of TLS: its certificate, its key, and whose clients it takes.

use std::{
    fmt, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};

/// What both sides say that they speak, so that no other protocol is taken for it.
const PROTOCOL_NAME: &[u8] = b"rhash/1";

/// Only its owner and its group may read a private key.
const MODE_OF_EVERYBODY: u32 = 0o007;

/// Whether the first bytes of a connection are TLS: a handshake record of version 3.1 or later; none
/// if there are too few to tell. A frame that began so would be longer than any hello.
pub(crate) fn begins_tls(first: &[u8]) -> Option<bool> {
    match first {
        [0x16, 0x03, minor, ..] => Some(*minor > 0),
        [] | [0x16] | [0x16, 0x03] => None,
        _ => Some(false),
    }
}

/// The files that TLS needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its authority: PEM.
    pub cert: PathBuf,
    /// The certificate's private key: PEM.
    pub key: PathBuf,
    /// The authorities whose clients are taken: PEM; none takes clients without certificates.
    pub client_ca: Option<PathBuf>,
}

/// Files that TLS cannot use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("cannot read the {what} in {}", path.display())]
    Read {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A file holds none of what was looked for.
    #[error("there is no {what} in {}", path.display())]
    Empty {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Anybody could pretend to be this server.
    #[error("everybody can read the private key in {} (mode {mode:o}); chmod 600 it", path.display())]
    KeyIsOpen {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// They do not belong together.
    #[error("the certificate and the key make no server")]
    Unusable(#[source] rustls::Error),
    /// No authority can be made of the file for clients.
    #[error("the authorities in {} are of no use", path.display())]
    ClientAuthorities {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
}

/// What a server needs for TLS.
pub(crate) struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = &self.files;
        out.debug_struct("Tls")
            .field("files", files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used.
    pub(crate) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let config = RwLock::new(config(&files)?);
        Ok(Self { files, config })
    }

    /// Reads the files again, for connections from now on. If they cannot be used, what was read
    /// before stays.
    ///
    /// # Errors
    /// [`TlsError`] if they cannot be used.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let config = config(&self.files)?;
        *self.config.write() = config;
        Ok(())
    }

    /// What takes a request by HTTP, whose clients may say that they speak that.
    pub(crate) fn http_acceptor(&self) -> TlsAcceptor {
        let mut config = ServerConfig::clone(&self.config.read());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// What takes a connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config.read()))
    }
}

fn config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&files.cert, "certificate")?;
    let key = private_key(&files.key)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path, "certificate")? {
                roots.add(authority).map_err(TlsError::Unusable)?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let verifier = verifier.map_err(|source| TlsError::ClientAuthorities {
                path: path.clone(),
                source,
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![PROTOCOL_NAME.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty {
            what,
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let what = "private key";
    let failed = |source| TlsError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(|error: io::Error| failed(pem::Error::Io(error)))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & MODE_OF_EVERYBODY != 0 {
        return Err(TlsError::KeyIsOpen {
            path: path.to_owned(),
            mode,
        });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::Empty {
            what,
            path: path.to_owned(),
        },
        error => failed(error),
    })
}

#[cfg(test)]
mod tests {
    use rhash_protocol::{
        frame::{FrameHead, FrameKind},
        limits::HELLO_BYTES_MAX,
    };

    use super::*;

    #[test]
    fn no_hello_of_any_length_begins_like_tls() {
        for length in 0..=HELLO_BYTES_MAX {
            let header = FrameHead::whole(FrameKind::Hello, 0).header(&vec![0; length]);
            assert_eq!(begins_tls(&header.unwrap()), Some(false), "{length}");
        }
        assert_eq!(begins_tls(&[0x16, 0x03, 0x01, 0x02]), Some(true));
        assert_eq!(begins_tls(&[0x16, 0x03]), None);
        assert_eq!(begins_tls(b"GET"), Some(false));
    }
}
