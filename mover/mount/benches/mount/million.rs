//! A tree of a million empty files and one that is not, kept from one run to the next: making it takes longer than
//! what is measured on it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Folders of the tree: ten, ten and ten deep, a thousand files in each of the last.
pub const FOLDERS: u64 = 1000;
pub const FILES_A_FOLDER: u64 = 1000;
/// Length of the file that is not empty, bytes.
pub const DEEP_BYTES: u64 = 100_000;

pub fn folder_of(n: u64) -> String {
    format!("tree/{}/{}/{}", n / 100, n / 10 % 10, n % 10)
}

/// Where the file that is not empty lies.
pub fn deep() -> String {
    format!("{}/deep", folder_of(777))
}

/// The tree's root, below `target`.
pub fn make(target: &Path) -> PathBuf {
    let (root, half_done) = (target.join("million-files"), target.join("million-files-half-done"));
    if root.exists() {
        return root;
    }
    for folder in 0..FOLDERS {
        let at = half_done.join(folder_of(folder));
        fs::create_dir_all(&at).expect("a folder");
        for file in 0..FILES_A_FOLDER {
            File::create(at.join(format!("train-{folder:04}-{file:06}.jpg"))).expect("room for an inode");
        }
    }
    let bytes: Vec<u8> = (0..DEEP_BYTES).map(|i| (i * 31 + i / 251) as u8).collect();
    fs::write(half_done.join(deep()), bytes).expect("room on the disk");
    fs::rename(half_done, &root).expect("within one folder");
    root
}
