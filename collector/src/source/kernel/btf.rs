//! Resolves the one kernel function that the loader cannot: `bpf_rdonly_cast`.
//!
//! The object marks each place with a call to [`CAST_MARK`]. Before it is loaded, the mark becomes a call of the
//! kernel's function by its BTF id, or, where the kernel has none (before 6.2), an instruction that returns 0 and
//! that is never reached because `typed_loads` is 0.

use foretide_ebpf::CAST_MARK;

const KIND_FUNC: u32 = 12;
/// Opcode of a call, and the `src_reg` that makes it a call of a kernel function.
const CALL: u8 = 0x85;
const KERNEL_FUNCTION: u8 = 0x20;
/// `r0 = 0`.
const RETURN_ZERO: [u8; 8] = [0xb7, 0, 0, 0, 0, 0, 0, 0];

/// The BTF id of the kernel function `name`.
pub(super) fn function_id(btf: &[u8], name: &str) -> Option<u32> {
    let word = |at: usize| Some(u32::from_le_bytes(btf.get(at..at + 4)?.try_into().ok()?));
    let header = word(4)? as usize;
    let (types, types_len) = (header + word(8)? as usize, word(12)? as usize);
    let strings = header + word(16)? as usize;
    let mut at = types;
    for id in 1.. {
        if at >= types + types_len {
            return None;
        }
        let (name_offset, info) = (word(at)?, word(at + 4)?);
        let (kind, members) = ((info >> 24) & 31, (info & 0xffff) as usize);
        let text = btf.get(strings + name_offset as usize..)?;
        if kind == KIND_FUNC && text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
            return Some(id);
        }
        at += 12 + extra_bytes(kind, members);
    }
    None
}

/// Bytes that follow the 12 common ones of a type.
fn extra_bytes(kind: u32, members: usize) -> usize {
    match kind {
        1 | 14 | 17 => 4,
        3 => 12,
        4 | 5 | 15 | 19 => 12 * members,
        6 | 13 => 8 * members,
        _ => 0,
    }
}

/// Writes the function into the object; returns how many marks there were.
pub(super) fn resolve_casts(object: &mut [u8], function: Option<u32>) -> usize {
    let mut mark = [CALL, 0, 0, 0, 0, 0, 0, 0];
    mark[4..].copy_from_slice(&CAST_MARK.to_le_bytes());
    let mut found = 0;
    for instruction in object.chunks_exact_mut(8).filter(|i| **i == mark) {
        found += 1;
        match function {
            Some(id) => {
                instruction[1] = KERNEL_FUNCTION;
                instruction[4..].copy_from_slice(&id.to_le_bytes());
            }
            None => instruction.copy_from_slice(&RETURN_ZERO),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_of_the_embedded_object_is_found() {
        let mut object = foretide_ebpf::OBJECT.to_vec();
        assert!(resolve_casts(&mut object, Some(77)) >= 4);
        assert_eq!(resolve_casts(&mut object, None), 0, "none is left");
    }

    #[test]
    fn a_function_is_found_by_its_whole_name() {
        // Header, then an INT, a FUNC "ab", a FUNC "abc"; strings "\0ab\0abc\0".
        let mut btf = Vec::new();
        [0x0001_eb9f_u32, 24, 0, 12 + 4 + 12 + 12, 40, 8].iter().for_each(|w| btf.extend(w.to_le_bytes()));
        [0, 1 << 24, 4, 0].iter().for_each(|w: &u32| btf.extend(w.to_le_bytes()));
        [1, 12 << 24, 0, 4, 12 << 24, 0].iter().for_each(|w: &u32| btf.extend(w.to_le_bytes()));
        btf.extend(b"\0ab\0abc\0");
        assert_eq!(function_id(&btf, "ab"), Some(2));
        assert_eq!(function_id(&btf, "abc"), Some(3));
        assert_eq!(function_id(&btf, "a"), None);
        assert_eq!(function_id(&btf[..20], "ab"), None, "cut off");
    }
}
