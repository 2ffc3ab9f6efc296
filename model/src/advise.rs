//! What the model answers: forecasts that are new or changed, those withdrawn, directories it wants to know,
//! profiles that changed.
//!
//! A running run is asked about at most every `refresh_s`, and only if something was read or learned since. A
//! run to come is asked about when its start is within the horizon, again when the listing or the history
//! changed, and given up when it has not come.

use std::collections::BTreeMap;
use std::time::Duration;

use foretide_flow::{
    FilePath, Forecast, ForecastId, LearnRequest, PredictedRead, Profile, RunId, Timestamp, VolumeId, WorkloadId,
};

use crate::forecaster::Claim;
use crate::history::common_directory;
use crate::model::{Awaited, Followed, Issued, Model, follow, view};
use crate::run::{FileKey, LiveRun};
use crate::select::choose;

/// What the control plane is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advice {
    /// Forecasts, new or changed since last time.
    pub forecasts: Vec<Forecast>,
    /// Forecasts that no longer hold.
    pub withdrawn: Vec<ForecastId>,
    /// Directories whose listing would help.
    pub wanted: Vec<LearnRequest>,
    /// Profiles that changed.
    pub profiles: Vec<Profile>,
}

/// The same directory is not asked for again before this, seconds: an answer over a slow link takes a while.
const ASK_AGAIN_S: f64 = 10.0;
/// Before a run to come, its directories are asked for anew at most this often, seconds.
const LOOK_AGAIN_S: (f64, f64) = (2.0, 300.0);
/// Directories remembered as asked for; beyond this the oldest are forgotten.
const ASKED_MOST: usize = 10_000;
/// Files remembered as moved on a forecast's word.
const MOVED_MOST: usize = 2_000_000;
/// A forecast is given out anew when its reads changed by this share, or its times by this share of its reach.
const CHANGED: f64 = 0.02;
/// Visits after which the directory that they share is asked for as a whole.
const SHARED_VISITS: usize = 4;

impl Model {
    /// What there is to say at `now`.
    pub fn advise(&mut self, now: Timestamp) -> Advice {
        let mut advice = Advice::default();
        self.state.now = self.state.now.max(now);
        self.end_silent(now);
        self.withdraw_ended(now, &mut advice);
        self.puzzle();
        self.advise_running(now, &mut advice);
        self.advise_awaited(now, &mut advice);
        for id in std::mem::take(&mut self.state.changed) {
            advice.profiles.extend(self.profile(&id));
        }
        advice
    }

    /// Runs whose end was lost end when they have long been silent.
    pub(crate) fn end_silent(&mut self, now: Timestamp) {
        let silent = now - Duration::from_secs_f64(self.config.silent_run_s);
        let ended: Vec<RunId> =
            self.state.live.values().filter(|f| f.run.last_at < silent).map(|f| f.run.run.clone()).collect();
        for run in ended {
            self.finish(&run, None);
        }
    }

    fn withdraw_ended(&mut self, now: Timestamp, advice: &mut Advice) {
        let live = &self.state.live;
        self.state.issued.retain(|i| {
            let ended = i.run.as_ref().is_some_and(|r| !live.contains_key(r));
            let begun = i.run.is_none() && live.values().any(|f| f.run.workload == i.workload);
            // A forecast of a run that has just begun stands until one of the running run takes its place.
            let over = ended || (!begun && i.expires_at < now);
            if over {
                advice.withdrawn.push(i.id.clone());
            }
            !over
        });
    }

    fn advise_running(&mut self, now: Timestamp, advice: &mut Advice) {
        let pause = Duration::from_secs_f64(self.config.refresh_s);
        let due: Vec<RunId> = self
            .state
            .live
            .values()
            .filter(|f| f.stale && (f.told_at == Timestamp(i64::MIN) || f.told_at + pause <= now))
            .map(|f| f.run.run.clone())
            .collect();
        for run in due {
            self.advise_run(&run, now, advice);
        }
    }

    fn advise_run(&mut self, run: &RunId, now: Timestamp, advice: &mut Advice) {
        let Some(workload) = self.state.live.get(run).map(|f| f.run.workload.clone()) else { return };
        self.recall(&workload, Some(run), now);
        let Some(mut followed) = self.state.live.remove(run) else { return };
        self.ask_for(&followed.run, now, advice);
        self.follow_order(&mut followed);
        let mut claims = self.claims(&workload, Some(&followed), now);
        for (forecaster, told) in self.forecasters.iter().zip(&claims) {
            follow(&mut followed.shadows, forecaster.name(), told, Some(&followed.run));
        }
        for (forecaster, told) in self.forecasters.iter().zip(&mut claims) {
            if followed.shadows.get(forecaster.name()).is_some_and(|s| !s.fits()) {
                told.clear();
            }
        }
        let said = self.issue(&workload, Some(run), claims, now, advice);
        if said {
            self.drop_issued(advice, |i| i.workload == workload && i.run.is_none());
        }
        // Who has said nothing yet is asked again as soon as there is news.
        followed.told_at = if said { now } else { Timestamp(i64::MIN) };
        followed.stale = false;
        self.state.changed.insert(workload);
        self.state.live.insert(run.clone(), followed);
    }

    /// What each forecaster says, with its probabilities as they have turned out so far; nothing from the muted.
    fn claims(&self, id: &WorkloadId, followed: Option<&Followed>, now: Timestamp) -> Vec<Vec<Claim>> {
        let Some(workload) = self.state.workloads.get(id) else { return Vec::new() };
        let view = view(&self.config, &self.state, workload, followed, self.memos.get(id), now);
        self.forecasters
            .iter()
            .map(|f| {
                let mut claims = f.claim(&view);
                if let Some(score) = workload.scores.get(f.name()) {
                    for read in claims.iter_mut().flat_map(|c| &mut c.reads) {
                        read.probability = score.calibrated(read.probability);
                    }
                }
                claims
            })
            .collect()
    }

    /// Lets the best claim of each volume speak. Returns whether anything stands now.
    fn issue(
        &mut self,
        id: &WorkloadId,
        run: Option<&RunId>,
        claims: Vec<Vec<Claim>>,
        now: Timestamp,
        advice: &mut Advice,
    ) -> bool {
        let mut by_volume: BTreeMap<VolumeId, Vec<Option<Claim>>> = BTreeMap::new();
        for (i, told) in claims.into_iter().enumerate() {
            let muted = self.muted(id, i);
            for claim in told.into_iter().filter(|_| !muted) {
                let places =
                    by_volume.entry(claim.volume.clone()).or_insert_with(|| vec![None; self.forecasters.len()]);
                places[i] = Some(claim);
            }
        }
        let mut spoken: Vec<(VolumeId, String)> = Vec::new();
        for (volume, mut claims) in by_volume {
            let Some(best) = choose(&claims, &self.config) else { continue };
            let name = self.forecasters[best].name();
            if let Some(claim) = claims[best].take() {
                spoken.push((volume, name.to_owned()));
                self.give_out(id, name, claim, now, advice);
            }
        }
        // Who no longer speaks takes back what he said.
        self.drop_issued(advice, |i| {
            &i.workload == id
                && i.run.as_ref() == run
                && !spoken.iter().any(|(v, f)| *v == i.volume && *f == i.forecaster)
        });
        !spoken.is_empty()
    }

    fn muted(&self, id: &WorkloadId, forecaster: usize) -> bool {
        let name = self.forecasters[forecaster].name();
        self.state.workloads.get(id).and_then(|w| w.scores.get(name)).is_some_and(|s| s.muted(&self.config))
    }

    fn drop_issued(&mut self, advice: &mut Advice, gone: impl Fn(&Issued) -> bool) {
        self.state.issued.retain(|i| {
            if gone(i) {
                advice.withdrawn.push(i.id.clone());
            }
            !gone(i)
        });
    }

    /// Gives a claim out as a forecast, unless it says nearly what was said before.
    fn give_out(&mut self, id: &WorkloadId, name: &'static str, claim: Claim, now: Timestamp, advice: &mut Advice) {
        let least = self.config.least_probability;
        let reads: Vec<PredictedRead> = claim.reads.into_iter().filter(|r| r.probability >= least).collect();
        let Some(last_p50) = reads.iter().map(|r| r.window.p50).max() else { return };
        let same = |i: &&mut Issued| {
            i.workload == *id && i.run == claim.run && i.volume == claim.volume && i.forecaster == name
        };
        if let Some(before) = self.state.issued.iter_mut().find(same) {
            let moved = (last_p50.as_secs_f64() - before.last_p50.as_secs_f64()).abs();
            let reach = last_p50.since(now).as_secs_f64().max(1.0);
            let fewer = before.reads.abs_diff(reads.len()) as f64 > CHANGED * before.reads as f64;
            let expiring = before.expires_at <= now + Duration::from_secs_f64(4.0 * self.config.refresh_s);
            if !fewer && moved <= CHANGED * reach && !expiring {
                return;
            }
        }
        self.state
            .issued
            .retain(|i| !(i.workload == *id && i.run == claim.run && i.volume == claim.volume && i.forecaster == name));
        self.state.forecasts += 1;
        let forecast = Forecast {
            id: format!("{}-{}", name.replace('_', "-"), self.state.forecasts).into(),
            workload: id.clone(),
            run: claim.run,
            site: claim.site,
            volume: claim.volume,
            made_at: now,
            expires_at: claim.expires_at,
            forecaster: name.to_owned(),
            reason: claim.reason,
            reads,
        };
        self.remember(&forecast, last_p50);
        advice.forecasts.push(forecast);
    }

    fn remember(&mut self, forecast: &Forecast, last_p50: Timestamp) {
        for read in &forecast.reads {
            if self.state.moved_for.len() >= MOVED_MOST {
                break;
            }
            let key = FileKey { volume: forecast.volume.clone(), path: read.path.clone() };
            self.state.moved_for.insert(key, (forecast.workload.clone(), forecast.forecaster.clone()));
        }
        self.state.issued.push(Issued {
            id: forecast.id.clone(),
            workload: forecast.workload.clone(),
            run: forecast.run.clone(),
            volume: forecast.volume.clone(),
            forecaster: forecast.forecaster.clone(),
            made_at: forecast.made_at,
            expires_at: forecast.expires_at,
            reads: forecast.reads.len(),
            last_p50,
        });
    }

    /// Forecasts for workloads that are not running and are expected back.
    fn advise_awaited(&mut self, now: Timestamp, advice: &mut Advice) {
        let horizon = now + Duration::from_secs_f64(self.config.horizon_s);
        let running: std::collections::BTreeSet<&WorkloadId> =
            self.state.live.values().map(|f| &f.run.workload).collect();
        let idle: Vec<WorkloadId> = self
            .state
            .workloads
            .values()
            .filter(|w| !running.contains(&w.id) && !w.records.is_empty() && w.starts.len() > 1)
            .map(|w| w.id.clone())
            .collect();
        for id in idle {
            self.give_up_awaited(&id, now);
            let Some(calendar) = self.state.workloads.get(&id).map(|w| w.calendar(now)) else { continue };
            match calendar.next_start.filter(|s| *s <= horizon) {
                Some(start) => self.await_run(&id, start, calendar.jitter_s, now, advice),
                None => self.drop_issued(advice, |i| i.workload == id && i.run.is_none()),
            }
        }
    }

    fn await_run(&mut self, id: &WorkloadId, start: Timestamp, jitter_s: f64, now: Timestamp, advice: &mut Advice) {
        let names_seen = self.state.names_seen;
        let fresh = Awaited { told_at: Timestamp(i64::MIN), asked_at: Timestamp(i64::MIN), ..Awaited::default() };
        let mut awaited = self.state.awaited.remove(id).unwrap_or(fresh);
        self.look_again(id, &mut awaited, start, now, advice);
        if awaited.told_at == Timestamp(i64::MIN) || awaited.names_seen != names_seen || awaited.start != start {
            self.recall(id, None, now);
            let claims = self.claims(id, None, now);
            for (forecaster, told) in self.forecasters.iter().zip(&claims) {
                follow(&mut awaited.shadows, forecaster.name(), told, None);
            }
            self.issue(id, None, claims, now, advice);
            awaited.told_at = now;
            awaited.names_seen = names_seen;
            awaited.start = start;
            awaited.until = start + Duration::from_secs_f64((4.0 * jitter_s).max(5.0));
        }
        self.state.awaited.insert(id.clone(), awaited);
    }

    /// Claims on a run that did not come are waste.
    fn give_up_awaited(&mut self, id: &WorkloadId, now: Timestamp) {
        if self.state.awaited.get(id).is_none_or(|a| a.until >= now) {
            return;
        }
        let Some(awaited) = self.state.awaited.remove(id) else { return };
        if let Some(workload) = self.state.workloads.get_mut(id) {
            for (name, shadow) in &awaited.shadows {
                workload.scores.entry(name.clone()).or_default().settle(shadow);
            }
        }
        self.state.changed.insert(id.clone());
    }

    /// Before a run comes, what is new where it reads must be known.
    fn look_again(
        &mut self,
        id: &WorkloadId,
        awaited: &mut Awaited,
        start: Timestamp,
        now: Timestamp,
        advice: &mut Advice,
    ) {
        let pause = (start.since(now).as_secs_f64() / 8.0).clamp(LOOK_AGAIN_S.0, LOOK_AGAIN_S.1);
        if awaited.asked_at != Timestamp(i64::MIN) && awaited.asked_at + Duration::from_secs_f64(pause) > now {
            return;
        }
        awaited.asked_at = now;
        let Some(record) = self.state.workloads.get(id).and_then(|w| w.records.back()) else { return };
        let mut paths: BTreeMap<&VolumeId, Vec<&FilePath>> = BTreeMap::new();
        for used in record.external() {
            paths.entry(&used.key.volume).or_default().push(&used.key.path);
        }
        advice.wanted.extend(paths.into_iter().map(|(volume, paths)| LearnRequest {
            volume: volume.clone(),
            directory: common_directory(&paths),
            recursive: true,
        }));
    }

    /// Asks for the directories that a run reads in: its files' own first, and soon the one that they share,
    /// with all below.
    fn ask_for(&mut self, run: &LiveRun, now: Timestamp, advice: &mut Advice) {
        let Some(volume) = run.recent().back().map(|v| run.files()[v.file as usize].key.volume.clone()) else { return };
        let of_volume = |k: &&FileKey| k.volume == volume;
        let recent: Vec<&FileKey> =
            run.recent().iter().map(|v| &run.files()[v.file as usize].key).filter(of_volume).collect();
        let paths: Vec<&FilePath> = recent.iter().map(|k| &k.path).collect();
        let shared = common_directory(&paths);
        let parents: std::collections::BTreeSet<FilePath> = paths.iter().filter_map(|p| p.parent()).collect();
        let spread = parents.len() > 1 && paths.len() >= SHARED_VISITS;
        if spread && parents.iter().any(|p| self.state.names.listed_at(&volume, p).is_none()) {
            self.ask(volume.clone(), shared, true, now, advice);
            return;
        }
        for directory in parents {
            if self.state.names.listed_at(&volume, &directory).is_none() {
                self.ask(volume.clone(), directory, false, now, advice);
            }
        }
    }

    fn ask(&mut self, volume: VolumeId, directory: FilePath, recursive: bool, now: Timestamp, advice: &mut Advice) {
        let key = (volume.clone(), directory.clone(), recursive);
        if self.state.asked.get(&key).is_some_and(|at| *at + Duration::from_secs_f64(ASK_AGAIN_S) > now) {
            return;
        }
        self.state.asked.insert(key, now);
        if self.state.asked.len() > ASKED_MOST
            && let Some(oldest) = self.state.asked.iter().min_by_key(|(_, at)| **at).map(|(k, _)| k.clone())
        {
            self.state.asked.remove(&oldest);
        }
        advice.wanted.push(LearnRequest { volume, directory, recursive });
    }
}
