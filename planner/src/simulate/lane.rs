//! A link that leads to a site, and what moves are to bring over it, in order.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use foretide_flow::{Link, Move, MoveId, Plan, VolumeId};

use super::atlas::{Atlas, Block};

/// A block that a move is to bring.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) of: MoveId,
    pub(super) start_us: i64,
    pub(super) keep_until_us: i64,
    pub(super) left_bytes: f64,
}

/// See the module.
pub(super) struct Lane {
    pub(super) link: Link,
    order: VecDeque<Block>,
    pub(super) tasks: HashMap<Block, Task>,
    /// Moves as they were planned.
    pub(super) moves: BTreeMap<MoveId, Move>,
    /// Bytes by minute.
    pub(super) usage: BTreeMap<i64, f64>,
}

impl Lane {
    pub(super) fn new(link: &Link) -> Self {
        let (order, tasks) = (VecDeque::new(), HashMap::new());
        Self { link: link.clone(), order, tasks, moves: BTreeMap::new(), usage: BTreeMap::new() }
    }

    /// Bytes a microsecond while the link is well.
    pub(super) fn rate(&self) -> f64 {
        self.link.rate.bytes_per_second() / 1e6
    }

    /// Moves that have begun, and the bytes that they have yet to bring.
    pub(super) fn running(&self) -> impl Iterator<Item = (&Move, u64)> {
        let mut left: BTreeMap<&MoveId, f64> = BTreeMap::new();
        for task in self.tasks.values() {
            *left.entry(&task.of).or_default() += task.left_bytes;
        }
        let begun = |(id, left): (&MoveId, f64)| {
            let planned = self.moves.get(id)?;
            let left_bytes = left.ceil() as u64;
            (left_bytes < planned.length).then_some((planned, left_bytes))
        };
        left.into_iter().filter_map(begun)
    }

    /// Takes a plan: what is no longer in it is stopped, what has begun goes on and brings nothing twice, what is `here` is
    /// left out, and what the giver does not have yet waits for the next plan.
    pub(super) fn assign(
        &mut self,
        plan: &Plan,
        atlas: &mut Atlas,
        here: impl Fn(&Block) -> bool,
        gives: impl Fn(&VolumeId, &Block) -> bool,
    ) {
        let running: HashSet<MoveId> = self.running().map(|(m, _)| m.id.clone()).collect();
        let mut begun = std::mem::take(&mut self.tasks);
        self.order.clear();
        self.moves.clear();
        for m in plan.moves.iter().filter(|m| m.to == self.link.to && m.from == self.link.from) {
            let file = atlas.intern(&m.volume, &m.path, m.offset + m.length);
            for block in atlas.blocks(file, m.offset, m.length) {
                let was_brought = running.contains(&m.id) && !begun.contains_key(&block);
                if here(&block) || was_brought || self.tasks.contains_key(&block) {
                    continue;
                }
                let left_bytes = begun.remove(&block).map_or(atlas.bytes(block) as f64, |t| t.left_bytes);
                let (start_us, keep_until_us) = (m.start_at.0, m.keep_until.0);
                self.tasks.insert(block, Task { of: m.id.clone(), start_us, keep_until_us, left_bytes });
                if gives(&m.volume, &block) {
                    self.order.push_back(block);
                }
            }
            self.moves.insert(m.id.clone(), m.clone());
        }
    }

    /// Everything is forgotten.
    pub(super) fn lose(&mut self) {
        self.tasks.clear();
        self.order.clear();
    }

    /// The next block, and when it may start. Plans stand in the order in which their moves start.
    pub(super) fn next(&mut self) -> Option<(Block, i64)> {
        while let Some(block) = self.order.front() {
            match self.tasks.get(block) {
                Some(task) => return Some((*block, task.start_us)),
                None => self.order.pop_front(),
            };
        }
        None
    }

    /// The block that has the link when no reader has it.
    pub(super) fn first(&mut self, now_us: i64) -> Option<Block> {
        self.next().filter(|(_, start_us)| *start_us <= now_us).map(|(block, _)| block)
    }
}
