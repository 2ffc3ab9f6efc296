//! What the rules demand of a site when they change, and what must hold of it at the end of every round.

use std::collections::{BTreeMap, BTreeSet};

use foretide_flow::{Refusal, Ruleset, Timestamp};

use super::SiteState;
use crate::simulate::atlas::{Atlas, Block};

/// Caches of up to so many blocks are checked at the end of every round.
const CHECKED_BLOCKS: usize = 4_096;
/// Larger ones every so many rounds.
const ROUNDS_PER_CHECK: u64 = 256;

impl SiteState<'_> {
    /// What may not be here leaves, and what brings it stops, with a record of each file and the rule. What may only pass
    /// leaves when its time is over.
    pub(in crate::simulate) fn uphold(&mut self, rules: &Ruleset, atlas: &Atlas) {
        let (now, mut denied) = (self.now_us, BTreeMap::new());
        for block in self.cache.blocks().chain(self.lanes.iter().flat_map(|l| l.tasks.keys().copied())) {
            let verdict = || atlas.verdict(rules, &self.world.topology, block.0, (&self.site, now));
            denied.entry(block.0).or_insert_with(|| Some(verdict()).filter(|v| !v.allows()));
        }
        let denies = |file: u32| denied.get(&file).and_then(Option::as_ref);
        let gone = |b: &Block| denies(b.0).is_some_and(|v| !v.lets_pass() || !self.cache.passes(b, now));
        let gone: Vec<Block> = self.cache.blocks().filter(gone).collect();
        let mut upheld: BTreeSet<u32> = gone.iter().map(|b| b.0).collect();
        gone.into_iter().for_each(|b| self.cache.evict(b));
        for lane in &mut self.lanes {
            lane.tasks.retain(|b, _| {
                let stops = denies(b.0).is_some_and(|v| !v.lets_pass());
                if stops {
                    upheld.insert(b.0);
                }
                !stops
            });
        }
        for file in upheld {
            let rule = denies(file).and_then(|v| v.rule.clone()).unwrap_or_else(|| "default".into());
            let (volume, path) = (atlas.file(file).volume.clone(), atlas.file(file).path.clone());
            let (to, at) = (self.site.clone(), Timestamp(now));
            self.report.upheld.push(Refusal { volume, path, to, rule, by: "receiver".into(), at });
        }
    }

    /// The invariants, at the end of a round; in a large cache now and then.
    pub(in crate::simulate) fn check(&mut self, atlas: &Atlas, rules: &Ruleset, round: u64) {
        if self.cache.len() > CHECKED_BLOCKS && !round.is_multiple_of(ROUNDS_PER_CHECK) {
            return;
        }
        let at = self.now_us;
        let mut broken: Vec<String> = self.cache.broken().map(|b| format!("{b} at {at} us")).into_iter().collect();
        let carried: f64 = self.lanes.iter().map(|l| l.rate() * at as f64).sum();
        if self.report.link_bytes > carried + 1e6 {
            broken.push(format!("{} bytes crossed links that carry {carried} by {at} us", self.report.link_bytes));
        }
        let rests: BTreeSet<u32> = self.cache.blocks().filter(|b| !self.cache.passes(b, at)).map(|b| b.0).collect();
        let passes = self.cache.blocks().filter(|b| self.cache.passes(b, at));
        let passes: BTreeSet<u32> =
            passes.chain(self.lanes.iter().flat_map(|l| l.tasks.keys().copied())).map(|b| b.0).collect();
        for file in rests.union(&passes) {
            let verdict = atlas.verdict(rules, &self.world.topology, *file, (&self.site, at));
            if !verdict.lets_pass() || (rests.contains(file) && !verdict.allows()) {
                broken.push(format!("{} is behind a border or on its way there at {at} us", atlas.file(*file).path));
            }
        }
        self.report.broken.append(&mut broken);
    }
}
