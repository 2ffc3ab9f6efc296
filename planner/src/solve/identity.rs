//! Names of moves and plans: digests of what they are, so that the same move has the same name in every plan and
//! on every replica of the control plane, without a counter to keep.

use foretide_flow::{FilePath, Move, MoveId, PlanId, SiteId, Timestamp, VolumeId};

/// Bytes of a digest that a name shows: 96 bits, enough for 2^40 moves without two of one name.
const NAME_BYTES: usize = 12;

fn name(hasher: &blake3::Hasher) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = hasher.finalize();
    let digits = digest.as_bytes()[..NAME_BYTES].iter().flat_map(|b| [b >> 4, b & 15]);
    digits.map(|d| char::from(DIGITS[usize::from(d)])).collect()
}

fn part(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

pub(super) fn move_id(volume: &VolumeId, path: &FilePath, extent: (u64, u64), to: &SiteId, asked: bool) -> MoveId {
    let mut h = blake3::Hasher::new();
    part(&mut h, volume.as_str().as_bytes());
    part(&mut h, path.as_bytes());
    part(&mut h, to.as_str().as_bytes());
    h.update(&extent.0.to_le_bytes()).update(&extent.1.to_le_bytes()).update(&[asked as u8]);
    MoveId::from(name(&h))
}

/// Two plans share a name only if they were made for the same moment with the same seed and move the same.
pub(super) fn plan_id(now: Timestamp, seed: u64, moves: &[Move]) -> PlanId {
    let mut h = blake3::Hasher::new();
    h.update(&now.0.to_le_bytes()).update(&seed.to_le_bytes());
    for m in moves {
        part(&mut h, m.id.as_str().as_bytes());
        h.update(&m.start_at.0.to_le_bytes());
    }
    PlanId::from(name(&h))
}
