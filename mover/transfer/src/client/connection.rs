//! One connection to a peer: requests go out as they come, answers come back in any order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foretide_flow::Priority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::TransferError;
use crate::frame::{Frame, FrameError, FrameReader, FrameWriter, Kind};
use crate::handshake::{Identity, Nonce, PROTOCOL, Token, decode_challenge, encode_hello, fresh_nonce};
use crate::message::{Failure, Request};

/// A part of an answer.
#[derive(Debug)]
pub(crate) enum Event {
    /// A manifest as the peer wrote it.
    Head(Bytes),
    /// The difference between a manifest and the one that was named.
    HeadDifference(Bytes),
    /// The manifest of a file's beginning as the peer wrote it.
    Beginning(Bytes),
    /// Whole chunks from this number on.
    Data { first: u32, bytes: Bytes, packed: bool },
    /// All chunks that were asked for, from this number on, as a delta.
    Delta { first: u32, delta: Bytes, packed: bool },
    /// Entries as the peer wrote them.
    Entries(Bytes),
    /// A directory below the one that was asked for, as the peer wrote it.
    Below(Bytes),
    /// Changes as the peer wrote them.
    Changed { watch: u32, record: Bytes },
    /// The answer is complete; what the argument means is the request's.
    End { argument: u32 },
    /// The peer says no.
    Failed(Failure),
    /// The connection broke.
    Lost(TransferError),
}

/// Asks whether the peer is there, so many times before it is given up.
const PINGS: u32 = 4;
/// A peer may send a chunk more at each end than was asked, and no more: bytes.
const EXCESS_BYTES: u64 = 32 << 20;

/// An answer whose length is not known counts as this much when connections are chosen, bytes.
const MAX_RECKONED_BYTES: u64 = 1 << 20;

#[derive(Debug)]
struct Pending {
    events: mpsc::UnboundedSender<Event>,
    /// Bytes that it may still bring. What was asked for bounds what waits in the channel: the asker's window.
    allowed_bytes: u64,
}

/// The sending side, shared by all who ask.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: String,
    out: mpsc::UnboundedSender<Frame>,
    pending: Mutex<HashMap<u32, Pending>>,
    next_id: AtomicU32,
    outstanding_bytes: AtomicU64,
    broken: AtomicBool,
    carried: Arc<Carried>,
}

/// Bytes that all connections to a peer have carried, frames included.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

/// An answer that is coming in. Dropped before its end, it is cancelled at the peer.
#[derive(Debug)]
pub(crate) struct Incoming {
    events: mpsc::UnboundedReceiver<Event>,
    pub(super) handle: Handle,
    expected_bytes: u64,
    ended: bool,
}

/// Names a request, to raise it.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    connection: Arc<Connection>,
    id: u32,
}

impl Handle {
    /// Somebody waits for it now.
    pub(crate) fn raise(&self) {
        let _ = self.connection.out.send(Frame::new(Kind::Raise, self.id, Bytes::new()));
    }
}

impl Incoming {
    /// The next part; `End`, `Failed` or `Lost` is the last.
    pub(crate) async fn next(&mut self) -> Event {
        let event = self.events.recv().await.unwrap_or_else(|| Event::Lost(self.handle.connection.closed()));
        self.ended = matches!(event, Event::End { .. } | Event::Failed(_) | Event::Lost(_));
        event
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(crate) fn peer(&self) -> &str {
        &self.handle.connection.peer
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let connection = &self.handle.connection;
        connection.outstanding_bytes.fetch_sub(self.expected_bytes, Ordering::Relaxed);
        if !self.ended && connection.lock().remove(&self.handle.id).is_some() {
            let _ = connection.out.send(Frame::new(Kind::Cancel, self.handle.id, Bytes::new()));
        }
    }
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// What was asked and has not come yet.
    pub(super) fn outstanding_bytes(&self) -> u64 {
        self.outstanding_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn ask(self: &Arc<Self>, request: &Request, priority: Priority, expected_bytes: u64) -> Incoming {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (events, receiver) = mpsc::unbounded_channel();
        let allowed_bytes = expected_bytes.saturating_add(EXCESS_BYTES);
        let expected_bytes = expected_bytes.min(MAX_RECKONED_BYTES);
        self.lock().insert(id, Pending { events, allowed_bytes });
        self.outstanding_bytes.fetch_add(expected_bytes, Ordering::Relaxed);
        let frame = Frame::new(Kind::Request, id, request.encode()).with_priority(priority);
        if self.out.send(frame).is_err() || self.is_broken() {
            self.break_all(&self.closed());
        }
        let handle = Handle { connection: self.clone(), id };
        Incoming { events: receiver, handle, expected_bytes, ended: false }
    }

    fn closed(&self) -> TransferError {
        TransferError::Disconnected { peer: self.peer.clone(), why: "closed".into() }
    }

    fn break_all(&self, why: &TransferError) {
        self.broken.store(true, Ordering::Release);
        for (_, pending) in self.lock().drain() {
            let _ = pending.events.send(Event::Lost(why.clone()));
        }
    }

    fn take(&self, frame: Frame) -> Result<(), FrameError> {
        self.carried.received.fetch_add(frame.length() as u64, Ordering::Relaxed);
        let event = match frame.kind {
            Kind::Head => Event::Head(frame.payload),
            Kind::HeadDifference => Event::HeadDifference(frame.payload),
            Kind::Beginning => Event::Beginning(frame.payload),
            Kind::Data => Event::Data { first: frame.argument, bytes: frame.payload, packed: frame.packed },
            Kind::Delta => Event::Delta { first: frame.argument, delta: frame.payload, packed: frame.packed },
            Kind::Listing | Kind::Entry => Event::Entries(frame.payload),
            Kind::Below => Event::Below(frame.payload),
            Kind::Changed => Event::Changed { watch: frame.argument, record: frame.payload },
            Kind::End => Event::End { argument: frame.argument },
            Kind::Failed => Event::Failed(Failure::decode(&frame.payload).map_err(|_| FrameError::Damaged)?),
            Kind::Pad | Kind::Pong | Kind::Welcome => return Ok(()),
            other => return Err(FrameError::Kind(other as u8)),
        };
        let mut open = self.lock();
        let Some(pending) = open.get_mut(&frame.request) else { return Ok(()) };
        if let Event::Data { bytes, .. } | Event::Delta { delta: bytes, .. } = &event {
            let length = bytes.len() as u64;
            pending.allowed_bytes =
                pending.allowed_bytes.checked_sub(length).ok_or(FrameError::TooLong(bytes.len()))?;
        }
        let last = matches!(event, Event::End { .. } | Event::Failed(_));
        let _ = pending.events.send(event);
        if last {
            open.remove(&frame.request);
        }
        Ok(())
    }
}

/// A connection over which requests may go, and what keeps it going.
pub(super) struct Opened<R, W> {
    pub(super) connection: Arc<Connection>,
    reader: FrameReader<R>,
    write: FrameWriter<W>,
    frames: mpsc::UnboundedReceiver<Frame>,
    /// The peer's proof, if it is not here yet: nothing is believed before.
    awaited: Option<Awaited>,
}

/// What the peer's proof is checked with.
struct Awaited {
    token: Token,
    ours: Nonce,
    session: Option<Nonce>,
}

impl Awaited {
    /// The peer's nonce, if it knows the token.
    fn check(&self, peer: &str, challenge: &Frame) -> Result<Nonce, TransferError> {
        let (protocol, told, mac) = decode_challenge(&challenge.payload)
            .map_err(|e| TransferError::Disconnected { peer: peer.to_owned(), why: format!("it is no agent: {e}") })?;
        if protocol != PROTOCOL {
            return Err(TransferError::Version { peer: peer.to_owned(), theirs: protocol, ours: PROTOCOL });
        }
        let theirs = self.session.unwrap_or(told);
        if mac != self.token.listener_mac(&self.ours, &theirs) {
            return Err(TransferError::Token { peer: peer.to_owned() });
        }
        Ok(theirs)
    }
}

/// Proves who we are and sees that the peer knows the token, too: before anything is asked, or, where TLS says who the
/// peer is, before any of its answers is believed.
pub(super) async fn open<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    peer: &str,
    (mut reader, write): (FrameReader<R>, W),
    session: Option<Nonce>,
    token: &Token,
    identity: &Identity,
    carried: Arc<Carried>,
) -> Result<Opened<R, W>, TransferError> {
    let broke = |why: String| TransferError::Disconnected { peer: peer.to_owned(), why };
    let mut write = FrameWriter::new(write);
    let ours = fresh_nonce();
    let awaited = Awaited { token: token.clone(), ours, session };
    write.write(&Frame::new(Kind::Hello, 0, encode_hello(&ours, identity))).await.map_err(|e| broke(e.to_string()))?;
    let (theirs, awaited) = match session {
        Some(session) => (session, Some(awaited)),
        None => {
            write.flush().await.map_err(|e| broke(e.to_string()))?;
            let challenge = reader.next().await.map_err(|e| broke(e.to_string()))?;
            (awaited.check(peer, &challenge)?, None)
        }
    };
    let proof = token.dialler_mac(&ours, &theirs, identity).as_bytes().to_vec();
    write.send(&[Frame::new(Kind::Proof, 0, proof)]).await.map_err(|e| broke(e.to_string()))?;
    reader.trust();
    let (out, frames) = mpsc::unbounded_channel();
    let connection = Arc::new(Connection {
        peer: peer.to_owned(),
        out,
        pending: Mutex::default(),
        next_id: AtomicU32::new(1),
        outstanding_bytes: AtomicU64::new(0),
        broken: AtomicBool::new(false),
        carried,
    });
    Ok(Opened { connection, reader, write, frames, awaited })
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Opened<R, W> {
    /// Runs until the connection breaks, which it has, too, when nothing was heard for `silence_limit`; why.
    pub(super) async fn run(self, silence_limit: Duration) -> TransferError {
        let Self { connection, mut reader, write, frames, awaited } = self;
        let broke = |why: String| TransferError::Disconnected { peer: connection.peer.clone(), why };
        let last_heard = Mutex::new(Instant::now());
        let reading = async {
            if let Some(awaited) = awaited {
                let checked = match reader.next().await {
                    Ok(challenge) => awaited.check(&connection.peer, &challenge),
                    Err(e) => Err(broke(e.to_string())),
                };
                if let Err(e) = checked {
                    return e;
                }
            }
            loop {
                let frame = match reader.next().await {
                    Ok(frame) => frame,
                    Err(e) => return broke(e.to_string()),
                };
                *last_heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                if let Err(e) = connection.take(frame) {
                    return broke(e.to_string());
                }
            }
        };
        let why = tokio::select! {
            why = reading => why,
            why = write_frames(write, frames, &connection.carried) => broke(why),
            why = watch(&connection, &last_heard, silence_limit) => broke(why),
        };
        connection.break_all(&why);
        why
    }
}

/// Many small requests go out in one write.
async fn write_frames<W: AsyncWrite + Unpin>(
    mut write: FrameWriter<W>,
    mut frames: mpsc::UnboundedReceiver<Frame>,
    carried: &Carried,
) -> String {
    let mut batch = Vec::new();
    while frames.recv_many(&mut batch, MAX_BATCH).await > 0 {
        if let Err(e) = write.send(&batch).await {
            return e.to_string();
        }
        let bytes: usize = batch.drain(..).map(|frame| frame.length()).sum();
        carried.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    "closed".into()
}

/// Requests written at once, at most.
const MAX_BATCH: usize = 256;

async fn watch(connection: &Connection, last_heard: &Mutex<Instant>, silence_limit: Duration) -> String {
    loop {
        tokio::time::sleep(silence_limit / PINGS).await;
        let silent = last_heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        if silent > silence_limit {
            return format!("nothing heard for {} s", silent.as_secs());
        }
        let _ = connection.out.send(Frame::new(Kind::Ping, 0, Bytes::new()));
    }
}
