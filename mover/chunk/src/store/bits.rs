//! Which of a file's chunks: nearly always none or all of them, and then it costs no memory.

use crate::encoding::{EncodingError, Reader};

/// A set of chunk numbers below a count that the owner knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Bits {
    #[default]
    None,
    All,
    Some(Box<[u64]>),
}

impl Bits {
    pub(super) fn has(&self, i: u32) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(words) => words[i as usize / 64] >> (i % 64) & 1 == 1,
        }
    }

    pub(super) fn insert(&mut self, i: u32, count: u32) {
        if *self == Self::None {
            *self = Self::Some(vec![0; (count as usize).div_ceil(64)].into());
        }
        if let Self::Some(words) = self {
            words[i as usize / 64] |= 1 << (i % 64);
            if words.iter().map(|w| w.count_ones()).sum::<u32>() == count {
                *self = Self::All;
            }
        }
    }

    pub(super) fn remove(&mut self, i: u32, count: u32) {
        if *self == Self::All {
            let mut words = vec![u64::MAX; (count as usize).div_ceil(64)];
            if !count.is_multiple_of(64) {
                *words.last_mut().expect("a chunk is in it") = (1 << (count % 64)) - 1;
            }
            *self = Self::Some(words.into());
        }
        if let Self::Some(words) = self {
            words[i as usize / 64] &= !(1 << (i % 64));
            if words.iter().all(|w| *w == 0) {
                *self = Self::None;
            }
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => out.push(0),
            Self::All => out.push(1),
            Self::Some(words) => {
                out.push(2);
                words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
            }
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>, count: u32) -> Result<Self, EncodingError> {
        match r.u8("chunk set")? {
            0 => Ok(Self::None),
            1 => Ok(Self::All),
            2 => {
                let mut set = Self::None;
                for word in 0..(count as usize).div_ceil(64) {
                    let bits = r.u64("chunk set")?;
                    for bit in (0..64).filter(|b| bits >> b & 1 == 1) {
                        let i = (word * 64 + bit) as u32;
                        if i >= count {
                            return Err(EncodingError::Impossible("chunk set"));
                        }
                        set.insert(i, count);
                    }
                }
                Ok(set)
            }
            _ => Err(EncodingError::Impossible("chunk set")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(count in 1u32..200, steps in proptest::collection::vec((any::<bool>(), any::<u32>()), 0..300)) {
            let (mut bits, mut model) = (Bits::None, BTreeSet::new());
            for (insert, i) in steps {
                let i = i % count;
                if insert { bits.insert(i, count); model.insert(i); } else { bits.remove(i, count); model.remove(&i); }
            }
            prop_assert!((0..count).all(|i| bits.has(i) == model.contains(&i)));
            prop_assert_eq!(bits == Bits::All, model.len() == count as usize);
            let mut record = Vec::new();
            bits.encode(&mut record);
            prop_assert_eq!(Bits::decode(&mut Reader::new(&record), count).unwrap(), bits);
        }
    }
}
