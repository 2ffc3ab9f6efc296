//! Both ends prove that they know the shared token before anything else is said; the token itself never crosses.
//!
//! ```text
//! dialler  -> Hello      protocol u16, nonce 32, site, node
//! listener -> Challenge  protocol u16, nonce 32, mac("listener", both nonces)
//! dialler  -> Proof      mac("dialler", both nonces, site, node)
//! listener -> Welcome
//! ```
//! The dialler may send requests right behind its proof: a new connection answers after two round trips. Under TLS both ends
//! know a secret of that very connection (RFC 5705), which stands in both macs for the listener's nonce: then the dialler
//! waits for no challenge, and is answered after one. It believes no answer before the challenge has come and fits.

use foretide_chunk::encoding::{EncodingError, Reader, put_bytes};
use foretide_flow::{NodeId, SiteId};

/// The protocol of this build.
pub(crate) const PROTOCOL: u16 = 5;

pub(crate) type Nonce = [u8; 32];

/// Who dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its site: what residency rules are asked for.
    pub site: SiteId,
    /// Its node.
    pub node: NodeId,
}

/// The shared secret of an installation's agents.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// From its text.
    pub fn new(text: &str) -> Self {
        Self(blake3::derive_key("foretide v1 agent token", text.as_bytes()))
    }

    fn mac(&self, role: &[u8], theirs: &Nonce, ours: &Nonce, who: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(role).update(theirs).update(ours).update(who);
        hasher.finalize()
    }

    pub(crate) fn listener_mac(&self, dialler: &Nonce, listener: &Nonce) -> blake3::Hash {
        self.mac(b"listener", dialler, listener, b"")
    }

    pub(crate) fn dialler_mac(&self, dialler: &Nonce, listener: &Nonce, who: &Identity) -> blake3::Hash {
        self.mac(b"dialler.", dialler, listener, &who.encode())
    }
}

impl Identity {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, self.site.as_str().as_bytes());
        put_bytes(&mut out, self.node.as_str().as_bytes());
        out
    }
}

pub(crate) fn encode_hello(nonce: &Nonce, who: &Identity) -> Vec<u8> {
    [&PROTOCOL.to_le_bytes()[..], nonce, &who.encode()].concat()
}

pub(crate) fn decode_hello(record: &[u8]) -> Result<(u16, Nonce, Identity), EncodingError> {
    let mut r = Reader::new(record);
    let (protocol, nonce) = protocol_and_nonce(&mut r)?;
    let site = SiteId::new(r.text("site")?).map_err(|_| EncodingError::Impossible("site"))?;
    let node = NodeId::new(r.text("node")?).map_err(|_| EncodingError::Impossible("node"))?;
    Ok((protocol, nonce, Identity { site, node }))
}

pub(crate) fn encode_challenge(nonce: &Nonce, mac: &blake3::Hash) -> Vec<u8> {
    [&PROTOCOL.to_le_bytes()[..], nonce, mac.as_bytes()].concat()
}

pub(crate) fn decode_challenge(record: &[u8]) -> Result<(u16, Nonce, blake3::Hash), EncodingError> {
    let mut r = Reader::new(record);
    let (protocol, nonce) = protocol_and_nonce(&mut r)?;
    Ok((protocol, nonce, blake3::Hash::from_bytes(r.digest("mac")?)))
}

fn protocol_and_nonce(r: &mut Reader<'_>) -> Result<(u16, Nonce), EncodingError> {
    let p = r.take(2, "protocol")?;
    Ok((u16::from_le_bytes([p[0], p[1]]), r.digest("nonce")?))
}

pub(crate) fn fresh_nonce() -> Nonce {
    rand::random()
}
