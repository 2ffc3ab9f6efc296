//! What the demo shows at its end: the table, the same as JSON, the verdict, and in words what was learned.

use std::fmt::Write as _;

use foretide_flow::Profile;
use foretide_model::profiles::order_in_words;
use serde::Serialize;

use super::house::LinkShape;

/// AU of a scene with data in place, against `local`'s.
const AU_SHARE_OF_LOCAL: f64 = 0.97;
/// Time to its first batch, against `local`'s.
const FIRST_BATCH_TIMES_LOCAL: f64 = 1.2;
/// Wall time of a job never seen before, against the floor.
const COLD_TIMES_FLOOR: f64 = 1.25;

/// One row.
#[derive(Clone, Debug, Serialize)]
pub struct Scene {
    /// Its name.
    pub name: &'static str,
    /// Accelerator utilisation, first step left out.
    pub au: f64,
    /// The job's wall time, seconds.
    pub wall_s: f64,
    /// Waiting for batches beyond what local files cost, seconds.
    pub stall_s: f64,
    /// From the job's start to its first batch, seconds.
    pub first_batch_s: f64,
    /// Bytes that crossed the link toward the GPU site.
    pub bytes_moved: u64,
    /// Bytes read that had been prefetched in time / bytes read.
    pub coverage: Option<f64>,
    /// Prefetched bytes that were read before eviction / prefetched bytes; none where nothing was prefetched.
    pub precision: Option<f64>,
    /// Prefetched bytes that nobody read.
    pub wasted_bytes: u64,
}

#[derive(Serialize)]
struct Link {
    rtt_ms: f64,
    rate_bits_per_s: u64,
}

/// Files and bytes of one data set.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DatasetSize {
    /// Files.
    pub files: usize,
    /// Bytes.
    pub bytes: u64,
}

/// All rows and what they are judged by.
#[derive(Serialize)]
pub struct Report {
    link: Link,
    dataset: DatasetSize,
    /// The least that any way of working could take: max(compute time, bytes that must cross / link rate).
    floor_s: f64,
    /// Rows in the order of the scenes.
    pub scenes: Vec<Scene>,
}

impl Report {
    /// A report without rows. `compute_s` is the accelerator's time in one job.
    pub fn new(link: LinkShape, dataset: DatasetSize, compute_s: f64) -> Self {
        Self {
            link: Link { rtt_ms: link.rtt.as_secs_f64() * 1e3, rate_bits_per_s: link.rate.0 },
            dataset,
            floor_s: compute_s.max(link.rate.seconds_for(dataset.bytes)),
            scenes: Vec::new(),
        }
    }

    fn scene(&self, name: &str) -> Option<&Scene> {
        self.scenes.iter().find(|s| s.name == name)
    }

    /// What the demo must show and does not; empty if all holds.
    pub fn shortcomings(&self) -> Vec<String> {
        let Some(local) = self.scene("local") else { return vec!["local: did not run".into()] };
        let mut found = Vec::new();
        for scene in ["recurring", "warmup"].into_iter().filter_map(|name| self.scene(name)) {
            if scene.au < AU_SHARE_OF_LOCAL * local.au {
                found.push(format!(
                    "{}: AU {:.3} is below {AU_SHARE_OF_LOCAL} of local's {:.3}",
                    scene.name, scene.au, local.au
                ));
            }
            if scene.first_batch_s > FIRST_BATCH_TIMES_LOCAL * local.first_batch_s {
                found.push(format!(
                    "{}: first batch after {:.3} s, local's after {:.3} s, at most {FIRST_BATCH_TIMES_LOCAL} times that is wanted",
                    scene.name, scene.first_batch_s, local.first_batch_s
                ));
            }
        }
        if let Some(cold) = self.scene("cold") {
            let crossing_s = self.dataset.bytes as f64 * 8.0 / self.link.rate_bits_per_s as f64;
            let allowed = COLD_TIMES_FLOOR * local.wall_s.max(crossing_s);
            if cold.wall_s > allowed {
                found.push(format!("cold: {:.1} s, at most {allowed:.1} s is wanted", cold.wall_s));
            }
        }
        found
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<10} {:>6} {:>8} {:>8} {:>12} {:>10} {:>9} {:>10} {:>9}\n",
            "scene", "AU", "wall", "stall", "first batch", "moved", "coverage", "precision", "waste"
        );
        let share = |s: Option<f64>| s.map_or("-".to_owned(), |s| format!("{:.1} %", s * 100.0));
        for s in &self.scenes {
            let _ = writeln!(
                text,
                "{:<10} {:>6.3} {:>6.1} s {:>6.1} s {:>10.3} s {:>10} {:>9} {:>10} {:>9}",
                s.name,
                s.au,
                s.wall_s,
                s.stall_s,
                s.first_batch_s,
                megabytes(s.bytes_moved),
                share(s.coverage),
                share(s.precision),
                megabytes(s.wasted_bytes)
            );
        }
        let _ = writeln!(
            text,
            "floor      {:.1} s = max(compute, {} over {} Gbit/s); round trip {} ms; {} files",
            self.floor_s,
            megabytes(self.dataset.bytes),
            self.link.rate_bits_per_s as f64 / 1e9,
            self.link.rtt_ms,
            self.dataset.files
        );
        text
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// What was learned of one workload, in words. `said_by` names the forecaster and gives its reason.
pub fn in_words(profile: &Profile, said_by: Option<(&str, &str)>) -> String {
    let order = order_in_words(profile);
    let volume = profile.volume.as_ref().map_or(String::new(), |v| format!(" below {v}:/{}", profile.root));
    let mut text = format!(
        "{}\n  reads {} files ({}) an epoch{volume}, {order}; {} runs seen",
        profile.command,
        profile.files_per_epoch,
        megabytes(profile.bytes_per_epoch),
        profile.runs
    );
    if let Some(period) = profile.calendar.period_s {
        let _ =
            write!(text, "; comes back every {period:.0} s (surely to {:.0} %)", profile.calendar.confidence * 100.0);
    }
    if let Some((forecaster, reason)) = said_by {
        let _ = write!(text, "\n  {forecaster}: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use foretide_flow::BitsPerSecond;

    use super::*;

    fn scene(name: &'static str, au: f64, wall_s: f64, first_batch_s: f64) -> Scene {
        Scene {
            name,
            au,
            wall_s,
            stall_s: 0.0,
            first_batch_s,
            bytes_moved: 0,
            coverage: None,
            precision: None,
            wasted_bytes: 0,
        }
    }

    #[test]
    fn what_falls_short_is_said_and_what_holds_is_not() {
        let link = LinkShape { rtt: Duration::from_millis(150), rate: BitsPerSecond(1_000_000_000) };
        let mut report = Report::new(link, DatasetSize { files: 10, bytes: 900_000_000 }, 20.0);
        report.scenes =
            vec![scene("local", 0.99, 20.0, 0.10), scene("cold", 0.8, 24.0, 0.5), scene("warmup", 0.98, 20.2, 0.11)];
        assert_eq!(report.shortcomings(), Vec::<String>::new());
        report.scenes.push(scene("recurring", 0.90, 22.0, 0.30));
        report.scenes[1].wall_s = 26.0;
        let told = report.shortcomings().join("\n");
        assert!(
            told.contains("recurring: AU") && told.contains("recurring: first batch") && told.contains("cold: 26.0"),
            "{told}"
        );
    }
}
