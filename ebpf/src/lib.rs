//! Kernel-side probes, their event structs and the embedded object.
//!
//! `bpf/foretide.bpf.c` is the probe set, in C with CO-RE, so that one object fits every kernel with BTF; it is compiled
//! twice, for kernels with and without `bpf_rdonly_cast`. The objects are checked in and embedded: who builds Foretide
//! needs no clang, and what ships is what was tested. Two things keep them honest: a test here compares the digest of
//! the sources with that of the sources they were made from, and `ebpf/check-object` rebuilds them and compares byte
//! for byte.
//!
//! [`event`] has the layouts that both sides share.

pub mod event;

macro_rules! object {
    ($loads:literal) => {{
        #[cfg(target_arch = "x86_64")]
        let object = include_bytes!(concat!("../bpf/", $loads, ".x86_64.o"));
        #[cfg(target_arch = "aarch64")]
        let object = include_bytes!(concat!("../bpf/", $loads, ".aarch64.o"));
        object
    }};
}

/// The probes as an ELF object for kernels that have `bpf_rdonly_cast` (6.2 and later): typed loads, the cheaper way.
pub static TYPED: &[u8] = object!("typed");

/// The same probes for kernels without it, where each load of a kernel's field is a helper's call.
pub static PLAIN: &[u8] = object!("plain");

/// A program for `sys_exit` that does nothing: the floor of what observing can cost, for benches.
pub static EMPTY: &[u8] = include_bytes!("../bpf/empty.o");

/// [`TYPED`] calls this number where `bpf_rdonly_cast` is meant; whoever loads it writes the kernel's function in.
pub const CAST_MARK: u32 = 0x0f07_e71d;

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// Number and name of each call in the table of one machine.
    fn table(machine: &str) -> Vec<(String, String)> {
        let text = include_str!("../bpf/calls.h");
        let from = text.find(&format!("defined({machine})")).unwrap();
        let lines = text[from..].lines().skip(1).take_while(|l| !l.starts_with("#elif") && !l.starts_with("#endif"));
        let call = |l: &str| {
            let (number, rest) = l.trim().strip_prefix("CALL(")?.split_once(", ")?;
            Some((number.to_owned(), rest.split_once(',')?.0.to_owned()))
        };
        lines.filter_map(call).collect()
    }

    #[test]
    fn call_numbers_are_those_of_the_kernels_headers() {
        for (machine, header, prefixes) in [
            ("__TARGET_ARCH_x86", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", &["__NR_"][..]),
            ("__TARGET_ARCH_arm64", "/usr/include/asm-generic/unistd.h", &["__NR_", "__NR3264_"][..]),
        ] {
            let calls = table(machine);
            assert!(calls.len() >= 14, "{calls:?}");
            let Ok(text) = std::fs::read_to_string(header) else {
                println!("SKIPPED for {machine}: {header} is not installed");
                continue;
            };
            for (number, name) in calls {
                let known = text.lines().any(|line| {
                    let mut words = line.split_whitespace();
                    words.next() == Some("#define")
                        && words.next().is_some_and(|w| prefixes.iter().any(|p| w == format!("{p}{name}")))
                        && words.next() == Some(number.as_str())
                });
                assert!(known, "{machine}: {name} is not {number}");
            }
        }
    }

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
