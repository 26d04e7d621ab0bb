//! Ways to a provider: within this process, or another process as Terraform starts it.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::Provider;
use crate::server::embedded::{COOKIE, serve_here};

/// Why there is no connection to a provider.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// It does not run.
    #[error("the provider cannot be started: {0}")]
    Start(#[from] std::io::Error),
    /// What it says is not a handshake.
    #[error("the provider answered {0:?} instead of a handshake")]
    Handshake(String),
    /// The certificates.
    #[error("no certificate can be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The connection.
    #[error("no connection: {0}")]
    Connection(#[from] tonic::transport::Error),
}

/// A connection, and what ends with it.
pub(super) struct Connected {
    pub(super) channel: Channel,
    pub(super) process: Option<Child>,
}

pub(super) async fn in_process<P: Provider>(provider: P) -> Result<Connected, ConnectError> {
    let channel = over(serve_here(provider)).await?;
    Ok(Connected { channel, process: None })
}

/// How long a provider may take to answer after its start; Terraform gives it a minute.
const START: Duration = Duration::from_secs(10);

/// The certificate with which the client proves that it is the one who started the provider.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: Vec<u8>,
}

impl Identity {
    pub(super) fn new() -> Result<Self, ConnectError> {
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        Ok(Self {
            certificate: own.cert.der().clone(),
            pem: own.cert.pem(),
            key: own.signing_key.serialize_der(),
        })
    }
}

/// Starts the program as Terraform does: cookie, a one-time certificate, a line on standard output, a socket.
pub(super) async fn process(program: &Path) -> Result<Connected, ConnectError> {
    let identity = Identity::new()?;
    let (child, answer) = start(program, &identity.pem).await?;
    let stream = UnixStream::connect(&answer.socket).await?;
    let channel = over(secured(stream, Some(&identity), &answer.certificate).await?).await?;
    Ok(Connected { channel, process: Some(child) })
}

/// What a provider answers to its start.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) socket: String,
    pub(super) certificate: Vec<u8>,
}

/// Starts it and reads its handshake.
pub(super) async fn start(
    program: &Path,
    client_certificate: &str,
) -> Result<(Child, Answered), ConnectError> {
    let mut child = Command::new(program)
        .env(COOKIE.0, COOKIE.1)
        .env("PLUGIN_PROTOCOL_VERSIONS", "6,5")
        .env("PLUGIN_CLIENT_CERT", client_certificate)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let read = lines.read_line(&mut line);
        tokio::time::timeout(START, read).await.map_err(|late| std::io::Error::other(late.to_string()))??;
    }
    let unreadable = || ConnectError::Handshake(line.trim().to_owned());
    let fields: Vec<&str> = line.trim_end().split('|').collect();
    let ["1", "6", "unix", socket, "grpc", certificate, ..] = fields.as_slice() else {
        return Err(unreadable());
    };
    let certificate = STANDARD_NO_PAD.decode(certificate).map_err(|_| unreadable())?;
    Ok((child, Answered { socket: (*socket).to_owned(), certificate }))
}

/// TLS to the one server that has this certificate, as the client with this identity.
pub(super) async fn secured(
    stream: UnixStream,
    identity: Option<&Identity>,
    server: &[u8],
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, ConnectError> {
    let provider = Arc::new(ring::default_provider());
    let verifier =
        Arc::new(Pinned { server: CertificateDer::from(server.to_vec()), provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => config.with_client_auth_cert(
            vec![identity.certificate.clone()],
            PrivateKeyDer::Pkcs8(identity.key.clone().into()),
        )?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name =
        ServerName::try_from("localhost").map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

/// A channel over one connection that there is already.
async fn over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Channel, tonic::transport::Error> {
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::other("the provider has closed the connection")) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

/// Accepts one certificate.
#[derive(Debug)]
struct Pinned {
    server: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity == &self.server {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("not the certificate of the handshake".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::server::embedded::serve_secured;
    use crate::{ConfigureCx, Diagnostics, Schema};

    struct Nothing;

    impl Provider for Nothing {
        type Config = ();
        type Data = ();
        const NAME: &'static str = "nothing";
        const SOURCE: &'static str = "example/nothing";
        fn schema(&self) -> Schema {
            Schema::new(0).description("Nothing.")
        }
        async fn configure(&self, _: &ConfigureCx, (): ()) -> Result<(), Diagnostics> {
            Ok(())
        }
    }

    /// Whether a client with this identity gets as far as HTTP/2: the server speaks first.
    async fn is_let_in(socket: &Path, identity: Option<&Identity>, server: &[u8]) -> bool {
        let stream = UnixStream::connect(socket).await.unwrap();
        let Ok(mut stream) = secured(stream, identity, server).await else {
            return false;
        };
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.is_ok()
    }

    #[tokio::test]
    async fn only_the_client_of_the_handshake_is_let_in() {
        let (ours, other) = (Identity::new().unwrap(), Identity::new().unwrap());
        let served = serve_secured(Nothing, &ours.pem).unwrap();
        let (socket, certificate) = (&served.socket, &served.certificate);
        assert!(is_let_in(socket, Some(&ours), certificate).await);
        assert!(!is_let_in(socket, Some(&other), certificate).await, "another certificate");
        assert!(!is_let_in(socket, None, certificate).await, "no certificate");
        assert!(!is_let_in(socket, Some(&ours), other.certificate.as_ref()).await, "another server");
        let mut plain = UnixStream::connect(socket).await.unwrap();
        let mut said = vec![];
        tokio::io::AsyncWriteExt::write_all(&mut plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let _ = plain.read_to_end(&mut said).await;
        assert!(!said.windows(4).any(|window| window == [0, 0, 4, 0]), "no HTTP/2 settings without TLS");
        // Those who were refused keep nobody else out.
        assert!(is_let_in(socket, Some(&ours), certificate).await);
    }

    #[tokio::test]
    async fn a_handshake_that_is_none_is_an_error() {
        let refused = process(Path::new("/bin/echo")).await.err().unwrap();
        assert!(matches!(refused, ConnectError::Handshake(_)), "{refused}");
        let missing = process(Path::new("/nowhere/provider")).await.err().unwrap();
        assert!(matches!(missing, ConnectError::Start(_)), "{missing}");
    }
}
