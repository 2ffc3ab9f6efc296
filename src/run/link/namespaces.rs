//! Network namespaces with a TUN device each: the two ends of an emulated link.
//!
//! A namespace is made the way `ip netns add` does it, by binding a thread's new namespace to a file below
//! `/run/netns`, so that `ip netns exec` and `nsenter --net=` find it. Everything is undone on drop.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);

/// A named network namespace, removed when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with its loopback device up.
    ///
    /// # Errors
    /// If the name is taken or this process may not make namespaces.
    pub fn create(name: &str) -> io::Result<Self> {
        fs::create_dir_all(NAMESPACES)?;
        let path = namespace_path(name);
        File::create_new(&path).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("network namespace {name}: {e}; `ip netns delete {name}` if it is a leftover"),
            )
        })?;
        let namespace = Self { name: name.to_owned() };
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        })
        .join()
        .map_err(|_| io::Error::other("the thread that made the namespace panicked"))??;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The file that stands for it; `setns` takes it.
    pub fn path(&self) -> PathBuf {
        namespace_path(&self.name)
    }

    /// Makes a TUN device in it with an address of a two-host network, and hands over its descriptor.
    ///
    /// With `offload`, TCP super-packets pass whole (each read and write starts with a `virtio_net_hdr`); without,
    /// every packet is at most an MTU long.
    ///
    /// # Errors
    /// If `/dev/net/tun` is missing or refuses.
    pub fn tun(&self, device: &str, address: &str, offload: bool) -> io::Result<OwnedFd> {
        let (netns, name) = (File::open(self.path())?, device.to_owned());
        let fd = std::thread::spawn(move || -> io::Result<OwnedFd> {
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            open_tun(&name, offload)
        })
        .join()
        .map_err(|_| io::Error::other("the thread that made the device panicked"))??;
        ip(&["-n", &self.name, "addr", "add", address, "dev", device])?;
        ip(&["-n", &self.name, "link", "set", device, "mtu", "1500", "txqueuelen", "10000", "up"])?;
        Ok(fd)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Best effort: what is left is named in the message of the next `create`.
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
        let _ = fs::remove_file(self.path());
    }
}

fn namespace_path(name: &str) -> PathBuf {
    PathBuf::from(NAMESPACES).join(name)
}

/// Runs `ip` (iproute2) and turns its complaint into an error.
///
/// # Errors
/// If it is missing or refuses.
pub fn ip(arguments: &[&str]) -> io::Result<()> {
    let done = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("ip (package iproute2): {e}")))?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("ip {}: {}", arguments.join(" "), why.trim())))
}

fn open_tun(device: &str, offload: bool) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|e| io::Error::new(e.kind(), format!("/dev/net/tun: {e}; is the kernel module tun there?")))?;
    let offload_flags = if offload { libc::IFF_VNET_HDR } else { 0 };
    // SAFETY: an ifreq of zeroes is valid; all its members are integers and byte arrays.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | offload_flags) as libc::c_short;
    // SAFETY: the descriptor is a fresh /dev/net/tun and `request` outlives the call.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    if offload {
        let kinds = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        // SAFETY: the descriptor is a TUN device; the argument is an integer.
        unsafe { tun_set_offload(file.as_raw_fd(), kinds as libc::c_int) }?;
    }
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok(file.into())
}
