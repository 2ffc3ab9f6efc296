//! Where something could be, answered at once: the planner's arithmetic over what the catalog knows now.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foretide_api::{Advice, Adviser, MoveChange, PlanChanges, Question, SiteAdvice};
use foretide_catalog::limits::PAGE_ITEMS;
use foretide_catalog::{Catalog, CatalogError, Topic};
use foretide_flow::{FilePath, LearnRequest, LeftOut, Plan, Selector, SiteId, Timestamp, Topology, VolumeId};
use foretide_planner::{
    AdviceRequest, Brakes, PlanDiff, Problem, Residency, WarmupFile, advise, diff, explain, proposals,
};
use tokio::sync::{Mutex, watch};

use super::standing::Standing;
use super::suppliers::supply_of;

/// Files looked at for one question; beyond it the answer says that it is not complete. A million is a second.
const FILES_MAX: usize = 1_000_000;
/// Heat of a directory that somebody asks about.
const HEAT_ASKED: f64 = 1.0;

/// Resident bytes by volume and file.
type FileBytes = HashMap<(VolumeId, FilePath), u64>;

/// What each site keeps, by whole files: a question asks for nothing less.
#[derive(Default)]
struct Copies(HashMap<SiteId, FileBytes>);

impl Copies {
    async fn read(catalog: &dyn Catalog, topology: &Topology) -> Result<Self, CatalogError> {
        let mut all = HashMap::new();
        for (site, _) in topology.sites.iter().filter(|(_, s)| s.cache.is_some()) {
            let files = catalog.resident(site).await?.into_iter();
            all.insert(site.clone(), files.map(|f| (f.bytes(), f)).map(|(n, f)| ((f.volume, f.path), n)).collect());
        }
        Ok(Self(all))
    }
}

impl Residency for Copies {
    fn resident_bytes(&self, site: &SiteId, volume: &VolumeId, path: &FilePath, _: u64, length: u64) -> u64 {
        let key = (volume.clone(), path.clone());
        self.0.get(site).and_then(|files| files.get(&key)).map_or(0, |bytes| (*bytes).min(length))
    }

    fn held_bytes(&self, site: &SiteId) -> u64 {
        self.0.get(site).into_iter().flat_map(HashMap::values).sum()
    }
}

/// The planner's answers. What is where is read again when outcomes changed it.
pub struct Planner {
    catalog: Arc<dyn Catalog>,
    standings: watch::Receiver<Arc<Standing>>,
    gone_after: Duration,
    copies: Mutex<(Option<Arc<Copies>>, watch::Receiver<u64>)>,
}

impl Planner {
    /// Over this catalog; an agent that was not heard of for `gone_after` gives nothing.
    pub fn new(catalog: Arc<dyn Catalog>, standings: watch::Receiver<Arc<Standing>>, gone_after: Duration) -> Self {
        let outcomes = catalog.changes(Topic::Outcomes);
        Self { catalog, standings, gone_after, copies: Mutex::new((None, outcomes)) }
    }

    async fn copies(&self, topology: &Topology) -> Result<Arc<Copies>, CatalogError> {
        let mut held = self.copies.lock().await;
        let (kept, outcomes) = &mut *held;
        let changed = outcomes.has_changed().unwrap_or(true);
        if let Some(copies) = kept.as_ref().filter(|_| !changed) {
            return Ok(Arc::clone(copies));
        }
        outcomes.mark_unchanged();
        let copies = Arc::new(Copies::read(self.catalog.as_ref(), topology).await?);
        *kept = Some(Arc::clone(&copies));
        Ok(copies)
    }

    /// The files of a question, and whether these are all. What is not known is asked of the source's agent.
    async fn files(&self, question: &Question, now: Timestamp) -> Result<(Vec<WarmupFile>, bool), CatalogError> {
        // Globs were checked when the question was taken.
        let selector = Selector::new(&question.paths, &question.except, &question.globs).ok();
        let wanted = |path: &FilePath| selector.as_ref().is_some_and(|s| s.covers(path));
        let (mut files, mut complete) = (Vec::new(), true);
        for path in &question.paths {
            if !self.catalog.totals(&question.volume, path).await?.complete {
                let wish = LearnRequest { volume: question.volume.clone(), directory: path.clone(), recursive: true };
                self.catalog.want_learned(&[wish], HEAT_ASKED, now).await?;
                complete = false;
            }
            let mut after = None;
            loop {
                let page = self.catalog.files_below(&question.volume, path, after.as_ref(), PAGE_ITEMS).await?;
                let ended = page.len() < PAGE_ITEMS;
                after = page.last().map(|e| e.path.clone());
                let meant = page.into_iter().filter(|e| wanted(&e.path));
                files.extend(meant.map(|e| WarmupFile { path: e.path, bytes: e.size }));
                if files.len() >= FILES_MAX {
                    return Ok((files, false));
                }
                if ended {
                    break;
                }
            }
        }
        Ok((files, complete))
    }
}

#[async_trait]
impl Adviser for Planner {
    fn explain(&self, plan: &Plan, path: &FilePath) -> String {
        explain(plan, path)
    }

    fn proposals(&self, plan: &Plan) -> Vec<LeftOut> {
        proposals(plan).cloned().collect()
    }

    fn changes(&self, before: &Plan, after: &Plan) -> PlanChanges {
        let PlanDiff { added, removed, changed, kept } = diff(before, after);
        let changed = changed.into_iter().map(|(now, start_before)| MoveChange { now, start_before }).collect();
        PlanChanges { added, removed, changed, kept: kept as u64 }
    }

    async fn advise(&self, question: Question, now: Timestamp) -> Result<Advice, CatalogError> {
        let (files, complete) = self.files(&question, now).await?;
        // Of paths below which nothing is known, borders can be asked all the same.
        let known = !files.is_empty();
        let asked = || question.paths.iter().map(|path| WarmupFile { path: path.clone(), bytes: 0 }).collect();
        let judged: Vec<WarmupFile> = if known { files } else { asked() };
        let previous = self.catalog.latest_plan().await?;
        let standing = Arc::clone(&self.standings.borrow());
        let copies = self.copies(&standing.topology).await?;
        let supply = supply_of(&self.catalog.agents().await?, &standing.topology, now - self.gone_after);
        let problem = Problem {
            forecasts: &[],
            warmups: &[],
            topology: &standing.topology,
            rules: &standing.rules,
            supply: &supply,
            resident: copies.as_ref(),
            running: &[],
            demand: &[],
            brakes: &Brakes::default(),
            previous: previous.as_ref(),
            now,
            seed: 0,
            config: &standing.planner,
        };
        let free: &BTreeMap<SiteId, u32> = &question.free_accelerators;
        let request = AdviceRequest {
            volume: &question.volume,
            files: &judged,
            candidates: &question.sites,
            free_accelerators: &|site| free.get(site).copied(),
        };
        let mut sites: Vec<SiteAdvice> = advise(&problem, &request).into_iter().map(shown).collect();
        if !known {
            let unknown = if complete { "there are no files below it" } else { "its files are not known yet" };
            sites.iter_mut().filter(|s| s.possible).for_each(|s| unknown.clone_into(&mut s.reason));
        }
        let bytes = judged.iter().map(|f| f.bytes).sum();
        let files = if known { judged.len() as u64 } else { 0 };
        Ok(Advice { files, bytes, complete, sites })
    }
}

/// The planner's words in those of the API.
pub fn shown(advice: foretide_planner::Advice) -> SiteAdvice {
    SiteAdvice {
        site: advice.site,
        possible: advice.possible,
        rule: advice.rule,
        missing_bytes: advice.missing_bytes,
        ready_p50_s: advice.ready_p50_s,
        ready_p90_s: advice.ready_p90_s,
        cost: advice.cost,
        stall_now_s: advice.stall_now_s,
        free_accelerators: advice.free_accelerators,
        price: advice.price,
        reason: advice.reason,
    }
}
