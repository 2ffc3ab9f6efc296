//! What a workload did: its finished runs, and the values derived from them.
//!
//! A [`RunRecord`] is what stays of a run when it has ended: its files in order of first use, with extents. The
//! last few are kept per workload (`kept_runs`); everything else known of a workload is reckoned from them.

use std::collections::{BTreeMap, VecDeque};

use foretide_flow::{
    Calendar, ExtentHabit, FilePath, OrderHabit, PathTemplate, Profile, RunId, SiteId, Timestamp, VolumeId, WorkloadId,
};
use serde::{Deserialize, Serialize};

use crate::calendar::calendar;
use crate::drawn::{Puzzle, Recognised};
use crate::namespace::Namespace;
use crate::order::{Order, order_of};
use crate::ranges::Ranges;
use crate::run::{FileKey, LiveRun, Rate};
use crate::select::Score;
use crate::shape::shape;

/// A file is read whole when at least this share of its bytes was: formats leave out paddings and footers.
pub const WHOLE_SHARE: f64 = 0.9;

/// What a finished run did with one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastUse {
    /// Which file.
    pub key: FileKey,
    /// Its size when the run read it, if known: else the end of what was read.
    pub size: u64,
    /// First access, seconds after the start of the run.
    pub first_s: f64,
    /// Passes over it.
    pub visits: u32,
    /// Which bytes were read.
    pub extents: Ranges,
    /// Which of them were read more than once; nothing in records that were kept before this was told apart.
    #[serde(default, skip_serializing_if = "Ranges::is_empty")]
    pub again: Ranges,
    /// Bytes that were asked for, repeats counted; 0 in records that were kept before this was counted.
    #[serde(default)]
    pub asked_bytes: u64,
    /// Whether the run itself made it.
    pub created: bool,
}

impl PastUse {
    /// Whether it was read from start to end.
    pub fn whole(&self) -> bool {
        self.size > 0 && self.extents.bytes() as f64 >= WHOLE_SHARE * self.size as f64
    }

    /// Whether what was read lies as if places had been drawn, each as probable as any other: as many separate ranges as
    /// draws would leave, at uneven distances, and no more asked for again than draws would hit twice. Of the next run
    /// such bytes tell nothing.
    pub fn drawn(&self) -> bool {
        /// Fewer ranges than this may lie in any way.
        const LEAST_RANGES: usize = 16;
        /// Of the ranges that draws would leave.
        const RANGES_SHARE: f64 = 0.5;
        /// Deviation of the distances from their mean, as a share of it: 0 for a stride, about 1 for draws.
        const UNEVEN: f64 = 0.5;
        /// Times the repeats of draws: above it some places are asked for more than others.
        const REPEATS: f64 = 1.5;
        let (ranges, read) = (self.extents.as_slice(), self.extents.bytes() as f64);
        if ranges.len() < LEAST_RANGES || self.whole() || self.size < self.extents.end() {
            return false;
        }
        let mut lengths: Vec<u64> = ranges.iter().map(|(from, to)| to - from).collect();
        lengths.sort_unstable();
        // In units of the usual length: how many runs of units there are if any are as probable as any others.
        let usual = lengths[lengths.len() / 2] as f64;
        let (units, all) = (read / usual, self.size as f64 / usual);
        let left_by_draws = units * (all - units + 1.0) / all;
        let gaps: Vec<f64> = ranges.windows(2).map(|pair| (pair[1].0 - pair[0].1) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|g| (g - mean) * (g - mean)).sum::<f64>() / gaps.len() as f64).sqrt();
        let share = read / self.size as f64;
        let asked = (self.asked_bytes as f64).max(read) / read;
        ranges.len() as f64 >= RANGES_SHARE * left_by_draws
            && deviation >= UNEVEN * mean
            && asked <= REPEATS * -(1.0 - share).ln() / share
    }
}

/// A finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its name.
    pub run: RunId,
    /// Where it ran.
    pub site: SiteId,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Numbers of its command line, where they are known.
    #[serde(default)]
    pub numbers: Vec<Option<u32>>,
    /// What it read and made, in order of first use.
    pub uses: Vec<PastUse>,
    /// Passes over its files.
    pub epochs: u32,
    /// Rate while it did not wait, if it read enough to tell.
    pub rate: Option<Rate>,
    /// Readers side by side.
    pub readers: u32,
    /// Order of its files.
    pub order: Order,
    /// Of a set of files that it was recognised to read, the share it had read at its end.
    pub read_out: Option<f64>,
    /// Accesses.
    pub accesses: u64,
    /// In which drawn order it was recognised to read.
    #[serde(default)]
    pub drawn: Option<Recognised>,
}

impl RunRecord {
    /// What stays of a run.
    pub fn of(run: &LiveRun, ended_at: Timestamp, names: &Namespace) -> Self {
        let uses = run
            .files()
            .iter()
            .filter(|f| f.visits > 0 || f.created)
            .map(|f| PastUse {
                key: f.key.clone(),
                size: names.file(&f.key.volume, &f.key.path).map_or(f.extents.end(), |n| n.size),
                first_s: f.first_at.since(run.started_at).as_secs_f64(),
                visits: f.visits,
                extents: f.extents.clone(),
                again: f.again.clone(),
                asked_bytes: f.bytes,
                created: f.created,
            })
            .collect();
        Self {
            run: run.run.clone(),
            site: run.site.clone(),
            started_at: run.started_at,
            ended_at,
            numbers: run.numbers.clone(),
            uses,
            epochs: run.epochs(),
            rate: run.rate(),
            readers: run.readers().max(run.processes() as u32),
            order: order_of(run, names),
            read_out: None,
            accesses: run.accesses,
            drawn: None,
        }
    }

    /// Files that it read and had not made itself: what could have been there before.
    pub fn external(&self) -> impl Iterator<Item = &PastUse> {
        self.uses.iter().filter(|u| u.visits > 0 && !u.created)
    }

    /// Different bytes read of files it had not made.
    pub fn external_bytes(&self) -> u64 {
        self.external().map(|u| u.extents.bytes()).sum()
    }
}

/// What is known of one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Its identity.
    pub id: WorkloadId,
    /// Its command with variable parts as `#`.
    pub command: String,
    /// Where it ran last.
    pub site: SiteId,
    /// Runs seen to start.
    pub runs: u64,
    /// Runs seen to end that read something.
    pub finished: u64,
    /// Accesses seen in finished runs.
    pub accesses: u64,
    /// Last access or start.
    pub last_at: Timestamp,
    /// Starts, oldest first, at most [`Calendar::MAX_STARTS`].
    pub starts: Vec<Timestamp>,
    /// Finished runs that read something, oldest first.
    pub records: VecDeque<RunRecord>,
    /// How each forecaster did.
    pub scores: BTreeMap<String, Score>,
    /// Finished runs that are kept of it, where more than the configuration says were found to tell more.
    #[serde(default)]
    pub kept_runs: usize,
    /// The newest run whose order is still puzzled over, and what of it is known.
    #[serde(default)]
    pub puzzle: Option<(RunId, Puzzle)>,
}

impl Workload {
    /// A workload of which nothing is known.
    pub fn new(id: WorkloadId, command: String, site: SiteId, at: Timestamp) -> Self {
        Self {
            id,
            command,
            site,
            runs: 0,
            finished: 0,
            accesses: 0,
            last_at: at,
            starts: Vec::new(),
            records: VecDeque::new(),
            scores: BTreeMap::new(),
            kept_runs: 0,
            puzzle: None,
        }
    }

    /// Takes note of a start.
    pub fn started(&mut self, at: Timestamp, site: &SiteId) {
        self.runs += 1;
        self.site = site.clone();
        self.last_at = self.last_at.max(at);
        let place = self.starts.partition_point(|s| *s <= at);
        self.starts.insert(place, at);
        if self.starts.len() > Calendar::MAX_STARTS {
            self.starts.remove(0);
        }
    }

    /// Takes note of a finished run, keeping the last `most`.
    pub fn ended(&mut self, record: RunRecord, most: usize) {
        self.accesses += record.accesses;
        self.last_at = self.last_at.max(record.ended_at);
        if record.uses.is_empty() {
            return;
        }
        self.finished += 1;
        self.records.push_back(record);
        while self.records.len() > most.max(1) {
            self.records.pop_front();
        }
    }

    /// Numbers that the next run's command line is expected to have: those that stayed the same in the last two.
    pub fn next_numbers(&self) -> Vec<Option<u32>> {
        let mut newest = self.records.iter().rev().map(|r| &r.numbers);
        let Some(last) = newest.next() else { return Vec::new() };
        let Some(before) = newest.next() else { return last.clone() };
        let stayed = |(i, n): (usize, &Option<u32>)| n.filter(|n| before.get(i) == Some(&Some(*n)));
        last.iter().enumerate().map(stayed).collect()
    }

    /// When it comes back, as seen at `now`.
    pub fn calendar(&self, now: Timestamp) -> Calendar {
        calendar(&self.starts, now)
    }

    /// Probability that a run goes on to another pass after `pass`: from its finished runs, or one half more
    /// certain with each pass that came (rule of succession).
    pub fn another_pass(&self, pass: u32) -> f64 {
        let reached = self.records.iter().filter(|r| r.epochs >= pass).count() as f64;
        let further = self.records.iter().filter(|r| r.epochs > pass).count() as f64;
        if reached > 0.0 {
            (further + 0.5) / (reached + 1.0)
        } else {
            f64::from(pass.max(1)) / (f64::from(pass.max(1)) + 1.0)
        }
    }

    /// Its profile, a running run included.
    pub fn profile(&self, live: Option<&LiveRun>, names: &Namespace, now: Timestamp) -> Profile {
        let current = live.map(|l| RunRecord::of(l, l.last_at, names)).filter(|r| !r.uses.is_empty());
        let runs: Vec<&RunRecord> = self.records.iter().chain(&current).collect();
        let files: Vec<f64> = runs.iter().map(|r| r.external().count() as f64).collect();
        let bytes: Vec<f64> = runs.iter().map(|r| r.external_bytes() as f64).collect();
        let finished: Vec<f64> = self.records.iter().map(|r| f64::from(r.epochs)).collect();
        let epochs =
            if finished.is_empty() { live.map(|l| f64::from(l.pass())).into_iter().collect() } else { finished };
        let last_drawn = self.records.back().and_then(|r| r.drawn.as_ref()).filter(|d| d.believed());
        let (volume, root) = runs.last().map_or((None, FilePath::root()), |r| place(r));
        Profile {
            workload: self.id.clone(),
            command: self.command.clone(),
            updated_at: self.last_at.max(live.map_or(self.last_at, |l| l.last_at)),
            runs: self.runs,
            accesses: self.accesses + live.map_or(0, |l| l.accesses),
            volume,
            root,
            files_per_epoch: median(files) as u64,
            bytes_per_epoch: median(bytes) as u64,
            epochs_per_run: median(epochs),
            order: runs.last().map_or(OrderHabit::Unknown, |r| r.order.habit()),
            extent: runs.last().map_or(ExtentHabit::Unknown, |r| extent(r)),
            bytes_per_second: median(runs.iter().filter_map(|r| r.rate).map(|r| r.bytes_per_second).collect()),
            readers: median(runs.iter().map(|r| f64::from(r.readers)).collect()),
            reuse: self.reuse(),
            templates: runs.last().map(|r| templates(r)).unwrap_or_default(),
            calendar: self.calendar(now),
            drawn: last_drawn.map(Recognised::words),
        }
    }

    /// Share of the bytes of a run that the run before had read too, over the last runs.
    fn reuse(&self) -> f64 {
        let pairs = self.records.iter().zip(self.records.iter().skip(1));
        let shares = pairs.map(|(before, after)| {
            let old: BTreeMap<&FileKey, &Ranges> = before.external().map(|u| (&u.key, &u.extents)).collect();
            let shared: u64 = after.external().filter_map(|u| old.get(&u.key).map(|o| o.overlap(&u.extents))).sum();
            shared as f64 / after.external_bytes().max(1) as f64
        });
        median(shares.collect())
    }
}

/// The median; 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n => 0.5 * (values[(n - 1) / 2] + values[n / 2]),
    }
}

fn extent(record: &RunRecord) -> ExtentHabit {
    let (read, size) = record.external().fold((0, 0), |(r, s), u| (r + u.extents.bytes(), s + u.size));
    let whole = record.external().filter(|u| u.whole()).count();
    match record.external().count() {
        0 => ExtentHabit::Unknown,
        n if whole as f64 >= WHOLE_SHARE * n as f64 => ExtentHabit::Whole,
        _ => ExtentHabit::Partial { share: (read as f64 / size.max(1) as f64).min(1.0) },
    }
}

fn templates(record: &RunRecord) -> Vec<PathTemplate> {
    let mut shapes: BTreeMap<(VolumeId, String), (u64, u64)> = BTreeMap::new();
    for used in record.external() {
        let entry = shapes.entry((used.key.volume.clone(), shape(used.key.path.as_bytes()).text)).or_default();
        entry.0 += 1;
        entry.1 += used.extents.bytes();
    }
    let mut out: Vec<PathTemplate> = shapes
        .into_iter()
        .map(|((volume, shape), (files, bytes))| PathTemplate { volume, shape, files, bytes })
        .collect();
    out.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.shape.cmp(&b.shape)));
    out.truncate(Profile::MAX_TEMPLATES);
    out
}

/// The volume with most of its bytes, and the directory there below which nearly all of its files lie.
fn place(record: &RunRecord) -> (Option<VolumeId>, FilePath) {
    let mut volumes: BTreeMap<&VolumeId, u64> = BTreeMap::new();
    for used in record.external() {
        *volumes.entry(&used.key.volume).or_default() += used.extents.bytes().max(1);
    }
    let Some((volume, _)) = volumes.into_iter().max_by_key(|(_, b)| *b) else { return (None, FilePath::root()) };
    let paths: Vec<&FilePath> = record.external().filter(|u| &u.key.volume == volume).map(|u| &u.key.path).collect();
    (Some(volume.clone()), common_directory(&paths))
}

/// The narrowest directory that holds at least nineteen of twenty of these paths.
pub fn common_directory(paths: &[&FilePath]) -> FilePath {
    const NEARLY_ALL: f64 = 0.95;
    let Some(mut directory) = paths.get(paths.len() / 2).and_then(|p| p.parent()) else { return FilePath::root() };
    loop {
        let inside = paths.iter().filter(|p| p.is_within(&directory)).count();
        if inside as f64 >= NEARLY_ALL * paths.len() as f64 {
            return directory;
        }
        match directory.parent() {
            Some(up) => directory = up,
            None => return directory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    /// A file of 10,000 pages of which these were read, each so many times.
    fn used(pages: impl Iterator<Item = u64>, times: u64) -> PastUse {
        let mut extents = Ranges::default();
        let mut asked_bytes = 0;
        for page in pages {
            extents.add(page * PAGE, (page + 1) * PAGE, usize::MAX);
            asked_bytes += times * PAGE;
        }
        let key = FileKey { volume: VolumeId::new("v").unwrap(), path: FilePath::new(b"f").unwrap() };
        PastUse {
            key,
            size: 10_000 * PAGE,
            first_s: 0.0,
            visits: 1,
            extents,
            again: Ranges::default(),
            asked_bytes,
            created: false,
        }
    }

    fn scattered(count: u64) -> impl Iterator<Item = u64> {
        (0..count)
            .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (i << 7)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32)
            .map(|n| n % 10_000)
    }

    #[test]
    fn only_places_that_lie_like_draws_are_taken_for_draws() {
        assert!(used(scattered(1000), 1).drawn());
        assert!(!used(scattered(1000), 3).drawn(), "some places are asked for more than others");
        assert!(!used((0..1000).map(|i| 8 * i), 1).drawn(), "a stride");
        assert!(!used((0..1000).map(|i| 64 * (i / 16) + i % 16 + i / 160), 1).drawn(), "stretches");
        assert!(!used(scattered(10), 1).drawn(), "too few to tell");
        assert!(!used(0..9_500, 1).drawn(), "all of it");
    }
}
