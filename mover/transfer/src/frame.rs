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

use bytes::{Buf, Bytes, BytesMut};
use foretide_flow::Priority;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::socket::LowWater;

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

/// Puts frames on a stream.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    stream: W,
    /// Frames written.
    number: u32,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(stream: W) -> Self {
        Self { stream, number: 0 }
    }

    fn next_header(&mut self, frame: &Frame) -> [u8; HEADER_BYTES] {
        let header = frame.header(self.number);
        self.number = self.number.wrapping_add(1);
        header
    }

    /// Writes one frame, its payload without a copy; it may wait for [`FrameWriter::flush`].
    pub(crate) async fn write(&mut self, frame: &Frame) -> std::io::Result<()> {
        let header = self.next_header(frame);
        self.stream.write_all_buf(&mut Buf::chain(header.as_slice(), frame.payload.clone())).await
    }

    /// Sends small frames in one write; how many bytes that was.
    pub(crate) async fn send(&mut self, frames: &[Frame]) -> std::io::Result<usize> {
        let mut bytes = Vec::with_capacity(frames.iter().map(Frame::length).sum());
        for frame in frames {
            bytes.extend_from_slice(&self.next_header(frame));
            bytes.extend_from_slice(&frame.payload);
        }
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        Ok(bytes.len())
    }

    pub(crate) async fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush().await
    }
}

/// Takes frames from a stream.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    /// Frames taken.
    number: u32,
    buffer: BytesMut,
    max_payload: usize,
    low_water: Option<LowWater>,
}

/// Room asked of each read, bytes.
const READ_BYTES: usize = 256 << 10;

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, number: 0, buffer: BytesMut::new(), max_payload: MAX_STRANGER_BYTES, low_water: None }
    }

    /// The stream's socket, for a reader that is sent long frames.
    pub(crate) fn with_low_water(self, low_water: LowWater) -> Self {
        Self { low_water: Some(low_water), ..self }
    }

    /// The peer has proved who it is.
    pub(crate) fn trust(&mut self) {
        self.max_payload = MAX_PAYLOAD_BYTES;
    }

    /// The next frame. Not to be cancelled half-way, except to give the connection up.
    pub(crate) async fn next(&mut self) -> Result<Frame, FrameError> {
        self.fill(HEADER_BYTES).await?;
        let head: [u8; HEADER_BYTES] = self.buffer[..HEADER_BYTES].try_into().expect("as many bytes");
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
        self.fill(HEADER_BYTES + length).await?;
        self.buffer.advance(HEADER_BYTES);
        let payload = self.buffer.split_to(length).freeze();
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

    async fn fill(&mut self, wanted: usize) -> Result<(), FrameError> {
        while self.buffer.len() < wanted {
            let missing = wanted - self.buffer.len();
            if let Some(low_water) = &mut self.low_water {
                low_water.expect(missing);
            }
            self.buffer.reserve(missing.clamp(READ_BYTES / 4, READ_BYTES));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(FrameError::Closed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
