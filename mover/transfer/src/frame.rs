//! Frames: how messages share a connection.
//!
//! ```text
//! kind u8 | priority u8 | packed u8 | 0 u8 | request u32 | argument u32 | length u32 | crc32 u32 | payload
//! ```
//! The checksum covers the header and, except in [`Kind::Data`] and [`Kind::Delta`], the payload: data is checked by
//! its chunks' digests on arrival anyway, and hashing it twice would cost both ends. It begins with the frame's number on
//! its connection, which is not sent: a frame that was lost, repeated or overtaken on the way does not check either, and
//! no answer is waited for that nobody will give. A frame that does not check ends the connection; requests that were
//! open on it are asked again on another.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use foretide_flow::Priority;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::buffer::Buffer;
use crate::socket::Certain;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// First word of who dials.
    Hello = 1,
    /// The dialler knows the token.
    Proof = 2,
    /// A question; the payload says which.
    Request = 3,
    /// The answer is not wanted any more.
    Cancel = 4,
    /// Somebody waits for the answer now.
    Raise = 5,
    /// Are you there?
    Ping = 6,
    /// Answer to a hello.
    Challenge = 16,
    /// The peer is let in.
    Welcome = 17,
    /// A manifest.
    Head = 18,
    /// Whole chunks, one after the other, from chunk number `argument` on.
    Data = 19,
    /// A part of a listing.
    Listing = 20,
    /// One entry.
    Entry = 21,
    /// The answer is complete. Of content, `argument` 1 says that what the asker has is the source's version; of a
    /// listing, it is the number of the watch that tells what changes in it, 0 if none does.
    End = 22,
    /// The answer is an error.
    Failed = 23,
    /// I am.
    Pong = 24,
    /// Bytes without meaning, to open a new connection's window.
    Pad = 25,
    /// A manifest as a difference against the one that the asker named.
    HeadDifference = 26,
    /// All the chunks asked for, from chunk number `argument` on, as a delta against what the asker holds.
    Delta = 27,
    /// What changed in directories that were listed; the first says the watch's number in `argument` and nothing else.
    Changed = 28,
    /// A directory below the one that was asked for, complete.
    Below = 29,
    /// The manifest of a file's beginning: the whole one is not known yet.
    Beginning = 30,
}

impl Kind {
    fn from_byte(b: u8) -> Option<Self> {
        use Kind::*;
        [
            Hello,
            Proof,
            Request,
            Cancel,
            Raise,
            Ping,
            Challenge,
            Welcome,
            Head,
            Data,
            Listing,
            Entry,
            End,
            Failed,
            Pong,
            Pad,
            HeadDifference,
            Delta,
            Changed,
            Below,
            Beginning,
        ]
        .into_iter()
        .find(|k| *k as u8 == b)
    }

    /// Whether damage to the payload shows without the frame's checksum, or does not matter.
    fn proves_itself(self) -> bool {
        matches!(self, Self::Data | Self::Delta | Self::Pad)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) priority: Priority,
    pub(crate) request: u32,
    pub(crate) argument: u32,
    /// Whether the payload is packed ([`crate::pack`]).
    pub(crate) packed: bool,
    pub(crate) payload: Bytes,
}

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 20;
/// Payload of a data frame, bytes: at 1 Gbit/s a demand waits at most 2 ms for the frame before it. A single chunk
/// may be longer.
pub(crate) const DATA_BYTES: usize = 256 << 10;
/// No frame is longer: the largest chunk (16 MiB), or a manifest of a file of 25 TB.
const MAX_PAYLOAD_BYTES: usize = 1 << 28;
/// Before the peer has proved who it is, frames are short, bytes.
const MAX_STRANGER_BYTES: usize = 4096;

/// Why a frame was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("closed by the peer")]
    Closed,
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("a frame was damaged on its way")]
    Damaged,
}

impl Frame {
    pub(crate) fn new(kind: Kind, request: u32, payload: impl Into<Bytes>) -> Self {
        Self { kind, priority: Priority::Demand, request, argument: 0, packed: false, payload: payload.into() }
    }

    pub(crate) fn with_argument(self, argument: u32) -> Self {
        Self { argument, ..self }
    }

    pub(crate) fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// The header of the frame with this number on its connection.
    fn header(&self, number: u32) -> [u8; HEADER_BYTES] {
        let mut h = [0; HEADER_BYTES];
        h[0] = self.kind as u8;
        h[1] = self.priority as u8;
        h[2] = u8::from(self.packed);
        h[4..8].copy_from_slice(&self.request.to_le_bytes());
        h[8..12].copy_from_slice(&self.argument.to_le_bytes());
        h[12..16].copy_from_slice(&(self.payload.len() as u32).to_le_bytes());
        let crc = checksum(number, self.kind, &h[..16], &self.payload);
        h[16..].copy_from_slice(&crc.to_le_bytes());
        h
    }

    /// Bytes on the wire.
    pub(crate) fn length(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

fn checksum(number: u32, kind: Kind, head: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(number);
    crc.update(head);
    if !kind.proves_itself() {
        crc.update(payload);
    }
    crc.finalize()
}

fn priority_from(byte: u8) -> Priority {
    match byte {
        0 => Priority::Demand,
        1 => Priority::Deadline,
        _ => Priority::Background,
    }
}

/// Puts frames on a stream, gathered into writes of a good size.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    stream: W,
    /// Frames taken.
    number: u32,
    /// Headers and short payloads that go next to each other.
    short: BytesMut,
    /// What is to be written, before `short`.
    gathered: VecDeque<Bytes>,
    gathered_bytes: usize,
}

/// So much is gathered before it is written, bytes: TLS makes records of 16 KiB and gives so many at a time to the kernel.
pub(crate) const GATHER_BYTES: usize = 128 << 10;
/// Payloads up to this size are copied beside their headers, bytes.
const SHORT_BYTES: usize = 4 << 10;
/// Pieces handed over in one write.
const PIECES: usize = 16;

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(stream: W) -> Self {
        Self { stream, number: 0, short: BytesMut::new(), gathered: VecDeque::new(), gathered_bytes: 0 }
    }

    /// Takes a frame, a long payload without a copy; it may wait for more or for [`FrameWriter::flush`]. Not to be
    /// cancelled half-way, except to give the connection up.
    pub(crate) async fn write(&mut self, frame: &Frame) -> std::io::Result<()> {
        self.short.extend_from_slice(&frame.header(self.number));
        self.number = self.number.wrapping_add(1);
        if frame.payload.len() <= SHORT_BYTES {
            self.short.extend_from_slice(&frame.payload);
        } else {
            self.gathered.push_back(self.short.split().freeze());
            self.gathered.push_back(frame.payload.clone());
        }
        self.gathered_bytes += frame.length();
        if self.gathered_bytes >= GATHER_BYTES { self.drain().await } else { Ok(()) }
    }

    /// Takes these and sends all that was taken.
    pub(crate) async fn send(&mut self, frames: &[Frame]) -> std::io::Result<()> {
        for frame in frames {
            self.write(frame).await?;
        }
        self.flush().await
    }

    /// Sends what was taken.
    pub(crate) async fn flush(&mut self) -> std::io::Result<()> {
        self.drain().await?;
        self.stream.flush().await
    }

    async fn drain(&mut self) -> std::io::Result<()> {
        if !self.short.is_empty() {
            self.gathered.push_back(self.short.split().freeze());
        }
        while !self.gathered.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let filled = pieces.iter_mut().zip(&self.gathered).map(|(to, piece)| *to = IoSlice::new(piece)).count();
            match self.stream.write_vectored(&pieces[..filled]).await? {
                0 => return Err(std::io::ErrorKind::WriteZero.into()),
                written => advance(&mut self.gathered, written),
            }
        }
        self.gathered_bytes = 0;
        Ok(())
    }
}

/// Takes so many bytes away from the front.
fn advance(pieces: &mut VecDeque<Bytes>, mut bytes: usize) {
    while let Some(first) = pieces.front_mut() {
        if bytes < first.len() {
            first.advance(bytes);
            return;
        }
        bytes -= first.len();
        pieces.pop_front();
    }
}

/// Takes frames from a stream.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    /// Frames taken.
    number: u32,
    max_payload: usize,
    certain: Certain,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Of a stream that buffers: short frames are read piece by piece.
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, number: 0, max_payload: MAX_STRANGER_BYTES, certain: Certain::default() }
    }

    /// Tells the stream how much is certain to come.
    pub(crate) fn telling(self, certain: Certain) -> Self {
        Self { certain, ..self }
    }

    /// The peer has proved who it is.
    pub(crate) fn trust(&mut self) {
        self.max_payload = MAX_PAYLOAD_BYTES;
    }

    /// The next frame. Not to be cancelled half-way, except to give the connection up.
    pub(crate) async fn next(&mut self) -> Result<Frame, FrameError> {
        let mut head = [0; HEADER_BYTES];
        self.fill(&mut head).await?;
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let kind = Kind::from_byte(head[0]).ok_or(FrameError::Kind(head[0]))?;
        let length = word(12) as usize;
        if length > self.max_payload {
            return Err(FrameError::TooLong(length));
        }
        // The header alone decides how much is waited for, so it is checked before the payload is.
        if kind.proves_itself() && checksum(self.number, kind, &head[..16], &[]) != word(16) {
            return Err(FrameError::Damaged);
        }
        let payload = self.payload(length).await?;
        if checksum(self.number, kind, &head[..16], &payload) != word(16) {
            return Err(FrameError::Damaged);
        }
        self.number = self.number.wrapping_add(1);
        Ok(Frame {
            kind,
            priority: priority_from(head[1]),
            packed: head[2] == 1,
            request: word(4),
            argument: word(8),
            payload,
        })
    }

    /// What is claimed to be long gets its room as it comes: a header alone must not cost memory.
    async fn payload(&mut self, length: usize) -> Result<Bytes, FrameError> {
        if length <= DATA_BYTES {
            let mut buffer = Buffer::new(length);
            self.fill(&mut buffer).await?;
            return Ok(buffer.freeze());
        }
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let come = bytes.len();
            bytes.resize(length.min(come + come.max(DATA_BYTES)), 0);
            self.fill(&mut bytes[come..]).await?;
        }
        Ok(bytes.into())
    }

    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), FrameError> {
        let mut come = 0;
        while come < bytes.len() {
            self.certain.tell(bytes.len() - come);
            match self.stream.read(&mut bytes[come..]).await? {
                0 => return Err(FrameError::Closed),
                n => come += n,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use proptest::prelude::*;

    fn frames_of(bytes: &[u8]) -> (Vec<Frame>, FrameError) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut reader = FrameReader::new(bytes);
            let mut frames = Vec::new();
            loop {
                match reader.next().await {
                    Ok(frame) => frames.push(frame),
                    Err(e) => return (frames, e),
                }
            }
        })
    }

    fn wire(frames: &[Frame]) -> Vec<u8> {
        frames.iter().zip(0..).flat_map(|(f, n)| [f.header(n).as_slice(), &f.payload].concat()).collect()
    }

    /// Takes a few bytes at a time, as a socket under load does.
    struct Slow(Vec<u8>);

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(7000);
            self.0.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_gathered_goes_out_whole_and_in_order() {
        let lengths = [0, 20, SHORT_BYTES, SHORT_BYTES + 1, 100_000, 3, DATA_BYTES, 1, 1_000_000, 5];
        let frames: Vec<Frame> =
            lengths.iter().zip(1u8..).map(|(n, i)| Frame::new(Kind::Data, u32::from(i), vec![i; *n])).collect();
        let mut writer = FrameWriter::new(Slow(Vec::new()));
        writer.send(&frames).await.unwrap();
        assert!(writer.stream.0 == wire(&frames));
        let mut reader = FrameReader::new(writer.stream.0.as_slice());
        reader.trust();
        for frame in &frames {
            assert!(reader.next().await.unwrap() == *frame);
        }
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        (
            prop::sample::select(vec![1u8, 3, 4, 18, 19, 22, 25, 26, 27]),
            0u8..3,
            any::<u32>(),
            any::<u32>(),
            any::<bool>(),
            prop::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(|(kind, priority, request, argument, packed, payload)| Frame {
                kind: Kind::from_byte(kind).unwrap(),
                priority: priority_from(priority),
                request,
                argument,
                packed,
                payload: payload.into(),
            })
    }

    proptest! {
        #[test]
        fn frames_read_back(frames in prop::collection::vec(any_frame(), 0..6)) {
            let (read, end) = frames_of(&wire(&frames));
            prop_assert_eq!(read, frames);
            prop_assert!(matches!(end, FrameError::Closed));
        }

        #[test]
        fn any_bytes_end_in_an_error_not_in_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            frames_of(&bytes);
        }

        /// Found by a link that swallows: a request that vanished as a whole was waited for without end.
        #[test]
        fn a_frame_that_is_lost_repeated_or_overtaken_is_noticed(
            frames in prop::collection::vec(any_frame(), 2..5), at: prop::sample::Index, how in 0..3,
        ) {
            let at = at.index(frames.len() - 1);
            let lengths = frames.iter().map(Frame::length);
            let starts: Vec<usize> = lengths.scan(0, |end, n| Some(std::mem::replace(end, *end + n))).collect();
            let bytes = wire(&frames);
            let piece = |i: usize| &bytes[starts[i]..starts[i] + frames[i].length()];
            let rest = &bytes[starts[at + 1]..];
            let middle = match how {
                0 => rest.to_vec(),
                1 => [piece(at), piece(at), rest].concat(),
                _ => [piece(at + 1), piece(at), &rest[frames[at + 1].length()..]].concat(),
            };
            let (read, end) = frames_of(&[&bytes[..starts[at]], &middle].concat());
            prop_assert!(matches!(end, FrameError::Damaged), "{:?}", end);
            prop_assert_eq!(&read, &frames[..at + usize::from(how == 1)]);
        }

        /// What arrives is a prefix of what was sent, whatever is cut off or bent; only the payload of data may be
        /// bent unnoticed here, and is noticed by its digest.
        #[test]
        fn cut_or_bent_frames_are_never_taken_for_others(
            frames in prop::collection::vec(any_frame(), 1..4), at: prop::sample::Index, bit in 0u8..8, cut: bool,
        ) {
            let mut bytes = wire(&frames);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            let (read, _) = frames_of(&bytes);
            prop_assert!(read.len() <= frames.len());
            for (read, sent) in read.iter().zip(&frames) {
                let data = sent.kind.proves_itself();
                let same = Frame { payload: sent.payload.clone(), ..read.clone() };
                let as_long = &same == sent && read.payload.len() == sent.payload.len();
                prop_assert!((data && as_long) || read == sent);
            }
        }
    }
}
