//! What ours is measured beside: plain TCP, curl from a small HTTP server, rsync from its daemon. All on the same link,
//! with the kernel's own congestion control (BBR where it is the default) and raised buffers.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::ends::Fetched;
use crate::link::{Link, SENDER};
use crate::{Order, Result, cpu_s, inside, start};

const HTTP_PORT: u16 = 7431;
const RSYNC_PORT: u16 = 7432;
const RAW_PORT: u16 = 7433;
/// Connections of the plain transfer, as many as ours has.
const RAW_CONNECTIONS: usize = 8;

/// A process that ends with its owner.
pub struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Peer {
    /// Starts one of this program's servers at the sender and waits until it listens.
    pub fn start(link: &Link, order: &Order) -> Result<Self> {
        let mut child = start(Some(&link.sender()), order)?;
        let mut said = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut said)?;
        let peer = Self(child);
        if said.trim() == "ready" { Ok(peer) } else { Err(format!("{order:?} did not start").into()) }
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

/// Serves files of a folder by HTTP/1.1 with kept connections, a thread for each.
pub fn http(folder: &Path) -> Result<()> {
    let listener = TcpListener::bind((SENDER, HTTP_PORT))?;
    println!("ready");
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            let stream = stream?;
            // A peer that goes away ends its own thread alone.
            scope.spawn(move || drop(answer(&stream, folder)));
        }
        Ok(())
    })
}

fn answer(stream: &TcpStream, folder: &Path) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next() {
        let line = line?;
        let path = line.split(' ').nth(1).ok_or("no request")?.trim_start_matches('/').to_owned();
        for header in lines.by_ref() {
            if header?.is_empty() {
                break;
            }
        }
        let mut file = fs::File::open(folder.join(path))?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.metadata()?.len());
        let mut to = stream;
        to.write_all(head.as_bytes())?;
        std::io::copy(&mut file, &mut to)?;
    }
    Ok(())
}

/// Seconds in which curl brings files over as many connections as it may.
pub fn curl(link: &Link, files: &[(String, u64)], connections: usize, into: &Path) -> Result<f64> {
    fs::create_dir_all(into)?;
    let mut config = String::new();
    for (n, (path, _)) in files.iter().enumerate() {
        config += &format!(
            "url = \"http://{SENDER}:{HTTP_PORT}/{path}\"\noutput = \"{}\"\n",
            into.join(n.to_string()).display()
        );
    }
    let list = into.join("urls");
    fs::write(&list, config)?;
    let mut command = inside(&link.receiver(), "curl".as_ref());
    command.args(["-sS", "--fail", "-Z", "--parallel-immediate", "--parallel-max", &connections.to_string(), "-K"]);
    command.arg(&list);
    let began = Instant::now();
    let status = command.status()?;
    let took = began.elapsed().as_secs_f64();
    if status.success() { Ok(took) } else { Err(format!("curl: {status}").into()) }
}

/// An rsync daemon at the sender.
pub fn rsync_daemon(link: &Link, folder: &Path, state: &Path) -> Result<Peer> {
    let config = state.join("rsyncd.conf");
    fs::write(
        &config,
        format!(
            "use chroot = no\nuid = 0\ngid = 0\n[bench]\npath = {}\nread only = yes\ntimeout = 30\n",
            folder.display()
        ),
    )?;
    let mut command = inside(&link.sender(), "rsync".as_ref());
    command.args(["--daemon", "--no-detach", "--address", SENDER, "--port", &RSYNC_PORT.to_string(), "--config"]);
    // What it starts for a connection outlives it by some seconds, and must hold no output of ours.
    command.arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn()?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(Peer(child))
}

/// Seconds in which rsync brings a folder, and bytes that crossed the link.
pub fn rsync(link: &Link, folder: &str, into: &Path) -> Result<(f64, u64)> {
    fs::create_dir_all(into)?;
    let mut command = inside(&link.receiver(), "rsync".as_ref());
    command.args(["-a", "--stats", &format!("rsync://{SENDER}:{RSYNC_PORT}/bench/{folder}/")]).arg(into);
    let began = Instant::now();
    let output = command.output()?;
    let took = began.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(format!("rsync: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let told = text.lines().find_map(|l| l.strip_prefix("Total bytes received: ")).ok_or("rsync tells no bytes")?;
    Ok((took, told.replace(',', "").parse()?))
}

/// Sends meaningless bytes to whoever connects, as many as it asks for, again and again.
pub fn raw_send() -> Result<()> {
    let listener = TcpListener::bind((SENDER, RAW_PORT))?;
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || -> std::io::Result<()> {
            let block = vec![0x5a; 1 << 20];
            let mut wanted = [0; 8];
            loop {
                stream.read_exact(&mut wanted)?;
                let mut left = u64::from_le_bytes(wanted);
                while left > 0 {
                    let n = left.min(block.len() as u64) as usize;
                    stream.write_all(&block[..n])?;
                    left -= n as u64;
                }
            }
        });
    }
    Ok(())
}

/// Brings so many bytes over plain connections that have carried as many before; into files of a folder, if one is given.
pub fn raw_fetch(bytes: u64, into: Option<&Path>) -> Result<Fetched> {
    let share = bytes / RAW_CONNECTIONS as u64;
    let connect = |_| TcpStream::connect((SENDER, RAW_PORT));
    let mut streams: Vec<TcpStream> = (0..RAW_CONNECTIONS).map(connect).collect::<std::io::Result<_>>()?;
    let take = |stream: &mut TcpStream, mut file: Option<fs::File>| -> std::io::Result<()> {
        stream.write_all(&share.to_le_bytes())?;
        let mut block = vec![0; 1 << 20];
        let mut left = share as usize;
        while left > 0 {
            let n = left.min(block.len());
            let come = stream.read(&mut block[..n])?;
            left -= come;
            if let Some(file) = &mut file {
                file.write_all(&block[..come])?;
            }
        }
        Ok(())
    };
    let mut fetched = Fetched::default();
    for into in [None, into] {
        let (began, cpu) = (Instant::now(), cpu_s(std::process::id())?);
        into.map_or(Ok(()), fs::create_dir_all)?;
        let file = |n: usize| into.map(|into| fs::File::create(into.join(n.to_string()))).transpose();
        let files: Vec<_> = (0..RAW_CONNECTIONS).map(file).collect::<std::io::Result<_>>()?;
        std::thread::scope(|scope| {
            let all: Vec<_> = streams.iter_mut().zip(files).map(|(s, f)| scope.spawn(|| take(s, f))).collect();
            all.into_iter().try_for_each(|one| one.join().expect("it does not panic"))
        })?;
        let used = cpu_s(std::process::id())? - cpu;
        fetched = Fetched { seconds: began.elapsed().as_secs_f64(), cpu_s: used, ..Fetched::default() };
    }
    Ok(fetched)
}
