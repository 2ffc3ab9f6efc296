//! Kernel-side probes, their event structs and the embedded object.
//!
//! `bpf/foretide.bpf.c` is the probe set, in C with CO-RE, so that one object fits every kernel with BTF. The object
//! is checked in and embedded: who builds Foretide needs no clang, and what ships is what was tested. Two things
//! keep it honest: a test here compares the digest of the sources with that of the sources it was made from, and
//! `ebpf/check-object` rebuilds it and compares byte for byte.
//!
//! [`event`] has the layouts that both sides share.

pub mod event;

/// The probes as an ELF object for the machine this is built for.
#[cfg(target_arch = "x86_64")]
pub static OBJECT: &[u8] = include_bytes!("../bpf/foretide.x86_64.o");

/// The probes as an ELF object for the machine this is built for.
#[cfg(target_arch = "aarch64")]
pub static OBJECT: &[u8] = include_bytes!("../bpf/foretide.aarch64.o");

/// The object calls this number where `bpf_rdonly_cast` is meant; whoever loads it writes the kernel's function in.
pub const CAST_MARK: u32 = 0x0f07_e71d;

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn the_objects_were_made_from_these_sources() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf");
        let out = Command::new("sh").current_dir(dir).args(["-c", "cat ./*.h ./*.c | sha256sum"]).output().unwrap();
        let digest = String::from_utf8(out.stdout).unwrap();
        let built_from = std::fs::read_to_string(format!("{dir}/SOURCES.sha256")).unwrap();
        assert_eq!(
            digest.split_whitespace().next(),
            Some(built_from.trim()),
            "the sources changed: run ebpf/check-object --write"
        );
    }
}
