//! TLS of the control plane's API, as its server and its callers need it. What agents show each other is the mover's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::Deserialize;

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
    builder.with_single_cert(chain(&files.certificate)?, key(&files.key)?).map_err(failed)
}

/// How a caller of an API speaks TLS.
///
/// # Errors
/// [`TlsError`] with the file.
pub fn client(trust: &Trust) -> Result<ClientConfig, TlsError> {
    let roots = match &trust.authorities {
        Authorities::Systems => systems(),
        Authorities::Only(authority) => only(authority)?,
        Authorities::Nobody => RootCertStore::empty(),
    };
    let failed = |e: rustls::Error| TlsError { path: PathBuf::from("TLS"), why: e.to_string() };
    let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = versions.map_err(failed)?.with_root_certificates(roots);
    match &trust.own {
        Some((certificate, own)) => {
            builder.with_client_auth_cert(chain(certificate)?, key(own)?).map_err(|e| TlsError::of(certificate, &e))
        }
        None => Ok(builder.with_no_client_auth()),
    }
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
