//! From the store to a file's place, and from its place to the store.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use foretide_chunk::{Arrival, Claim, CutConfig, Cutter, FileKey, Store, manifest_of};
use foretide_flow::{Entry, EntryKind, FileVersion, Timestamp, VolumeId};

use super::tree::Tree;
use crate::run::RunError;

/// The version that what lies in the destination is given.
const HERE: &str = "in the destination";

/// Where an entry belongs.
pub fn path_of(destination: &Path, tree: &Tree, entry: &Entry) -> PathBuf {
    destination.join(tree.below(entry))
}

/// Makes what has no content.
///
/// # Errors
/// If the destination cannot be written.
pub fn make_folders_and_links(tree: &Tree, destination: &Path) -> Result<(), RunError> {
    for folder in &tree.folders {
        fs::create_dir_all(path_of(destination, tree, folder))?;
    }
    for link in &tree.links {
        let EntryKind::Symlink { target } = &link.kind else { continue };
        let at = path_of(destination, tree, link);
        if fs::read_link(&at).is_ok_and(|there| there.as_os_str() == target.as_str()) {
            continue;
        }
        match fs::remove_file(&at) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => std::os::unix::fs::symlink(target, &at)?,
        }
    }
    Ok(())
}

/// Takes files that are to be replaced into the store, as older versions of what is to come.
///
/// # Errors
/// If the store cannot take them; a file that cannot be read is left out.
pub fn seed(store: &Arc<Store>, volume: &VolumeId, destination: &Path, tree: &Tree) -> Result<(), RunError> {
    let cutter = Cutter::new(CutConfig::default(), *store.key()).map_err(|e| RunError::Told(e.to_string()))?;
    for entry in &tree.wanted {
        let at = path_of(destination, tree, entry);
        let Ok(file) = File::open(&at) else { continue };
        let size = file.metadata()?.len();
        let Ok(chunks) = cutter.cut_file(&file, size) else { continue };
        let manifest = Arc::new(manifest_of(store.key(), FileVersion(HERE.into()), chunks));
        let key = FileKey { volume: volume.clone(), path: entry.path.clone(), version: manifest.version.clone() };
        let arrival = Arrival { by: None, claim: Claim::Asked, keep_until: None, at: Timestamp::now() };
        let fill = store.fill(&key, &manifest, 0..size, &arrival)?;
        for i in fill.missing() {
            let chunk = fill.map().range(*i);
            let mut bytes = vec![0; (chunk.end - chunk.start) as usize];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, chunk.start)?;
            fill.put(*i, &bytes)?;
        }
    }
    Ok(())
}

/// Puts a whole file in its place at once: nobody ever sees a part of it.
///
/// # Errors
/// If the store has it no more, or the place cannot be written.
pub fn put(store: &Store, volume: &VolumeId, entry: &Entry, to: &Path) -> Result<(), RunError> {
    let (key, _) =
        store.newest(volume, &entry.path).ok_or_else(|| RunError::Told(format!("{}: it left", entry.path)))?;
    let whole = store.open_whole(&key)?;
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = std::ffi::OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(".foretide");
    let temporary = folder.join(name);
    let mut file = File::create(&temporary)?;
    // The kernel copies, and shares the blocks where the file system can.
    io::copy(&mut &whole.file, &mut file)?;
    file.set_permissions(fs::Permissions::from_mode(entry.mode & 0o777))?;
    let modified = SystemTime::UNIX_EPOCH + Duration::from_micros(entry.modified_at.0.max(0) as u64);
    file.set_modified(modified)?;
    fs::rename(&temporary, to)?;
    Ok(())
}
