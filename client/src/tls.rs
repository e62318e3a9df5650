//! The client's half of TLS: whom it trusts, and who it says that it is.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject as _},
    },
};

use crate::{
    address::Address,
    error::{Error, ErrorKind, Result},
};

/// The environment variable that names a file with the authorities to trust instead of the system's.
pub const CA_VARIABLE: &str = "RHASH_CA";

/// What both sides say that they speak, so that no other protocol is taken for it.
const PROTOCOL_NAME: &[u8] = b"rhash/1";

/// What a program says about TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsOptions {
    /// The authorities to trust; none trusts those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// The client's certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// Makes connections of TLS to one server.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// TLS to the server at an address, if the address asks for it.
    pub(crate) fn to(address: &Address, options: TlsOptions) -> Result<Option<Self>> {
        if !address.is_tls() {
            return Ok(None);
        }
        let (host, _) = address.host_and_port();
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            let text = format!("{host:?} is no name that a certificate could have");
            Error::with_source(ErrorKind::Usage, text, error)
        })?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots(options.ca)?);
        let mut config = match options.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(certificates(&cert)?, private_key(&key)?)
                .map_err(unusable)?,
        };
        config.alpn_protocols = vec![PROTOCOL_NAME.to_vec()];
        Ok(Some(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
        }))
    }

    /// Shakes hands.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        address: &Address,
    ) -> Result<TlsStream<TcpStream>> {
        let connected = self.connector.connect(self.name.clone(), stream).await;
        connected.map_err(|error| handshake_failed(error, address))
    }
}

/// What a handshake that failed means to people.
fn handshake_failed(error: io::Error, address: &Address) -> Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    let (kind, why) = match cause {
        Some(rustls::Error::InvalidCertificate(fault)) => (ErrorKind::Untrusted, fault_text(fault)),
        Some(rustls::Error::InvalidMessage(_)) => (
            ErrorKind::Protocol,
            "the server does not speak TLS there; use rhash:// where that is meant".to_owned(),
        ),
        Some(rustls::Error::AlertReceived(alert)) => (
            ErrorKind::Untrusted,
            format!("the server refused the handshake: {alert:?}"),
        ),
        _ => (ErrorKind::Connection, "the TLS handshake failed".to_owned()),
    };
    Error::with_source(kind, format!("{address}: {why}"), error)
}

/// What a server that refuses this client's certificate says, which comes after the handshake: the
/// alert among the causes of an error.
pub(crate) fn alert_text(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match inner.and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::AlertReceived(alert)) => {
                return Some(format!("the server refused the handshake: {alert:?}"));
            }
            _ => cause = error.source(),
        }
    }
    None
}

fn fault_text(fault: &CertificateError) -> String {
    match fault {
        // A bad signature is that of another authority of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the server's certificate comes from an authority that is not trusted; name its \
             authority by the client's option, or by {CA_VARIABLE}"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for another name".to_owned()
        }
        fault => format!("the server's certificate cannot be trusted: {fault}"),
    }
}

fn roots(ca: Option<PathBuf>) -> Result<RootCertStore> {
    let variable = || std::env::var_os(CA_VARIABLE).filter(|path| !path.is_empty());
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca.or_else(|| variable().map(PathBuf::from)) {
        for authority in certificates(&path)? {
            roots.add(authority).map_err(unusable)?;
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(ToString::to_string);
        return Err(Error::new(
            ErrorKind::Usage,
            format!(
                "this system has no authorities to trust ({}); name one by the client's option, or \
                 by {CA_VARIABLE}",
                why.unwrap_or_else(|| "none were found".to_owned())
            ),
        ));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| cannot_read(path, error))?;
    if certificates.is_empty() {
        return Err(cannot_read(path, pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| cannot_read(path, error))
}

fn cannot_read(path: &Path, error: pem::Error) -> Error {
    let text = format!("cannot use {}: {error}", path.display());
    Error::with_source(ErrorKind::Usage, text, error)
}

fn unusable(error: rustls::Error) -> Error {
    let text = format!("TLS cannot be set up: {error}");
    Error::with_source(ErrorKind::Usage, text, error)
}
