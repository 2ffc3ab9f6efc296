//! What of the kernel's side works here, for `foretide doctor` and for the control plane.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How reads are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// On the way out of the system call: every way of reading, exact bytes, opens and closes. Each system call of the
    /// machine costs some 90 ns more.
    #[default]
    Full,
    /// At the page cache: pages, without opens, closes, `O_DIRECT`, tmpfs and FUSE with its own cache. System calls
    /// that read no pages cost nothing more.
    Light,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Light => "light",
        })
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "light" => Ok(Self::Light),
            other => Err(format!("there is no tier {other:?}: give full or light")),
        }
    }
}

/// How one probe fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ProbeState {
    /// It runs.
    Loaded,
    /// The kernel refused it.
    Refused {
        /// Why, in the kernel's words where it has some.
        why: String,
    },
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Its hook, such as `sys_exit`.
    pub hook: String,
    /// How it fared.
    #[serde(flatten)]
    pub state: ProbeState,
    /// What is not seen without it.
    pub without: String,
}

/// What an attached probe has cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Its hook.
    pub hook: String,
    /// Runs, while the kernel counted them (`kernel.bpf_stats_enabled`).
    pub runs: u64,
    /// Time in them, nanoseconds.
    pub run_ns: u64,
    /// Events that came while the probe ran on the same CPU, which it did not see. Always counted.
    pub missed: u64,
}

/// All probes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How reads are seen, if they are.
    pub tier: Tier,
    /// In the order in which they were tried.
    pub probes: Vec<Probe>,
    /// Why none was tried, if that is so.
    pub refused: Option<String>,
}

impl Report {
    /// Whether reads are seen by the kernel's probes; if not, the mount has to observe.
    pub fn observes_reads(&self) -> bool {
        self.probes.first().is_some_and(|p| p.state == ProbeState::Loaded)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.refused {
            return writeln!(f, "no kernel probes: {why}; reads are seen only where they pass the mount");
        }
        writeln!(f, "{} tier", self.tier)?;
        for probe in &self.probes {
            match &probe.state {
                ProbeState::Loaded => writeln!(f, "{:24} loaded", probe.hook)?,
                ProbeState::Refused { why } => {
                    writeln!(f, "{:24} refused: {why}; not seen: {}", probe.hook, probe.without)?;
                }
            }
        }
        Ok(())
    }
}
