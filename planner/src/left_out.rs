//! Why demands are not served, gathered by folder so that a plan stays readable.

use std::collections::BTreeMap;
use std::sync::Arc;

use foretide_flow::{FilePath, LeftOut, Plan, SiteId, VolumeId};

use crate::Config;

/// What a mode alone keeps from being moved.
const ADVISED: &str = "the mode is advise: it would be moved";
const SHADOWED: &str = "the mode is shadow: it would be moved";

/// What the plan would move if its mode were enforce, folder by folder.
pub fn proposals(plan: &Plan) -> impl Iterator<Item = &LeftOut> {
    plan.left_out.iter().filter(|l| [ADVISED, SHADOWED].contains(&l.why.as_str()))
}

/// Why a demand is not in the plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    UnknownVolume,
    UnknownSite,
    NoCache,
    NoLink { from: SiteId },
    Off,
    Muted(Arc<str>),
    Advised,
    Shadowed,
    NoBudget(Arc<str>),
    Improbable,
    Beyond,
    NotWorth,
    NoRoom,
    NoRate,
}

impl Why {
    fn words(&self, config: &Config) -> String {
        match self {
            Self::UnknownVolume => "the volume is not in the topology: add it under [volume]".into(),
            Self::UnknownSite => "the site is not in the topology: add it under [site]".into(),
            Self::NoCache => "the site has no cache: give it capacity_bytes under [site.cache]".into(),
            Self::NoLink { from } => format!("no link from {from}, where the volume is, to the site: add one"),
            Self::Off => "prefetch is switched off".into(),
            Self::Muted(why) => format!("prefetch of this workload is muted: {why}"),
            Self::Advised => ADVISED.into(),
            Self::Shadowed => SHADOWED.into(),
            Self::NoBudget(name) => format!("the budget {name} is spent"),
            Self::Improbable => format!("less probable than min_probability = {}", config.min_probability),
            Self::Beyond => {
                format!("needed later than horizon_s = {} from now: planned when it is nearer", config.horizon_s)
            }
            Self::NotWorth => "bringing it costs more than the stall that it is expected to save".into(),
            Self::NoRoom => "no room in the cache until its last use".into(),
            Self::NoRate => "the link is taken by what is worth more until it is needed".into(),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LeftOuts(BTreeMap<(VolumeId, FilePath, SiteId, Why), Folder>);

#[derive(Debug)]
struct Folder {
    only: FilePath,
    files: u64,
    bytes: u64,
}

impl LeftOuts {
    /// Counts one file's extent.
    pub(crate) fn add(&mut self, volume: &VolumeId, path: &FilePath, to: &SiteId, bytes: u64, why: &Why) {
        let folder = path.parent().unwrap_or_default();
        let entry = self.0.entry((volume.clone(), folder, to.clone(), why.clone()));
        let entry = entry.or_insert_with(|| Folder { only: path.clone(), files: 1, bytes: 0 });
        entry.bytes = entry.bytes.saturating_add(bytes);
        if entry.only != *path {
            entry.files += 1;
            entry.only = path.clone();
        }
    }

    /// One entry per folder, destination and reason; a file's own path where it is the only one.
    pub(crate) fn told(self, config: &Config) -> Vec<LeftOut> {
        let tell = |((volume, folder, to, why), told): ((VolumeId, FilePath, SiteId, Why), Folder)| LeftOut {
            volume,
            path: if told.files == 1 { told.only } else { folder },
            to,
            files: told.files,
            bytes: told.bytes,
            why: why.words(config),
        };
        self.0.into_iter().map(tell).collect()
    }
}
