//! Blocks: what is asked for next where nothing is known but a stream of places and lengths.
//!
//! Files tell of themselves by names, sizes and passes; a disk does not. Here the forecast is made anew on every
//! request, online, in some microseconds, out of three sources that know different things:
//!
//! - [`replay`]: what followed the last times that this block was asked for in company like the present;
//! - [`association`]: what tends to follow it within a few requests, whatever the company;
//! - [`spatial`]: strides, runs that go on where they ended, and deltas that follow deltas. It is asked only where
//!   numbers are places.
//!
//! Sources propose much and are often wrong. The [`gate`] says how probable it is that a proposal is asked for in
//! time, and learns from every proposal that was accepted and from half of the refused ones, which are followed
//! in shadow ([`followed`]); else it would never learn that it was wrong to refuse. What passes is governed by a
//! [`budget`] of waste; the probability that is said of it is the gate's, put right by what came of as much belief before
//! ([`calibration`]).
//!
//! *In time* is measured: fetches take as many requests as the site says they took, and proposals look that much
//! further ahead, replay farther still. One that comes true sooner teaches nothing: a "no" would make the gate believe less
//! in whatever is asked for early, a "yes" in what cannot be fetched in time.
//!
//! Everything is bounded by a number of bytes given at the start. The log forgets its oldest entry, and with it
//! blocks that it no longer names.

mod association;
mod budget;
mod calibration;
mod candidates;
mod followed;
mod gate;
mod log;
mod objects;
mod replay;
mod spatial;

pub use calibration::Calibration;

use association::Rows;
use budget::Budget;
use calibration::{Correction, bin_of};
use candidates::{Candidate, Candidates, Past};
use followed::{Followed, Said, Verdict};
use gate::{Features, Gate, log_odds, probability};
use log::{Log, NONE, Place};
use objects::{Id, NEVER, Object, Objects, Whereabouts, log2};
use replay::{FEW, Reach};
use spatial::Spatial;

/// What a forecaster of blocks may use and do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockSettings {
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Whether block numbers are places. Else they are names, and nothing follows from their distance.
    pub addresses: bool,
    /// Most bytes that the forecaster may keep.
    pub memory_bytes: usize,
    /// Share of prefetched bytes that may go unused.
    pub waste: f64,
    /// Which sources are asked.
    pub sources: Sources,
}

/// Which sources propose: all of them but in an ablation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Replay of like company.
    pub replay: bool,
    /// Association.
    pub association: bool,
    /// Strides, runs, deltas.
    pub spatial: bool,
}

impl Sources {
    /// All.
    pub const ALL: Self = Self { replay: true, association: true, spatial: true };
}

/// One request, as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whether all of it was here.
    pub hit: bool,
}

/// Blocks that are worth fetching, or worth keeping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// The first block.
    pub block: u64,
    /// How many blocks.
    pub blocks: u32,
    /// How probable it is that they are asked for in time; 1 where they are here and only told anew.
    pub probability: f32,
    /// Whether they are here already, fetched and not used so far: they should stay.
    pub here: bool,
}

/// The request that prompts proposals, as the gate sees it.
struct Prompt {
    by: Id,
    now: Place,
    /// When it was made the last two times; [`NONE`] where it was not.
    before: [Place; 2],
    /// How often it was asked for and whether it was here, as a code.
    state: u32,
}

/// Log odds that what says less of a candidate is believed to add at most to what says most of it.
const MARGIN: f32 = 2.5;

impl Prompt {
    fn new(by: Id, object: &Object, now: Place, before: [Place; 2], hit: bool) -> Self {
        let state = u32::from(hit) << 5 | u32::from(log2(u32::from(object.seen)));
        Self { by, now, before, state }
    }
}

/// The forecaster.
pub struct BlockForecaster {
    settings: BlockSettings,
    objects: Objects,
    log: Log,
    rows: Rows,
    spatial: Spatial,
    gate: Gate,
    followed: Followed,
    budget: Budget,
    candidates: Candidates,
    calibration: Calibration,
    correction: Correction,
    /// Requests that a fetch takes.
    delay: f32,
    /// Requests that a prefetched block stays here unused.
    stay: f32,
}

/// Entries of the log per block that is kept. A log shorter than the loop that is read knows nothing of it.
const LOG_PER_OBJECT: usize = 4;
/// Bytes that a block costs: its record, its place in the table of blocks, its share of the log.
const OBJECT_BYTES: usize = 96;
/// Bytes of its row of successors.
const ROW_BYTES: usize = 64;
/// Rows bring a tenth of what replay does and cost nearly as much: with less memory than this, none are kept.
const ROWS_FROM_BYTES: usize = 64 << 20;
/// Share of the memory that is the gate's.
const GATE_SHARE: usize = 8;
/// Bytes of the other tables that do not grow with the blocks.
const FIXED_BYTES: usize = 16 << 10;
/// Requests after which it begins anew: places are numbers of 32 bits.
const LAST_PLACE: Place = Place::MAX - 1;
/// How fast the measured stay follows.
const STAY_RATE: f32 = 0.01;
/// Longest lead that is looked ahead, requests: beyond it the company says nothing.
const MOST_LEAD: f32 = 256.0;

impl BlockForecaster {
    /// A forecaster that knows nothing.
    pub fn new(settings: BlockSettings) -> Self {
        let with_rows = settings.sources.association && settings.memory_bytes >= ROWS_FROM_BYTES;
        let settings = BlockSettings { sources: Sources { association: with_rows, ..settings.sources }, ..settings };
        let each = OBJECT_BYTES + if with_rows { ROW_BYTES } else { 0 };
        let gate = Gate::new(settings.memory_bytes / GATE_SHARE);
        let objects = settings.memory_bytes.saturating_sub(FIXED_BYTES + gate.bytes()) / each;
        let most = objects.clamp(16, 1 << 28);
        Self {
            settings,
            objects: Objects::new(most),
            log: Log::new((most * LOG_PER_OBJECT).next_power_of_two() / 2),
            rows: Rows::default(),
            spatial: Spatial::new(settings.block_bytes, settings.addresses && settings.sources.spatial),
            gate,
            followed: Followed::default(),
            budget: Budget::new(settings.waste),
            candidates: Candidates::default(),
            calibration: Calibration::default(),
            correction: Correction::default(),
            delay: 0.0,
            stay: 1000.0,
        }
    }

    /// Takes a request and appends what it makes worth fetching or keeping, at most some tens of extents.
    pub fn observe(&mut self, request: BlockRequest, proposals: &mut Vec<Proposal>) {
        if self.log.next() >= LAST_PLACE {
            *self = Self::new(self.settings);
        }
        let now = self.log.next();
        let block = request.offset / self.settings.block_bytes;
        let known = self.objects.known(block);
        self.settle(known, now);
        let id = known.unwrap_or_else(|| self.admit(block));
        self.notice_late(id, now);
        let Object { last: before, whereabouts, .. } = *self.objects.get(id);
        let lay_here = request.hit && !whereabouts.is_ahead();
        self.remember(id, before, now, &request);
        if self.settings.sources.association {
            self.rows.learn(&self.log, self.lead());
        }
        self.propose(id, before, now, &request, lay_here);
        self.decide(id, before, now, request.hit, proposals);
    }

    /// A block left the cache. If it was fetched ahead and not used, its proposal was wrong.
    pub fn evicted(&mut self, block: u64) {
        let Some(id) = self.objects.known(block) else { return };
        let object = self.objects.get_mut(id);
        let was = std::mem::replace(&mut object.whereabouts, Whereabouts::Away);
        if was.is_ahead() {
            let stayed = self.log.next().saturating_sub(object.asked_at) as f32;
            self.stay += STAY_RATE * (stayed - self.stay);
            if let Some(verdict) = self.followed.failed(self.objects.take_followed(id)) {
                self.learn(&verdict);
            }
        }
        self.objects.release(id);
    }

    /// A proposal was not taken up, because all of it is here already: nothing is learned from it.
    pub fn was_here(&mut self, block: u64) {
        let Some(id) = self.objects.known(block) else { return };
        let number = self.objects.take_followed(id);
        self.followed.drop(number);
        self.objects.get_mut(id).whereabouts = Whereabouts::Here;
        self.objects.release(id);
    }

    /// A prefetched block has come.
    pub fn arrived(&mut self, block: u64) {
        let Some(id) = self.objects.known(block) else { return };
        let object = self.objects.get_mut(id);
        if object.whereabouts.is_ahead() {
            object.whereabouts = Whereabouts::Waiting;
            let asked_at = object.asked_at;
            // Late ones hurt more than early ones: the delay follows a rise at once and a fall slowly.
            let took = (self.log.next().saturating_sub(asked_at) as f32).min(MOST_LEAD);
            let rate = if took > self.delay { 0.2 } else { 0.01 };
            self.delay += rate * (took - self.delay);
        }
    }

    /// What is asked for before its fetch has come takes longer than it was given. If that was as long as fetches were
    /// believed to take, it is not known how long they do, so a quarter more is tried.
    fn notice_late(&mut self, id: Id, now: Place) {
        let object = self.objects.get(id);
        if object.whereabouts == Whereabouts::Coming {
            let given = now.saturating_sub(object.asked_at) as f32;
            if given + 1.0 > self.delay {
                self.delay = self.delay.max(1.25 * given + 1.0).min(MOST_LEAD);
            }
        }
    }

    /// Bytes that it keeps.
    pub fn bytes(&self) -> usize {
        self.objects.bytes()
            + self.log.bytes()
            + self.rows.bytes()
            + self.spatial.bytes()
            + self.gate.bytes()
            + self.followed.bytes()
            + self.candidates.bytes()
    }

    /// The least probability with which a proposal passes at present.
    pub fn threshold(&self) -> f32 {
        self.budget.threshold()
    }

    /// Blocks that the sources named on the last request and that were neither here nor on their way, and whether each was
    /// proposed.
    pub fn named(&self) -> impl Iterator<Item = (u64, bool)> {
        let now = self.log.next().wrapping_sub(1);
        self.candidates.all().iter().map(move |candidate| {
            let id = self.objects.known(candidate.block);
            let asked = |id| self.objects.get(id).whereabouts.is_ahead() && self.objects.get(id).asked_at == now;
            (candidate.block, id.is_some_and(asked))
        })
    }

    /// The probabilities that were said so far, and what came of them.
    pub fn calibration(&self) -> Calibration {
        self.calibration
    }

    /// Requests that a proposal has to come before its use.
    fn lead(&self) -> u32 {
        self.delay.round() as u32
    }

    /// How far replay looks. The longer a fetch takes the less is known of when its block is asked for, so it looks as much
    /// farther as the delay is long; but what is asked for long before its use has to go before it.
    fn reach(&self) -> Reach {
        const DELAYS: u32 = 3;
        const STAY_SHARE: f32 = 0.25;
        let lead = self.lead();
        let most = (DELAYS * lead).min((STAY_SHARE * self.stay) as u32);
        Reach::far(lead, most.saturating_sub(lead))
    }

    /// Requests after which what was proposed and not asked for counts as not come.
    fn patience(&self) -> u32 {
        (self.stay as u32).max(32) + self.lead()
    }

    /// What became of proposals: this block has been asked for, others have waited too long.
    fn settle(&mut self, known: Option<Id>, now: Place) {
        if let Some(id) = known {
            let lead = self.lead();
            if let Some(verdict) = self.followed.came(self.objects.take_followed(id), now, lead) {
                self.learn(&verdict);
            }
        }
        let (lead, patience) = (self.lead(), self.patience());
        while let Some(verdict) = self.followed.doubted(now, lead) {
            self.gate.teach(&verdict.features, false, 1.0);
            self.budget.take(&verdict);
        }
        while let Some(verdict) = self.followed.given_up(now, patience) {
            self.learn(&verdict);
            self.objects.unfollow(verdict.id, verdict.number);
        }
    }

    fn learn(&mut self, verdict: &Verdict) {
        /// What was taken for a "no" too early is taught twice as hard as "yes": once to undo it.
        const UNDO: f32 = 2.0;
        match (verdict.doubted, verdict.in_time) {
            (true, true) => self.gate.teach(&verdict.features, true, UNDO),
            (true, false) => {}
            (false, true) => self.gate.teach(&verdict.features, true, 1.0),
            // What came before its fetch could is no "no": it was asked for, and the next time may leave more time.
            (false, false) if verdict.came => {}
            (false, false) => self.gate.teach(&verdict.features, false, 1.0),
        }
        // Of the refused, one in two was watched.
        let weight = if verdict.accepted { 1.0 } else { 2.0 };
        self.calibration.take(verdict.probability, verdict.in_time, f64::from(weight));
        self.correction.take(usize::from(verdict.bin), verdict.probability, verdict.in_time, weight);
        self.budget.take(verdict);
        self.objects.get_mut(verdict.id).proposed.count(verdict.came);
    }

    /// Gives a block that is not known an id; it has no successors yet, whoever had its id before.
    fn admit(&mut self, block: u64) -> Id {
        let id = self.objects.add(block);
        self.rows.clear(id);
        id
    }

    fn remember(&mut self, id: Id, before: Place, now: Place, request: &BlockRequest) {
        let blocks = request.offset.saturating_add(request.length.max(1)).div_ceil(self.settings.block_bytes)
            - request.offset / self.settings.block_bytes;
        let object = self.objects.get_mut(id);
        object.seen = object.seen.saturating_add(1);
        object.blocks = u16::try_from(blocks).unwrap_or(u16::MAX);
        object.whereabouts = Whereabouts::Here;
        object.gap = if before == NONE { NEVER } else { log2(now.saturating_sub(before)) };
        object.last = now;
        if let Some((gone, place)) = self.log.push(id, before) {
            self.objects.forget(gone, place);
        }
        while self.objects.full() {
            let Some((gone, place)) = self.log.shorten() else { break };
            self.objects.forget(gone, place);
        }
    }

    /// Asks the sources. A block that lay here without having been fetched ahead is no sign that something is missing: then
    /// replay is asked for the next few only, as what comes after them is named by the requests between. Not so where fetches
    /// take longer than these: then every notice counts.
    fn propose(&mut self, id: Id, before: Place, now: Place, request: &BlockRequest, lay_here: bool) {
        self.candidates.clear();
        let lead = self.lead();
        if self.settings.sources.replay {
            let reach = if lay_here && lead < FEW { Reach::near(lead) } else { self.reach() };
            replay::propose(&self.log, before, now, reach, &mut self.candidates);
        }
        if self.settings.sources.association {
            self.rows.propose(id, &mut self.candidates);
        }
        self.spatial.propose(request, now, lead, &self.objects, &mut self.candidates);
    }

    fn decide(&mut self, by: Id, before: Place, now: Place, hit: bool, proposals: &mut Vec<Proposal>) {
        let before = [before, self.log.before(before).unwrap_or(NONE)];
        let prompt = Prompt::new(by, self.objects.get(by), now, before, hit);
        let threshold = log_odds(self.budget.threshold());
        let mut candidates = std::mem::take(&mut self.candidates);
        // Where each block is, for all of them first: so the processor waits for the memory of many at one time.
        candidates.retain(|c| c.id != by && (c.id == NONE || self.is_wanted(c, &prompt, proposals)));
        for candidate in candidates.all() {
            proposals.extend(self.weigh(candidate, &prompt, threshold));
        }
        self.candidates = candidates;
    }

    /// Whether a known block is neither here nor on its way. One that is, and unused, is told to stay.
    fn is_wanted(&mut self, candidate: &mut Candidate, prompt: &Prompt, proposals: &mut Vec<Proposal>) -> bool {
        let object = self.objects.get_mut(candidate.id);
        candidate.block = object.block;
        if object.whereabouts.is_ahead() {
            let (block, blocks) = (object.block, u32::from(object.blocks));
            proposals.push(Proposal { block, blocks, probability: 1.0, here: true });
        }
        let wanted = object.whereabouts == Whereabouts::Away;
        if wanted {
            candidate.past = object.name(prompt.now, prompt.before);
        }
        wanted
    }

    /// What to do about one candidate; `threshold` is the least log odds that pass.
    fn weigh(&mut self, candidate: &Candidate, prompt: &Prompt, threshold: f32) -> Option<Proposal> {
        let now = prompt.now;
        // Half of the refused are followed, by a fixed draw on when and what.
        let drawn = (now.wrapping_add(candidate.name()).wrapping_mul(0x9E37_79B1)) >> 31 == 0;
        let watched = drawn && !candidate.past.followed;
        let least = if watched { f32::NEG_INFINITY } else { threshold };
        let (features, odds) = self.features(candidate, prompt, least)?;
        let accepted = odds >= threshold;
        let id = if candidate.id == NONE { self.admit(candidate.block) } else { candidate.id };
        let said = self.say(odds);
        let verdict = Verdict::open(id, features, said, accepted);
        let number = self.followed.follow(verdict, now);
        let object = self.objects.get_mut(id);
        object.blocks = object.blocks.max(candidate.blocks);
        self.followed.drop(std::mem::replace(&mut object.followed, number));
        if !accepted {
            return None;
        }
        object.whereabouts = Whereabouts::Coming;
        object.asked_at = now;
        let blocks = u32::from(object.blocks);
        Some(Proposal { block: candidate.block, blocks, probability: said.probability, here: false })
    }

    /// What is said of a proposal that the gate gives these odds. It passes by the odds: what is corrected is only what
    /// others are told.
    fn say(&self, log_odds: f32) -> Said {
        let believed = probability(log_odds);
        Said { probability: self.correction.corrected(believed), bin: bin_of(believed) as u8 }
    }

    /// What the gate goes by, each as a slot of its table, and the log odds that it gives; nothing where these are less than
    /// `least`. Fields say most together: how long a block has been away beside how long it was away the time before, how often
    /// it was asked for beside how often its prompt was, and when it was, beside when its prompt was the last two times.
    fn features(&self, candidate: &Candidate, prompt: &Prompt, least: f32) -> Option<(Features, f32)> {
        let Past { age, gap, seen, record, named, near, .. } = candidate.past;
        let (age, gap, seen) = (u32::from(age), u32::from(gap), u32::from(seen));
        let [near, near_before] = near.map(u32::from);
        let sources = candidate.sources();
        let (votes, alike, name) = (u32::from(candidate.votes), u32::from(candidate.alike), candidate.name());
        let mut out = Features::default();
        let saying_most = [
            u32::from(record) << 3 | sources,
            u32::from(named.min(15)) << 3 | sources,
            (gap << 6 | age) << 5 | seen,
            prompt.state << 5 | seen,
            votes << 6 | near,
            ((votes << 6 | near) << 6 | gap) << 6 | prompt.state,
            near_before << 6 | gap,
        ];
        let odds = self.gate.look_up(0, saying_most, &mut out);
        if odds < least - MARGIN {
            return None;
        }
        let rest = [
            (votes << 4 | alike) << 4 | u32::from(candidate.matched),
            age << 5 | seen,
            ((sources << 8 | u32::from(candidate.run)) << 8) | u32::from(candidate.delta),
            prompt.by.wrapping_mul(0x9E37_79B1) ^ name,
        ];
        let odds = odds + self.gate.look_up(saying_most.len(), rest, &mut out);
        (odds >= least).then_some((out, odds))
    }
}

#[cfg(test)]
mod tests;
