//! AutoMTLS: each side proves with a one-time certificate that it is the one the handshake named.
//!
//! Terraform's certificate is a self-signed authority with a P-521 key, which no ordinary verifier accepts from a
//! client. Nothing of a chain is needed: the certificate must be, byte for byte, the one from the environment, and the
//! handshake's signature proves the key. That is all the protection there can be.

use std::sync::Arc;

use p521::ecdsa::signature::Verifier as _;
use p521::ecdsa::{DerSignature, Signature, VerifyingKey};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use spki::SubjectPublicKeyInfoRef;
use tokio_rustls::TlsAcceptor;

/// Our side of the connection.
pub(crate) struct Tls {
    /// Our certificate (DER), for the handshake.
    pub(crate) certificate: Vec<u8>,
    pub(crate) acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// Why the connection cannot be protected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("PLUGIN_CLIENT_CERT is not a certificate: {0}")]
    Client(String),
    #[error("cannot make a certificate: {0}")]
    Own(#[from] rcgen::Error),
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] Error),
}

/// Makes a certificate and a server that lets in only the owner of `client`.
pub(crate) fn prepare(client: &str) -> Result<Tls, TlsError> {
    let client = CertificateDer::from_pem_slice(client.as_bytes())
        .map_err(|error| TlsError::Client(error.to_string()))?;
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = own.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned { client: client.into_owned(), provider: provider.clone() });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Tls { certificate: certificate.to_vec(), acceptor: TlsAcceptor::from(Arc::new(config)) })
}

/// Accepts one certificate, and no other.
#[derive(Debug)]
struct Pinned {
    client: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if end_entity == &self.client {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(Error::General("not the certificate of the handshake".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if dss.scheme == SignatureScheme::ECDSA_NISTP521_SHA512 {
            return verify_p521(message, cert, dss.signature());
        }
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if dss.scheme == SignatureScheme::ECDSA_NISTP521_SHA512 {
            return verify_p521(message, cert, dss.signature());
        }
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
        schemes.push(SignatureScheme::ECDSA_NISTP521_SHA512);
        schemes
    }
}

/// ring does not know this curve.
pub(crate) fn verify_p521(
    message: &[u8],
    cert: &CertificateDer<'_>,
    signature: &[u8],
) -> Result<HandshakeSignatureValid, Error> {
    let bad = |what: &str| Error::General(format!("the client's P-521 {what}"));
    let key = ParsedCertificate::try_from(cert)?.subject_public_key_info();
    let key = SubjectPublicKeyInfoRef::try_from(key.as_ref()).map_err(|_| bad("key is not readable"))?;
    let point = key.subject_public_key.as_bytes().ok_or_else(|| bad("key is not readable"))?;
    let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| bad("key is not valid"))?;
    let signature = DerSignature::from_bytes(signature)
        .ok()
        .and_then(|signature| Signature::try_from(signature).ok())
        .ok_or_else(|| bad("signature is not readable"))?;
    key.verify(message, &signature).map_err(|_| bad("signature is wrong"))?;
    Ok(HandshakeSignatureValid::assertion())
}
