//! `foretide certify`: certificates for agents and for the control plane, issued by an authority of the installation's own,
//! which is made when the first is asked for. Its key stays in its folder; what an agent needs lies in another, to be copied
//! to its node.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use foretide_flow::{NodeId, SiteId};
use foretide_transfer::{Authority, Identity, Issued};

use super::RunError;

/// Readable to everyone; and to the owner alone.
pub(super) const PUBLIC: u32 = 0o644;
pub(super) const SECRET: u32 = 0o600;

/// Options of `foretide certify`.
#[derive(Args, Debug)]
pub struct Options {
    /// The agent's node, as its configuration names it.
    #[arg(required_unless_present = "hosts")]
    node: Option<NodeId>,
    /// Its site: what residency rules are asked for when it fetches.
    #[arg(long, required_unless_present = "hosts")]
    site: Option<SiteId>,
    /// In place of an agent: the control plane, under this host name or address; may come again.
    #[arg(long = "host", value_name = "HOST", conflicts_with_all = ["node", "site"])]
    hosts: Vec<String>,
    /// Folder of the authority, made if it is not there. Who reads it can pass for any agent.
    #[arg(long, default_value = "/etc/foretide/authority")]
    authority: PathBuf,
    /// Folder for what the agent needs.
    #[arg(long, default_value = ".")]
    into: PathBuf,
}

/// Runs it.
///
/// # Errors
/// Files that cannot be read or written, or are there already.
pub fn run(options: &Options) -> Result<(), RunError> {
    let authority = authority(&options.authority)?;
    let issued = match (&options.node, &options.site) {
        (Some(node), Some(site)) => authority.issue(&Identity { site: site.clone(), node: node.clone() })?,
        _ => authority.issue_to_hosts(&options.hosts)?,
    };
    let name = options.node.as_ref().map_or("control", NodeId::as_str);
    fs::create_dir_all(&options.into).map_err(|e| named(&options.into, e))?;
    let at = |name: &str| options.into.join(name);
    let (certificate, key) = (at(&format!("{name}.pem")), at(&format!("{name}.key")));
    write_new(&key, &issued.key_pem, SECRET)?;
    write_new(&certificate, &issued.certificate_pem, PUBLIC)?;
    let known = at("authority.pem");
    // Of one authority all have the same.
    if fs::read_to_string(&known).ok().as_ref() != Some(&authority.kept().certificate_pem) {
        write_new(&known, &authority.kept().certificate_pem, PUBLIC)?;
    }
    println!(
        "[tls]\nauthority = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"",
        known.display(),
        certificate.display(),
        key.display()
    );
    Ok(())
}

fn files(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("certificate.pem"), folder.join("key.pem"))
}

/// The authority in a folder.
///
/// # Errors
/// Files that are not there or are none.
pub(super) fn kept(folder: &Path) -> Result<Authority, RunError> {
    let (certificate, key) = files(folder);
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| named(path, e));
    Ok(Authority::load(Issued { certificate_pem: read(&certificate)?, key_pem: read(&key)? })?)
}

fn authority(folder: &Path) -> Result<Authority, RunError> {
    let (certificate, key) = files(folder);
    if key.exists() {
        return kept(folder);
    }
    let made = Authority::new()?;
    fs::create_dir_all(folder).map_err(|e| named(folder, e))?;
    write_new(&certificate, &made.kept().certificate_pem, PUBLIC)?;
    write_new(&key, &made.kept().key_pem, SECRET)?;
    Ok(made)
}

pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), RunError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all())).map_err(|e| named(path, e))
}

fn named(path: &Path, e: io::Error) -> RunError {
    let hint =
        if e.kind() == io::ErrorKind::AlreadyExists { "; remove it first, or write into another folder" } else { "" };
    RunError::Told(format!("{}: {e}{hint}", path.display()))
}
