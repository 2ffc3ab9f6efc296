//! Why demands are not served, gathered by folder so that a plan stays readable.

use std::collections::BTreeMap;
use std::sync::Arc;

use foretide_flow::{FilePath, LeftOut, Plan, SiteId, VolumeId};

use crate::Config;

/// Most files at the top of a volume that are proposed by name: more than anybody approves one by one. What is beyond is
/// one entry of the volume's root, which nobody can approve without approving all of the volume.
const MAX_NAMED_AT_ROOT: usize = 1_000;

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
    NoLink {
        from: SiteId,
    },
    Off,
    Muted(Arc<str>),
    /// The site's clock is ahead of ours, whole seconds.
    Clock(i64),
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
            Self::Clock(ahead_s) if *ahead_s < 0 => {
                format!(
                    "the clock of the site is {} s behind: set it, for times that are told there mean nothing",
                    -ahead_s
                )
            }
            Self::Clock(ahead_s) => {
                format!(
                    "the clock of the site is {ahead_s} s ahead: set it, for times that are told there mean nothing"
                )
            }
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
pub(crate) struct LeftOuts {
    folders: BTreeMap<(VolumeId, FilePath, SiteId, Why), Folder>,
    named_at_root: usize,
}

#[derive(Debug)]
struct Folder {
    only: FilePath,
    files: u64,
    bytes: u64,
}

impl LeftOuts {
    /// Counts one file's extent.
    pub(crate) fn add(&mut self, volume: &VolumeId, path: &FilePath, to: &SiteId, bytes: u64, why: &Why) {
        let mut folder = path.parent().unwrap_or_default();
        // A proposal becomes a warm-up of what it names: the root must not stand for a few files in it.
        if folder.is_root() && matches!(why, Why::Advised | Why::Shadowed) && self.named_at_root < MAX_NAMED_AT_ROOT {
            self.named_at_root += 1;
            folder = path.clone();
        }
        let entry = self.folders.entry((volume.clone(), folder, to.clone(), why.clone()));
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
        self.folders.into_iter().map(tell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Approving what is proposed asks for what is named: never for a whole volume because of a few files at its top.
    #[test]
    fn files_at_the_top_of_a_volume_are_proposed_by_name() {
        let (volume, site) = (VolumeId::new("data").unwrap(), SiteId::new("gpu").unwrap());
        let mut left_out = LeftOuts::default();
        for path in ["a", "b", "c/1", "c/2"] {
            left_out.add(&volume, &FilePath::parse(path).unwrap(), &site, 10, &Why::Advised);
        }
        let told = |left_out: LeftOuts| left_out.told(&Config::default());
        let paths: Vec<_> = told(left_out).into_iter().map(|l| (l.path.to_string(), l.files)).collect();
        assert_eq!(paths, [("a".into(), 1), ("b".into(), 1), ("c".into(), 2)]);
        let mut many = LeftOuts::default();
        for n in 0..MAX_NAMED_AT_ROOT + 5 {
            many.add(&volume, &FilePath::parse(&format!("{n}")).unwrap(), &site, 10, &Why::Shadowed);
        }
        let told = told(many);
        assert_eq!(told.len(), MAX_NAMED_AT_ROOT + 1);
        assert_eq!(told.iter().filter(|l| l.path.is_root()).map(|l| l.files).sum::<u64>(), 5);
    }
}
