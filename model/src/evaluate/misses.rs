//! Why ours misses: what it would take to turn each miss into a hit.
//!
//! Ours is played as in the judge's table, and of each block is kept when it was named as a candidate, asked for, and sent
//! away. A miss is put down to the first of these that kept it from being a hit:
//!
//! - *new*: nobody had read the block before, and no source named it: only places can tell such blocks;
//! - *unnamed*: read before, but no source named it while a fetch would still have been here: better sources;
//! - *soon*: named, but nearer to its use than a fetch takes: sources that look farther;
//! - *refused*: named in time, and not asked for: a better gate, or more waste;
//! - *late*: asked for, and still on its way;
//! - *gone*: asked for, come, and sent away before its use: a cache that keeps it.

use std::collections::HashMap;

use super::contender::{Contender, Foretide, ours};
use super::demand::Demand;
use super::site::{Event, Link, Site};
use super::{MODEL_BYTES, Options, cache_bytes};
use crate::error::ModelError;
use crate::import::Trace;

/// Requests, and those that missed, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misses {
    /// Requests in all.
    pub requests: u64,
    /// Never read before, and not named.
    pub new: u64,
    /// Read before, and not named.
    pub unnamed: u64,
    /// Named too near to its use only.
    pub soon: u64,
    /// Named in time, and not asked for.
    pub refused: u64,
    /// On its way.
    pub late: u64,
    /// Come, and gone before its use.
    pub gone: u64,
}

/// What is known of a block since it was read last.
#[derive(Default)]
struct Past {
    read: bool,
    named: Vec<u32>,
    /// The request on which it was asked for; none where it never was.
    asked: Option<u32>,
    /// Whether what was asked for was sent away.
    gone: bool,
}

impl Past {
    /// Puts a miss on this request down. What was named more than `window` requests ago would have gone again.
    fn blame(&self, now: u32, lead: u32, window: u32, misses: &mut Misses) {
        let ago: Vec<u32> = self.named.iter().map(|at| now - at).filter(|ago| *ago <= window).collect();
        let reason = match self.asked {
            Some(_) if !self.gone => &mut misses.late,
            Some(at) if now - at <= window => &mut misses.gone,
            _ if ago.iter().any(|ago| *ago >= lead) => &mut misses.refused,
            _ if !ago.is_empty() => &mut misses.soon,
            _ if self.read => &mut misses.unnamed,
            _ => &mut misses.new,
        };
        *reason += 1;
    }
}

/// Counts why ours misses on a trace: of each request that does, the block of its first byte.
///
/// # Errors
/// [`ModelError::Setting`] for a cache that holds no block, and for numbers that cannot be meant.
pub fn misses(trace: &Trace, options: &Options) -> Result<Misses, ModelError> {
    let demand = options.demand(trace)?;
    let cache_bytes = cache_bytes(&demand, options.cache)?;
    Ok(blame(&demand, options.link, cache_bytes))
}

fn blame(demand: &Demand<'_>, link: Link, cache_bytes: u64) -> Misses {
    let lead = if let Link::Lead(lead) = link { lead } else { 0 };
    let window = u32::try_from(cache_bytes / demand.block_bytes).unwrap_or(u32::MAX).saturating_add(lead);
    let (mut ours, mut site) = ours(demand, link, cache_bytes, MODEL_BYTES);
    let (mut pasts, mut misses) = (HashMap::<u64, Past>::new(), Misses::default());
    for (now, step) in (0..).zip(&demand.steps) {
        let (hit, _) = site.serve(step);
        let block = step.offset / demand.block_bytes;
        let past = pasts.entry(block).or_default();
        misses.requests += 1;
        if !hit {
            past.blame(now, lead, window, &mut misses);
        }
        *past = Past { read: true, ..Past::default() };
        hear(&mut ours, &mut site, &mut pasts);
        ours.served(step, hit, &mut site);
        for (block, asked) in ours.named() {
            let past = pasts.entry(block).or_default();
            past.named.push(now);
            if asked {
                (past.asked, past.gone) = (Some(now), false);
            }
        }
        hear(&mut ours, &mut site, &mut pasts);
    }
    misses
}

/// Hands on what came and went, and keeps what went.
fn hear(ours: &mut Foretide<'_>, site: &mut Site<'_>, pasts: &mut HashMap<u64, Past>) {
    let events = site.events();
    for event in &events {
        if let Event::Gone(block) = event
            && let Some(past) = pasts.get_mut(block)
        {
            past.gone = true;
        }
    }
    ours.hear(events);
}
