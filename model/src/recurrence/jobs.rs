//! A folder of recorded runs: `runs.csv`, `trace.csv`, and a listing of what there was at each start.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use foretide_flow::{FilePath, Timestamp, VolumeId};

use super::{PlayedRun, Series, read_text};
use crate::error::ModelError;
use crate::habit::Candidate;
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
    let mut series: BTreeMap<String, Vec<PlayedRun>> = BTreeMap::new();
    let mut uses = read_trace(&trace_file(directory), &volume)?;
    for line in lines(&directory.join("runs.csv"), 1)? {
        let (number, text, path) = line;
        let fields = cut(&text, 7).ok_or_else(|| bad(&path, number, "seven fields are wanted"))?;
        let start = seconds(&fields[2]).ok_or_else(|| bad(&path, number, "start_s is no number"))?;
        let run = fields[0].clone();
        let listing = read_listing(&directory_file(directory, &format!("listing-{run}.txt")), &volume)?;
        let sizes: HashMap<&FileKey, u64> = listing.iter().map(|c| (&c.key, c.size)).collect();
        let mut used = uses.remove(&run).unwrap_or_default();
        for u in &mut used {
            u.first_s -= start;
            u.size = sizes.get(&u.key).copied().unwrap_or(u.extents.end());
            u.extents = u.extents.cut(u.size.max(1));
        }
        let arguments = fields[6].trim_matches('"').split_whitespace().map(str::to_owned).collect();
        let at = Timestamp::from_secs_f64(start);
        series.entry(fields[1].clone()).or_default().push(PlayedRun { run, at, arguments, listing, uses: used });
    }
    Ok(series
        .into_iter()
        .map(|(job, mut runs)| {
            runs.sort_by_key(|r| r.at);
            Series { job, runs }
        })
        .collect())
}

/// Where the accesses of a folder are.
pub(super) fn trace_file(directory: &Path) -> PathBuf {
    directory_file(directory, "trace.csv")
}

/// What each run did with each file, in order of first use; `first_s` is the time of day here.
fn read_trace(path: &Path, volume: &VolumeId) -> Result<HashMap<String, Vec<PastUse>>, ModelError> {
    let mut out: HashMap<String, Vec<PastUse>> = HashMap::new();
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
            let (size, visits, extents, asked_bytes) = (0, 0, Ranges::default(), 0);
            of_run.push(PastUse { key, size, first_s: at, visits, extents, asked_bytes, created });
            of_run.len() - 1
        });
        let used = &mut of_run[place];
        match fields[4].as_str() {
            "read" => {
                used.extents.add(offset, offset.saturating_add(length), FILE_RANGES);
                used.asked_bytes = used.asked_bytes.saturating_add(length);
            }
            "fault" => {
                let start = offset / FAULT_BYTES * FAULT_BYTES;
                used.extents.add(start, start.saturating_add(FAULT_BYTES), FILE_RANGES);
                used.asked_bytes = used.asked_bytes.saturating_add(FAULT_BYTES);
            }
            "open" | "create" | "mmap" | "close" => {}
            other => return Err(bad(&path, number, &format!("op {other:?} is not known"))),
        }
        if matches!(fields[4].as_str(), "read" | "fault") {
            used.visits = used.visits.max(1);
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
