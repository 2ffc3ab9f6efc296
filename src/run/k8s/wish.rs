//! What a job says that it will read, in annotations of its pods. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use foretide_api::WarmupWanted;
use foretide_flow::{FilePath, IdError, OnUnready, SiteId, VolumeId};

/// What every annotation of ours begins with.
const PREFIX: &str = "foretide.dev/";
/// A job that says nothing of it waits so long.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// What a job wants, and how long it waits for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// Without a deadline: a job that waits wants it as soon as possible.
    pub wanted: WarmupWanted,
    /// So long, then it runs cold or does not run.
    pub patience: Duration,
}

/// Reads annotations; nothing if none of them is ours.
///
/// `volume` with `paths` and `globs` (commas between), or `workload`, or `run`; and `sites`, `jurisdictions`, `min-fraction`,
/// `priority`, `on-unready` (`run_cold`, `wait`, `fail`), `patience-s`, `label`.
///
/// # Errors
/// In words, with the annotation.
pub fn read<'a>(annotations: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Option<Wish>, String> {
    let ours = annotations.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.trim())));
    let ours: BTreeMap<&str, &str> = ours.collect();
    if ours.is_empty() {
        return Ok(None);
    }
    let mut wish = Wish { wanted: WarmupWanted::default(), patience: PATIENCE };
    for (name, value) in ours {
        set(&mut wish, name, value).map_err(|why| format!("annotation {PREFIX}{name} {value:?}: {why}"))?;
    }
    let wanted = &mut wish.wanted;
    if wanted.volume.is_some() && wanted.paths.is_empty() && wanted.globs.is_empty() {
        wanted.paths.push(FilePath::root());
    }
    Ok(Some(wish))
}

fn set(wish: &mut Wish, name: &str, value: &str) -> Result<(), String> {
    let wanted = &mut wish.wanted;
    let words = || value.split(',').map(str::trim).filter(|word| !word.is_empty());
    match name {
        "volume" => wanted.volume = Some(VolumeId::new(value).map_err(|e| e.to_string())?),
        "paths" => {
            let path = |word: &str| FilePath::parse(word.trim_matches('/')).map_err(|e| e.to_string());
            wanted.paths = words().map(path).collect::<Result<_, _>>()?;
        }
        "globs" => wanted.globs = words().map(str::to_owned).collect(),
        "workload" => wanted.workload = Some(value.into()),
        "run" => wanted.run = Some(value.into()),
        "sites" => {
            wanted.sites = words().map(SiteId::new).collect::<Result<_, IdError>>().map_err(|e| e.to_string())?
        }
        "jurisdictions" => wanted.jurisdictions = words().map(str::to_owned).collect(),
        "min-fraction" => wanted.min_fraction = Some(value.parse().map_err(|_| "give a share above 0, at most 1")?),
        "priority" => wanted.priority = value.parse().map_err(|_| "give -100 to 100")?,
        "on-unready" => {
            wanted.on_unready = match value {
                "run_cold" => OnUnready::RunCold,
                "wait" => OnUnready::Wait,
                "fail" => OnUnready::Fail,
                _ => return Err("give run_cold, wait or fail".into()),
            }
        }
        "patience-s" => wish.patience = Duration::from_secs(value.parse().map_err(|_| "give whole seconds")?),
        "label" => value.clone_into(&mut wanted.label),
        _ => {
            let known = "volume, paths, globs, workload, run, sites, jurisdictions, min-fraction, priority, on-unready, \
                         patience-s, label";
            return Err(format!("unknown; use {known}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotations: &[(&'static str, &'static str)]) -> Result<Option<Wish>, String> {
        read(annotations.iter().copied())
    }

    #[test]
    fn a_job_says_what_it_reads_in_annotations() {
        let wish = of(&[
            ("kubectl.kubernetes.io/last-applied", "x"),
            ("foretide.dev/volume", "imagenet"),
            ("foretide.dev/paths", "/train/, val"),
            ("foretide.dev/globs", "**/*.tar"),
            ("foretide.dev/min-fraction", "0.5"),
            ("foretide.dev/on-unready", "fail"),
            ("foretide.dev/patience-s", "60"),
        ]);
        let Wish { wanted, patience } = wish.unwrap().unwrap();
        assert_eq!(wanted.paths, ["train", "val"].map(|p| FilePath::parse(p).unwrap()));
        assert_eq!((wanted.min_fraction, wanted.on_unready, patience.as_secs()), (Some(0.5), OnUnready::Fail, 60));
        let whole = of(&[("foretide.dev/volume", "imagenet")]).unwrap().unwrap();
        assert_eq!((whole.wanted.paths, whole.patience), (vec![FilePath::root()], PATIENCE));
        assert_eq!(of(&[("other.dev/volume", "x")]), Ok(None), "a job that says nothing");
    }

    #[test]
    fn what_cannot_be_meant_is_told_with_its_annotation() {
        for (name, value, named) in [
            ("foretide.dev/volume", "Image Net", "volume"),
            ("foretide.dev/paths", "../etc", "../etc"),
            ("foretide.dev/on-unready", "panic", "run_cold"),
            ("foretide.dev/priority", "high", "-100"),
            ("foretide.dev/volumes", "x", "unknown"),
        ] {
            let told = of(&[(name, value)]).unwrap_err();
            assert!(told.contains(name) && told.contains(named), "{told}");
        }
    }
}
