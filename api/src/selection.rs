//! Which data somebody means. However it is said ([`Said`]), it comes to the same ([`Selection`]): paths of one volume,
//! less some below them, narrowed by globs.

use std::collections::{BTreeMap, BTreeSet};

use foretide_catalog::RunFilter;
use foretide_flow::{FilePath, PathTemplate, Profile, RunId, Selector, Topology, VolumeId, WorkloadId};

use crate::Api;
use crate::error::ApiError;
use crate::wanted::{names, unknown_volume};

/// Globs of one selection, each tried on each file: more shapes than a profile shows.
const GLOBS_MAX: usize = 64;
/// Paths of one selection, named or found: a site's stores are told those of all its warm-ups whenever one changes.
const PATHS_MAX: usize = 10_000;

/// Data of one volume: below `paths`, not below `except`, of a shape that `globs` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) volume: VolumeId,
    pub(crate) paths: Vec<FilePath>,
    pub(crate) except: Vec<FilePath>,
    pub(crate) globs: Vec<String>,
}

impl Selection {
    /// Whole files and directories.
    pub(crate) fn of(volume: VolumeId, paths: Vec<FilePath>) -> Self {
        Self { volume, paths, except: Vec::new(), globs: Vec::new() }
    }

    /// What is said twice is said once, and what cannot be meant is refused.
    fn checked(mut self, topology: &Topology) -> Result<Self, ApiError> {
        if !topology.volumes.contains_key(&self.volume) {
            return Err(unknown_volume(&self.volume, topology));
        }
        if self.paths.is_empty() {
            return Err(ApiError::NoPaths);
        }
        if self.paths.len() + self.except.len() > PATHS_MAX {
            let n = self.paths.len() + self.except.len();
            return Err(ApiError::Refused(format!("it comes to {n} paths, more than {PATHS_MAX}: name a directory")));
        }
        if self.globs.len() > GLOBS_MAX || self.globs.iter().any(|g| g.len() > FilePath::MAX_BYTES) {
            let most = FilePath::MAX_BYTES;
            return Err(ApiError::WrongShape(format!("globs: give at most {GLOBS_MAX}, each of at most {most} bytes")));
        }
        let once: BTreeSet<FilePath> = std::mem::take(&mut self.paths).into_iter().collect();
        self.paths = once.into_iter().collect();
        if let Some(both) = self.paths.iter().find(|p| self.except.contains(p)) {
            return Err(ApiError::WrongShape(format!("{both} is in paths and in except")));
        }
        Selector::new(&self.paths, &self.except, &self.globs).map_err(|e| ApiError::WrongShape(e.to_string()))?;
        Ok(self)
    }
}

/// How somebody says which data is meant: by name, by tags, as what a workload reads, or as what one run of it has read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) volume: Option<VolumeId>,
    pub(crate) paths: Vec<FilePath>,
    pub(crate) except: Vec<FilePath>,
    pub(crate) globs: Vec<String>,
    pub(crate) tags: Tags,
    pub(crate) workload: Option<WorkloadId>,
    pub(crate) run: Option<RunId>,
}

/// Finds out which data is meant, once: what is tagged otherwise or read anew afterwards changes it no more.
pub(crate) async fn find(api: &Api, said: Said, topology: &Topology) -> Result<Selection, ApiError> {
    let by_name = said.volume.is_some() || !said.tags.is_empty();
    let found = match (by_name, &said.workload, &said.run) {
        (true, None, None) if said.tags.is_empty() => named(&said)?,
        (true, None, None) => tagged(api, &said, topology).await?,
        (false, Some(workload), None) => {
            let profile = api.catalog.profile(workload).await?;
            // Of a volume that the caller does not see, or that is gone, nothing has been seen.
            let seen = |p: &Profile| p.volume.as_ref().is_none_or(|v| topology.volumes.contains_key(v));
            read_by(workload, profile.filter(seen))?
        }
        (false, None, Some(run)) => {
            let found = recorded(api, run).await?;
            let unseen = || ApiError::Refused(format!("run {run} has not been seen"));
            if topology.volumes.contains_key(&found.volume) { found } else { return Err(unseen()) }
        }
        (false, None, None) => {
            return Err(ApiError::WrongShape("name a volume, tags, a workload that was seen, or a run".into()));
        }
        _ => {
            let why = "name a volume or tags, or a workload, or a run, not several of these";
            return Err(ApiError::WrongShape(why.into()));
        }
    };
    let narrowed = !said.paths.is_empty() || !said.except.is_empty() || !said.globs.is_empty();
    if narrowed && !by_name {
        let why = "paths, except and globs are of a volume: what a workload or a run reads is known";
        return Err(ApiError::WrongShape(why.into()));
    }
    found.checked(topology)
}

fn named(said: &Said) -> Result<Selection, ApiError> {
    let Some(volume) = said.volume.clone() else { return Err(ApiError::NoPaths) };
    let paths = if said.globs.is_empty() { said.paths.clone() } else { or_all(&said.paths) };
    Ok(Selection { volume, paths, except: said.except.clone(), globs: said.globs.clone() })
}

fn or_all(paths: &[FilePath]) -> Vec<FilePath> {
    if paths.is_empty() { vec![FilePath::root()] } else { paths.to_vec() }
}

/// What carries the tags, in the volume that was named or in the only one that has such data.
async fn tagged(api: &Api, said: &Said, topology: &Topology) -> Result<Selection, ApiError> {
    let volumes: Vec<&VolumeId> = said.volume.as_ref().map_or_else(|| topology.volumes.keys().collect(), |v| vec![v]);
    let mut found = Vec::new();
    for volume in volumes {
        let about = topology.volumes.get(volume).ok_or_else(|| unknown_volume(volume, topology))?;
        let own = api.catalog.tagged(volume).await?;
        let (paths, mut except) = carrying(&said.tags, &about.tags, &own, &or_all(&said.paths));
        if !paths.is_empty() {
            except.extend(said.except.iter().cloned());
            found.push(Selection { volume: volume.clone(), paths, except, globs: said.globs.clone() });
        }
    }
    let volumes = names(found.iter().map(|s| &s.volume));
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(ApiError::Refused("nothing carries these tags".into())),
        _ => Err(ApiError::Refused(format!("these tags are in several volumes: name one of {volumes}"))),
    }
}

async fn recorded(api: &Api, run: &RunId) -> Result<Selection, ApiError> {
    let filter = RunFilter { run: Some(run.clone()), ..RunFilter::default() };
    let known = api.catalog.runs(&filter, None, 1).await?.items.into_iter().next();
    let known = known.ok_or_else(|| ApiError::Refused(format!("run {run} has not been seen")))?;
    let files = api.recordings.files_read(&known, PATHS_MAX).await.map_err(ApiError::Refused)?;
    read_in(run, files)
}

/// What a workload reads: below its root, and of its shapes if all of them are known.
fn read_by(workload: &WorkloadId, profile: Option<Profile>) -> Result<Selection, ApiError> {
    let profile = profile.ok_or_else(|| ApiError::Refused(format!("workload {workload} has not been seen")))?;
    let nowhere = || ApiError::Refused(format!("workload {workload} was seen to read no volume yet"));
    let volume = profile.volume.clone().ok_or_else(nowhere)?;
    let all_known = profile.templates.len() < Profile::MAX_TEMPLATES;
    let shapes = profile.templates.iter().filter(|t| all_known && t.volume == volume);
    let globs = shapes.map(PathTemplate::glob).collect();
    Ok(Selection { globs, ..Selection::of(volume, vec![profile.root]) })
}

/// What a run has read, where that was of one volume.
fn read_in(run: &RunId, files: BTreeMap<VolumeId, BTreeSet<FilePath>>) -> Result<Selection, ApiError> {
    let mut volumes = files.into_iter();
    match (volumes.next(), volumes.next()) {
        (Some((volume, files)), None) => Ok(Selection::of(volume, files.into_iter().collect())),
        (None, _) => Err(ApiError::Refused(format!("of run {run} no read of a volume is recorded"))),
        (Some((first, _)), Some((second, _))) => Err(ApiError::Refused(format!(
            "run {run} has read of several volumes, {first} and {second} among them: ask for each by name"
        ))),
    }
}

/// Tags of one path.
pub(crate) type Tags = BTreeMap<String, String>;

/// The subtrees of a volume, below `paths`, that carry all `wanted` tags, and those within these that do not: `volume` has
/// tags itself, `own` paths have some of their own, and of one key the nearest on the way to the root holds.
fn carrying(
    wanted: &Tags,
    volume: &Tags,
    own: &BTreeMap<FilePath, Tags>,
    paths: &[FilePath],
) -> (Vec<FilePath>, Vec<FilePath>) {
    let effective = |path: &FilePath| {
        let mut above: Vec<&Tags> =
            std::iter::successors(Some(path.clone()), FilePath::parent).filter_map(|p| own.get(&p)).collect();
        above.push(volume);
        let nearest = |key: &String| above.iter().find_map(|tags| tags.get(key));
        wanted.iter().all(|(key, value)| nearest(key) == Some(value))
    };
    let below = own.keys().filter(|path| paths.iter().any(|p| path.is_within(p)));
    // A directory comes before what is in it.
    let places: BTreeSet<&FilePath> = paths.iter().chain(below).collect();
    let (mut meant, mut not_meant): (BTreeSet<FilePath>, BTreeSet<FilePath>) = Default::default();
    for path in places {
        let mut above = std::iter::successors(path.parent(), FilePath::parent);
        let inherited =
            above.find_map(|p| if meant.contains(&p) { Some(true) } else { not_meant.contains(&p).then_some(false) });
        let (carries, inherits) = (effective(path), inherited.unwrap_or(false));
        if carries != inherits {
            let side = if carries { &mut meant } else { &mut not_meant };
            side.insert(path.clone());
        }
    }
    (meant.into_iter().collect(), not_meant.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use foretide_flow::{ExtentHabit, OrderHabit, Timestamp};

    use super::*;

    #[test]
    fn tags_select_subtrees_and_what_is_tagged_otherwise_within_is_left_out() {
        let tags = |pairs: &[(&str, &str)]| -> Tags {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let path = |text: &str| FilePath::parse(text).unwrap();
        let own: BTreeMap<FilePath, Tags> = [
            (path("a"), tags(&[("set", "1")])),
            (path("a/old"), tags(&[("set", "0")])),
            (path("a/old/kept"), tags(&[("set", "1")])),
            (path("a/noted"), tags(&[("by", "eve")])),
            (path("b"), tags(&[("set", "1")])),
        ]
        .into();
        let found = |wanted: &[(&str, &str)], volume: &[(&str, &str)], below: &[&str]| {
            let below: Vec<FilePath> = below.iter().map(|p| path(p)).collect();
            let (meant, not) = carrying(&tags(wanted), &tags(volume), &own, &below);
            let text = |paths: Vec<FilePath>| paths.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            (text(meant), text(not))
        };
        assert_eq!(found(&[("set", "1")], &[], &[""]), ("a a/old/kept b".into(), "a/old".into()));
        assert_eq!(found(&[("set", "1")], &[], &["a/old"]), ("a/old/kept".into(), String::new()));
        assert_eq!(
            found(&[("set", "1")], &[], &["a/new"]),
            ("a/new".into(), String::new()),
            "it carries what is above"
        );
        assert_eq!(found(&[("by", "eve"), ("set", "1")], &[], &[""]), ("a/noted".into(), String::new()));
        let of_volume = found(&[("by", "bob")], &[("by", "bob")], &[""]);
        assert_eq!(of_volume, (String::new(), "a/noted".into()), "the volume's own tags hold where nothing is nearer");
        assert_eq!(found(&[("set", "9")], &[], &[""]), (String::new(), String::new()));
    }

    #[test]
    fn a_workload_is_its_root_and_its_shapes_while_all_of_them_are_known() {
        let volume = VolumeId::new("v").unwrap();
        let template = |n: usize| PathTemplate {
            volume: volume.clone(),
            shape: format!("train/kind{n}-#.tar"),
            files: 1,
            bytes: 1,
        };
        let of = |shapes: usize| {
            let profile = Profile {
                workload: "w".into(),
                command: String::new(),
                updated_at: Timestamp(0),
                runs: 1,
                accesses: 1,
                volume: Some(volume.clone()),
                root: FilePath::parse("train").unwrap(),
                files_per_epoch: 1,
                bytes_per_epoch: 1,
                epochs_per_run: 1.0,
                order: OrderHabit::Unknown,
                extent: ExtentHabit::Unknown,
                bytes_per_second: 1.0,
                readers: 1.0,
                reuse: 1.0,
                templates: (0..shapes).map(template).collect(),
                calendar: Default::default(),
                drawn: None,
            };
            read_by(&"w".into(), Some(profile)).unwrap()
        };
        assert_eq!(of(1).globs, ["train/kind0-*.tar"]);
        assert!(of(Profile::MAX_TEMPLATES).globs.is_empty(), "there may be shapes that are not shown");
    }

    #[test]
    fn what_is_named_twice_is_meant_once_and_nonsense_is_refused() {
        let topology = Topology {
            volumes: [(
                VolumeId::new("v").unwrap(),
                foretide_flow::Volume::at(foretide_flow::SiteId::new("s").unwrap()),
            )]
            .into(),
            ..Topology::default()
        };
        let path = |text: &str| FilePath::parse(text).unwrap();
        let of = |paths: Vec<FilePath>| Selection::of(VolumeId::new("v").unwrap(), paths);
        assert_eq!(of(vec![path("b"), path("a"), path("b")]).checked(&topology).unwrap().paths, [path("a"), path("b")]);
        let both = Selection { except: vec![path("a")], ..of(vec![path("a")]) };
        assert!(both.checked(&topology).unwrap_err().to_string().contains("paths and in except"));
        let glob = Selection { globs: vec!["a[".into()], ..of(vec![path("a")]) };
        assert!(glob.checked(&topology).unwrap_err().to_string().contains("is no glob"));
    }
}
