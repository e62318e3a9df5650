//! By TLS nothing is done for who is not trusted, or trusts not, and each side says why.

mod cmd_support;
mod server_support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc};

use cmd_support::Place;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rhash_client::{Client, ErrorKind, RemoteHash};
use rhash_protocol::{
    Call, ErrorCode, Request, codec,
    connection::{FrameReader, FrameWriter},
    frame::{FrameHead, FrameKind},
    handshake::{self, Hello, MAGIC},
    limits::PROTOCOL_VERSION,
};
use server_support::{
    DEADLINE, ServerProcess, TestResult,
    requests::{kinds, packed},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{PrivatePkcs8KeyDer, ServerName},
    },
};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate with its key.
struct Identity {
    cert: rcgen::Certificate,
    key: KeyPair,
}

fn authority(name: &str) -> TestResult<Authority> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A certificate for this host, valid until a year.
fn signed(by: &Authority, until: i32) -> TestResult<Identity> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names)?;
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, by)?;
    Ok(Identity { cert, key })
}

/// The year until which certificates are valid that are.
const VALID: i32 = 3000;
const EXPIRED: i32 = 2002;

/// A server by TLS, with the files that it was given.
struct Secured {
    server: ServerProcess,
    place: Place,
}

impl Secured {
    /// A server with a certificate, that takes clients of an authority if there is one.
    fn start(identity: &Identity, client_ca: Option<&Authority>) -> TestResult<Self> {
        Self::start_with(identity, client_ca, &[])
    }

    fn start_with(
        identity: &Identity,
        client_ca: Option<&Authority>,
        more: &[&str],
    ) -> TestResult<Self> {
        let place = Place::new()?;
        place.write("cert.pem", identity.cert.pem())?;
        place.write("key.pem", identity.key.serialize_pem())?;
        let file = |name: &str| place.path().join(name);
        fs::set_permissions(file("key.pem"), fs::Permissions::from_mode(0o600))?;
        let mut args: Vec<String> = ["--memory-only", "--mem-limit", "24M"]
            .map(str::to_owned)
            .to_vec();
        let mut option = |option: &str, path: PathBuf| {
            args.extend([option.to_owned(), path.to_string_lossy().into_owned()]);
        };
        option("--tls-cert", file("cert.pem"));
        option("--tls-key", file("key.pem"));
        if let Some(ca) = client_ca {
            place.write("client-ca.pem", ca.pem())?;
            option("--tls-client-ca", file("client-ca.pem"));
        }
        let args: Vec<&str> = args
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        let server = ServerProcess::start(&args)?;
        Ok(Self { server, place })
    }

    fn address(&self) -> String {
        format!("rhash+tls://{}", self.server.address)
    }

    /// Writes what a client needs into files; gives their names.
    fn client_files(
        &self,
        ca: &Authority,
        identity: Option<&Identity>,
    ) -> TestResult<[PathBuf; 3]> {
        self.place.write("ca.pem", ca.pem())?;
        if let Some(identity) = identity {
            self.place.write("client.pem", identity.cert.pem())?;
            self.place
                .write("client-key.pem", identity.key.serialize_pem())?;
        }
        Ok(["ca.pem", "client.pem", "client-key.pem"].map(|name| self.place.path().join(name)))
    }

    async fn client(&self, ca: &Authority, identity: Option<&Identity>) -> TestResult<Client> {
        let [ca, cert, key] = self.client_files(ca, identity)?;
        let mut builder = Client::builder().tls_ca(ca);
        if identity.is_some() {
            builder = builder.tls_identity(cert, key);
        }
        Ok(builder.connect(&self.address()).await?)
    }
}

/// Sends a hello and a request at once, as if that would do; gives whether the server answered the
/// request, and what it said instead.
async fn barge_in<S>(stream: S, request: Request<'_>) -> TestResult<Result<(), String>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (source, sink) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(source), FrameWriter::new(sink));
    let hello = Hello {
        session: None,
        token: String::new(),
        client: "test".to_owned(),
    };
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    codec::encode(&hello, &mut body)?;
    let sequence = u64::from(request.is_sequenced());
    let call = Call {
        sequence,
        settled: 0,
        request,
    };
    let mut request = Vec::new();
    codec::encode(&call, &mut request)?;
    let sent = async {
        let hello = FrameHead::whole(FrameKind::Hello, 0);
        writer.write_frame(hello, &body).await?;
        let call = FrameHead::whole(FrameKind::Request, 1);
        writer.write_frame(call, &request).await?;
        writer.flush().await
    };
    if let Err(error) = timeout(DEADLINE, sent).await? {
        return Ok(Err(format!("{error:?}")));
    }
    loop {
        match timeout(DEADLINE, reader.next()).await? {
            Ok(Some(frame)) => match frame.head.kind {
                FrameKind::Welcome => {}
                FrameKind::Refusal => {
                    let refusal = handshake::decode_refusal(frame)?;
                    assert_eq!(refusal.code, ErrorCode::BadRequest);
                    return Ok(Err(refusal.text));
                }
                _ => return Ok(Ok(())),
            },
            Ok(None) => return Ok(Err("closed".to_owned())),
            Err(error) => return Ok(Err(format!("{error:?}"))),
        }
    }
}

fn connector(ca: &Authority, identity: Option<&Identity>) -> TestResult<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { cert, key }) => {
            let key = PrivatePkcs8KeyDer::from(key.serialize_der());
            builder.with_client_auth_cert(vec![cert.der().clone()], key.into())?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Asks each kind of request of a server, by TLS; gives what came instead of an answer, if anything.
async fn ask_all(
    secured: &Secured,
    ca: &Authority,
    identity: Option<&Identity>,
) -> TestResult<Vec<(&'static str, Result<(), String>)>> {
    let connector = connector(ca, identity)?;
    let packed = packed();
    let mut outcomes = Vec::new();
    for (kind, request) in kinds(1, &packed) {
        let stream = TcpStream::connect(secured.server.address).await?;
        let name = ServerName::try_from("localhost")?;
        let outcome = match timeout(DEADLINE, connector.connect(name, stream)).await? {
            Ok(stream) => barge_in(stream, request).await?,
            Err(error) => Err(error.to_string()),
        };
        outcomes.push((kind, outcome));
    }
    Ok(outcomes)
}

fn assert_none_done(outcomes: Vec<(&'static str, Result<(), String>)>, why: &str) {
    assert!(outcomes.len() > 10);
    for (kind, outcome) in outcomes {
        let said = outcome.expect_err(kind);
        assert!(said.contains(why), "{kind}: {said}");
    }
}

// It was once told so in the clear, and took that for a port that does not speak TLS.
#[tokio::test]
async fn a_connection_by_tls_that_is_one_too_many_is_told_so() -> TestResult {
    let ca = authority("one")?;
    let identity = signed(&ca, VALID)?;
    let secured = Secured::start_with(&identity, None, &["--max-connections=1"])?;
    let first = secured.client(&ca, None).await?;
    let [ca_file, ..] = secured.client_files(&ca, None)?;
    let address = secured.address();
    for _ in 0..20 {
        let second = Client::builder().tls_ca(&ca_file).connect(&address).await;
        let error = second.expect_err("it is one too many");
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("1 connections"), "{error}");
    }
    // Who speaks in the clear is told what is wrong with that.
    let plain = Client::connect(&secured.server.address.to_string()).await;
    let error = plain.expect_err("it speaks in the clear");
    assert!(error.to_string().contains("speaks TLS"), "{error}");
    drop(first);
    Ok(())
}

#[tokio::test]
async fn in_the_clear_no_request_is_done_on_a_port_of_tls() -> TestResult {
    let ca = authority("one")?;
    let secured = Secured::start(&signed(&ca, VALID)?, None)?;
    let packed = packed();
    for (kind, request) in kinds(1, &packed) {
        let stream = TcpStream::connect(secured.server.address).await?;
        let said = barge_in(stream, request).await?.expect_err(kind);
        assert!(
            said.contains("this port speaks TLS") && said.contains("rhash+tls://"),
            "{said}"
        );
    }
    let plain = Client::connect(&secured.server.address.to_string()).await;
    let error = plain.expect_err("it is no TLS");
    assert!(
        error.to_string().contains("this port speaks TLS"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_client_of_tls_is_told_that_a_port_speaks_none() -> TestResult {
    let ca = authority("one")?;
    let secured = Secured::start(&signed(&ca, VALID)?, None)?;
    let [ca, _, _] = secured.client_files(&ca, None)?;
    let plain = ServerProcess::start_small()?;
    let address = format!("rhash+tls://{}", plain.address);
    let error = Client::builder().tls_ca(ca).connect(&address).await;
    let error = error.expect_err("it is no TLS");
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(
        error.to_string().contains("does not speak TLS there"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_no_request() -> TestResult {
    let (ca, other) = (authority("one")?, authority("other")?);
    let secured = Secured::start(&signed(&ca, VALID)?, None)?;
    let good = ask_all(&secured, &ca, None).await?;
    assert!(good.iter().all(|(_, outcome)| outcome.is_ok()), "{good:?}");
    assert_none_done(ask_all(&secured, &other, None).await?, "UnknownIssuer");
    let error = secured.client(&other, None).await.expect_err("not trusted");
    assert!(
        error.to_string().contains("authority that is not trusted"),
        "{error}"
    );

    let expired = Secured::start(&signed(&ca, EXPIRED)?, None)?;
    assert_none_done(ask_all(&expired, &ca, None).await?, "certificate expired");
    let error = expired.client(&ca, None).await.expect_err("expired");
    assert!(
        error.to_string().contains("certificate has expired"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_client_that_is_not_trusted_has_no_request_done() -> TestResult {
    let (ca, other) = (authority("one")?, authority("other")?);
    let secured = Secured::start(&signed(&ca, VALID)?, Some(&ca))?;
    let known = signed(&ca, VALID)?;
    let good = ask_all(&secured, &ca, Some(&known)).await?;
    assert!(good.iter().all(|(_, outcome)| outcome.is_ok()), "{good:?}");
    assert_none_done(ask_all(&secured, &ca, None).await?, "CertificateRequired");
    let stranger = signed(&other, VALID)?;
    assert_none_done(ask_all(&secured, &ca, Some(&stranger)).await?, "UnknownCA");
    let expired = signed(&ca, EXPIRED)?;
    assert_none_done(
        ask_all(&secured, &ca, Some(&expired)).await?,
        "CertificateExpired",
    );

    let error = secured.client(&ca, None).await.expect_err("no certificate");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    let client = secured.client(&ca, Some(&known)).await?;
    let table: RemoteHash<String, String> = client.table("t").open().await?;
    let long = "x".repeat(2_000_000);
    table.insert("key", long.as_str()).await?;
    table.flush().await?;
    let other = secured.client(&ca, Some(&known)).await?;
    let same: RemoteHash<String, String> = other.table("t").open().await?;
    assert_eq!(same.get("key").await?, Some(long));
    Ok(())
}

#[tokio::test]
async fn a_certificate_is_read_again_on_sighup() -> TestResult {
    let ca = authority("one")?;
    let secured = Secured::start(&signed(&ca, EXPIRED)?, None)?;
    assert!(secured.client(&ca, None).await.is_err());
    let renewed = signed(&ca, VALID)?;
    // Read in between the two, they would not belong together, and the old ones would stay.
    secured.place.write("cert.pem", renewed.cert.pem())?;
    secured
        .place
        .write("key.pem", renewed.key.serialize_pem())?;
    secured.server.signal("HUP")?;
    let began = std::time::Instant::now();
    while let Err(error) = secured.client(&ca, None).await {
        assert!(began.elapsed() < DEADLINE, "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn the_command_speaks_tls() -> TestResult {
    let ca = authority("one")?;
    let secured = Secured::start(&signed(&ca, VALID)?, Some(&ca))?;
    secured.client_files(&ca, Some(&signed(&ca, VALID)?))?;
    let address = secured.address();
    let options = [
        "--server",
        &address,
        "--ca",
        "ca.pem",
        "--client-cert",
        "client.pem",
        "--client-key",
        "client-key.pem",
    ];
    let place = &secured.place;
    place.output(&[&options[..], &["put", "t", "key", "1"]].concat())?;
    assert_eq!(
        place
            .output(&[&options[..], &["get", "t", "key"]].concat())?
            .trim(),
        "1"
    );
    let none = place.failure(2, &["--server", &address, "--ca", "none.pem", "len", "t"])?;
    assert!(none.contains("none.pem"), "{none}");
    Ok(())
}

#[test]
fn files_that_make_no_server_are_named() -> TestResult {
    let ca = authority("one")?;
    let (one, other) = (signed(&ca, VALID)?, signed(&ca, VALID)?);
    let place = Place::new()?;
    place.write("cert.pem", one.cert.pem())?;
    place.write("key.pem", other.key.serialize_pem())?;
    let file = |name: &str| place.path().join(name).to_string_lossy().into_owned();
    let [cert, key] = ["cert.pem", "key.pem"].map(file);
    let refused = |mode: u32, cert: &str, words: &str| -> TestResult {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode))?;
        let args = ["--memory-only", "--tls-cert", cert, "--tls-key", &key];
        let output = server_support::run_to_end(&args)?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(words), "no {words:?} in: {stderr}");
        Ok(())
    };
    refused(0o644, &cert, "everybody can read the private key")?;
    refused(0o600, &cert, "the certificate and the key make no server")?;
    refused(0o600, &key, "there is no certificate in")?;
    refused(0o600, "/none/such.pem", "/none/such.pem")
}
