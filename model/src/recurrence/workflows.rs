//! A folder of WfCommons instances (WfFormat): one file an execution.
//!
//! They tell no times of single reads: tasks are taken in an order that their graph allows, and a file counts as
//! read whole. Runs share one directory, as a recurring job's do: what earlier runs read or made is still there.
//!
//! Executions whose names differ in one number make up a series. Where several numbers vary, the one with most
//! values is taken as what makes the runs of one series (the size that a job grows in, or the number of the
//! repeat), and the others tell series apart. Runs follow each other by that number: dates of these records come
//! in several forms and often run against the sizes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use foretide_flow::{FilePath, Timestamp, VolumeId};

use super::{PlayedRun, Series, read_text};
use crate::error::ModelError;
use crate::habit::Candidate;
use crate::history::PastUse;
use crate::import::wfcommons::{CIRCLE, Document, Specification};
use crate::ranges::Ranges;
use crate::run::FileKey;
use crate::shape::shape;

/// Reads all series of a folder.
pub fn read(directory: &Path) -> Result<Vec<Series>, ModelError> {
    let mut found: BTreeMap<String, Vec<(Vec<i64>, String, PathBuf)>> = BTreeMap::new();
    let entries = std::fs::read_dir(directory)
        .map_err(|e| ModelError::Trace { path: directory.to_owned(), why: e.to_string() })?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".json.zst").or_else(|| name.strip_suffix(".json")) else { continue };
        let cut = shape(stem.as_bytes());
        let numbers = cut.slots.iter().map(|s| s.value().unwrap_or(0)).collect();
        found.entry(cut.text).or_default().push((numbers, stem.to_owned(), entry.path()));
    }
    let mut out = Vec::new();
    for (_, files) in found {
        out.extend(split(files).into_iter().map(|(job, files)| series(job, &files)).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(out)
}

/// Files of one shape, as series: by all numbers but the one with most values.
fn split(files: Vec<(Vec<i64>, String, PathBuf)>) -> Vec<(String, Vec<(String, PathBuf)>)> {
    let slots = files.first().map_or(0, |f| f.0.len());
    let values = |s: usize| files.iter().filter_map(|f| f.0.get(s)).collect::<BTreeSet<_>>().len();
    let grows = (0..slots).max_by_key(|s| values(*s));
    let mut out: BTreeMap<Vec<i64>, Vec<(i64, String, PathBuf)>> = BTreeMap::new();
    for (numbers, stem, path) in files {
        let own = grows.and_then(|s| numbers.get(s)).copied().unwrap_or(0);
        let rest = numbers.iter().enumerate().filter(|(i, _)| Some(*i) != grows).map(|(_, n)| *n).collect();
        out.entry(rest).or_default().push((own, stem, path));
    }
    out.into_values()
        .map(|mut runs| {
            // Digits with a leading zero are decimals (`005d` is 0.05 of what `5d` is): they go by text.
            let decimals = grows.is_some_and(|s| runs.iter().any(|r| digits(&r.1, s).starts_with('0')));
            if decimals {
                runs.sort_by(|a, b| a.1.cmp(&b.1));
            } else {
                runs.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            }
            let job = runs.last().map(|r| r.1.clone()).unwrap_or_default();
            (job, runs.into_iter().map(|(_, stem, path)| (stem, path)).collect())
        })
        .collect()
}

/// The n-th run of digits of a name.
fn digits(name: &str, n: usize) -> &str {
    name.split(|c: char| !c.is_ascii_digit()).filter(|d| !d.is_empty()).nth(n).unwrap_or_default()
}

fn series(job: String, files: &[(String, PathBuf)]) -> Result<Series, ModelError> {
    let volume = VolumeId::new("workflow").expect("the name is allowed");
    let mut shared: HashMap<FileKey, (u64, Timestamp)> = HashMap::new();
    let mut runs = Vec::new();
    for (i, (stem, path)) in files.iter().enumerate() {
        let at = Timestamp::from_secs_f64((i + 1) as f64 * 86_400.0);
        let text = read_text(path)?;
        let document: Document = serde_json::from_str(&text)
            .map_err(|e| ModelError::Trace { path: path.clone(), why: format!("no WfCommons instance: {e}") })?;
        let uses = uses(&document.workflow.specification, &volume, path)?;
        // A run finds its inputs as it reads them: one that an earlier run knew with another size was put there anew.
        for used in uses.iter().filter(|u| !u.created) {
            let put = (used.size, Timestamp(at.0 - 1_000_000));
            let there = shared.entry(used.key.clone()).or_insert(put);
            if there.0 != put.0 {
                *there = put;
            }
        }
        let mut listing: Vec<Candidate> = shared
            .iter()
            .map(|(key, (size, modified_at))| Candidate { key: key.clone(), size: *size, modified_at: *modified_at })
            .collect();
        listing.sort_by(|a, b| a.key.cmp(&b.key));
        for used in uses.iter().filter(|u| u.created) {
            shared.insert(used.key.clone(), (used.size, Timestamp(at.0 + 1_000_000)));
        }
        runs.push(PlayedRun { run: stem.clone(), at, arguments: Vec::new(), listing, uses, drawn: None });
    }
    Ok(Series { job, runs })
}

/// What a run reads and makes, task by task.
fn uses(of: &Specification, volume: &VolumeId, path: &Path) -> Result<Vec<PastUse>, ModelError> {
    let sizes: HashMap<&str, u64> = of.files.iter().map(|f| (f.id.as_str(), f.size_in_bytes)).collect();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut out: Vec<PastUse> = Vec::new();
    let bad = |why: String| ModelError::Trace { path: path.to_owned(), why };
    let tasks = of.in_order().ok_or_else(|| bad(CIRCLE.into()))?;
    for (turn, task) in tasks.into_iter().enumerate() {
        let reads = task.input_files.iter().map(|f| (f, false));
        let makes = task.output_files.iter().map(|f| (f, true));
        for (name, made) in reads.chain(makes) {
            let size = sizes.get(name.as_str()).copied().unwrap_or(0);
            let file = FilePath::new(name.trim_start_matches('/').as_bytes())
                .map_err(|e| bad(format!("task {}: {e}", task.id)))?;
            let place = *places.entry(name).or_insert_with(|| {
                let key = FileKey { volume: volume.clone(), path: file };
                let first_s = turn as f64;
                let (visits, extents, again, asked_bytes) = (0, Ranges::default(), Ranges::default(), 0);
                out.push(PastUse { key, size, first_s, visits, extents, again, asked_bytes, created: made });
                out.len() - 1
            });
            if !made {
                out[place].visits = 1;
                out[place].extents = Ranges::one(0, size);
                out[place].asked_bytes += size;
            }
        }
    }
    Ok(out)
}
