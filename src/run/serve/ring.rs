//! The ring: what was read becomes profiles and forecasts, these become a plan, and what comes of it is learned from.
//!
//! One thread owns the model and does one thing at a time: take all news, ask the model, ask the planner, write down.
//! It runs when something changed, and rests as long as [`REST_PER_WORK`] says, so that learning never takes the
//! machine from those who serve requests. The rooms decide; here their answers are carried from one to the next.
//! What would be the same at every round (forecasts, files of warm-ups, residency, shared chunks, the moves' texts) is kept
//! here and changed by news; the catalog is asked for all of it at the start only.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretide_api::{Told, mode_in_force, tell};
use foretide_catalog::limits::PAGE_ITEMS;
use foretide_catalog::{Catalog, CatalogError, ForecastFilter, ResidentFile, Topic, WarmupFilter, WarmupUpdate};
use foretide_flow::{
    AccessBatch, Forecast, ForecastId, LearnRequest, Listing, MoveId, OutcomeBatch, Plan, SiteId, Timestamp, Topology,
    Warmup, WarmupId, WarmupRequest, WarmupState,
};
use foretide_model::Model;
use foretide_planner::{Feedback, Problem, RunningMove, Solution, Supply, WarmupDemand, WarmupFile, solve_in_full};
use tokio::sync::{mpsc, watch};

use super::in_force::{differs, forget_carried};
use super::relearn::Relearning;
use super::residency::Resident;
use super::sharing::Sharing;
use super::standing::Standing;
use super::suppliers::Suppliers;
use super::warmups::{Turn, covered, left_out, turn};

/// Shortest time between two rounds: within it, what comes belongs together.
const SHORTEST_ROUND: Duration = Duration::from_millis(50);
/// Longest time between two rounds: clocks move on though nothing else does.
const LONGEST_ROUND: Duration = Duration::from_secs(1);
/// Rest after a round, in times of its own length.
const REST_PER_WORK: u32 = 2;
/// The model is written down this often, so that little is learned again after a crash.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(30);
/// Name of the model's snapshot in the catalog.
const SNAPSHOT: &str = "model";
/// News that may wait for the ring before their senders wait.
pub const NEWS_WAITING: usize = 1024;
/// Heat of a directory that a forecast or a warm-up needs, against one that is merely near.
const HEAT_NEEDED: f64 = 1.0;

/// What the ring is told.
#[derive(Debug)]
pub enum News {
    /// Somebody read.
    Accesses(AccessBatch),
    /// Directories became known.
    Listings(Vec<Listing>),
    /// Moves ended, files were read or evicted; and the files of which more or less is resident by that.
    Outcomes(OutcomeBatch, Vec<ResidentFile>),
    /// A job told what it will read; it is written down already.
    Announced(Forecast),
}

/// What a warm-up covers, and what has to be said of it as long as it is not over; nothing, mostly.
struct Expanded {
    files: Vec<WarmupFile>,
    why: String,
}

/// Why the ring cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Nothing can be written down any more.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The model's settings cannot be meant, or it cannot be written down.
    #[error(transparent)]
    Model(#[from] foretide_model::ModelError),
}

/// The model, the planner and what passes between them.
pub struct Ring {
    catalog: Arc<dyn Catalog>,
    /// As it was when the round began.
    standing: Arc<Standing>,
    standings: watch::Receiver<Arc<Standing>>,
    model: Model,
    relearning: Relearning,
    news: mpsc::Receiver<News>,
    forecasts: BTreeMap<ForecastId, Forecast>,
    warmups: BTreeMap<WarmupId, Expanded>,
    previous: Option<Plan>,
    suppliers: Suppliers,
    sharing: Sharing,
    resident: Resident,
    feedback: Feedback,
    snapshot_at: Instant,
}

impl Ring {
    /// Takes up where the last one ended: the model's snapshot and the latest plan come from the catalog. Without a snapshot
    /// that can be used, the model learns again from the lake.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn new(
        catalog: Arc<dyn Catalog>,
        standings: watch::Receiver<Arc<Standing>>,
        model: foretide_model::Config,
        suppliers: Suppliers,
        lake: PathBuf,
        news: mpsc::Receiver<News>,
    ) -> Result<Self, RingError> {
        let previous = catalog.latest_plan().await?;
        let relearning = Relearning::new(lake, model.clone());
        let model = match restored(catalog.as_ref(), model).await? {
            Some(model) => model,
            None => relearning.anew().await?,
        };
        let forecasts = standing(catalog.as_ref(), Timestamp::now()).await?;
        let standing = Arc::clone(&standings.borrow());
        Ok(Self {
            suppliers,
            sharing: Sharing::new(catalog.changes(Topic::Shared)),
            resident: Resident::default(),
            feedback: Feedback::default(),
            snapshot_at: Instant::now(),
            forecasts,
            warmups: BTreeMap::new(),
            previous,
            catalog,
            standing,
            standings,
            model,
            relearning,
            news,
        })
    }

    /// Turns until all senders of news are gone, then writes the model down.
    ///
    /// # Errors
    /// The catalog's, when it can no longer be written.
    pub async fn turn(mut self) -> Result<(), RingError> {
        let mut changes = [Topic::Warmups, Topic::Settings].map(|topic| self.catalog.changes(topic));
        loop {
            let [warmups, settings] = &mut changes;
            tokio::select! {
                heard = self.news.recv() => match heard {
                    Some(news) => self.hear(news),
                    None => return self.write_model_down().await,
                },
                _ = warmups.changed() => {}
                _ = settings.changed() => {}
                () = tokio::time::sleep(LONGEST_ROUND) => {}
            }
            tokio::time::sleep(SHORTEST_ROUND / 5).await;
            while let Ok(news) = self.news.try_recv() {
                self.hear(news);
            }
            let began = Instant::now();
            self.round(Timestamp::now()).await?;
            if self.snapshot_at.elapsed() > SNAPSHOT_EVERY {
                self.write_model_down().await?;
            }
            self.relearning.turn(&mut self.model).await;
            tokio::time::sleep((began.elapsed() * REST_PER_WORK).max(SHORTEST_ROUND)).await;
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Accesses(batch) => self.model.observe(&batch),
            News::Listings(listings) => {
                listings.iter().for_each(|l| self.model.learn(l));
                self.sharing.heed(&listings);
                self.resident.is_stale();
            }
            News::Outcomes(batch, resident) => {
                if let Some(plan) = &self.previous {
                    self.feedback.heard(&batch, plan, &self.standing.topology, Timestamp::now());
                }
                self.model.outcome(&batch);
                self.resident.change(&batch.site, resident);
            }
            News::Announced(forecast) => drop(self.forecasts.insert(forecast.id.clone(), forecast)),
        }
    }

    async fn round(&mut self, now: Timestamp) -> Result<(), CatalogError> {
        let began = Instant::now();
        let standing = Arc::clone(&self.standings.borrow_and_update());
        if !Arc::ptr_eq(&standing.rules, &self.standing.rules) {
            // What rules leave of a warm-up is found out anew.
            self.warmups.clear();
        }
        self.standing = standing;
        let Standing { topology, rules, planner, .. } = &*Arc::clone(&self.standing);
        self.ask_model(now).await?;
        let asked = began.elapsed();
        let warmups = self.demands_of_warmups(now).await?;
        self.resident.refresh(self.catalog.as_ref(), topology).await?;
        self.suppliers.refresh(self.catalog.as_ref()).await?;
        self.sharing.refresh(self.catalog.as_ref()).await?;
        let running = self.running().await?;
        let mode = mode_in_force(self.catalog.as_ref(), planner.mode).await?;
        let config = foretide_planner::Config { mode, ..planner.clone() };
        let brakes = self.feedback.brakes(&config, self.catalog.prefetch_off().await?, now);
        let topology = self.feedback.measured(topology, now);
        let supply = Supply { shared: self.sharing.chunks(), ..self.suppliers.supply(&topology, now) };
        let forecasts: Vec<Forecast> = self.forecasts.values().cloned().collect();
        let gathered = began.elapsed();
        let Solution { plan, proposed, proof } = solve_in_full(&Problem {
            forecasts: &forecasts,
            warmups: &warmups,
            topology: &topology,
            rules,
            supply: &supply,
            resident: &self.resident,
            running: &running,
            demand: &[],
            brakes: &brakes,
            previous: self.previous.as_ref(),
            now,
            seed: 0,
            config: &config,
        });
        let solved = began.elapsed();
        let moves = plan.moves.len();
        if let Some(in_force) = self.previous.as_mut().filter(|in_force| !differs(in_force, &plan, &self.resident)) {
            forget_carried(in_force, &plan);
        } else {
            self.catalog.put_plan(&plan).await?;
            tell(self.catalog.as_ref(), &Told::of_plan(&plan), now).await?;
            self.tell_etas(&plan, &warmups, now).await?;
            self.previous = Some(plan);
        }
        let written = began.elapsed();
        tracing::debug!(
            moves,
            running = running.len(),
            proposed = proposed.len(),
            gap = proof.gap(),
            model = ?asked,
            gather = ?(gathered - asked),
            solve = ?(solved - gathered),
            write = ?(written - solved),
            "a round"
        );
        Ok(())
    }

    async fn ask_model(&mut self, now: Timestamp) -> Result<(), CatalogError> {
        let advice = self.model.advise(now);
        let old = self.forecasts.values().filter(|f| f.expires_at <= now || is_replaced(f, &advice.forecasts));
        let gone: Vec<ForecastId> = advice.withdrawn.iter().chain(old.map(|f| &f.id)).cloned().collect();
        if !gone.is_empty() {
            gone.iter().for_each(|id| {
                self.forecasts.remove(id);
            });
            self.catalog.withdraw_forecasts(&gone, now).await?;
        }
        let told = advice.forecasts.len();
        if !advice.forecasts.is_empty() {
            self.catalog.put_forecasts(&advice.forecasts).await?;
            self.forecasts.extend(advice.forecasts.into_iter().map(|f| (f.id.clone(), f)));
        }
        for profile in &advice.profiles {
            self.catalog.put_profile(profile).await?;
        }
        let changed = advice.profiles.len() + gone.len() + told;
        if changed > 0 {
            tell(self.catalog.as_ref(), &Told::Forecasts { changed: changed as u64 }, now).await?;
        }
        self.satisfy(&advice.wanted, now).await
    }

    /// One directory that is known is told at once; else, and where all below is wanted as it is now, the source's agent
    /// is asked.
    async fn satisfy(&mut self, wanted: &[LearnRequest], now: Timestamp) -> Result<(), CatalogError> {
        let mut unknown = Vec::new();
        for wish in wanted {
            let known = self.catalog.directory(&wish.volume, &wish.directory).await?.filter(|_| !wish.recursive);
            match known {
                Some(listing) => self.model.learn(&listing),
                None => unknown.push(wish.clone()),
            }
        }
        if unknown.is_empty() { Ok(()) } else { self.catalog.want_learned(&unknown, HEAT_NEEDED, now).await }
    }

    /// Every warm-up that still wants something and may have it, with its files.
    async fn demands_of_warmups(&mut self, now: Timestamp) -> Result<Vec<WarmupDemand>, CatalogError> {
        let active = active_warmups(self.catalog.as_ref()).await?;
        let ids: HashSet<&WarmupId> = active.iter().map(|w| &w.id).collect();
        self.warmups.retain(|id, _| ids.contains(id));
        let mut demands = Vec::with_capacity(active.len());
        for warmup in active {
            if !self.may_begin(&warmup, now).await? {
                continue;
            }
            if !self.warmups.contains_key(&warmup.id)
                && let Some(expanded) = self.expand(&warmup, now).await?
            {
                self.warmups.insert(warmup.id.clone(), expanded);
            }
            if let Some(Expanded { files, why }) = self.warmups.get(&warmup.id) {
                if !why.is_empty() {
                    self.say(&warmup, why, now).await?;
                }
                let pin_until = warmup.pinned_until();
                demands.push(WarmupDemand {
                    id: warmup.id,
                    request: WarmupRequest { pin_until, ..warmup.request },
                    asked_at: warmup.asked_at,
                    files: files.clone(),
                });
            }
        }
        Ok(demands)
    }

    /// Whether those that it waits for have been ready. What can no longer be makes it fail.
    async fn may_begin(&self, warmup: &Warmup, now: Timestamp) -> Result<bool, CatalogError> {
        if warmup.state != WarmupState::Queued {
            return Ok(true);
        }
        let mut before = Vec::with_capacity(warmup.request.run_after.len());
        for id in &warmup.request.run_after {
            before.push((id, self.catalog.warmup(id).await?));
        }
        match turn(&before) {
            Turn::Now => Ok(true),
            Turn::Later(why) => self.say(warmup, &why, now).await.map(|()| false),
            Turn::Never(why) => self.fail(&warmup.id, why, now).await.map(|()| false),
        }
    }

    /// The files that a warm-up covers, once all of its directories are known; until then they are asked for. One that
    /// covers nothing, or of which rules leave less than was asked for, fails.
    async fn expand(&self, warmup: &Warmup, now: Timestamp) -> Result<Option<Expanded>, CatalogError> {
        let Ok(selector) = warmup.request.selector() else {
            self.fail(&warmup.id, "its globs are not understood by this version".into(), now).await?;
            return Ok(None);
        };
        let (volume, mut sizes, mut complete) = (&warmup.request.volume, BTreeMap::new(), true);
        for path in &warmup.request.paths {
            if !self.catalog.totals(volume, path).await?.complete {
                if self.catalog.denied_since(volume, path, warmup.asked_at).await? {
                    continue;
                }
                let wish = LearnRequest { volume: volume.clone(), directory: path.clone(), recursive: true };
                self.catalog.want_learned(&[wish], HEAT_NEEDED, now).await?;
                complete = false;
                continue;
            }
            let mut after = None;
            loop {
                let page = self.catalog.files_below(volume, path, after.as_ref(), PAGE_ITEMS).await?;
                let ended = page.len() < PAGE_ITEMS;
                after = page.last().map(|e| e.path.clone());
                sizes.extend(page.into_iter().filter(|e| selector.covers(&e.path)).map(|e| (e.path, e.size)));
                if ended {
                    break;
                }
            }
        }
        if !complete {
            self.say(warmup, "its directories are being listed at the source", now).await?;
            return Ok(None);
        }
        let files: Vec<WarmupFile> = sizes.into_iter().map(|(path, bytes)| WarmupFile { path, bytes }).collect();
        let bytes = files.iter().map(|f| f.bytes).sum();
        // Of what covers nothing, all would be counted as there (promise C).
        let required = (!files.is_empty()).then_some((bytes, files.len() as u64));
        match covered(&warmup.request, &files, &self.standing.rules, &self.standing.topology, now) {
            Err(why) => self.fail_of(&warmup.id, required, why, now).await.map(|()| None),
            Ok(why) => {
                let update = WarmupUpdate { required, why: Some(why.clone()), ..WarmupUpdate::default() };
                let known = self.catalog.update_warmup(&warmup.id, &update, now).await?;
                Ok((known.state != WarmupState::Failed).then_some(Expanded { files, why }))
            }
        }
    }

    /// Says why it is where it is, if that was not said.
    async fn say(&self, warmup: &Warmup, why: &str, now: Timestamp) -> Result<(), CatalogError> {
        if warmup.why.as_deref().unwrap_or_default() == why {
            return Ok(());
        }
        let update = WarmupUpdate { why: Some(why.to_owned()), ..WarmupUpdate::default() };
        self.catalog.update_warmup(&warmup.id, &update, now).await.map(drop)
    }

    /// Makes it fail. One that was ready, or that somebody took back meanwhile, stays as it is.
    async fn fail(&self, id: &WarmupId, why: String, now: Timestamp) -> Result<(), CatalogError> {
        self.fail_of(id, None, why, now).await
    }

    /// The same, with the bytes and files that it would have required.
    async fn fail_of(
        &self,
        id: &WarmupId,
        required: Option<(u64, u64)>,
        why: String,
        now: Timestamp,
    ) -> Result<(), CatalogError> {
        let state = Some(WarmupState::Failed);
        let update = WarmupUpdate { required, state, why: Some(why), ..WarmupUpdate::default() };
        let failed = match self.catalog.update_warmup(id, &update, now).await {
            Err(CatalogError::Refused { .. } | CatalogError::NotFound { .. }) => return Ok(()),
            told => told?,
        };
        tell(self.catalog.as_ref(), &Told::Warmup(failed.into()), now).await
    }

    /// A warm-up is expected to be ready when the last of its moves is due to arrive at the planned rate.
    async fn tell_etas(&self, plan: &Plan, warmups: &[WarmupDemand], now: Timestamp) -> Result<(), CatalogError> {
        for warmup in warmups {
            let moves = plan
                .moves
                .iter()
                .filter(|m| matches!(&m.cause, foretide_flow::MoveCause::Warmup { warmup: id } if id == &warmup.id));
            let (mut bytes, mut last_start, mut link) = (0, now, None);
            for m in moves {
                bytes += m.length;
                last_start = last_start.max(m.start_at);
                link = self.standing.topology.link(&m.from, &m.to).or(link);
            }
            if let Some(link) = link {
                let crossing = Duration::from_secs_f64(link.rate.seconds_for(bytes) + link.rtt_ms / 1e3);
                let eta = (now + crossing).max(last_start);
                let plan = Some(plan.id.clone());
                let update = WarmupUpdate { eta: Some(Some(eta)), plan, ..WarmupUpdate::default() };
                self.catalog.update_warmup(&warmup.id, &update, now).await?;
            } else if let Some(why) = left_out(plan, &warmup.request)
                && let Some(waiting) = self.catalog.warmup(&warmup.id).await?
                && waiting.state != WarmupState::Ready
            {
                self.say(&waiting, &why, now).await?;
            }
        }
        Ok(())
    }

    /// What agents carry out now, as the plan in force says it.
    async fn running(&self) -> Result<Vec<RunningMove>, CatalogError> {
        let handed_out: HashSet<MoveId> = self.catalog.running().await?.into_iter().collect();
        let moves = self.previous.iter().flat_map(|plan| &plan.moves).filter(|m| handed_out.contains(&m.id));
        Ok(moves.map(|m| RunningMove { left_bytes: m.length, planned: m.clone() }).collect())
    }

    async fn write_model_down(&mut self) -> Result<(), RingError> {
        self.snapshot_at = Instant::now();
        self.catalog.put_model(SNAPSHOT, &self.model.snapshot()?, Timestamp::now()).await?;
        Ok(())
    }
}

/// All warm-ups that are not over.
async fn active_warmups(catalog: &dyn Catalog) -> Result<Vec<Warmup>, CatalogError> {
    use WarmupState::{Degraded, Moving, Partial, Planned, Queued, Ready};
    let filter = WarmupFilter { site: None, states: vec![Queued, Planned, Moving, Partial, Degraded, Ready] };
    let (mut active, mut cursor) = (Vec::new(), None);
    loop {
        let page = catalog.warmups(&filter, cursor, PAGE_ITEMS).await?;
        active.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(active);
        }
    }
}

/// Whether a newer forecast says the same reads anew: of the same run of the same workload, there and from there.
pub fn is_replaced(old: &Forecast, new: &[Forecast]) -> bool {
    new.iter().any(|f| {
        f.id != old.id && (&f.workload, &f.run, &f.site, &f.volume) == (&old.workload, &old.run, &old.site, &old.volume)
    })
}

/// The forecasts that hold: the restored model knows that it has given them out, and will not say them again.
async fn standing(catalog: &dyn Catalog, now: Timestamp) -> Result<BTreeMap<ForecastId, Forecast>, CatalogError> {
    let filter = ForecastFilter { holding_at: Some(now), ..ForecastFilter::default() };
    let (mut forecasts, mut cursor) = (BTreeMap::new(), None);
    loop {
        let page = catalog.forecasts(&filter, true, cursor, PAGE_ITEMS).await?;
        forecasts.extend(page.items.into_iter().map(|f| (f.id.clone(), f)));
        cursor = page.next;
        if cursor.is_none() {
            return Ok(forecasts);
        }
    }
}

/// The model as it was written down last, if that can be used.
async fn restored(catalog: &dyn Catalog, config: foretide_model::Config) -> Result<Option<Model>, RingError> {
    let Some(snapshot) = catalog.model(SNAPSHOT).await? else { return Ok(None) };
    match Model::restore(config, &snapshot.bytes) {
        Ok(model) => Ok(Some(model)),
        Err(error @ foretide_model::ModelError::Setting { .. }) => Err(error.into()),
        Err(error) => {
            tracing::error!(%error, "the model's snapshot cannot be used; it learns again from the lake");
            Ok(None)
        }
    }
}

/// Sites that keep copies.
pub fn cache_sites(topology: &Topology) -> impl Iterator<Item = &SiteId> {
    topology.sites.iter().filter(|(_, site)| site.cache.is_some()).map(|(name, _)| name)
}
