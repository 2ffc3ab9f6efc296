//! Payloads packed with zstd, where that pays.
//!
//! A sender tries a sample first, because most of what trainings read is compressed already, and packs only while
//! frames wait for the link: when the processor is the limit, the queue runs empty and frames go as they are.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;
use zstd::bulk::Compressor;

/// The fastest of zstd's usual levels: about 500 MB/s a core, five times what 1 Gbit/s carries.
const LEVEL: i32 = 1;
/// Of the payload's middle this much is tried first, bytes: enough to tell text from noise, and a twenty-fifth of a file of
/// 100 KB that turns out not to pack.
const SAMPLE_BYTES: usize = 4 << 10;
/// What does not get shorter than this share is sent as it is: unpacking costs the receiver, too.
const WORTH_SHARE: f64 = 0.9;

thread_local! {
    /// Its tables are larger than most of what it packs: made once for a thread.
    static PACKER: RefCell<Option<Compressor<'static>>> = RefCell::new(Compressor::new(LEVEL).ok());
}

/// Whether bytes of this kind get so much shorter that packing pays.
pub(crate) fn pays(payload: &[u8]) -> bool {
    let from = payload.len().saturating_sub(SAMPLE_BYTES) / 2;
    let sample = &payload[from..payload.len().min(from + SAMPLE_BYTES)];
    pack(sample).is_some()
}

/// The packed bytes, if they are enough shorter.
pub(crate) fn pack(payload: &[u8]) -> Option<Bytes> {
    let room = (payload.len() as f64 * WORTH_SHARE) as usize;
    let mut packed = vec![0; room];
    // An error says that the room does not suffice.
    let length = PACKER.with_borrow_mut(|packer| packer.as_mut()?.compress_to_buffer(payload, &mut packed).ok())?;
    packed.truncate(length);
    Some(packed.into())
}

/// The bytes again; at most `limit_bytes` of them.
///
/// # Errors
/// If they are no packed bytes, or more.
pub(crate) fn unpack(payload: &[u8], limit_bytes: usize) -> io::Result<Bytes> {
    zstd::bulk::decompress(payload, limit_bytes).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn text_packs_and_noise_does_not() {
        let text = "a line of text that is like the one before it\n".repeat(3000).into_bytes();
        assert!(pays(&text));
        let packed = pack(&text).unwrap();
        assert!(packed.len() < text.len() / 10);
        assert_eq!(unpack(&packed, text.len()).unwrap(), text);
        let mut noise = vec![0; 200_000];
        rand::rngs::StdRng::seed_from_u64(1).fill_bytes(&mut noise);
        assert!(!pays(&noise) && pack(&noise).is_none() && !pays(b""));
    }

    #[test]
    fn a_bomb_and_nonsense_are_errors() {
        let packed = pack(&vec![0; 1 << 20]).unwrap();
        assert!(unpack(&packed, 1000).is_err());
        assert!(unpack(b"nonsense", 1000).is_err());
    }
}
