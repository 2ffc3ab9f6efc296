//! Directories on each kind of file system that this machine can make.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory, and what has to be unmounted after it.
pub struct Volume {
    pub kind: &'static str,
    pub data: PathBuf,
    mounted: Vec<PathBuf>,
    _dir: tempfile::TempDir,
}

impl Drop for Volume {
    fn drop(&mut self) {
        for point in self.mounted.iter().rev() {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Kinds of file systems, the one that tests run on first.
pub const KINDS: &[&str] = &["here", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuse"];

/// A fresh one with `fill` run on its data; none, with the reason printed, where this machine cannot make it.
pub fn volume(kind: &'static str, fill: impl FnOnce(&Path)) -> Option<Volume> {
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("point");
    std::fs::create_dir(&point).unwrap();
    let mut volume = Volume { kind, data: point.join("data"), mounted: Vec::new(), _dir: dir };
    match mount(kind, &point, fill) {
        Ok(true) => volume.mounted.push(point),
        Ok(false) => {}
        Err(why) => {
            println!("SKIPPED on {kind}: {why}");
            return None;
        }
    }
    Some(volume)
}

/// Whether something was mounted.
fn mount(kind: &str, point: &Path, fill: impl FnOnce(&Path)) -> Result<bool, String> {
    let (beside, at) = (point.with_file_name("beside"), point.to_str().unwrap());
    let data = point.join("data");
    match kind {
        "here" => fill(&data),
        "overlay" => {
            // What is read lies in the lower layer, as in a container's image.
            for layer in ["lower/data", "upper", "work"] {
                std::fs::create_dir_all(beside.join(layer)).unwrap();
            }
            fill(&beside.join("lower/data"));
            let layer = |name: &str| format!("{}", beside.join(name).display());
            let options = format!("lowerdir={},upperdir={},workdir={}", layer("lower"), layer("upper"), layer("work"));
            run("mount", &["-t", "overlay", "overlay", "-o", &options, at])?;
            return Ok(true);
        }
        "fuse" => {
            fill(&beside.join("data"));
            run("bindfs", &["--no-allow-other", beside.to_str().unwrap(), at])?;
            return Ok(true);
        }
        "tmpfs" => {
            run("mount", &["-t", "tmpfs", "tmpfs", at])?;
            fill(&data);
            return Ok(true);
        }
        on_disk => {
            let image = point.with_file_name("image");
            // The least that xfs takes; nothing of it is written.
            std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
            run(&format!("mkfs.{on_disk}"), &["-q", image.to_str().unwrap()])?;
            run("mount", &["-o", "loop", image.to_str().unwrap(), at])?;
            fill(&data);
            return Ok(true);
        }
    }
    Ok(false)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let out = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    match out {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(format!("{program}: {}", String::from_utf8_lossy(&out.stderr).trim().replace('\n', "; "))),
        Err(e) => Err(format!("{program}: {e}")),
    }
}
