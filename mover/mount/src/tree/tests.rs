//! The table against a plain map of maps, and its size.

use std::collections::BTreeMap;

use foretide_flow::Listing;
use proptest::prelude::*;

use super::*;

fn entry(path: &str, directory: bool, version: u64, links: u32) -> Entry {
    Entry {
        path: FilePath::parse(path).unwrap(),
        kind: if directory { EntryKind::Directory } else { EntryKind::File },
        size: version,
        modified_at: Timestamp(0),
        mode: 0o644,
        uid: 1,
        gid: 2,
        links,
        version: FileVersion(format!("{version}").into()),
    }
}

fn listing(volume: &VolumeId, directory: &str, entries: Vec<Entry>) -> Listing {
    Listing { volume: volume.clone(), directory: FilePath::parse(directory).unwrap(), seen_at: Timestamp(0), entries }
}

fn volume() -> VolumeId {
    VolumeId::new("data").unwrap()
}

fn root_of_volume(tree: &Tree, now: Instant) -> u64 {
    match tree.find(ROOT_INO, b"data", now) {
        Found::Here(attributes, _) => attributes.ino,
        other => panic!("{other:?}"),
    }
}

const LEASE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
enum Step {
    List { directory: usize, names: Vec<(u8, u64, bool)> },
    One { directory: usize, name: u8, version: Option<u64> },
    Look { directory: usize, name: u8 },
    Told { directory: usize, names: Vec<(u8, Option<u64>)> },
    Forget { nth: usize },
    Shrink,
}

fn step() -> impl Strategy<Value = Step> {
    let names = proptest::collection::vec((0u8..6, 0u64..3, any::<bool>()), 0..6);
    let told = proptest::collection::vec((0u8..6, proptest::option::of(0u64..3)), 0..4);
    prop_oneof![
        2 => (0usize..3, told).prop_map(|(directory, names)| Step::Told { directory, names }),
        3 => (0usize..3, names).prop_map(|(directory, names)| Step::List { directory, names }),
        2 => (0usize..3, 0u8..6, proptest::option::of(0u64..3)).prop_map(|(directory, name, version)| Step::One { directory, name, version }),
        4 => (0usize..3, 0u8..6).prop_map(|(directory, name)| Step::Look { directory, name }),
        2 => (0usize..20).prop_map(|nth| Step::Forget { nth }),
        1 => Just(Step::Shrink),
    ]
}

/// Directories of the model: the volume's root and two below it.
const DIRECTORIES: [&str; 3] = ["", "x", "y"];

fn joined(directory: usize, name: u8) -> String {
    let prefix = if directory == 0 { String::new() } else { format!("{}/", DIRECTORIES[directory]) };
    format!("{prefix}n{name}")
}

proptest! {
    /// What was listed is found, what the kernel holds is never dropped nor changed, and what nobody needs is freed.
    #[test]
    fn the_table_is_a_map_of_maps(steps in proptest::collection::vec(step(), 0..80)) {
        let start = Instant::now();
        let mut now = start;
        let volume = volume();
        let mut tree = Tree::new(std::slice::from_ref(&volume), (0, 0), now);
        let root = root_of_volume(&tree, now);
        tree.look(root);
        let base = vec![entry("x", true, 0, 2), entry("y", true, 0, 2)];
        tree.learn(root, &listing(&volume, "", base.clone()), now, LEASE);
        let directories: Vec<u64> = DIRECTORIES.iter().map(|d| tree.ino_at(&volume, &FilePath::parse(d).unwrap()).unwrap()).collect();
        directories.iter().for_each(|d| tree.look(*d));
        let mut held: Vec<(u64, Attributes, FileVersion)> = Vec::new();
        // Of each directory: its complete content, if known, and single names.
        let mut model: Vec<Option<BTreeMap<u8, (u64, u32)>>> = vec![Some(BTreeMap::new()), None, None];
        for step in steps {
            now += Duration::from_millis(1);
            match step {
                Step::List { directory, names } => {
                    let content: BTreeMap<u8, (u64, u32)> = names.iter().map(|(n, v, linked)| (*n, (*v, if *linked { 2 } else { 1 }))).collect();
                    let mut entries: Vec<_> = content.iter().map(|(n, (v, links))| entry(&joined(directory, *n), false, *v, *links)).collect();
                    if directory == 0 {
                        entries.extend(base.clone());
                    }
                    tree.learn(directories[directory], &listing(&volume, DIRECTORIES[directory], entries), now, LEASE);
                    model[directory] = Some(content);
                }
                Step::One { directory, name, version } => {
                    let told = version.map(|v| entry(&joined(directory, name), false, v, 1));
                    // As in life: single names are asked for only where the directory is not known.
                    if model[directory].is_none() {
                        tree.learn_one(directories[directory], format!("n{name}").as_bytes(), told.as_ref(), now, LEASE);
                        let found = tree.find(directories[directory], format!("n{name}").as_bytes(), now);
                        match (version, found) {
                            (Some(v), Found::Here(a, _)) => prop_assert_eq!(a.size, v),
                            (None, Found::Absent(_)) => {}
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                }
                Step::Told { directory, names } => {
                    let named = |name: u8| Box::from(format!("n{name}").as_bytes());
                    let told = |name: u8, v: u64| entry(&joined(directory, name), false, v, 1);
                    let changes: Vec<(Box<[u8]>, Option<Entry>)> =
                        names.iter().map(|(n, v)| (named(*n), v.map(|v| told(*n, v)))).collect();
                    tree.amend(directories[directory], &changes, now);
                    match &mut model[directory] {
                        Some(content) => names.iter().for_each(|(n, v)| match v {
                            Some(v) => {
                                content.insert(*n, (*v, 1));
                            }
                            None => {
                                content.remove(n);
                            }
                        }),
                        // What is told of a directory that is not known makes single names unknown.
                        None => for (n, _) in &names {
                            prop_assert_eq!(tree.find(directories[directory], &named(*n), now), Found::Unknown);
                        },
                    }
                    if let (Some(content), Some((shown, _))) = (&model[directory], tree.snapshot(directories[directory], now)) {
                        let shown = shown.iter().filter_map(|c| Some(tree.child(*c)?.0.to_vec()));
                        let shown: Vec<_> = shown.filter(|n| n.starts_with(b"n")).collect();
                        let kept: Vec<_> = content.keys().map(|n| format!("n{n}").into_bytes()).collect();
                        prop_assert_eq!(shown, kept, "in order and without holes");
                    }
                }
                Step::Look { directory, name } => {
                    let found = tree.find(directories[directory], format!("n{name}").as_bytes(), now);
                    if let Some(content) = &model[directory] {
                        match (content.get(&name), &found) {
                            (Some((v, links)), Found::Here(a, _)) => prop_assert_eq!((a.size, a.links), (*v, *links)),
                            (None, Found::Absent(_)) => {}
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                    if let Found::Here(a, _) = found {
                        tree.look(a.ino);
                        held.push((a.ino, a, tree.version(a.ino).unwrap()));
                    }
                }
                Step::Forget { nth } => {
                    if nth < held.len() {
                        let (ino, ..) = held.swap_remove(nth);
                        tree.forget(ino, 1);
                    }
                }
                Step::Shrink => {
                    tree.shrink(0);
                    model = vec![None, None, None];
                }
            }
            for (ino, attributes, version) in &held {
                prop_assert_eq!(tree.attributes(*ino).map(|a| a.size), Some(attributes.size));
                prop_assert_eq!(tree.version(*ino), Some(version.clone()));
                prop_assert!(tree.place(*ino).is_some());
            }
        }
        for (ino, ..) in held {
            tree.forget(ino, 1);
        }
        tree.shrink(0);
        directories.iter().for_each(|d| tree.forget(*d, 1));
        tree.shrink(0);
        prop_assert_eq!(tree.len(), 2, "the root and the volume are left");
    }
}

#[test]
fn what_nobody_asked_is_unknown_and_a_lease_ends() {
    let now = Instant::now();
    let volume = volume();
    let mut tree = Tree::new(std::slice::from_ref(&volume), (0, 0), now);
    let root = root_of_volume(&tree, now);
    assert_eq!(tree.find(root, b"a", now), Found::Unknown);
    tree.learn(root, &listing(&volume, "", vec![entry("a", false, 1, 1)]), now, LEASE);
    assert!(matches!(tree.find(root, b"a", now), Found::Here(_, left) if left == LEASE));
    assert_eq!(tree.find(root, b"b", now), Found::Absent(LEASE));
    assert_eq!(tree.find(root, b"a", now + LEASE), Found::Unknown);
    tree.extend(root, now + LEASE * 2);
    assert!(matches!(tree.find(root, b"a", now + LEASE), Found::Here(..)));
}

#[test]
fn a_new_version_is_a_new_number_and_the_old_one_stays_for_who_holds_it_d() {
    let now = Instant::now();
    let volume = volume();
    let mut tree = Tree::new(std::slice::from_ref(&volume), (0, 0), now);
    let root = root_of_volume(&tree, now);
    tree.learn(root, &listing(&volume, "", vec![entry("a", false, 1, 1)]), now, LEASE);
    let Found::Here(old, _) = tree.find(root, b"a", now) else { panic!() };
    tree.look(old.ino);
    tree.learn(root, &listing(&volume, "", vec![entry("a", false, 2, 1)]), now, LEASE);
    let Found::Here(new, _) = tree.find(root, b"a", now) else { panic!() };
    assert_ne!(old.ino, new.ino);
    assert_eq!(tree.attributes(old.ino).unwrap().size, 1);
    // And back again: the number is the version's.
    tree.learn(root, &listing(&volume, "", vec![entry("a", false, 1, 1)]), now, LEASE);
    assert!(matches!(tree.find(root, b"a", now), Found::Here(a, _) if a.ino == old.ino));
}

#[test]
fn only_what_is_used_is_due_again() {
    let now = Instant::now();
    let volume = volume();
    let mut tree = Tree::new(std::slice::from_ref(&volume), (0, 0), now);
    let root = root_of_volume(&tree, now);
    tree.learn(root, &listing(&volume, "", vec![]), now + Duration::from_millis(5), LEASE);
    let late = now + LEASE - Duration::from_secs(1);
    assert_eq!(tree.due(late, LEASE / 2), [0u64; 0]);
    let _ = tree.find(root, b"a", now + Duration::from_secs(1));
    assert_eq!(tree.due(now + Duration::from_secs(2), LEASE / 2), [0u64; 0]);
    assert_eq!(tree.due(late, LEASE / 2), [root]);
}

#[test]
fn a_million_known_files_fit_into_300_mb_k() {
    let now = Instant::now();
    let volume = volume();
    let mut tree = Tree::new(std::slice::from_ref(&volume), (0, 0), now);
    let root = root_of_volume(&tree, now);
    let directories: Vec<Entry> = (0..1000).map(|d| entry(&format!("d{d:04}"), true, 0, 2)).collect();
    tree.learn(root, &listing(&volume, "", directories), now, LEASE);
    // As a local source tells it: device, inode, size, mtime and ctime.
    let version = |n: u64| FileVersion(format!("fe01:{n}:102400:1763823000.123456789:1763823000.123456789").into());
    for d in 0..1000u64 {
        let directory = format!("d{d:04}");
        let file = |f: u64| Entry {
            version: version(d * 1000 + f),
            ..entry(&format!("{directory}/train-{d:04}-{f:06}.jpg"), false, 0, 1)
        };
        let ino = tree.ino_at(&volume, &FilePath::parse(&directory).unwrap()).unwrap();
        tree.learn(ino, &listing(&volume, &directory, (0..1000).map(file).collect()), now, LEASE);
    }
    let per_file = tree.memory_bytes() as f64 / 1e6;
    assert!(per_file <= 300.0, "{per_file} bytes a file");
}

#[test]
fn a_walk_wants_the_directories_that_come_next_and_each_once() {
    let now = Instant::now() + Duration::from_millis(5);
    let volume = volume();
    let mut tree = Tree::new(std::slice::from_ref(&volume), (0, 0), now - Duration::from_millis(5));
    let root = root_of_volume(&tree, now);
    assert_eq!(tree.ahead_of(root, now), [0u64; 0], "nothing is known");
    let entries: Vec<Entry> = (0..100).map(|d| entry(&format!("d{d:02}"), true, 0, 2)).collect();
    tree.learn(root, &listing(&volume, "", entries), now, LEASE);
    let of = |tree: &Tree, name: &str| tree.ino_at(&volume, &FilePath::parse(name).unwrap()).unwrap();
    let (first, last) = (of(&tree, "d00"), of(&tree, "d31"));
    let wanted = tree.ahead_of(root, now);
    assert_eq!((wanted.len(), wanted[0], wanted[31]), (32, first, last));
    assert_eq!(tree.ahead_of(root, now), [0u64; 0], "once");
    for name in ["d00", "d01", "d50"] {
        let ino = of(&tree, name);
        tree.learn(ino, &listing(&volume, name, vec![entry(&format!("{name}/sub"), true, 0, 2)]), now, LEASE);
    }
    let sub = of(&tree, "d50/sub");
    assert_eq!(tree.ahead_of(of(&tree, "d50"), now), [sub], "out of order: no walk, its own subdirectory alone");
    let _ = tree.snapshot(of(&tree, "d00"), now);
    let next = tree.ahead_of(of(&tree, "d01"), now);
    assert_eq!((next[0], next[1], next.len()), (of(&tree, "d01/sub"), of(&tree, "d02"), 33), "somebody walks");
}
