//! Profiles as values to carry about: written to a file, put together, compared, cut to size, drawn.
//!
//! A profile says nothing of what a file holds, but names and times may be more than a site wants to give away; whoever
//! exports one sees all of it in the file.

mod picture;

use std::collections::{BTreeMap, BTreeSet};

use foretide_flow::{Calendar, OrderHabit, PathTemplate, Profile, Timestamp, VolumeId, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::calendar::calendar;
use crate::error::ModelError;

pub use picture::{order_in_words, picture};

/// The format of exported profiles that this version writes and reads.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    foretide_profiles: u32,
    profiles: Vec<Profile>,
}

/// Profiles as the text of a file.
///
/// # Errors
/// [`ModelError::Profiles`] for a number that JSON cannot hold.
pub fn export(profiles: &[Profile]) -> Result<String, ModelError> {
    let file = File { foretide_profiles: FORMAT, profiles: profiles.to_vec() };
    serde_json::to_string_pretty(&file).map_err(|e| bad(e.to_string()))
}

/// The profiles that [`export`] wrote.
///
/// # Errors
/// [`ModelError::Profiles`] for text that is none, or of another format.
pub fn import(text: &str) -> Result<Vec<Profile>, ModelError> {
    let file: File = serde_json::from_str(text).map_err(|e| bad(format!("it is no file of profiles: {e}")))?;
    if file.foretide_profiles != FORMAT {
        let found = file.foretide_profiles;
        return Err(bad(format!("it has format {found} and this version reads {FORMAT}; export it again")));
    }
    Ok(file.profiles)
}

fn bad(why: String) -> ModelError {
    ModelError::Profiles { why }
}

/// What a profile says, in lines for people.
pub fn in_words(profile: &Profile) -> Vec<String> {
    let shapes = profile
        .templates
        .iter()
        .map(|t| format!("{}:/{}  {} files, {:.1} MB", t.volume, t.shape, t.files, t.bytes as f64 / 1e6));
    picture::facts(profile).into_iter().chain(shapes).collect()
}

/// All profiles of these, those of one workload put together.
pub fn merge(profiles: impl IntoIterator<Item = Profile>) -> Vec<Profile> {
    let mut out: BTreeMap<WorkloadId, Profile> = BTreeMap::new();
    for profile in profiles {
        let merged = match out.remove(&profile.workload) {
            Some(other) => merged(&other, &profile),
            None => profile,
        };
        out.insert(merged.workload.clone(), merged);
    }
    out.into_values().collect()
}

/// Two profiles of one workload, seen at two places: counts add up, medians are weighed by the runs behind them, habits
/// are those of the one that is up to date, and the calendar is reckoned anew from the starts of both.
fn merged(a: &Profile, b: &Profile) -> Profile {
    let (older, newer) = if a.updated_at <= b.updated_at { (a, b) } else { (b, a) };
    let runs = a.runs + b.runs;
    let share = if runs == 0 { 0.5 } else { newer.runs as f64 / runs as f64 };
    let mean = |of: fn(&Profile) -> f64| share * of(newer) + (1.0 - share) * of(older);
    let starts: BTreeSet<Timestamp> = a.calendar.starts.iter().chain(&b.calendar.starts).copied().collect();
    let starts: Vec<Timestamp> = starts.into_iter().collect();
    Profile {
        runs,
        accesses: a.accesses + b.accesses,
        files_per_epoch: mean(|p| p.files_per_epoch as f64).round() as u64,
        bytes_per_epoch: mean(|p| p.bytes_per_epoch as f64).round() as u64,
        epochs_per_run: mean(|p| p.epochs_per_run),
        order: if newer.order == OrderHabit::Unknown { older.order } else { newer.order },
        bytes_per_second: mean(|p| p.bytes_per_second),
        readers: mean(|p| p.readers),
        reuse: mean(|p| p.reuse),
        templates: templates(newer, older),
        calendar: calendar(&starts, newer.updated_at),
        drawn: newer.drawn.clone().or_else(|| older.drawn.clone()),
        ..newer.clone()
    }
}

/// Shapes of both, as the newer has them where it has them.
fn templates(newer: &Profile, older: &Profile) -> Vec<PathTemplate> {
    let mut out: BTreeMap<(&VolumeId, &str), &PathTemplate> = BTreeMap::new();
    for template in older.templates.iter().chain(&newer.templates) {
        out.insert((&template.volume, &template.shape), template);
    }
    let mut out: Vec<PathTemplate> = out.into_values().cloned().collect();
    out.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.shape.cmp(&b.shape)));
    out
}

/// One thing in which two sets of profiles differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Whose.
    pub workload: WorkloadId,
    /// Which fact, by its name in the file; `profile` where the whole of it is on one side only.
    pub what: String,
    /// On the first side; none if it is not there.
    pub before: Option<String>,
    /// On the second.
    pub after: Option<String>,
}

/// In what two sets of profiles differ, workload by workload and fact by fact.
///
/// # Errors
/// [`ModelError::Profiles`] for a number that JSON cannot hold.
pub fn diff(before: &[Profile], after: &[Profile]) -> Result<Vec<Difference>, ModelError> {
    let by_id = |profiles: &[Profile]| -> Result<BTreeMap<WorkloadId, BTreeMap<String, String>>, ModelError> {
        profiles.iter().map(|p| Ok((p.workload.clone(), facts(p)?))).collect()
    };
    let (before, after) = (by_id(before)?, by_id(after)?);
    let ids: BTreeSet<&WorkloadId> = before.keys().chain(after.keys()).collect();
    let mut out = Vec::new();
    for id in ids {
        match (before.get(id), after.get(id)) {
            (Some(a), Some(b)) => {
                let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                out.extend(names.into_iter().filter(|name| a.get(*name) != b.get(*name)).map(|name| Difference {
                    workload: id.clone(),
                    what: name.clone(),
                    before: a.get(name).cloned(),
                    after: b.get(name).cloned(),
                }));
            }
            (a, b) => {
                let command = |facts: &BTreeMap<String, String>| facts.get("command").cloned().unwrap_or_default();
                let (before, after) = (a.map(command), b.map(command));
                out.push(Difference { workload: id.clone(), what: "profile".to_owned(), before, after });
            }
        }
    }
    Ok(out)
}

/// A profile as names and values: each template by its shape, the calendar fact by fact, the rest as the file has it.
fn facts(profile: &Profile) -> Result<BTreeMap<String, String>, ModelError> {
    let value = serde_json::to_value(profile).map_err(|e| bad(e.to_string()))?;
    let mut out = BTreeMap::new();
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    for (name, value) in value.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("calendar", serde_json::Value::Object(calendar)) => {
                out.extend(calendar.iter().map(|(name, value)| (format!("calendar.{name}"), text(value))));
            }
            ("templates", _) => {
                let told = |t: &PathTemplate| format!("{} files, {} bytes", t.files, t.bytes);
                let named = |t: &PathTemplate| (format!("templates.{}:{}", t.volume, t.shape), told(t));
                out.extend(profile.templates.iter().map(named));
            }
            _ => {
                out.insert(name.clone(), text(value));
            }
        }
    }
    Ok(out)
}

/// The profile in so many bytes of JSON: the oldest starts go first, then the templates with the fewest bytes.
///
/// # Errors
/// [`ModelError::Profiles`] if it does not fit without any of them.
pub fn cut(profile: &Profile, most_bytes: usize) -> Result<Profile, ModelError> {
    let bytes = |p: &Profile| serde_json::to_vec(p).map(|v| v.len()).map_err(|e| bad(e.to_string()));
    let mut out = profile.clone();
    while bytes(&out)? > most_bytes {
        if out.calendar.starts.len() > LEAST_STARTS {
            out.calendar.starts.remove(0);
        } else if out.templates.pop().is_none() && out.calendar.starts.is_empty() {
            let least = bytes(&out)?;
            return Err(bad(format!("{} takes {least} bytes at least, and {most_bytes} were given", out.workload)));
        } else if out.templates.is_empty() {
            out.calendar.starts.clear();
        }
    }
    Ok(out)
}

/// Starts that are kept before templates are given up: fewer tell no period.
const LEAST_STARTS: usize = 8;
const _: () = assert!(LEAST_STARTS < Calendar::MAX_STARTS);

#[cfg(test)]
mod tests {
    use foretide_flow::{ExtentHabit, FilePath};

    use super::*;

    fn profile(workload: &str, runs: u64, updated_s: f64) -> Profile {
        let template = |shape: &str, bytes| PathTemplate {
            volume: VolumeId::new("data").unwrap(),
            shape: shape.to_owned(),
            files: 3,
            bytes,
        };
        let starts = (0..runs).map(|i| Timestamp::from_secs_f64(updated_s - 86_400.0 * (runs - i) as f64)).collect();
        Profile {
            workload: workload.into(),
            command: format!("{workload} --day #"),
            updated_at: Timestamp::from_secs_f64(updated_s),
            runs,
            accesses: 100 * runs,
            volume: Some(VolumeId::new("data").unwrap()),
            root: FilePath::parse("sales").unwrap(),
            files_per_epoch: 10 * runs,
            bytes_per_epoch: 1000,
            epochs_per_run: 1.0,
            order: OrderHabit::Sequential,
            extent: ExtentHabit::Whole,
            bytes_per_second: 5e6,
            readers: 2.0,
            reuse: 0.5,
            templates: vec![template("sales/day-#.parquet", 900), template("sales/index-#", 100 + runs)],
            calendar: Calendar { starts, ..Calendar::default() },
            drawn: None,
        }
    }

    #[test]
    fn what_is_exported_is_imported_and_other_formats_are_refused() {
        let profiles = [profile("a", 3, 1e9), profile("b", 5, 2e9)];
        let text = export(&profiles).unwrap();
        assert_eq!(import(&text).unwrap(), profiles);
        let later = text.replace("\"foretide_profiles\": 1", "\"foretide_profiles\": 9");
        assert!(import(&later).unwrap_err().to_string().contains("format 9"));
        assert!(import("{}").unwrap_err().to_string().contains("no file of profiles"));
    }

    #[test]
    fn two_of_one_workload_are_put_together_and_others_stay_apart() {
        let merged = merge([profile("a", 3, 1e9), profile("b", 5, 1e9), profile("a", 9, 1e9 + 86_400.0 * 9.0)]);
        assert_eq!(merged.len(), 2);
        let a = &merged[0];
        assert_eq!((a.runs, a.accesses, a.files_per_epoch), (12, 1200, 75));
        assert_eq!(a.calendar.starts.len(), 12);
        assert_eq!(a.calendar.period_s.map(f64::round), Some(86_400.0), "reckoned from the starts of both");
        assert_eq!(a.templates.len(), 2);
        assert_eq!(merge([profile("a", 3, 1e9)]), [profile("a", 3, 1e9)]);
    }

    #[test]
    fn differences_are_named_fact_by_fact() {
        let (before, mut after) = (profile("a", 3, 1e9), profile("a", 3, 1e9));
        assert_eq!(diff(std::slice::from_ref(&before), std::slice::from_ref(&after)).unwrap(), []);
        after.reuse = 0.75;
        after.templates.remove(1);
        let told = diff(&[before.clone(), profile("gone", 1, 1e9)], &[after]).unwrap();
        let names: Vec<&str> = told.iter().map(|d| d.what.as_str()).collect();
        assert_eq!(names, ["reuse", "templates.data:sales/index-#", "profile"]);
        assert_eq!((told[0].before.as_deref(), told[0].after.as_deref()), (Some("0.5"), Some("0.75")));
        assert_eq!((told[2].before.as_deref(), told[2].after.as_deref()), (Some("gone --day #"), None));
    }

    #[test]
    fn a_profile_is_cut_to_size_and_keeps_what_it_is_about() {
        let whole = profile("a", 60, 2e9);
        let cut_one = cut(&whole, 1200).unwrap();
        assert!(serde_json::to_vec(&cut_one).unwrap().len() <= 1200);
        assert_eq!(cut_one.calendar.starts.last(), whole.calendar.starts.last(), "the newest stay");
        assert_eq!(cut(&whole, 1 << 20).unwrap(), whole);
        assert!(cut(&whole, 100).unwrap_err().to_string().contains("bytes at least"));
    }

    #[test]
    fn the_picture_is_svg_and_shows_no_markup_of_names() {
        let mut odd = profile("a", 4, 2e9);
        odd.command = "run <b>&".to_owned();
        let svg = picture(&odd);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("run &lt;b&gt;&amp;") && svg.matches("<circle").count() == 4);
    }
}
