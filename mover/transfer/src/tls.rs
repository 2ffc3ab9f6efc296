//! TLS with mutual authentication between agents, and the authority that makes their certificates.
//!
//! An [`Authority`] is an installation's own: `foretide` makes it once and issues one certificate to each agent; whoever
//! brings certificates of his own needs the two names of [`AGENT_NAME`] and [`certificate_name`] in them. Both ends
//! show a certificate of the same authority, and a dialler's must bear the name of the site that it claims: residency
//! rules are asked for that site, so it must not be free to choose.

use std::os::fd::AsFd;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;

use crate::TransferError;
use crate::frame::GATHER_BYTES;
use crate::handshake::{Identity, Nonce, Token};
use crate::socket::{Certain, Patient, RECEIVE_BYTES};

/// The name that every agent's certificate bears: a dialler checks that it talks to an agent, whatever its address.
pub const AGENT_NAME: &str = "agent.foretide";

/// The name that only this agent's certificate bears. A digest, because site and node names need be no DNS labels.
pub fn certificate_name(identity: &Identity) -> String {
    let told = format!("{}\0{}", identity.site, identity.node);
    let digest = blake3::derive_key("foretide v1 certificate name", told.as_bytes());
    let hex: String = digest[..16].iter().map(|b| format!("{b:02x}")).collect();
    format!("{hex}.{AGENT_NAME}")
}

/// A certificate and its key as PEM text.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key: keep it readable to the agent alone.
    pub key_pem: String,
}

/// A key that an agent has made, and what it asks an authority to sign: the key leaves its node never.
#[derive(Clone, Debug)]
pub struct Requested {
    /// The request (PKCS #10), which proves that who asks has the key. It bears no name: the authority knows for whom it
    /// signs.
    pub request_pem: String,
    /// The private key: keep it readable to the agent alone.
    pub key_pem: String,
}

impl Requested {
    /// Makes a key and asks for its certificate.
    ///
    /// # Errors
    /// [`TransferError::Tls`] if the machine cannot make keys.
    pub fn new() -> Result<Self, TransferError> {
        let failed = |e| tls_error("certificate request", e);
        let key = KeyPair::generate().map_err(failed)?;
        let request = CertificateParams::default().serialize_request(&key).and_then(|r| r.pem()).map_err(failed)?;
        Ok(Self { request_pem: request, key_pem: key.serialize_pem() })
    }
}

/// Issues agents' certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    issued: Issued,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

fn tls_error(what: &str, e: impl std::fmt::Display) -> TransferError {
    TransferError::Tls { what: what.to_owned(), why: e.to_string() }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "Foretide site authority");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// [`TransferError::Tls`] if the machine cannot make keys.
    pub fn new() -> Result<Self, TransferError> {
        let key = KeyPair::generate().map_err(|e| tls_error("authority", e))?;
        let certificate = authority_params().self_signed(&key).map_err(|e| tls_error("authority", e))?;
        let issued = Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(authority_params(), key), issued })
    }

    /// One that was kept.
    ///
    /// # Errors
    /// [`TransferError::Tls`] if the key is none.
    pub fn load(issued: Issued) -> Result<Self, TransferError> {
        let key = KeyPair::from_pem(&issued.key_pem).map_err(|e| tls_error("authority key", e))?;
        Ok(Self { issuer: Issuer::new(authority_params(), key), issued })
    }

    /// Its certificate, which every agent needs, and its key, which none does.
    pub fn kept(&self) -> &Issued {
        &self.issued
    }

    /// A certificate for an agent.
    ///
    /// # Errors
    /// [`TransferError::Tls`] if the machine cannot make keys.
    pub fn issue(&self, identity: &Identity) -> Result<Issued, TransferError> {
        issued(|key| self.certify(&agent_params(identity)?, key))
    }

    /// A certificate for an agent over the key of its request. Of the request only the key is taken, whatever else it says.
    ///
    /// # Errors
    /// [`TransferError::Tls`] if it is no request, or is not signed with its own key.
    pub fn sign(&self, identity: &Identity, request_pem: &str) -> Result<String, TransferError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem);
        let request = request.map_err(|e| tls_error("certificate request", e))?;
        self.certify(&agent_params(identity)?, &request.public_key)
    }

    /// A certificate for a server that callers know by these host names and addresses, such as the control plane.
    ///
    /// # Errors
    /// [`TransferError::Tls`] if a name is none, or the machine cannot make keys.
    pub fn issue_to_hosts(&self, hosts: &[String]) -> Result<Issued, TransferError> {
        let params = leaf_params(hosts.to_vec(), hosts.join(", "), vec![ExtendedKeyUsagePurpose::ServerAuth])?;
        issued(|key| self.certify(&params, key))
    }

    fn certify(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<String, TransferError> {
        let certificate = params.signed_by(key, &self.issuer).map_err(|e| tls_error("certificate", e))?;
        Ok(certificate.pem())
    }
}

/// A new key, and what `certify` says of it.
fn issued(certify: impl FnOnce(&KeyPair) -> Result<String, TransferError>) -> Result<Issued, TransferError> {
    let key = KeyPair::generate().map_err(|e| tls_error("certificate", e))?;
    Ok(Issued { certificate_pem: certify(&key)?, key_pem: key.serialize_pem() })
}

fn agent_params(identity: &Identity) -> Result<CertificateParams, TransferError> {
    let names = vec![AGENT_NAME.to_owned(), certificate_name(identity)];
    let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf_params(names, format!("{}/{}", identity.site, identity.node), usages)
}

fn leaf_params(
    names: Vec<String>,
    shown: String,
    usages: Vec<ExtendedKeyUsagePurpose>,
) -> Result<CertificateParams, TransferError> {
    let mut params = CertificateParams::new(names).map_err(|e| tls_error("certificate", e))?;
    params.distinguished_name.push(DnType::CommonName, shown);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    Ok(params)
}

/// What an agent needs for TLS, ready to use.
#[derive(Clone, Debug)]
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// From PEM texts: the authority's certificate, and the agent's own with its key, which must bear the two names of
    /// `identity`: else no peer would let it in.
    ///
    /// # Errors
    /// [`TransferError::Tls`] naming what cannot be used.
    pub fn new(authority_pem: &str, own: &Issued, identity: &Identity) -> Result<Self, TransferError> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes());
        roots
            .add(authority.map_err(|e| tls_error("authority certificate", e))?)
            .map_err(|e| tls_error("authority certificate", e))?;
        let roots = Arc::new(roots);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(own.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| tls_error("certificate", e))?;
        let leaf = chain.first().ok_or_else(|| tls_error("certificate", "there is none in the file"))?;
        for name in [AGENT_NAME.to_owned(), certificate_name(identity)] {
            if !bears(leaf, &name) {
                let Identity { site, node } = identity;
                let why = format!("it does not bear the name {name}, which node {node} at site {site} is known by");
                return Err(tls_error("certificate", why));
            }
        }
        let key = || PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).map_err(|e| tls_error("key", e));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| tls_error("authority certificate", e))?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| tls_error("protocol", e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)
            .map_err(|e| tls_error("certificate and key", e))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| tls_error("protocol", e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)
            .map_err(|e| tls_error("certificate and key", e))?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

/// What an agent shows to its peers: a shared token, and over other people's networks TLS as well.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub(crate) token: Token,
    pub(crate) tls: Option<Tls>,
}

impl Credentials {
    /// With TLS.
    pub fn with_tls(token: Token, tls: Tls) -> Self {
        Self { token, tls: Some(tls) }
    }
}

impl From<Token> for Credentials {
    fn from(token: Token) -> Self {
        Self { token, tls: None }
    }
}

pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// What TLS says of the peer and of the connection; nothing without it.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    certificate: Option<CertificateDer<'static>>,
    /// What these two ends know and nobody else does, fresh for each connection.
    pub(crate) session: Option<Nonce>,
}

impl Shown {
    /// Whether the peer may call itself so.
    pub(crate) fn may_be(&self, identity: &Identity) -> bool {
        self.certificate.as_ref().is_none_or(|certificate| bears(certificate, &certificate_name(identity)))
    }
}

/// Whether a certificate, which an authority has been checked for, is of an agent, whichever.
pub fn is_of_agent(certificate: &CertificateDer<'_>) -> bool {
    bears(certificate, AGENT_NAME)
}

/// Whether a certificate is of an agent by that name.
fn bears(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let (parsed, name) = (ParsedCertificate::try_from(certificate), ServerName::try_from(name.to_owned()));
    matches!((parsed, name), (Ok(parsed), Ok(name)) if rustls::client::verify_server_name(&parsed, &name).is_ok())
}

/// Taken from the kernel at once by who is sent requests, bytes.
const RECEIVE_REQUESTS_BYTES: usize = 16 << 10;

/// The listener's side of a fresh connection.
pub(crate) async fn accept(stream: TcpStream, tls: Option<&Tls>) -> std::io::Result<(ReadHalf, WriteHalf, Shown)> {
    // Rustls asks for 4 KiB at a time, and frames begin with 20 bytes: a call of the kernel each otherwise.
    let Some(tls) = tls else {
        let (read, write) = stream.into_split();
        let read = BufReader::with_capacity(RECEIVE_REQUESTS_BYTES, read);
        return Ok((Box::new(read), Box::new(write), Shown::default()));
    };
    let buffered = BufReader::with_capacity(RECEIVE_REQUESTS_BYTES, stream);
    let mut stream = tokio_rustls::TlsAcceptor::from(tls.server.clone()).accept(buffered).await?;
    let session = stream.get_mut().1;
    // What is encrypted at once and not taken by the kernel yet.
    session.set_buffer_limit(Some(GATHER_BYTES));
    let shown = shown(session)?;
    let (read, write) = tokio::io::split(stream);
    Ok((Box::new(read), Box::new(write), shown))
}

fn shown<T>(connection: &rustls::ConnectionCommon<T>) -> std::io::Result<Shown> {
    let certificate = connection.peer_certificates().and_then(|c| c.first()).map(|c| c.clone().into_owned());
    let session = connection.export_keying_material([0; 32], b"EXPORTER foretide session", None);
    Ok(Shown { certificate, session: Some(session.map_err(std::io::Error::other)?) })
}

/// The dialler's side; `certain` is told by who reads frames from it.
pub(crate) async fn connect(
    stream: TcpStream,
    tls: Option<&Tls>,
    certain: Certain,
) -> std::io::Result<(ReadHalf, WriteHalf, Shown)> {
    let Some(tls) = tls else {
        let (read, write) = stream.into_split();
        let read = Patient::new(read, write.as_ref().as_fd().try_clone_to_owned()?, certain);
        let read = BufReader::with_capacity(RECEIVE_BYTES, read);
        return Ok((Box::new(read), Box::new(write), Shown::default()));
    };
    let name = ServerName::try_from(AGENT_NAME).map_err(std::io::Error::other)?;
    let socket = stream.as_fd().try_clone_to_owned()?;
    let buffered = BufReader::with_capacity(RECEIVE_BYTES, Patient::new(stream, socket, certain));
    let stream = tokio_rustls::TlsConnector::from(tls.client.clone()).connect(name, buffered).await?;
    let shown = shown(stream.get_ref().1)?;
    let (read, write) = tokio::io::split(stream);
    Ok((Box::new(read), Box::new(write), shown))
}

#[cfg(test)]
mod tests {
    use foretide_flow::{NodeId, SiteId};

    use super::*;

    fn identity(node: &str) -> Identity {
        Identity { site: SiteId::new("gpu").unwrap(), node: NodeId::new(node).unwrap() }
    }

    #[test]
    fn a_request_is_signed_for_one_agent_over_its_own_key() {
        let (authority, asked) = (Authority::new().unwrap(), Requested::new().unwrap());
        let certificate_pem = authority.sign(&identity("gpu-1"), &asked.request_pem).unwrap();
        let known = &authority.kept().certificate_pem;
        let own = Issued { certificate_pem, key_pem: asked.key_pem };
        assert!(Tls::new(known, &own, &identity("gpu-1")).is_ok());
        assert!(Tls::new(known, &own, &identity("gpu-2")).is_err(), "it bears one node's name");
        let other_key = Issued { key_pem: Requested::new().unwrap().key_pem, ..own };
        assert!(Tls::new(known, &other_key, &identity("gpu-1")).is_err(), "it is of one key");
    }

    #[test]
    fn names_that_a_request_claims_are_left_aside() {
        let key = KeyPair::generate().unwrap();
        let claimed = CertificateParams::new(vec![certificate_name(&identity("gpu-9"))]).unwrap();
        let claims = claimed.serialize_request(&key).unwrap().pem().unwrap();
        let certificate_pem = Authority::new().unwrap().sign(&identity("gpu-1"), &claims).unwrap();
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap();
        assert!(bears(&certificate, &certificate_name(&identity("gpu-1"))));
        assert!(!bears(&certificate, &certificate_name(&identity("gpu-9"))));
    }

    #[test]
    fn what_is_no_request_or_is_not_signed_by_its_key_is_refused() {
        let authority = Authority::new().unwrap();
        let asked = Requested::new().unwrap().request_pem;
        let at = asked.len() / 2;
        let flipped = if asked.as_bytes()[at] == b'A' { "B" } else { "A" };
        let broken = format!("{}{flipped}{}", &asked[..at], &asked[at + 1..]);
        for bad in ["", "-----BEGIN CERTIFICATE REQUEST-----", &broken, &authority.kept().certificate_pem] {
            assert!(authority.sign(&identity("gpu-1"), bad).is_err(), "{bad:?}");
        }
    }
}
