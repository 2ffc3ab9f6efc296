//! A set of files read whole in a fresh random order each epoch: what is left of it.
//!
//! Nothing tells which file comes next, but much tells that each will come. The candidates are the listed files
//! below the directory that the recent visits share, in groups of one directory and name shape. Two questions
//! are asked of the evidence:
//!
//! - *Is this a pass over a set at all?* No file comes again before the pass is over; draws with replacement
//!   would soon repeat. Whether recognised sets are then read out is learned over all runs (rule of
//!   succession), and for a known workload from its own runs.
//! - *Does a group belong to it?* If the group did, the recent visits would have hit it in proportion. After
//!   visits of which lambda should have fallen into a group and none did, its odds are e^-lambda to one.
//!
//! Where the order is recognised as drawn there is nothing to say here: `drawn` tells the same files, and in which order.
//!
//! Every file of the present pass is as likely to come next as any other, so all share one window, from now to
//! the end of the pass at the measured rate. Files read already come again in the next pass, if there is one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use foretide_flow::{FilePath, PredictedRead, VolumeId};

use super::{Claim, Forecaster, View, grouped, told, uniform};
use crate::history::{WHOLE_SHARE, common_directory};
use crate::order::FOLLOWED;
use crate::run::{FileKey, FileUse, LiveRun};
use crate::shape::shape;

/// See the module.
pub struct RemainingSet;

/// Share of a set's files, or of the recent visits, that counts as all of them.
const READ_OUT: f64 = 0.9;
/// Visits again, of recent ones, that are put down to a hot file or a second look.
const REPEATS_ALLOWED: usize = 2;
/// Visits that say what the habit is now.
const PRESENT_VISITS: usize = 64;
/// Share of recent files that must have been read from start to end.
const MOSTLY_WHOLE: f64 = 0.8;

/// Files of one directory and one shape of name.
#[derive(Default)]
struct Group<'a> {
    files: Vec<(&'a FilePath, u64)>,
    seen: usize,
    seen_now: usize,
    left: usize,
}

impl Forecaster for RemainingSet {
    fn name(&self) -> &'static str {
        "remaining_set"
    }

    fn claim(&self, view: &View<'_>) -> Vec<Claim> {
        let Some(run) = view.run else { return Vec::new() };
        let in_order = [view.order.by_name, view.order.as_before].into_iter().flatten().any(|s| s >= FOLLOWED);
        if view.following.is_some()
            || in_order
            || (run.visited(1) as usize) < view.config.recognise_files
            || !reads_whole(view, run)
        {
            return Vec::new();
        }
        let Some((volume, directory)) = present_place(run) else { return Vec::new() };
        let groups = groups(view, run, &volume, &directory);
        if !is_pass(run, &groups) {
            return Vec::new();
        }
        claim(view, run, volume, &directory, &groups).into_iter().collect()
    }
}

/// Whether the recent files, as far as they are done, were read from start to end.
fn reads_whole(view: &View<'_>, run: &LiveRun) -> bool {
    let sized: Vec<f64> = run
        .recent()
        .iter()
        .rev()
        .map(|v| &run.files()[v.file as usize])
        // Files that are still being read would look partial.
        .filter(|u| !u.is_open())
        .filter_map(|u| view.names.file(&u.key.volume, &u.key.path).map(|f| (u, f.size)))
        .map(|(u, size)| if size == 0 { 1.0 } else { u.extents.bytes() as f64 / size as f64 })
        .take(PRESENT_VISITS)
        .collect();
    let whole = sized.iter().filter(|s| **s >= WHOLE_SHARE).count();
    !sized.is_empty() && whole as f64 >= MOSTLY_WHOLE * sized.len() as f64
}

/// The volume and the directory that the present visits share.
fn present_place(run: &LiveRun) -> Option<(VolumeId, FilePath)> {
    let recent: Vec<&FileUse> = run.recent().iter().map(|v| &run.files()[v.file as usize]).collect();
    let volume = recent.last()?.key.volume.clone();
    let paths: Vec<&FilePath> = recent.iter().filter(|u| u.key.volume == volume).map(|u| &u.key.path).collect();
    Some((volume, common_directory(&paths)))
}

fn groups<'a>(
    view: &View<'a>,
    run: &LiveRun,
    volume: &VolumeId,
    directory: &'a FilePath,
) -> BTreeMap<String, Group<'a>> {
    let present: HashSet<&FilePath> =
        run.recent().iter().rev().take(PRESENT_VISITS).map(|v| &run.files()[v.file as usize].key.path).collect();
    let seen: HashMap<&FilePath, &FileUse> =
        run.files().iter().filter(|u| &u.key.volume == volume && u.visits > 0).map(|u| (&u.key.path, u)).collect();
    let mut groups: BTreeMap<String, Group<'a>> = BTreeMap::new();
    for (path, fact) in view.names.below(volume, directory).take(view.config.forecast_files) {
        let group = groups.entry(group_of(path)).or_default();
        group.files.push((path, fact.size));
        group.seen_now += usize::from(present.contains(path));
        match seen.get(path) {
            Some(_) => group.seen += 1,
            None => group.left += 1,
        }
    }
    groups
}

/// Directory as it is, name as its shape: `a/b3/img-17.jpg` belongs to `a/b3/img-#.jpg`.
fn group_of(path: &FilePath) -> String {
    let parent = path.parent().map(|p| p.to_string()).unwrap_or_default();
    format!("{parent}/{}", shape(path.name()).text)
}

/// Whether the run makes passes over a set: nothing comes again in a first pass; afterwards nothing new comes,
/// and no file a third time before nearly all came a second.
fn is_pass(run: &LiveRun, groups: &BTreeMap<String, Group<'_>>) -> bool {
    let recent = run.recent().len().min(PRESENT_VISITS);
    let again = run.recent().iter().rev().take(recent).filter(|v| !v.first).count();
    let pass = run.pass().max(1);
    if pass == 1 && again <= REPEATS_ALLOWED.max(recent / 20) {
        return true;
    }
    let touched = groups.values().filter(|g| g.seen > 0);
    let (seen, listed) = touched.fold((0, 0), |(s, l), g| (s + g.seen, l + g.files.len()));
    let read_out = seen as f64 >= READ_OUT * listed as f64;
    let closed = again as f64 >= READ_OUT * recent as f64;
    let visited = f64::from(run.visited(1));
    let ahead = f64::from(run.visited(pass + 1));
    let in_turn = ahead <= 0.02 * visited + 2.0 || f64::from(run.visited(pass)) >= 0.8 * visited;
    (read_out || closed) && in_turn
}

fn claim(
    view: &View<'_>,
    run: &LiveRun,
    volume: VolumeId,
    directory: &FilePath,
    groups: &BTreeMap<String, Group<'_>>,
) -> Option<Claim> {
    let rate = run.rate()?;
    let set = set_probability(view, run);
    let left: usize = groups.values().map(|g| g.left).sum();
    let present = run.recent().len().min(PRESENT_VISITS) as f64;
    let pass = run.pass().max(1);
    let mut now_reads = Vec::new();
    let mut next_reads = Vec::new();
    for group in groups.values() {
        let probability = set * belongs(group, left, present, pass);
        if probability < view.config.least_probability {
            continue;
        }
        for (path, size) in &group.files {
            let key = FileKey { volume: volume.clone(), path: (*path).clone() };
            let visits = run.file(&key).filter(|u| !u.created).map_or(0, |u| u.visits);
            if visits + 1 < pass {
                // Left out of an earlier pass: it does not belong.
                continue;
            }
            if visits < pass { now_reads.push((path, size, probability)) } else { next_reads.push((path, size)) }
        }
    }
    let total = now_reads.len() + next_reads.len();
    if total == 0 {
        return None;
    }
    let pass_s = now_reads.len() as f64 / rate.files_per_second;
    let epoch_s = total as f64 / rate.files_per_second;
    let this_pass = uniform(run.last_at, 0.0, pass_s);
    let next_pass = uniform(run.last_at, pass_s, pass_s + epoch_s);
    let further = view.workload.another_pass(pass);
    let read = |path: &FilePath, size: u64, probability, window| PredictedRead {
        path: path.clone(),
        offset: 0,
        length: size,
        probability,
        window,
    };
    let reason = reason(directory, total, run, next_reads.len(), now_reads.len());
    let mut reads: Vec<PredictedRead> = now_reads.iter().map(|(p, s, q)| read(p, **s, *q, this_pass)).collect();
    if set * further >= view.config.least_probability {
        reads.extend(next_reads.iter().map(|(p, s)| read(p, **s, set * further, next_pass)));
    }
    if reads.is_empty() {
        return None;
    }
    Some(Claim {
        run: Some(run.run.clone()),
        site: run.site.clone(),
        volume,
        expires_at: next_pass.p90.max(view.now) + Duration::from_secs(60),
        reason,
        reads,
    })
}

fn reason(directory: &FilePath, total: usize, run: &LiveRun, seen: usize, left: usize) -> String {
    let order =
        if run.pass() > 1 { "read whole in a fresh random order each epoch" } else { "read whole in random order" };
    format!(
        "{} files under {} {order}; epoch {}: {} of {} seen, {} remain",
        grouped(total),
        told(directory),
        run.pass().max(1),
        grouped(seen),
        grouped(total),
        grouped(left)
    )
}

/// Of the groups of files that a run touched, the share of files it read by its end; none if no set was
/// recognised.
pub fn read_out(view: &View<'_>, run: &LiveRun) -> Option<f64> {
    if (run.visited(1) as usize) < view.config.recognise_files || !reads_whole(view, run) {
        return None;
    }
    let (volume, directory) = present_place(run)?;
    let groups = groups(view, run, &volume, &directory);
    let touched = groups.values().filter(|g| g.seen > 0);
    let (seen, listed) = touched.fold((0, 0), |(s, l), g| (s + g.seen, l + g.files.len()));
    (listed > 0).then(|| seen as f64 / listed as f64)
}

/// Probability that a recognised set is read out: what happened to recognised sets so far, and surer by far
/// once this very run has come to a second pass, or its workload has read out its set before.
fn set_probability(view: &View<'_>, run: &LiveRun) -> f64 {
    if run.pass() >= 2 {
        return 0.99;
    }
    let own: Vec<f64> = view.workload.records.iter().filter_map(|r| r.read_out).collect();
    let weight = 4.0;
    (weight * view.sets_read_out + 4.0 * own.iter().sum::<f64>()) / (weight + 4.0 * own.len() as f64)
}

/// Probability that a group belongs to the set, from how the visits fell.
fn belongs(group: &Group<'_>, left: usize, present: f64, pass: u32) -> f64 {
    if pass >= 2 {
        // The first pass is over: what it left out does not belong, file by file.
        return if group.seen == 0 { 0.0 } else { 1.0 };
    }
    if group.left == 0 || group.seen_now > 0 {
        return 1.0;
    }
    let expected = present * group.left as f64 / (left.max(1) as f64 + present);
    let prior = if group.seen > 0 { 0.9 } else { 0.6 };
    let odds = prior / (1.0 - prior) * (-expected).exp();
    odds / (1.0 + odds)
}
