//! `foretide agent install` and `uninstall`: the unit of systemd that runs the agent, and its removal without a trace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::run::RunError;

/// The unit; `{exe}` and `{config}` are filled in.
const UNIT: &str = include_str!("../../../deploy/foretide-agent.service");
/// Its name.
const UNIT_NAME: &str = "foretide-agent.service";
/// Where units of the admin lie.
const UNITS: &str = "etc/systemd/system";
/// Where systemd makes a folder for the agent's state (`StateDirectory`). Others of Foretide may keep theirs below it, too.
const STATE_FOLDER: &str = "var/lib/foretide";
/// There where systemd runs.
const SYSTEMD_RUNS: &str = "/run/systemd/system";

/// Options of both.
#[derive(Args, Debug)]
pub struct Options {
    /// Another root directory, to prepare an image: the unit is written below it, and nothing is started.
    #[arg(long, default_value = "/")]
    root: PathBuf,
}

/// Writes the unit for this executable and starts it.
///
/// # Errors
/// If the configuration cannot be meant, or the unit cannot be written or started.
pub fn install(options: &Options, config: &Path) -> Result<(), RunError> {
    if options.root == Path::new("/") {
        // An agent that would end at once is told about here, not in a log.
        crate::config::read::<crate::config::AgentConfig>(config)?;
    }
    let unit = unit_path(options);
    let exe = std::env::current_exe()?;
    fs::create_dir_all(options.root.join(UNITS)).map_err(|e| named(&options.root, &e))?;
    fs::write(&unit, unit_text(&exe, config)?).map_err(|e| named(&unit, &e))?;
    println!("written: {}", unit.display());
    if !starts(options) {
        println!("not started: systemd does not run there");
        return Ok(());
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", UNIT_NAME])?;
    println!("started: {UNIT_NAME}; see `systemctl status foretide-agent` and `foretide doctor`");
    Ok(())
}

/// Stops the agent and takes away its unit and its state; configuration and cached data are the admin's, and the state of
/// a control plane on the same machine is the control plane's.
///
/// # Errors
/// If something cannot be removed.
pub fn uninstall(options: &Options) -> Result<(), RunError> {
    let unit = unit_path(options);
    let state = fs::read_to_string(&unit).ok().and_then(|text| state_of(&text, &options.root));
    if starts(options) && unit.exists() {
        systemctl(&["disable", "--now", UNIT_NAME])?;
    }
    remove(&unit, |p| fs::remove_file(p))?;
    if let Some(state) = state {
        remove(&state, |p| fs::remove_dir_all(p))?;
    }
    // Stays if anything is in it: then it is somebody else's.
    let _ = fs::remove_dir(options.root.join(STATE_FOLDER));
    if starts(options) {
        systemctl(&["daemon-reload"])?;
    }
    Ok(())
}

/// The folder of the agent's state, below `root`: as the configuration says that the unit names; none if that is gone or
/// cannot be meant.
fn state_of(unit: &str, root: &Path) -> Option<PathBuf> {
    let config =
        unit.lines().find_map(|l| l.strip_prefix("ExecStart=")?.split_once("--config \"")?.1.split('"').next())?;
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    match crate::config::read::<StateOnly>(&below(Path::new(config))) {
        Ok(StateOnly { state }) => Some(below(&state)),
        Err(error) => {
            println!("kept: the agent's state, for it is not known where it is ({error})");
            None
        }
    }
}

/// What of a configuration says where the state is: it need not be valid to be taken away.
#[derive(serde::Deserialize)]
struct StateOnly {
    state: PathBuf,
}

fn unit_path(options: &Options) -> PathBuf {
    options.root.join(UNITS).join(UNIT_NAME)
}

fn starts(options: &Options) -> bool {
    options.root == Path::new("/") && Path::new(SYSTEMD_RUNS).exists()
}

/// The unit with its paths, as systemd wants them quoted.
fn unit_text(exe: &Path, config: &Path) -> Result<String, RunError> {
    let quoted = |path: &Path| {
        let text = path.to_str().filter(|t| path.is_absolute() && !t.contains(['"', '\\', '\n', '%', '$']));
        text.map(|t| format!("\"{t}\"")).ok_or_else(|| {
            RunError::Told(format!("{}: give an absolute path without quotes, %, $ or line ends", path.display()))
        })
    };
    Ok(UNIT.replace("{exe}", &quoted(exe)?).replace("{config}", &quoted(config)?))
}

fn remove(path: &Path, how: fn(&Path) -> io::Result<()>) -> Result<(), RunError> {
    match how(path) {
        Ok(()) => println!("removed: {}", path.display()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(named(path, &e)),
    }
    Ok(())
}

fn systemctl(arguments: &[&str]) -> Result<(), RunError> {
    let status = Command::new("systemctl").args(arguments).status()?;
    if status.success() {
        return Ok(());
    }
    Err(RunError::Told(format!("systemctl {}: {status}", arguments.join(" "))))
}

fn named(path: &Path, e: &io::Error) -> RunError {
    RunError::Told(format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let options = Options { root: root.path().to_owned() };
        let below = |path: &str| root.path().join(path);
        fs::create_dir_all(below("etc/foretide")).unwrap();
        fs::write(below("etc/foretide/agent.toml"), "state = \"/var/lib/foretide/agent\"\nsite = \"gpu\"\n").unwrap();
        install(&options, Path::new("/etc/foretide/agent.toml")).unwrap();
        let unit = fs::read_to_string(unit_path(&options)).unwrap();
        assert!(unit.contains("agent --config \"/etc/foretide/agent.toml\"") && !unit.contains('{'), "{unit}");
        fs::create_dir_all(below("var/lib/foretide/agent/spool")).unwrap();
        fs::create_dir_all(below("var/lib/foretide/serve")).unwrap();
        fs::write(below("var/lib/foretide/serve/catalog.db"), b"the control plane's").unwrap();
        uninstall(&options).unwrap();
        uninstall(&options).unwrap();
        let left = fs::read_dir(below(UNITS)).unwrap().count();
        assert!(left == 0 && !below("var/lib/foretide/agent").exists());
        assert!(below("var/lib/foretide/serve/catalog.db").exists() && below("etc/foretide/agent.toml").exists());
        // Alone on the machine it leaves no folder either.
        fs::remove_dir_all(below("var/lib/foretide/serve")).unwrap();
        uninstall(&options).unwrap();
        assert!(!below("var/lib/foretide").exists());
    }

    #[test]
    fn a_state_that_no_configuration_names_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let options = Options { root: root.path().to_owned() };
        install(&options, Path::new("/etc/foretide/gone.toml")).unwrap();
        let kept = root.path().join("var/lib/foretide/agent");
        fs::create_dir_all(&kept).unwrap();
        uninstall(&options).unwrap();
        assert!(!unit_path(&options).exists() && kept.exists());
    }

    #[test]
    fn a_path_that_a_unit_cannot_hold_is_refused() {
        for path in ["relative", "/a\"b", "/a%b"] {
            let error = unit_text(Path::new("/foretide"), Path::new(path)).unwrap_err().to_string();
            assert!(error.contains(path), "{error}");
        }
    }

    /// The unit lets the agent do what [`super::super::privilege`] keeps, and systemd knows every line of it.
    #[test]
    fn the_unit_is_one() {
        for capability in [
            "CAP_BPF",
            "CAP_PERFMON",
            "CAP_DAC_READ_SEARCH",
            "CAP_SYS_PTRACE",
            "CAP_SYS_ADMIN",
            "CAP_NET_ADMIN",
            "CAP_FOWNER",
        ] {
            assert!(UNIT.contains(capability), "{capability}");
        }
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(UNIT_NAME);
        fs::write(&file, unit_text(Path::new("/bin/true"), Path::new("/etc/agent.toml")).unwrap()).unwrap();
        match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output() {
            Ok(out) => {
                let text = String::from_utf8_lossy(&out.stderr).into_owned();
                assert!(!text.contains(UNIT_NAME), "{text}");
            }
            Err(e) => println!("SKIPPED: systemd-analyze: {e}"),
        }
    }
}
