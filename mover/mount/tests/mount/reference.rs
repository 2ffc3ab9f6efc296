//! Random operations at the source and at the mount, against a plain tree.
//!
//! With a lease of almost nothing, what the mount shows must be what the source has; with open handles kept across
//! changes, each must go on showing the version that it was opened on (promise D) or say ESTALE.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use proptest::prelude::*;

use crate::rig::{Rig, bytes, cannot_mount, with};

#[derive(Clone, Debug)]
enum Step {
    Put { name: usize, length: usize, seed: u64 },
    Remove { name: usize },
    Bring { name: usize },
    Evict,
    Read { name: usize },
    Open { name: usize },
    ReadOpen { handle: usize, at: usize },
    Close { handle: usize },
    Compare,
}

const NAMES: [&str; 8] = ["a", "b", "d/a", "d/b", "d/e/a", "d/e/b", "z/a", "z/y/x"];

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        3 => (name.clone(), 0usize..60_000, any::<u64>()).prop_map(|(name, length, seed)| Step::Put { name, length, seed }),
        1 => name.clone().prop_map(|name| Step::Remove { name }),
        2 => name.clone().prop_map(|name| Step::Bring { name }),
        1 => Just(Step::Evict),
        4 => name.clone().prop_map(|name| Step::Read { name }),
        2 => name.prop_map(|name| Step::Open { name }),
        3 => (0usize..8, 0usize..60_000).prop_map(|(handle, at)| Step::ReadOpen { handle, at }),
        1 => (0usize..8).prop_map(|handle| Step::Close { handle }),
        1 => Just(Step::Compare),
    ]
}

/// What a directory tree holds, as paths and contents.
fn walk(at: &std::path::Path, below: &std::path::Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), below, into);
        } else {
            let name = entry.path().strip_prefix(below).unwrap().to_str().unwrap().to_owned();
            into.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

struct Model {
    files: BTreeMap<&'static str, Vec<u8>>,
    open: Vec<(File, Vec<u8>)>,
}

fn run(rig: &Rig, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match step {
        Step::Put { name, length, seed } => {
            let content = bytes(*length, *seed);
            rig.source.put(NAMES[*name], content.clone());
            model.files.insert(NAMES[*name], content);
            settle();
        }
        Step::Remove { name } => {
            rig.source.remove(NAMES[*name]);
            model.files.remove(NAMES[*name]);
            settle();
        }
        Step::Bring { name } => {
            if model.files.contains_key(NAMES[*name]) {
                rig.source.bring(NAMES[*name]);
            }
        }
        Step::Evict => rig.source.evict_all(),
        Step::Read { name } => {
            let expected = model.files.get(NAMES[*name]);
            match fs::read(rig.at(NAMES[*name])) {
                Ok(read) => prop_assert!(Some(&read) == expected, "other bytes in {}", NAMES[*name]),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    prop_assert!(expected.is_none(), "{} is not there", NAMES[*name]);
                }
                Err(error) => prop_assert!(false, "{}: {error}", NAMES[*name]),
            }
        }
        Step::Open { name } => {
            if let Ok(file) = File::open(rig.at(NAMES[*name])) {
                model.open.truncate(7);
                model.open.push((file, model.files[NAMES[*name]].clone()));
            }
        }
        Step::ReadOpen { handle, at } => {
            if let Some((file, content)) = model.open.get(*handle) {
                let expected = content.get(*at..content.len().min(at + 9000)).unwrap_or_default();
                let mut read = vec![0; expected.len()];
                match file.read_exact_at(&mut read, *at as u64) {
                    Ok(()) => prop_assert!(read == expected, "other bytes in an open file"),
                    Err(error) => prop_assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
                }
            }
        }
        Step::Close { handle } => {
            if *handle < model.open.len() {
                model.open.remove(*handle);
            }
        }
        Step::Compare => {
            let mut shown = BTreeMap::new();
            walk(&rig.at(""), &rig.at(""), &mut shown);
            let expected: BTreeMap<String, Vec<u8>> =
                model.files.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
            prop_assert!(shown.keys().eq(expected.keys()), "{:?} {:?}", shown.keys(), expected.keys());
            prop_assert!(shown == expected, "other bytes");
        }
    }
    Ok(())
}

/// Longer than the lease of these tests and the two ticks (of 10 ms at most) by which the kernel rounds it up.
fn settle() {
    std::thread::sleep(Duration::from_millis(23));
}

fn play(steps: &[Step], passthrough: bool, whole_file_bytes: u64) -> Result<(), TestCaseError> {
    let rig = with(|c| (c.lease_s, c.passthrough, c.whole_file_bytes) = (0.002, passthrough, whole_file_bytes));
    let mut model = Model { files: BTreeMap::new(), open: Vec::new() };
    steps.iter().try_for_each(|step| run(&rig, &mut model, step))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_mount_shows_what_the_source_has(
        steps in proptest::collection::vec(step(), 1..60),
        passthrough in any::<bool>(),
        whole_file_bytes in prop_oneof![Just(0u64), Just(20_000), Just(1 << 20)],
    ) {
        if !cannot_mount() {
            play(&steps, passthrough, whole_file_bytes)?;
        }
    }
}
