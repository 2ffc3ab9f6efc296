//! What a plan is made from. All of it is an argument, so that a plan is a pure function (promise F).

use foretide_flow::{
    FilePath, Forecast, Move, Plan, Ruleset, SiteId, Timestamp, Topology, VolumeId, WarmupId, WarmupRequest,
};

use crate::{Brakes, Config, Supply};

/// What the stores hold, as far as the control plane knows.
pub trait Residency {
    /// Bytes of `offset..offset + length` of a file that are resident and verified at `site`.
    fn resident_bytes(&self, site: &SiteId, volume: &VolumeId, path: &FilePath, offset: u64, length: u64) -> u64;

    /// Bytes that the cache of `site` holds in all.
    fn held_bytes(&self, site: &SiteId) -> u64;
}

/// Nothing is anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingResident;

impl Residency for NothingResident {
    fn resident_bytes(&self, _: &SiteId, _: &VolumeId, _: &FilePath, _: u64, _: u64) -> u64 {
        0
    }
    fn held_bytes(&self, _: &SiteId) -> u64 {
        0
    }
}

/// A file that a warm-up covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmupFile {
    /// Where it is.
    pub path: FilePath,
    /// Its bytes.
    pub bytes: u64,
}

/// A warm-up with its paths expanded to files.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmupDemand {
    /// Its name.
    pub id: WarmupId,
    /// What was asked.
    pub request: WarmupRequest,
    /// When it was asked: decides between requests of the same deadline.
    pub asked_at: Timestamp,
    /// What it covers, as far as it is known.
    pub files: Vec<WarmupFile>,
}

/// A move that an agent carries out now.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningMove {
    /// As it was handed out.
    pub planned: Move,
    /// Bytes that have yet to come.
    pub left_bytes: u64,
}

/// What demand traffic takes of a link now.
#[derive(Clone, Debug, PartialEq)]
pub struct DemandLoad {
    /// Whence.
    pub from: SiteId,
    /// Whither.
    pub to: SiteId,
    /// Bytes a second.
    pub bytes_per_second: f64,
}

/// Everything that a plan depends on.
pub struct Problem<'a> {
    /// What will be read.
    pub forecasts: &'a [Forecast],
    /// What was asked for.
    pub warmups: &'a [WarmupDemand],
    /// Sites, links, volumes. Taken as checked ([`Topology::check`]).
    pub topology: &'a Topology,
    /// Borders.
    pub rules: &'a Ruleset,
    /// Who gives bytes beside the sites of the volumes, and which bytes are the same.
    pub supply: &'a Supply,
    /// What is where.
    pub resident: &'a dyn Residency,
    /// What moves now.
    pub running: &'a [RunningMove],
    /// What demand takes of the links.
    pub demand: &'a [DemandLoad],
    /// What holds prefetch back.
    pub brakes: &'a Brakes,
    /// The plan in force, if there is one.
    pub previous: Option<&'a Plan>,
    /// The moment for which the plan is made.
    pub now: Timestamp,
    /// Decides between equals.
    pub seed: u64,
    /// Settings. Taken as checked ([`Config::check`]).
    pub config: &'a Config,
}
