//! The simulated site: a cache, and a link over which what is missing comes.
//!
//! Requests are served in the order of the trace. A stream that had to wait goes on that much later, and no request
//! overtakes an earlier one. Over a link, demand goes before what was asked for ahead (promise G): only the block that
//! is on the wire is finished first. What was asked for ahead and is needed while it is on its way is waited for;
//! if it has not left yet, it becomes demand.

use std::collections::{HashMap, VecDeque};

use super::cache::{Cache, Clairvoyant, Foreseen, Guarded, Lru, Unit};
use super::demand::{Demand, Step};
use crate::foresight::Soon;

/// How long fetches take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Link {
    /// No time at all.
    Instant,
    /// What is asked for ahead comes so many requests later; demand comes at once.
    Lead(u32),
    /// By rate and round trip.
    Wire {
        /// Bits a second.
        bits_per_s: u64,
        /// Microseconds from the ask to the first byte.
        rtt_us: u64,
    },
}

/// Which blocks stay.
pub enum Policy {
    /// Least recently used goes first.
    Lru(Lru),
    /// With a protected queue for what was fetched ahead.
    Guarded(Guarded),
    /// By how soon blocks are expected to be visited.
    Foreseen(Foreseen),
    /// Knows the future.
    Clairvoyant(Box<Clairvoyant>),
}

impl Policy {
    fn cache(&mut self) -> &mut dyn Cache {
        match self {
            Policy::Lru(c) => c,
            Policy::Guarded(c) => c,
            Policy::Foreseen(c) => c,
            Policy::Clairvoyant(c) => c.as_mut(),
        }
    }

    fn holds(&self, unit: Unit) -> bool {
        match self {
            Policy::Lru(c) => c.holds(unit),
            Policy::Guarded(c) => c.holds(unit),
            Policy::Foreseen(c) => c.holds(unit),
            Policy::Clairvoyant(c) => c.holds(unit),
        }
    }
}

/// What happened to a block, for whoever asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has come.
    Arrived(u64),
    /// It had to go.
    Gone(u64),
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Account {
    /// Requests for bytes.
    pub requests: u64,
    /// Of these, all of whose blocks were here.
    pub hits: u64,
    /// Bytes asked for.
    pub read_bytes: u64,
    /// Of these, here because they were fetched ahead, in time.
    pub covered_bytes: u64,
    /// Bytes fetched ahead.
    pub ahead_bytes: u64,
    /// Of these, that went or were left unused.
    pub wasted_bytes: u64,
    /// Blocks fetched ahead that were used.
    pub ahead_used: u64,
    /// Of these, in time.
    pub ahead_in_time: u64,
    /// Time that requests waited, microseconds.
    pub stall_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Whereabouts {
    Absent,
    /// Asked for, and not on the wire yet.
    Queued,
    /// Comes at this time or with this request.
    Coming(i64),
    Here,
}

#[derive(Clone, Copy, Debug)]
struct State {
    whereabouts: Whereabouts,
    /// Whether it came ahead of its use, and whether that use has yet to come.
    ahead: bool,
    unused: bool,
}

/// Blocks that may wait for the wire: beyond it, asks are refused.
const QUEUE_BLOCKS: usize = 1 << 20;

/// See the module.
pub struct Site<'a> {
    demand: &'a Demand<'a>,
    link: Link,
    policy: Policy,
    units: HashMap<u64, Unit>,
    blocks: Vec<u64>,
    states: Vec<State>,
    queue: VecDeque<Unit>,
    queued_bytes: u64,
    coming: VecDeque<(i64, Unit)>,
    now_us: i64,
    /// When the request before was served: asks were made then.
    last_us: i64,
    request: u32,
    wire_free_us: i64,
    late_by: HashMap<u32, i64>,
    gone: Vec<Unit>,
    events: Vec<Event>,
    account: Account,
}

impl<'a> Site<'a> {
    /// An empty site.
    pub fn new(demand: &'a Demand<'a>, link: Link, policy: Policy) -> Self {
        Self {
            demand,
            link,
            policy,
            units: HashMap::new(),
            blocks: Vec::new(),
            states: Vec::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            coming: VecDeque::new(),
            now_us: i64::MIN,
            last_us: i64::MIN,
            request: 0,
            wire_free_us: i64::MIN,
            late_by: HashMap::new(),
            gone: Vec::new(),
            events: Vec::new(),
            account: Account::default(),
        }
    }

    fn unit(&mut self, block: u64) -> Unit {
        let next = self.blocks.len() as Unit;
        let unit = *self.units.entry(block).or_insert(next);
        if unit == next {
            self.blocks.push(block);
            self.states.push(State { whereabouts: Whereabouts::Absent, ahead: false, unused: false });
        }
        unit
    }

    /// Numbers blocks before anything is asked: for policies that know the future.
    pub fn number(&mut self, touches: impl Iterator<Item = u64>) -> Vec<Unit> {
        touches.map(|block| self.unit(block)).collect()
    }

    /// The policy, if it knows the future.
    pub fn clairvoyant(&mut self) -> Option<&mut Clairvoyant> {
        match &mut self.policy {
            Policy::Clairvoyant(c) => Some(c),
            _ => None,
        }
    }

    /// Tells how soon a block is expected to be visited, here or not; none if it is not. Heard by a policy that goes by it.
    pub fn expect(&mut self, block: u64, soon: Option<Soon>) {
        let unit = self.unit(block);
        let mut gone = std::mem::take(&mut self.gone);
        if let Policy::Foreseen(policy) = &mut self.policy {
            policy.expect(unit, soon, &mut gone);
        }
        self.gone = gone;
        self.let_go();
    }

    /// Whether a block that is visited this soon is worth a place.
    pub fn takes(&self, block: u64, soon: Soon) -> bool {
        match &self.policy {
            Policy::Foreseen(policy) => policy.takes(soon, self.demand.bytes(block)),
            Policy::Lru(_) | Policy::Guarded(_) | Policy::Clairvoyant(_) => true,
        }
    }

    /// Sets the policy; for those that have to know the numbers first.
    pub fn govern(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// What happened since this was asked last.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Requests so far.
    pub fn request(&self) -> u32 {
        self.request
    }

    /// Whether the wire will have done all that is asked of it before this request comes.
    pub fn idle_before(&self, next: &Step) -> bool {
        let Link::Wire { bits_per_s, .. } = self.link else { return true };
        let due_us = next.at_us + self.late_by.get(&next.stream).copied().unwrap_or(0);
        let busy_us = self.wire_free_us.max(self.now_us) + on_wire_us(self.queued_bytes, bits_per_s);
        busy_us <= due_us.max(self.now_us)
    }

    /// Sets the capacity of the cache, bytes.
    pub fn resize(&mut self, bytes: u64) {
        let mut gone = std::mem::take(&mut self.gone);
        self.policy.cache().resize(bytes, &mut gone);
        self.gone = gone;
        self.let_go();
    }

    /// Whether a block is here or on its way.
    pub fn holds(&mut self, block: u64) -> bool {
        let unit = self.unit(block);
        self.states[unit as usize].whereabouts != Whereabouts::Absent
    }

    /// A block that is here ahead of its use was proposed again.
    pub fn refresh(&mut self, block: u64) {
        let unit = self.unit(block);
        self.policy.cache().refresh(unit);
    }

    /// Asks for a block ahead of its use. False if it is here, on its way, cannot be taken, or is none.
    pub fn fetch_ahead(&mut self, block: u64) -> bool {
        if !self.demand.has(block) {
            return false;
        }
        let unit = self.unit(block);
        if self.policy.holds(unit) || self.queue.len() >= QUEUE_BLOCKS {
            return false;
        }
        let mut gone = std::mem::take(&mut self.gone);
        self.policy.cache().insert(unit, self.demand.bytes(block), true, &mut gone);
        self.gone = gone;
        self.start(unit)
    }

    /// The same for a policy that knows when it will be used.
    pub fn fetch_for(&mut self, unit: Unit, touch: u64) -> bool {
        let (bytes, mut gone) = (self.demand.bytes(self.blocks[unit as usize]), std::mem::take(&mut self.gone));
        if let Some(policy) = self.clairvoyant() {
            policy.insert_for(unit, bytes, touch, &mut gone);
        }
        self.gone = gone;
        self.start(unit)
    }

    fn start(&mut self, unit: Unit) -> bool {
        self.states[unit as usize] = State { whereabouts: Whereabouts::Queued, ahead: true, unused: true };
        self.let_go();
        if !self.policy.holds(unit) {
            return false;
        }
        match self.link {
            Link::Instant => {
                self.take_off(unit);
                self.states[unit as usize].whereabouts = Whereabouts::Here;
                self.events.push(Event::Arrived(self.blocks[unit as usize]));
            }
            Link::Lead(lead) => {
                self.take_off(unit);
                let at = i64::from(self.request) + i64::from(lead);
                self.states[unit as usize].whereabouts = Whereabouts::Coming(at);
                self.coming.push_back((at, unit));
            }
            Link::Wire { .. } => {
                self.queued_bytes += self.demand.bytes(self.blocks[unit as usize]);
                self.queue.push_back(unit);
            }
        }
        true
    }

    /// What is fetched ahead is paid for from here on.
    fn take_off(&mut self, unit: Unit) {
        self.account.ahead_bytes += self.demand.bytes(self.blocks[unit as usize]);
    }

    /// Blocks that the policy sent away.
    fn let_go(&mut self) {
        for unit in std::mem::take(&mut self.gone) {
            let block = self.blocks[unit as usize];
            let state = &mut self.states[unit as usize];
            if state.unused && state.whereabouts != Whereabouts::Queued {
                self.account.wasted_bytes += self.demand.bytes(block);
            }
            *state = State { whereabouts: Whereabouts::Absent, ahead: false, unused: false };
            self.events.push(Event::Gone(block));
        }
    }

    /// Lets time pass until then, if it is to come: for who wants to ask while nobody reads.
    pub fn wait_until(&mut self, us: i64) {
        self.now_us = self.now_us.max(us);
        self.advance();
    }

    /// Serves a request: whether all of it was here, and how long it waited, microseconds.
    pub fn serve(&mut self, step: &Step) -> (bool, u64) {
        self.request += 1;
        self.policy.cache().tick(self.request);
        let late = self.late_by.get(&step.stream).copied().unwrap_or(0);
        self.now_us = self.now_us.max(step.at_us + late);
        self.advance();
        let blocks = self.demand.blocks(step);
        if blocks.is_empty() {
            return (true, 0);
        }
        let (mut hit, mut ready_us, mut missing, mut missing_bytes) = (true, self.now_us, Vec::new(), 0);
        for block in blocks.clone() {
            let unit = self.unit(block);
            let state = self.states[unit as usize];
            let wanted = self.overlap(step, block);
            self.account.read_bytes += wanted;
            hit &= state.whereabouts == Whereabouts::Here;
            match state.whereabouts {
                Whereabouts::Here => {
                    self.account.covered_bytes += if state.ahead { wanted } else { 0 };
                }
                Whereabouts::Coming(at) => {
                    if matches!(self.link, Link::Wire { .. }) {
                        ready_us = ready_us.max(at);
                    }
                }
                Whereabouts::Absent | Whereabouts::Queued => {
                    missing_bytes += self.demand.bytes(block);
                    missing.push(unit);
                }
            }
        }
        if !missing.is_empty() {
            ready_us = ready_us.max(self.fetch_now(missing_bytes));
        }
        for block in blocks {
            self.use_block(block);
        }
        let waited = (ready_us - self.now_us).max(0);
        *self.late_by.entry(step.stream).or_insert(0) = late.max(self.now_us - step.at_us) + waited;
        self.account.requests += 1;
        self.account.hits += u64::from(hit);
        self.account.stall_us += waited as u64;
        (hit, waited as u64)
    }

    fn overlap(&self, step: &Step, block: u64) -> u64 {
        if self.demand.first_only {
            return self.demand.block_bytes;
        }
        let (start, end) = (block * self.demand.block_bytes, (block + 1) * self.demand.block_bytes);
        end.min(step.offset + step.length) - start.max(step.offset)
    }

    /// Brings what is missing; returns when it is here.
    fn fetch_now(&mut self, bytes: u64) -> i64 {
        let Link::Wire { bits_per_s, rtt_us } = self.link else { return self.now_us };
        self.wire_free_us = self.wire_free_us.max(self.now_us) + on_wire_us(bytes, bits_per_s);
        self.wire_free_us + rtt_us as i64
    }

    fn use_block(&mut self, block: u64) {
        let unit = self.unit(block);
        let state = self.states[unit as usize];
        let here = state.whereabouts == Whereabouts::Here;
        let ahead = state.ahead && here;
        if state.unused && (here || matches!(state.whereabouts, Whereabouts::Coming(_))) {
            self.account.ahead_used += 1;
            self.account.ahead_in_time += u64::from(here);
        }
        if self.policy.holds(unit) {
            self.policy.cache().used(unit);
        } else {
            let mut gone = std::mem::take(&mut self.gone);
            self.policy.cache().insert(unit, self.demand.bytes(block), false, &mut gone);
            self.gone = gone;
        }
        self.states[unit as usize] = State { whereabouts: Whereabouts::Here, ahead, unused: false };
        self.let_go();
    }

    /// Lets the wire work until now.
    fn advance(&mut self) {
        if let Link::Wire { bits_per_s, rtt_us } = self.link {
            while self.wire_free_us < self.now_us {
                let Some(unit) = self.queue.pop_front() else { break };
                self.queued_bytes -= self.demand.bytes(self.blocks[unit as usize]);
                if self.states[unit as usize].whereabouts != Whereabouts::Queued {
                    continue;
                }
                let bytes = self.demand.bytes(self.blocks[unit as usize]);
                self.take_off(unit);
                // An idle wire takes the ask up when it is made, which is at a request: at the last one before now.
                self.wire_free_us = self.wire_free_us.max(self.last_us) + on_wire_us(bytes, bits_per_s);
                let at = self.wire_free_us + rtt_us as i64;
                self.states[unit as usize].whereabouts = Whereabouts::Coming(at);
                self.coming.push_back((at, unit));
            }
            self.last_us = self.now_us;
        }
        let clock = if matches!(self.link, Link::Lead(_)) { i64::from(self.request) } else { self.now_us };
        while let Some((at, unit)) = self.coming.front().copied().filter(|(at, _)| *at <= clock) {
            self.coming.pop_front();
            let state = &mut self.states[unit as usize];
            if state.whereabouts == Whereabouts::Coming(at) {
                state.whereabouts = Whereabouts::Here;
                self.events.push(Event::Arrived(self.blocks[unit as usize]));
            }
        }
    }

    /// Settles what was fetched ahead and never used, and returns what was counted.
    pub fn close(mut self) -> Account {
        for (state, block) in self.states.iter().zip(&self.blocks) {
            if state.unused && !matches!(state.whereabouts, Whereabouts::Absent | Whereabouts::Queued) {
                self.account.wasted_bytes += self.demand.bytes(*block);
            }
        }
        self.account
    }
}

fn on_wire_us(bytes: u64, bits_per_s: u64) -> i64 {
    (8.0e6 * bytes as f64 / bits_per_s as f64).ceil() as i64
}
