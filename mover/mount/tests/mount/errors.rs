//! Which error each call gives for which path. The cases are those of pjdfstest that a tree which refuses writing can meet
//! (its own runs begin by making files where they test, so none of them can begin here).

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::rig::{cannot_mount, rig};

type Call = fn(&CString) -> libc::c_long;

// SAFETY: each call is given a path with its NUL, and otherwise numbers, null pointers that it allows, or room of its own.
const LOOKING: [(&str, Call); 9] = unsafe {
    [
        ("open", |p| libc::open(p.as_ptr(), libc::O_RDONLY).into()),
        ("stat", |p| libc::stat(p.as_ptr(), &mut std::mem::zeroed()).into()),
        ("lstat", |p| libc::lstat(p.as_ptr(), &mut std::mem::zeroed()).into()),
        ("access", |p| libc::access(p.as_ptr(), libc::F_OK).into()),
        ("statfs", |p| libc::statfs(p.as_ptr(), &mut std::mem::zeroed()).into()),
        ("readlink", |p| libc::readlink(p.as_ptr(), [0; 8].as_mut_ptr(), 8) as libc::c_long),
        ("opendir", |p| libc::open(p.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY).into()),
        ("chdir", |p| libc::syscall(libc::SYS_chdir, p.as_ptr())),
        ("listxattr", |p| libc::listxattr(p.as_ptr(), std::ptr::null_mut(), 0) as libc::c_long),
    ]
};
// SAFETY: as above.
const WRITING: [(&str, Call); 17] = unsafe {
    [
        ("open for writing", |p| libc::open(p.as_ptr(), libc::O_WRONLY).into()),
        ("open for both", |p| libc::open(p.as_ptr(), libc::O_RDWR).into()),
        ("open and truncate", |p| libc::open(p.as_ptr(), libc::O_RDONLY | libc::O_TRUNC).into()),
        ("truncate", |p| libc::truncate(p.as_ptr(), 1).into()),
        ("chmod", |p| libc::chmod(p.as_ptr(), 0o600).into()),
        ("chown", |p| libc::chown(p.as_ptr(), 1, 1).into()),
        ("lchown", |p| libc::lchown(p.as_ptr(), 1, 1).into()),
        ("utimensat", |p| libc::utimensat(libc::AT_FDCWD, p.as_ptr(), std::ptr::null(), 0).into()),
        ("unlink", |p| libc::unlink(p.as_ptr()).into()),
        ("rename", |p| libc::rename(p.as_ptr(), beside(p).as_ptr()).into()),
        ("link", |p| libc::link(p.as_ptr(), beside(p).as_ptr()).into()),
        ("symlink", |p| libc::symlink(c"x".as_ptr(), beside(p).as_ptr()).into()),
        ("mkdir", |p| libc::mkdir(beside(p).as_ptr(), 0o700).into()),
        ("mkfifo", |p| libc::mkfifo(beside(p).as_ptr(), 0o600).into()),
        ("mknod", |p| libc::mknod(beside(p).as_ptr(), libc::S_IFREG | 0o600, 0).into()),
        ("open and create", |p| libc::open(beside(p).as_ptr(), libc::O_CREAT | libc::O_WRONLY, 0o600).into()),
        ("setxattr", |p| libc::setxattr(p.as_ptr(), c"user.x".as_ptr(), std::ptr::null(), 0, 0).into()),
    ]
};

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn beside(path: &CString) -> CString {
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    c(&path.with_file_name("not-there"))
}

/// The error of a call that has to fail.
fn fails(call: Call, path: &Path) -> i32 {
    let done = call(&c(path));
    let error = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if done >= 0 { 0 } else { error }
}

#[test]
fn a_path_that_leads_nowhere_fails_as_posix_says_whichever_call_asks() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put("d/file", "x");
    rig.source.link("x", "y");
    rig.source.link("y", "x");
    rig.source.link("dangling", "d/none");
    let long = "n".repeat(256);
    let too_long = PathBuf::from(format!("{}/{}", rig.at("d").display(), "./".repeat(2048)));
    for (name, call) in LOOKING {
        assert_eq!(fails(call, &rig.at("d/none")), libc::ENOENT, "{name}");
        assert_eq!(fails(call, &rig.at("none/file")), libc::ENOENT, "{name}");
        assert_eq!(fails(call, &rig.at("d/file/below")), libc::ENOTDIR, "{name}");
        assert_eq!(fails(call, &rig.at(&format!("d/{long}"))), libc::ENAMETOOLONG, "{name}");
        assert_eq!(fails(call, &rig.at(&format!("{long}/file"))), libc::ENAMETOOLONG, "{name}");
        assert_eq!(fails(call, &too_long), libc::ENAMETOOLONG, "{name}");
        assert_eq!(fails(call, &rig.at("x/file")), libc::ELOOP, "{name}");
        if !["lstat", "readlink"].contains(&name) {
            assert_eq!(fails(call, &rig.at("x")), libc::ELOOP, "{name}");
            assert_eq!(fails(call, &rig.at("dangling")), libc::ENOENT, "{name}");
        }
        if ["opendir", "chdir"].contains(&name) {
            assert_eq!(fails(call, &rig.at("d/file")), libc::ENOTDIR, "{name}");
        }
        if name == "readlink" {
            assert_eq!(fails(call, &rig.at("d/file")), libc::EINVAL, "no link");
        }
    }
}

#[test]
fn every_call_that_writes_is_erofs_also_where_it_would_fail_for_another_reason() {
    if cannot_mount() {
        return;
    }
    let rig = rig();
    rig.source.put("d/file", "x");
    for (name, call) in WRITING {
        assert_eq!(fails(call, &rig.at("d/file")), libc::EROFS, "{name}");
    }
    for (name, call) in WRITING.iter().filter(|(name, _)| ["truncate", "chmod"].contains(name)) {
        assert_eq!(fails(*call, &rig.at("d/none")), libc::ENOENT, "{name}");
    }
}
