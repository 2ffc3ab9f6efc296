//! TLS of the control plane's API, as its server and its callers need it. What agents show each other is the mover's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// In words.
    pub why: String,
}

impl TlsError {
    fn of(path: &Path, why: &impl ToString) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

/// What a server of the API shows, and what it asks of agents; files in PEM format, made by `foretide certify` or brought along.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerFiles {
    /// Its certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificate of the authority that issued the agents' certificates. With it, agents must show theirs.
    #[serde(default)]
    pub authority: Option<PathBuf>,
}

/// Which authorities a caller trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authorities {
    /// Those that the system trusts.
    #[default]
    Systems,
    /// The one whose certificate is in this file.
    Only(PathBuf),
    /// The one whose certificate has this SHA-256; the server sends it along.
    Pinned([u8; 32]),
    /// None: for addresses without TLS.
    Nobody,
}

impl From<Option<PathBuf>> for Authorities {
    fn from(file: Option<PathBuf>) -> Self {
        file.map_or(Self::Systems, Self::Only)
    }
}

/// Whom a caller trusts, and what it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Who may vouch for the server.
    pub authorities: Authorities,
    /// Own certificate and key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// How a server of the API speaks TLS.
///
/// # Errors
/// [`TlsError`] with the file.
pub fn server(files: &ServerFiles) -> Result<ServerConfig, TlsError> {
    let failed = |e: rustls::Error| TlsError::of(&files.certificate, &e);
    let versions = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = versions.map_err(failed)?;
    let builder = match &files.authority {
        Some(authority) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(only(authority)?), provider());
            // People and schedulers show a token alone.
            let verifier = verifier.allow_unauthenticated().build().map_err(|e| TlsError::of(authority, &e))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut shown = chain(&files.certificate)?;
    if let Some(authority) = &files.authority {
        // Who joins knows the authority by its digest alone.
        shown.extend(chain(authority)?.into_iter().filter(|known| !shown.contains(known)).collect::<Vec<_>>());
    }
    builder.with_single_cert(shown, key(&files.key)?).map_err(failed)
}

/// How a caller of an API speaks TLS.
///
/// # Errors
/// [`TlsError`] with the file.
pub fn client(trust: &Trust) -> Result<ClientConfig, TlsError> {
    let failed = |e: rustls::Error| TlsError { path: PathBuf::from("TLS"), why: e.to_string() };
    let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = versions.map_err(failed)?;
    let builder = match &trust.authorities {
        Authorities::Systems => builder.with_root_certificates(systems()),
        Authorities::Only(authority) => builder.with_root_certificates(only(authority)?),
        Authorities::Pinned(sha256) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { sha256: *sha256, provider: provider() })),
        Authorities::Nobody => builder.with_root_certificates(RootCertStore::empty()),
    };
    match &trust.own {
        Some((certificate, own)) => {
            builder.with_client_auth_cert(chain(certificate)?, key(own)?).map_err(|e| TlsError::of(certificate, &e))
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

/// Trusts a server whose chain leads to the authority of this digest, by the usual rules and with no other root.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|shown| Sha256::digest(shown.as_ref())[..] == self.sha256);
        let stranger = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut roots = RootCertStore::empty();
        roots.add(authority.ok_or_else(stranger)?.clone().into_owned())?;
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let usual = usual.map_err(|e| rustls::Error::General(e.to_string()))?;
        usual.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// SHA-256 of a certificate in PEM format, by which people tell it.
///
/// # Errors
/// What is wrong with it, in words.
pub fn fingerprint(certificate_pem: &str) -> Result<[u8; 32], String> {
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|e| e.to_string())?;
    Ok(Sha256::digest(certificate.as_ref()).into())
}

/// A digest as text.
pub fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// A digest from its text; none if it is not one.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap_or(0);
    Some(std::array::from_fn(byte))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What the system trusts. What of it cannot be read is left out: then those who need it are not trusted.
fn systems() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn only(authority: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(authority)? {
        roots.add(certificate).map_err(|e| TlsError::of(authority, &e))?;
    }
    Ok(roots)
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).map_err(|e| TlsError::of(path, &e))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|e| TlsError::of(path, &e))?;
    if all.is_empty() { Err(TlsError::of(path, &"there is no certificate in it")) } else { Ok(all) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| TlsError::of(path, &e))
}
