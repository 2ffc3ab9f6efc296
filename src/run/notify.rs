//! Tells whoever started this process that it is up, by systemd's protocol (`sd_notify(3)`): one datagram to the socket that
//! `NOTIFY_SOCKET` names. Without one, nobody wants to know.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that everything is up.
pub fn ready() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(socket.as_bytes(), b"READY=1") {
        tracing::warn!(%error, ?socket, "systemd is not told that this is up");
    }
}

/// A name that begins with `@` is in the abstract namespace.
fn send(socket: &[u8], message: &[u8]) -> io::Result<()> {
    let address = match socket.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(socket))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_arrives_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("foretide-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        send(path.as_os_str().as_bytes(), b"READY=1").unwrap();
        send(format!("@{name}").as_bytes(), b"READY=1").unwrap();
        for socket in [by_path, by_name] {
            let mut told = [0; 16];
            let n = socket.recv(&mut told).unwrap();
            assert_eq!(&told[..n], b"READY=1");
        }
        assert!(send(b"/nonexistent/notify", b"READY=1").is_err());
    }
}
