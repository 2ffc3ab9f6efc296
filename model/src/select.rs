//! Who speaks: experts scored in shadow, silence among them (promise H).
//!
//! Every forecaster's claims are followed whether or not they are issued. A file that it had claimed and that
//! the run then read for the first time is a hit; what it had claimed and the run never read is waste. From
//! these a forecaster's precision per workload is known, and how its stated probabilities turn out
//! (calibration). Among the claims at hand the one that promises most seconds of stall saved, less the price of
//! what it would waste, is issued; silence promises nothing, and wins against all that promise less. Who has
//! wasted is muted until its shadow claims come true again.

use std::collections::{HashMap, VecDeque};

use foretide_flow::PredictedRead;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::forecaster::Claim;
use crate::run::FileKey;

/// How much of the past a new run leaves standing.
const FADE: f64 = 0.7;
/// Bins of stated probability.
const BINS: usize = 10;
/// Runs' worth of trust that a stated probability starts with.
const PRIOR_RUNS: f64 = 4.0;
/// First visits that tell whether a claim still fits.
const RECENT: usize = 64;
/// Fewest of them that tell anything.
const RECENT_LEAST: usize = 32;
/// Share of them that must have been claimed, or the claim no longer fits what the run does.
const RECENT_CLAIMED: f64 = 0.3;

/// How one forecaster did for one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Runs it had claims on.
    pub runs: u64,
    /// Claimed bytes that were read, faded.
    pub hit_bytes: f64,
    /// Claimed bytes that were not read, faded.
    pub wasted_bytes: f64,
    /// Bytes read that were not claimed, faded.
    pub missed_bytes: f64,
    /// Bytes that moves on its word brought and readers read.
    pub moved_hit_bytes: f64,
    /// Bytes that moves on its word brought and that left unread.
    pub moved_wasted_bytes: f64,
    /// By stated probability: runs, and in them the mean share that came true.
    bins: [(f64, f64); BINS],
    /// On the newest run held back: worth in bytes of the learned ranker, less that of the plain rules.
    pub held_back: Option<f64>,
}

impl Score {
    /// Claimed bytes that were read / claimed bytes; none if nothing was claimed yet.
    pub fn precision(&self) -> Option<f64> {
        let (hit, waste) = (self.hit_bytes + self.moved_hit_bytes, self.wasted_bytes + self.moved_wasted_bytes);
        (hit + waste > 0.0).then(|| hit / (hit + waste))
    }

    /// Bytes read that were claimed before / bytes read; none if nothing was read yet.
    pub fn coverage(&self) -> Option<f64> {
        let read = self.hit_bytes + self.missed_bytes;
        (read > 0.0).then(|| self.hit_bytes / read)
    }

    /// Whether it has wasted too much to be believed.
    pub fn muted(&self, config: &Config) -> bool {
        let wasted = self.wasted_bytes + self.moved_wasted_bytes;
        wasted >= config.mute_after_bytes as f64 && self.precision().is_some_and(|p| p < config.mute_precision)
    }

    /// A stated probability as it turns out.
    pub fn calibrated(&self, stated: f64) -> f64 {
        let (runs, came_true) = self.bins[bin(stated)];
        ((came_true + PRIOR_RUNS * stated) / (runs + PRIOR_RUNS)).clamp(0.0, 1.0)
    }

    /// Mean distance of stated and real probability over the bins in use.
    pub fn calibration_error(&self) -> Option<f64> {
        let used: Vec<(usize, (f64, f64))> = self.bins.iter().copied().enumerate().filter(|(_, b)| b.0 > 0.0).collect();
        let total: f64 = used.iter().map(|(_, b)| b.0).sum();
        let error = |(i, (n, hits)): &(usize, (f64, f64))| n * ((*i as f64 + 0.5) / BINS as f64 - hits / n).abs();
        (total > 0.0).then(|| used.iter().map(error).sum::<f64>() / total)
    }

    /// Takes what became of a run's claims.
    pub fn settle(&mut self, shadow: &Shadow) {
        if shadow.hit_bytes == 0 && shadow.claimed.is_empty() {
            return;
        }
        self.runs += 1;
        let unread: u64 = shadow.claimed.values().map(|c| c.bytes).sum();
        for (kept, new) in [
            (&mut self.hit_bytes, shadow.hit_bytes),
            (&mut self.wasted_bytes, unread),
            (&mut self.missed_bytes, shadow.missed_bytes),
        ] {
            *kept = *kept * FADE + new as f64;
        }
        self.moved_hit_bytes *= FADE;
        self.moved_wasted_bytes *= FADE;
        let mut claimed = shadow.came_true;
        for claim in shadow.claimed.values() {
            claimed[bin(f64::from(claim.probability))].0 += 1;
        }
        for (kept, (n, hits)) in self.bins.iter_mut().zip(claimed) {
            if n > 0 {
                *kept = (kept.0 * FADE + 1.0, kept.1 * FADE + f64::from(hits) / f64::from(n));
            }
        }
    }
}

fn bin(probability: f64) -> usize {
    ((probability * BINS as f64) as usize).min(BINS - 1)
}

/// What is claimed of one file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Claimed {
    bytes: u64,
    probability: f32,
}

/// The claims of one forecaster on one run, followed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    #[serde(with = "pairs")]
    claimed: HashMap<FileKey, Claimed>,
    hit_bytes: u64,
    missed_bytes: u64,
    /// By stated probability: files claimed that were settled, and those of them that came true.
    came_true: [(u32, u32); BINS],
    recent: VecDeque<bool>,
}

impl Shadow {
    /// Takes note of a claim. Files that the run has read are no news; `read` tells them.
    pub fn claim(&mut self, claim: &Claim, read: impl Fn(&FileKey) -> bool) {
        let mut sizes: HashMap<FileKey, Claimed> = HashMap::new();
        for r in &claim.reads {
            let key = FileKey { volume: claim.volume.clone(), path: r.path.clone() };
            let sum = sizes.entry(key).or_insert(Claimed { bytes: 0, probability: r.probability as f32 });
            sum.bytes += r.length;
        }
        for (key, new) in sizes {
            if !read(&key) {
                self.claimed.entry(key).or_insert(new);
            }
        }
    }

    /// Takes note of a first visit to a file of so many bytes.
    pub fn visited(&mut self, key: &FileKey, bytes: u64) {
        let hit = self.claimed.remove(key);
        match hit {
            Some(claim) => {
                self.hit_bytes += claim.bytes;
                let bin = &mut self.came_true[bin(f64::from(claim.probability))];
                *bin = (bin.0 + 1, bin.1 + 1);
            }
            None => self.missed_bytes += bytes,
        }
        if self.hit_bytes > 0 || !self.claimed.is_empty() {
            self.recent.push_back(hit.is_some());
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
        }
    }

    /// Whether its claims still fit what the run does: after a change of habit they do not, and it is silent
    /// until they do again.
    pub fn fits(&self) -> bool {
        let hits = self.recent.iter().filter(|h| **h).count();
        self.recent.len() < RECENT_LEAST || hits as f64 >= RECENT_CLAIMED * self.recent.len() as f64
    }
}

/// Seconds that a read is expected to save, less the price of what it may waste.
pub fn promise(read: &PredictedRead, config: &Config) -> f64 {
    let transfer = read.length as f64 / config.link_bytes_per_second;
    read.probability * (config.miss_s + transfer) - (1.0 - read.probability) * config.waste_price * transfer
}

/// The claim that promises most, by index; none if silence does. Of equals the first.
pub fn choose(claims: &[Option<Claim>], config: &Config) -> Option<usize> {
    let mut best = (None, 0.0);
    for (i, claim) in claims.iter().enumerate() {
        let promised: f64 = claim.iter().flat_map(|c| &c.reads).map(|r| promise(r, config)).sum();
        if promised > best.1 * 1.001 {
            best = (Some(i), promised);
        }
    }
    best.0
}

/// A map keyed by file as pairs in order of key: JSON has no such keys, and equal maps must give equal bytes.
pub mod pairs {
    use std::collections::HashMap;

    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::run::FileKey;

    /// Writes the pairs.
    pub fn serialize<V: Serialize, S: Serializer>(map: &HashMap<FileKey, V>, s: S) -> Result<S::Ok, S::Error> {
        let mut pairs: Vec<(&FileKey, &V)> = map.iter().collect();
        pairs.sort_by_key(|p| p.0);
        s.collect_seq(pairs)
    }

    /// Reads the pairs.
    pub fn deserialize<'de, V: DeserializeOwned, D: Deserializer<'de>>(d: D) -> Result<HashMap<FileKey, V>, D::Error> {
        Ok(Vec::<(FileKey, V)>::deserialize(d)?.into_iter().collect())
    }
}
