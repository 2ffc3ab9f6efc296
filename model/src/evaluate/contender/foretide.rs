//! Ours: the forecaster of blocks, and for files the habit of reading them whole once they are opened.

use std::collections::HashMap;

use super::Contender;
use crate::blocks::{BlockForecaster, BlockRequest, BlockSettings, Proposal, Sources};
use crate::evaluate::demand::{Demand, Step};
use crate::evaluate::site::{Event, Site};
use crate::opened::{FileUse, Opened};

/// Which of ours play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Sources of the forecaster of blocks.
    pub sources: Sources,
    /// Opened files.
    pub opened: bool,
}

const SILENT: Sources = Sources { replay: false, association: false, spatial: false };

impl Parts {
    /// All.
    pub const ALL: Self = Self { sources: Sources::ALL, opened: true };
    /// Replay alone.
    pub const REPLAY: Self = Self { sources: Sources { replay: true, ..SILENT }, opened: false };
    /// Association alone.
    pub const ROWS: Self = Self { sources: Sources { association: true, ..SILENT }, opened: false };
    /// Place alone.
    pub const SPATIAL: Self = Self { sources: Sources { spatial: true, ..SILENT }, opened: false };
    /// Opened files alone.
    pub const OPENED: Self = Self { sources: SILENT, opened: true };
}

/// Share of prefetched bytes that may go to waste.
const WASTE: f64 = 0.49;

/// See the module.
pub struct Foretide<'a> {
    demand: &'a Demand<'a>,
    blocks: Option<BlockForecaster>,
    opened: Option<Opened>,
    proposals: Vec<Proposal>,
    wanted: Vec<u64>,
    /// First block that was fetched of a proposal whose own first was here already, and that first.
    stands_for: HashMap<u64, u64>,
}

impl<'a> Foretide<'a> {
    pub fn new(demand: &'a Demand<'a>, parts: Parts, cache_bytes: u64, memory_bytes: usize) -> Self {
        let settings = BlockSettings {
            block_bytes: demand.block_bytes,
            addresses: demand.addresses,
            memory_bytes,
            waste: WASTE,
            sources: parts.sources,
        };
        let blocks = (parts.sources != SILENT).then(|| BlockForecaster::new(settings));
        let opened = (parts.opened && demand.places.len() > 1).then(|| Opened::new(demand.block_bytes, cache_bytes));
        Self { demand, blocks, opened, proposals: Vec::new(), wanted: Vec::new(), stands_for: HashMap::new() }
    }
}

impl Foretide<'_> {
    /// Takes what came and went.
    pub fn hear(&mut self, events: Vec<Event>) {
        let Some(blocks) = &mut self.blocks else { return };
        for event in events {
            match event {
                Event::Arrived(block) => blocks.arrived(self.stands_for.get(&block).copied().unwrap_or(block)),
                Event::Gone(block) => blocks.evicted(self.stands_for.remove(&block).unwrap_or(block)),
            }
        }
    }

    /// Blocks that were named on the last request and were not here, and whether each was asked for.
    pub fn named(&self) -> impl Iterator<Item = (u64, bool)> {
        self.blocks.iter().flat_map(BlockForecaster::named)
    }

    /// Asks for the rest of an opened file. Whether files of this kind are trusted to be read on: then nothing else
    /// needs to be said of it.
    fn read_on(&mut self, step: &Step, hit: bool, site: &mut Site<'_>) -> bool {
        let Some(opened) = &mut self.opened else { return false };
        let place = self.demand.places[step.file as usize];
        let file_use = FileUse {
            stream: step.stream,
            file: step.file,
            path: &self.demand.trace.files[step.file as usize].path,
            size: place.size,
            offset: step.offset - place.base,
            length: step.length,
            hit,
        };
        let trusted = opened.observe(&file_use, &mut self.wanted);
        let first = place.base / self.demand.block_bytes;
        for block in self.wanted.drain(..) {
            site.fetch_ahead(first + block);
        }
        trusted
    }
}

impl Contender for Foretide<'_> {
    fn served(&mut self, step: &Step, hit: bool, site: &mut Site<'_>) {
        self.hear(site.events());
        let trusted = self.read_on(step, hit, site);
        let Some(blocks) = self.blocks.as_mut().filter(|_| step.length > 0 && !trusted) else { return };
        blocks.observe(BlockRequest { offset: step.offset, length: step.length, hit }, &mut self.proposals);
        for proposal in self.proposals.drain(..) {
            if proposal.here {
                site.refresh(proposal.block);
                continue;
            }
            let many = if self.demand.first_only { 1 } else { u64::from(proposal.blocks) };
            let mut fetched =
                (proposal.block..proposal.block.saturating_add(many)).filter(|block| site.fetch_ahead(*block));
            let first = fetched.next();
            fetched.for_each(drop);
            match first {
                None => blocks.was_here(proposal.block),
                Some(first) if first != proposal.block => drop(self.stands_for.insert(first, proposal.block)),
                Some(_) => {}
            }
        }
    }

    fn bytes(&self) -> usize {
        let stand_ins = self.stands_for.capacity() * size_of::<(u64, u64)>();
        stand_ins
            + self.blocks.as_ref().map_or(0, BlockForecaster::bytes)
            + self.opened.as_ref().map_or(0, Opened::bytes)
    }
}
