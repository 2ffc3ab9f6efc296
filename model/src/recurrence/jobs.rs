//! A folder of recorded runs: `runs.csv`, `trace.csv`, and a listing of what there was at each start.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use foretide_flow::{FilePath, Timestamp, VolumeId};

use super::{PlayedRun, Series, read_text};
use crate::drawn::{Effort, Passes, Reading, Seen, readings, recognise};
use crate::error::ModelError;
use crate::habit::{Candidate, argument_slots};
use crate::history::PastUse;
use crate::ranges::Ranges;
use crate::run::FileKey;

/// A fault stands for the window around it that the kernel maps at once.
const FAULT_BYTES: u64 = 64 << 10;
/// Ranges kept for one file of a run: all that there are, here.
const FILE_RANGES: usize = usize::MAX;

/// Reads all jobs of a folder.
pub fn read(directory: &Path) -> Result<Vec<Series>, ModelError> {
    let volume = VolumeId::new("trace").expect("the name is allowed");
    let mut series: BTreeMap<String, Vec<(PlayedRun, Vec<Reading>)>> = BTreeMap::new();
    let mut uses = read_trace(&trace_file(directory), &volume)?;
    for line in lines(&directory.join("runs.csv"), 1)? {
        let (number, text, path) = line;
        let fields = cut(&text, 7).ok_or_else(|| bad(&path, number, "seven fields are wanted"))?;
        let start = seconds(&fields[2]).ok_or_else(|| bad(&path, number, "start_s is no number"))?;
        let run = fields[0].clone();
        let listing = read_listing(&directory_file(directory, &format!("listing-{run}.txt")), &volume)?;
        let sizes: HashMap<&FileKey, u64> = listing.iter().map(|c| (&c.key, c.size)).collect();
        let mut played = uses.remove(&run).unwrap_or_default();
        for u in &mut played.uses {
            u.first_s -= start;
            u.size = sizes.get(&u.key).copied().unwrap_or(u.extents.end());
            u.extents = u.extents.cut(u.size.max(1));
            u.again = u.again.cut(u.size.max(1));
        }
        let arguments = fields[6].trim_matches('"').split_whitespace().map(str::to_owned).collect();
        let at = Timestamp::from_secs_f64(start);
        let readings = readings(
            &FilePath::root(),
            &listing,
            &played.uses.iter().map(Seen::from).collect::<Vec<_>>(),
            &played.passes,
            played.last,
        );
        let run = PlayedRun { run, at, arguments, listing, uses: played.uses, drawn: None };
        series.entry(fields[1].clone()).or_default().push((run, readings));
    }
    Ok(series.into_iter().map(|(job, runs)| Series { job, runs: in_order(runs) }).collect())
}

/// Runs after whose orders were looked for in vain, one after the other, the next is looked at only briefly.
const IN_VAIN: usize = 3;

/// Runs by date, each with what is recognised of the order of its reads, by what those before it have taught.
fn in_order(mut runs: Vec<(PlayedRun, Vec<Reading>)>) -> Vec<PlayedRun> {
    runs.sort_by_key(|(run, _)| run.at);
    let mut out: Vec<PlayedRun> = Vec::with_capacity(runs.len());
    let mut in_vain = 0;
    for (mut run, readings) in runs {
        let arguments = argument_slots(&run.arguments);
        let before = out.last().and_then(|before: &PlayedRun| before.drawn.as_ref());
        let effort = if in_vain < IN_VAIN { Effort::THOROUGH } else { Effort::BRIEF };
        run.drawn = recognise(&readings, &arguments, before, effort);
        in_vain = if run.drawn.is_some() { 0 } else { in_vain + 1 };
        out.push(run);
    }
    out
}

/// Where the accesses of a folder are.
pub(super) fn trace_file(directory: &Path) -> PathBuf {
    directory_file(directory, "trace.csv")
}

/// What a run did, as it is read.
#[derive(Default)]
struct OfRun {
    /// With each file, in order of first use; `first_s` is the time of day here.
    uses: Vec<PastUse>,
    passes: Passes,
    /// The file that was opened last.
    last: Option<u32>,
    /// Opens that count as visits, of all files and of each: when the last was, and how many.
    visits: u64,
    visited: Vec<(u64, u32)>,
}

impl OfRun {
    /// A file is opened. As of a running run, an open soon after the file's last visit goes on with it.
    fn opened(&mut self, place: usize) {
        self.visited.resize(self.uses.len(), (0, 0));
        let (at, count) = &mut self.visited[place];
        if *count > 0 && self.visits - *at < self.uses.len() as u64 / 10 {
            return;
        }
        self.visits += 1;
        (*at, *count) = (self.visits, *count + 1);
        self.passes.visit(place as u32, *count);
        self.last = Some(place as u32);
    }

    /// A file is read.
    fn read(&mut self, place: usize, from: u64, to: u64) {
        let used = &mut self.uses[place];
        used.extents.read(&mut used.again, from, to, FILE_RANGES);
        self.touched(place, to - from);
    }

    /// A window of it is touched that was not mapped.
    fn faulted(&mut self, place: usize, from: u64) {
        let to = from.saturating_add(FAULT_BYTES);
        self.uses[place].extents.add(from, to, FILE_RANGES);
        self.touched(place, to - from);
    }

    fn touched(&mut self, place: usize, bytes: u64) {
        let used = &mut self.uses[place];
        used.asked_bytes = used.asked_bytes.saturating_add(bytes);
        used.visits = self.visited.get(place).map_or(1, |(_, count)| *count).max(1);
    }
}

/// What each run did.
fn read_trace(path: &Path, volume: &VolumeId) -> Result<HashMap<String, OfRun>, ModelError> {
    let mut out: HashMap<String, OfRun> = HashMap::new();
    let mut places: HashMap<(String, FileKey), usize> = HashMap::new();
    for (number, text, path) in lines(path, 1)? {
        let fields = cut(&text, 8).ok_or_else(|| bad(&path, number, "eight fields are wanted"))?;
        let at = seconds(&fields[0]).ok_or_else(|| bad(&path, number, "time_s is no number"))?;
        let parse = |i: usize, what: &str| fields[i].parse::<u64>().map_err(|_| bad(&path, number, what));
        let (offset, length) = (parse(6, "offset is no number")?, parse(7, "length is no number")?);
        let file = FilePath::new(fields[5].as_bytes()).map_err(|e| bad(&path, number, &e.to_string()))?;
        let key = FileKey { volume: volume.clone(), path: file };
        let of_run = out.entry(fields[1].clone()).or_default();
        let place = *places.entry((fields[1].clone(), key.clone())).or_insert_with(|| {
            let created = fields[4] == "create";
            let (size, visits, extents, again, asked_bytes) = (0, 0, Ranges::default(), Ranges::default(), 0);
            of_run.uses.push(PastUse { key, size, first_s: at, visits, extents, again, asked_bytes, created });
            of_run.uses.len() - 1
        });
        match fields[4].as_str() {
            "read" => of_run.read(place, offset, offset.saturating_add(length)),
            "fault" => of_run.faulted(place, offset / FAULT_BYTES * FAULT_BYTES),
            "open" => of_run.opened(place),
            "create" | "mmap" | "close" => {}
            other => return Err(bad(&path, number, &format!("op {other:?} is not known"))),
        }
    }
    Ok(out)
}

fn read_listing(path: &Path, volume: &VolumeId) -> Result<Vec<Candidate>, ModelError> {
    lines(path, 0)?
        .into_iter()
        .map(|(number, text, path)| {
            let fields = cut(&text, 3).ok_or_else(|| bad(&path, number, "three fields are wanted"))?;
            let file = FilePath::new(fields[0].as_bytes()).map_err(|e| bad(&path, number, &e.to_string()))?;
            Ok(Candidate {
                key: FileKey { volume: volume.clone(), path: file },
                size: fields[1].parse().map_err(|_| bad(&path, number, "the size is no number"))?,
                modified_at: seconds(&fields[2])
                    .map(Timestamp::from_secs_f64)
                    .ok_or_else(|| bad(&path, number, "the time of change is no number"))?,
            })
        })
        .collect()
}

fn directory_file(directory: &Path, name: &str) -> PathBuf {
    let packed = directory.join(format!("{name}.zst"));
    if packed.exists() { packed } else { directory.join(name) }
}

/// The lines of a file after its head, with their numbers.
fn lines(path: &Path, head: usize) -> Result<Vec<(usize, String, PathBuf)>, ModelError> {
    let text = read_text(path)?;
    Ok(text
        .lines()
        .enumerate()
        .skip(head)
        .filter(|(_, l)| !l.is_empty())
        .map(|(i, l)| (i + 1, l.to_owned(), path.to_owned()))
        .collect())
}

/// The fields of a line; the last takes whatever is left.
fn cut(line: &str, fields: usize) -> Option<Vec<String>> {
    let out: Vec<String> = line.splitn(fields, ',').map(str::to_owned).collect();
    (out.len() == fields).then_some(out)
}

fn seconds(text: &str) -> Option<f64> {
    text.parse().ok().filter(|s: &f64| s.is_finite())
}

fn bad(path: &Path, line: usize, why: &str) -> ModelError {
    ModelError::Trace { path: path.to_owned(), why: format!("line {line}: {why}") }
}
