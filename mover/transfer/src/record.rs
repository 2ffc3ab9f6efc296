//! TLS records of a connection for which rustls has shaken hands, opened where they lie.
//!
//! Who is sent long frames pays for each copy of them, and rustls makes three on the way from the kernel to its reader, with a
//! piece of memory of its own for each record. Here they are decrypted in the buffer that the kernel filled, by rustls's own
//! cipher with the keys that it agreed on, and copied once. What the dialler sends is sealed by its cipher too.
//!
//! Keys stay what they are: a peer that asks for others, as rustls does after sixteen million records (275 GB), loses the
//! connection, and what was open on it is asked again over the next. Tickets are passed over; no session is resumed.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::{
    ClientConnection, ConnectionTrafficSecrets, ContentType, HandshakeType, ProtocolVersion, SupportedCipherSuite,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::socket::RECEIVE_BYTES;

/// Kind, version and length of a record.
const HEADER_BYTES: usize = 5;
/// A record's plain bytes, at most.
const PLAIN_BYTES: usize = 16 << 10;
/// A record as it crosses the link, at most: with what the standard allows for cipher and padding.
pub(crate) const RECORD_BYTES: usize = HEADER_BYTES + PLAIN_BYTES + 256;
/// The only kind of alert that is no failure: the peer has no more to say.
const CLOSE_NOTIFY: u8 = 0;

/// One direction's cipher, and how many records it has made or opened.
struct Keys<C: ?Sized> {
    cipher: Box<C>,
    number: u64,
}

/// What opens the peer's records.
pub(crate) struct Opener(Keys<dyn MessageDecrypter>);

/// What seals ours.
pub(crate) struct Sealer {
    keys: Keys<dyn MessageEncrypter>,
    /// No more records are safe with one key.
    records_max: u64,
}

/// Takes over from rustls, whose configuration must let its secrets out.
///
/// # Errors
/// If the handshake is not complete, or agreed on other than TLS 1.3.
pub(crate) fn take_over(session: ClientConnection) -> io::Result<(Opener, Sealer)> {
    let Some(SupportedCipherSuite::Tls13(suite)) = session.negotiated_cipher_suite() else {
        return Err(broken("no TLS 1.3 was agreed on"));
    };
    let secrets = session.dangerous_extract_secrets().map_err(io::Error::other)?;
    let ((key, iv), (their_key, their_iv)) = (parts(secrets.tx.1)?, parts(secrets.rx.1)?);
    let opener = Keys { cipher: suite.aead_alg.decrypter(their_key, their_iv), number: secrets.rx.0 };
    let keys = Keys { cipher: suite.aead_alg.encrypter(key, iv), number: secrets.tx.0 };
    Ok((Opener(opener), Sealer { keys, records_max: suite.common.confidentiality_limit }))
}

fn parts(secrets: ConnectionTrafficSecrets) -> io::Result<(AeadKey, Iv)> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(broken("an unknown cipher")),
    }
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// So many plain bytes, right behind its header.
    Bytes(usize),
    Nothing,
    /// The peer has no more to say.
    End,
}

impl Opener {
    /// Opens one whole record where it lies.
    fn open(&mut self, record: &mut [u8]) -> io::Result<Said> {
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        if ContentType::from(header[0]) != ContentType::ApplicationData {
            return Err(broken("a record that is not encrypted"));
        }
        let message = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, sealed);
        let plain = self.0.cipher.decrypt(message, self.0.number).map_err(io::Error::other)?;
        self.0.number += 1;
        match (plain.typ, plain.payload) {
            (ContentType::ApplicationData, payload) => Ok(Said::Bytes(payload.len())),
            (ContentType::Handshake, [kind, ..]) if HandshakeType::from(*kind) == HandshakeType::NewSessionTicket => {
                Ok(Said::Nothing)
            }
            (ContentType::Handshake, _) => Err(broken("the peer asks for other keys")),
            (ContentType::Alert, [_, CLOSE_NOTIFY]) => Ok(Said::End),
            _ => Err(broken("the peer reports a failure")),
        }
    }
}

/// Length of the record that these bytes begin with; none while that is not told.
fn record_length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length > RECORD_BYTES { Err(broken("a record that is too long")) } else { Ok(Some(length)) }
}

/// Plain bytes of a stream of records. It asks for more only when it holds no whole record.
pub(crate) struct Opening<S> {
    stream: S,
    opener: Opener,
    buffer: Box<[u8]>,
    /// Opened, and not given on.
    plain: Range<usize>,
    /// Behind it, not opened.
    sealed: Range<usize>,
    ended: bool,
}

impl<S> Opening<S> {
    pub(crate) fn new(stream: S, opener: Opener) -> Self {
        let buffer = vec![0; RECEIVE_BYTES + RECORD_BYTES].into();
        Self { stream, opener, buffer, plain: 0..0, sealed: 0..0, ended: false }
    }

    /// Opens the next record, if it is here as a whole.
    fn open_next(&mut self) -> io::Result<bool> {
        let Some(length) = record_length(&self.buffer[self.sealed.clone()])?.filter(|l| *l <= self.sealed.len()) else {
            return Ok(false);
        };
        let start = self.sealed.start;
        self.sealed.start += length;
        match self.opener.open(&mut self.buffer[start..start + length])? {
            Said::Bytes(bytes) => self.plain = start + HEADER_BYTES..start + HEADER_BYTES + bytes,
            Said::Nothing => {}
            Said::End => self.ended = true,
        }
        Ok(true)
    }

    /// Gives on what is opened and opens what is here, as long as there is room.
    fn give(&mut self, to: &mut ReadBuf<'_>) -> io::Result<()> {
        while to.remaining() > 0 && !self.ended && (!self.plain.is_empty() || self.open_next()?) {
            let length = self.plain.len().min(to.remaining());
            to.put_slice(&self.buffer[self.plain.start..self.plain.start + length]);
            self.plain.start += length;
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = to.filled().len();
        loop {
            this.give(to)?;
            if to.filled().len() > before || to.remaining() == 0 || this.ended {
                return Poll::Ready(Ok(()));
            }
            // Less than a record is left: what comes has room behind it.
            this.buffer.copy_within(this.sealed.clone(), 0);
            this.sealed = 0..this.sealed.len();
            let mut room = ReadBuf::new(&mut this.buffer[this.sealed.end..]);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut room))?;
            match room.filled().len() {
                // Nobody but the peer can say that it has no more to say.
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                come => this.sealed.end += come,
            }
        }
    }
}

/// Seals what is written, a record at a time.
pub(crate) struct Sealing<S> {
    stream: S,
    sealer: Sealer,
    /// A record that the stream has not taken as a whole.
    record: Vec<u8>,
    taken: usize,
}

impl<S: AsyncWrite + Unpin> Sealing<S> {
    pub(crate) fn new(stream: S, sealer: Sealer) -> Self {
        Self { stream, sealer, record: Vec::new(), taken: 0 }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.taken < self.record.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.record[self.taken..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.taken += taken,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Sealer {
    fn seal(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let Keys { cipher, number } = &mut self.keys;
        if *number >= self.records_max {
            return Err(broken("as many records as are safe with one key"));
        }
        let (typ, payload) = (ContentType::ApplicationData, OutboundChunks::Single(bytes));
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let sealed = cipher.encrypt(message, *number).map_err(io::Error::other)?;
        *number += 1;
        Ok(sealed.encode())
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sealing<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        let length = bytes.len().min(PLAIN_BYTES);
        this.record = this.sealer.seal(&bytes[..length])?;
        this.taken = 0;
        // It is on its way from here on; what the stream does not take now goes before the next.
        match this.poll_drain(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(length)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex};
    use tokio_rustls::server::TlsStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use crate::tls::{AGENT_NAME, tests::a_pair};

    type Ours = (Opening<ReadHalf<DuplexStream>>, Sealing<WriteHalf<DuplexStream>>);

    /// Ours, and rustls at the other end, over a stream that takes so many bytes at a time.
    async fn joined(bytes: usize) -> (Ours, TlsStream<DuplexStream>) {
        let (client, server) = a_pair();
        let (near, far) = duplex(bytes);
        let name = ServerName::try_from(AGENT_NAME).unwrap();
        let (dialled, accepted) =
            tokio::join!(TlsConnector::from(client).connect(name, near), TlsAcceptor::from(server).accept(far));
        let (stream, session) = dialled.unwrap().into_inner();
        let (opener, sealer) = take_over(session).unwrap();
        let (read, write) = tokio::io::split(stream);
        ((Opening::new(read, opener), Sealing::new(write, sealer)), accepted.unwrap())
    }

    fn noise(length: usize) -> Vec<u8> {
        use rand::{Rng, SeedableRng};
        let mut bytes = vec![0; length];
        rand::rngs::StdRng::seed_from_u64(length as u64).fill_bytes(&mut bytes);
        bytes
    }

    #[tokio::test]
    async fn what_rustls_seals_is_opened_and_what_is_sealed_here_rustls_opens() {
        for piece in [1000, 7777, 1 << 20] {
            let ((mut open, mut seal), mut theirs) = joined(piece).await;
            for length in [1, 20, PLAIN_BYTES - 1, PLAIN_BYTES, PLAIN_BYTES + 1, 300_000, 1_500_000] {
                let (told, mut come) = (noise(length), vec![0; length]);
                let (written, read) = tokio::join!(
                    async {
                        theirs.write_all(&told).await?;
                        theirs.flush().await
                    },
                    open.read_exact(&mut come)
                );
                assert!(written.is_ok() && read.is_ok() && come == told, "{length} bytes in pieces of {piece}");
                come.fill(0);
                let (written, read) = tokio::join!(
                    async {
                        seal.write_all(&told).await?;
                        seal.flush().await
                    },
                    theirs.read_exact(&mut come)
                );
                assert!(written.is_ok() && read.is_ok() && come == told, "{length} bytes back");
            }
        }
    }

    #[tokio::test]
    async fn an_end_is_told_by_the_peer_and_a_cut_is_none() {
        let ((mut open, _seal), mut theirs) = joined(1 << 20).await;
        theirs.write_all(b"the last word").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut told = Vec::new();
        open.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, b"the last word");
        let ((mut open, _seal), theirs) = joined(1 << 20).await;
        drop(theirs);
        assert_eq!(open.read_to_end(&mut told).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_peer_that_asks_for_other_keys_loses_the_connection() {
        let ((mut open, _seal), mut theirs) = joined(1 << 20).await;
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(b"with new keys").await.unwrap();
        theirs.flush().await.unwrap();
        let told = open.read_u8().await.unwrap_err().to_string();
        assert!(told.contains("other keys"), "{told}");
    }

    /// What a peer with the keys sent, bent in any one byte, repeated or overtaken on its way, is an error and not other bytes.
    #[tokio::test]
    async fn records_that_are_bent_repeated_or_overtaken_are_errors() {
        let sealed = |sealer: &mut Sealer| [&b"one"[..], b"two"].map(|bytes| sealer.seal(bytes).unwrap());
        let opened = async |bend: &dyn Fn([Vec<u8>; 2]) -> Vec<u8>| {
            let (client, server) = a_pair();
            let (near, far) = duplex(1 << 20);
            let name = ServerName::try_from(AGENT_NAME).unwrap();
            let (dialled, accepted) =
                tokio::join!(TlsConnector::from(client).connect(name, near), TlsAcceptor::from(server).accept(far));
            // Both directions of one connection with the same keys: what is sealed here is opened here.
            let suite = dialled.as_ref().unwrap().get_ref().1.negotiated_cipher_suite().unwrap();
            let secrets = dialled.unwrap().into_inner().1.dangerous_extract_secrets().unwrap();
            drop(accepted);
            let (key, iv) = parts(secrets.tx.1).unwrap();
            let cipher = suite.tls13().unwrap().aead_alg.encrypter(copy(&key), Iv::copy(iv.as_ref()));
            let mut sealer = Sealer { keys: Keys { cipher, number: 0 }, records_max: 2 };
            let cipher = suite.tls13().unwrap().aead_alg.decrypter(key, iv);
            let wire = bend(sealed(&mut sealer));
            assert!(sealer.seal(b"three").is_err(), "no more are safe");
            let mut open = Opening::new(wire.as_slice(), Opener(Keys { cipher, number: 0 }));
            let mut told = [0; 6];
            open.read_exact(&mut told).await.map(|_| told)
        };
        assert_eq!(&opened(&|[one, two]| [one, two].concat()).await.unwrap(), b"onetwo");
        assert!(opened(&|[one, _]| [one.clone(), one].concat()).await.is_err());
        assert!(opened(&|[one, two]| [two, one].concat()).await.is_err());
        let length = opened(&|[one, two]| [one, two].concat()).await.map(|_| 2 * (HEADER_BYTES + 3 + 1 + 16)).unwrap();
        for at in 0..length {
            // The version in a header is not looked at: it says nothing.
            if at % (length / 2) == 1 || at % (length / 2) == 2 {
                continue;
            }
            let bent = opened(&|[one, two]| {
                let mut wire = [one, two].concat();
                wire[at] ^= 1;
                wire
            });
            assert!(bent.await.is_err(), "byte {at}");
        }
    }

    fn copy(key: &AeadKey) -> AeadKey {
        let bytes: [u8; 32] = key.as_ref().try_into().expect("a key of 32 bytes");
        AeadKey::from(bytes)
    }
}
