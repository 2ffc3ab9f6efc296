//! S3-FIFO with a protected queue for what was fetched ahead of its use.
//!
//! *Main* is S3-FIFO (Yang et al., SOSP 2023): a small first-in-first-out list of a tenth, from which only what was
//! used twice gets into the large one; what leaves the small list unused is remembered for a while, and enters the
//! large one at once when it comes again.
//!
//! *The queue* holds what was fetched ahead, up to a share of the cache; what it does not fill is main's. A block
//! leaves it when it is used (a crowded queue hands it to main's small list, a roomy one lets it stay one more round),
//! when the queue is over its share, or when it has waited longer than blocks of main would.

use super::{Cache, Lists, NIL, Unit};

const SMALL: usize = 0;
const LARGE: usize = 1;
const QUEUE: usize = 2;

/// Share of the cache that the queue may take.
const QUEUE_SHARE: f64 = 0.8;
/// The queue is crowded from this share of what it may take.
const CROWDED: f64 = 0.5;
/// Share of main that is the small list's.
const SMALL_SHARE: f64 = 0.1;
/// Uses that lift a block from the small list into the large one.
const LIFTED: u8 = 2;
/// Most uses that are counted.
const USES: u8 = 3;
/// Requests that a fetched block may wait, as a share of the blocks of the cache, and at least.
const PATIENCE_SHARE: f64 = 0.2;
const PATIENCE_LEAST: u32 = 64;
/// Bytes that leave main while a block that left it unused is remembered, as a share of the cache.
const REMEMBERED: f64 = 0.9;

/// See the module.
pub struct Guarded {
    lists: Lists<3>,
    capacity: u64,
    /// Bytes that had left the small list when each block did; 0 where it never did.
    left_small_at: Vec<u64>,
    left_small: u64,
    /// When each block was fetched ahead or proposed again.
    queued_at: Vec<u32>,
    requests: u32,
    /// Requests between the ask and the arrival: nothing can be used before.
    lead: u32,
    block_bytes: u64,
    /// Whether what was fetched ahead may wait for any time.
    patient: bool,
}

impl Guarded {
    /// An empty cache of so many bytes, for blocks of about `block_bytes`, fetches of which take `lead` requests.
    pub fn new(capacity: u64, block_bytes: u64, lead: u32) -> Self {
        Self {
            lists: Lists::new(),
            capacity,
            left_small_at: Vec::new(),
            left_small: 1,
            queued_at: Vec::new(),
            requests: 0,
            lead,
            block_bytes,
            patient: false,
        }
    }

    /// The same for what is fetched long before its use, where time does not show that it was fetched in vain.
    pub fn patient(capacity: u64, block_bytes: u64) -> Self {
        Self { patient: true, ..Self::new(capacity, block_bytes, 0) }
    }

    /// Takes a block out; its bytes, if it was here.
    pub fn take(&mut self, unit: Unit) -> Option<u64> {
        self.lists.list(unit).is_some().then(|| self.lists.remove(unit))
    }

    fn share(&self, share: f64) -> u64 {
        (share * self.capacity as f64) as u64
    }

    fn make_room(&mut self, for_bytes: u64, gone: &mut Vec<Unit>) {
        while self.lists.bytes() + for_bytes > self.capacity {
            let over = self.lists.lists[QUEUE].bytes > self.share(QUEUE_SHARE);
            let main = self.lists.lists[SMALL].bytes + self.lists.lists[LARGE].bytes;
            if over || main == 0 || self.waited_too_long() {
                self.leave_queue(gone);
            } else {
                self.leave_main(gone);
            }
        }
    }

    fn waited_too_long(&self) -> bool {
        if self.patient {
            return false;
        }
        let patience = (PATIENCE_SHARE * (self.capacity / self.block_bytes) as f64) as u32;
        self.lists.oldest(QUEUE).is_some_and(|oldest| {
            self.requests.saturating_sub(self.queued_at[oldest as usize]) > patience.max(PATIENCE_LEAST) + self.lead
        })
    }

    fn leave_queue(&mut self, gone: &mut Vec<Unit>) {
        let Some(oldest) = self.lists.oldest(QUEUE) else { return };
        let bytes = self.lists.remove(oldest);
        if self.lists.node(oldest).uses > 0 {
            self.lists.node(oldest).uses = 0;
            self.queued_at[oldest as usize] = self.requests;
            self.lists.push(oldest, QUEUE, bytes);
        } else {
            gone.push(oldest);
        }
    }

    fn leave_main(&mut self, gone: &mut Vec<Unit>) {
        let main = self.capacity.saturating_sub(self.lists.lists[QUEUE].bytes);
        let small = self.lists.lists[SMALL].bytes as f64;
        if small >= (SMALL_SHARE * main as f64).max(1.0) || self.lists.oldest(LARGE).is_none() {
            while let Some(oldest) = self.lists.oldest(SMALL) {
                let bytes = self.lists.remove(oldest);
                let uses = std::mem::take(&mut self.lists.node(oldest).uses);
                if uses < LIFTED {
                    self.remember(oldest, bytes);
                    gone.push(oldest);
                    return;
                }
                self.lists.push(oldest, LARGE, bytes);
            }
        }
        while let Some(oldest) = self.lists.oldest(LARGE) {
            let bytes = self.lists.remove(oldest);
            if self.lists.node(oldest).uses == 0 {
                gone.push(oldest);
                return;
            }
            self.lists.node(oldest).uses -= 1;
            self.lists.push(oldest, LARGE, bytes);
        }
    }

    fn remember(&mut self, unit: Unit, bytes: u64) {
        if self.left_small_at.len() <= unit as usize {
            self.left_small_at.resize(unit as usize + 1, 0);
        }
        self.left_small += bytes;
        self.left_small_at[unit as usize] = self.left_small;
    }

    fn recalled(&mut self, unit: Unit) -> bool {
        let Some(at) = self.left_small_at.get_mut(unit as usize) else { return false };
        let at = std::mem::take(at);
        at > 0 && self.left_small - at < (REMEMBERED * self.capacity as f64) as u64
    }
}

impl Cache for Guarded {
    fn holds(&self, unit: Unit) -> bool {
        self.lists.list(unit).is_some()
    }

    fn used(&mut self, unit: Unit) {
        let queued = self.lists.lists[QUEUE].bytes as f64;
        let crowded = queued > CROWDED * QUEUE_SHARE * self.capacity as f64;
        if self.lists.list(unit) == Some(QUEUE) && crowded {
            let bytes = self.lists.remove(unit);
            self.lists.node(unit).uses = 0;
            self.lists.push(unit, SMALL, bytes);
        } else {
            let node = self.lists.node(unit);
            node.uses = (node.uses + 1).min(USES);
        }
    }

    fn insert(&mut self, unit: Unit, bytes: u64, ahead_of_use: bool, gone: &mut Vec<Unit>) {
        if bytes > self.capacity {
            gone.push(unit);
            return;
        }
        self.make_room(bytes, gone);
        let list = if ahead_of_use {
            QUEUE
        } else if self.recalled(unit) {
            LARGE
        } else {
            SMALL
        };
        self.lists.push(unit, list, bytes);
        self.lists.node(unit).uses = 0;
        if ahead_of_use {
            if self.queued_at.len() <= unit as usize {
                self.queued_at.resize(unit as usize + 1, 0);
            }
            self.queued_at[unit as usize] = self.requests;
        }
    }

    fn refresh(&mut self, unit: Unit) {
        if self.lists.list(unit) == Some(QUEUE) && self.lists.lists[QUEUE].newest != NIL {
            let bytes = self.lists.remove(unit);
            self.lists.push(unit, QUEUE, bytes);
            self.queued_at[unit as usize] = self.requests;
        }
    }

    fn resize(&mut self, bytes: u64, gone: &mut Vec<Unit>) {
        self.capacity = bytes;
        self.make_room(0, gone);
    }

    fn tick(&mut self, requests: u32) {
        self.requests = requests;
    }
}
