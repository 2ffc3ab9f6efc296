//! What the loader does not ask of the kernel's type information.
//!
//! One kernel function, `bpf_rdonly_cast`: the object marks each place with a call to [`CAST_MARK`], and before it is
//! loaded the mark becomes a call of the function by its number. And the arguments of a tracepoint: some have changed
//! from release to release, and a program made for the wrong ones may load and misread them.

use foretide_ebpf::CAST_MARK;

const KIND_PTR: u32 = 2;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
/// Opcode of a call, and the `src_reg` that makes it a call of a kernel function.
const CALL: u8 = 0x85;
const KERNEL_FUNCTION: u8 = 0x20;

/// A type's first words: name, kind and members, and the type that it is made of.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    members: usize,
    of: u32,
}

/// The kernel's types, by number from 1 on.
pub(super) struct Types<'a> {
    types: Vec<Type>,
    strings: &'a [u8],
}

impl<'a> Types<'a> {
    /// Reads the kernel's type information as far as it is whole.
    pub(super) fn read(btf: &'a [u8]) -> Self {
        let mut types = Vec::new();
        let strings = Self::sections(btf).map_or(&[][..], |(mut rest, strings)| {
            while let Some(next) = one_type(rest) {
                types.push(next.0);
                rest = next.1;
            }
            strings
        });
        Self { types, strings }
    }

    fn sections(btf: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let header = word(btf, 4)? as usize;
        let from = |offset: u32, bytes: Option<u32>| {
            let start = header + offset as usize;
            btf.get(start..start + bytes? as usize)
        };
        Some((from(word(btf, 8)?, word(btf, 12))?, from(word(btf, 16)?, word(btf, 20))?))
    }

    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        let is = |t: &Type| {
            let text = self.strings.get(t.name as usize..);
            let rest = text.filter(|_| t.kind == kind).and_then(|s| s.strip_prefix(name.as_bytes()));
            rest.is_some_and(|r| r.first() == Some(&0))
        };
        self.types.iter().position(is).map(|i| i as u32 + 1)
    }

    fn get(&self, id: u32) -> Option<Type> {
        self.types.get(id.checked_sub(1)? as usize).copied()
    }

    /// The number of the kernel function `name`.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        self.find(KIND_FUNC, name)
    }

    /// How many arguments the tracepoint `name` has, if there is one.
    pub(super) fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let alias = self.get(self.find(KIND_TYPEDEF, &format!("btf_trace_{name}"))?)?;
        let pointer = self.get(alias.of).filter(|t| t.kind == KIND_PTR)?;
        let prototype = self.get(pointer.of).filter(|t| t.kind == KIND_FUNC_PROTO)?;
        // The first is the tracer's own.
        prototype.members.checked_sub(1)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn one_type(bytes: &[u8]) -> Option<(Type, &[u8])> {
    let info = word(bytes, 4)?;
    let (kind, members) = ((info >> 24) & 31, (info & 0xffff) as usize);
    let this = Type { name: word(bytes, 0)?, kind, members, of: word(bytes, 8)? };
    Some((this, bytes.get(12 + extra_bytes(kind, members)..)?))
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
pub(super) fn resolve_casts(object: &mut [u8], function: u32) -> usize {
    let mut mark = [CALL, 0, 0, 0, 0, 0, 0, 0];
    mark[4..].copy_from_slice(&CAST_MARK.to_le_bytes());
    let mut found = 0;
    for instruction in object.chunks_exact_mut(8).filter(|i| **i == mark) {
        found += 1;
        instruction[1] = KERNEL_FUNCTION;
        instruction[4..].copy_from_slice(&function.to_le_bytes());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_of_the_embedded_object_is_found() {
        let mut object = foretide_ebpf::TYPED.to_vec();
        assert!(resolve_casts(&mut object, 77) >= 4);
        assert_eq!(resolve_casts(&mut object, 77), 0, "none is left");
        assert_eq!(resolve_casts(&mut foretide_ebpf::PLAIN.to_vec(), 77), 0, "the other object has none");
    }

    /// An INT, FUNC "ab", FUNC "abc", a prototype of three arguments, a pointer to it, and "btf_trace_ab" for that.
    fn sample() -> Vec<u8> {
        let strings = b"\0ab\0abc\0btf_trace_ab\0";
        let types: Vec<u32> = [
            &[0, 1 << 24, 4, 0][..],
            &[1, 12 << 24, 0],
            &[4, 12 << 24, 0],
            &[0, 13 << 24 | 3, 0, 0, 1, 0, 1, 0, 1],
            &[0, 2 << 24, 4],
            &[8, 8 << 24, 5],
        ]
        .concat();
        let types_bytes = 4 * types.len() as u32;
        let header = [0x0001_eb9f_u32, 24, 0, types_bytes, types_bytes, strings.len() as u32];
        let mut btf: Vec<u8> = header.iter().chain(&types).flat_map(|w| w.to_le_bytes()).collect();
        btf.extend(strings);
        btf
    }

    #[test]
    fn a_function_is_found_by_its_whole_name() {
        let btf = sample();
        let types = Types::read(&btf);
        assert_eq!((types.function("ab"), types.function("abc"), types.function("a")), (Some(2), Some(3), None));
        assert_eq!(Types::read(&btf[..40]).function("ab"), None, "cut off");
    }

    #[test]
    fn arguments_of_a_tracepoint_are_counted() {
        let btf = sample();
        assert_eq!(Types::read(&btf).tracepoint_arguments("ab"), Some(2));
        assert_eq!(Types::read(&btf).tracepoint_arguments("abc"), None);
    }
}
