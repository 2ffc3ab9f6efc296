//! Who waits for news is woken at once.
//!
//! One counter per topic in a `watch` channel: a listener that sleeps through ten changes sees one, and none
//! that lags can hold anybody up or grow a queue.

use tokio::sync::watch;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Listings, or requests to learn some.
    Namespace,
    /// Agents and runs.
    Fleet,
    /// Profiles and forecasts.
    Learned,
    /// Plans, and moves that came with them.
    Plans,
    /// Outcomes: states of moves, residency, reads.
    Outcomes,
    /// Warm-ups.
    Warmups,
    /// Settings, such as the prefetch switch, and who gives what.
    Settings,
    /// Events.
    Events,
    /// Which chunks stand in several files.
    Shared,
}

impl Topic {
    /// All of them.
    pub const ALL: [Topic; 9] = [
        Topic::Namespace,
        Topic::Fleet,
        Topic::Learned,
        Topic::Plans,
        Topic::Outcomes,
        Topic::Warmups,
        Topic::Settings,
        Topic::Events,
        Topic::Shared,
    ];
}

/// The sending ends.
#[derive(Debug)]
pub(crate) struct Topics([watch::Sender<u64>; Topic::ALL.len()]);

impl Topics {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| watch::Sender::new(0)))
    }

    pub(crate) fn listen(&self, topic: Topic) -> watch::Receiver<u64> {
        self.0[topic as usize].subscribe()
    }

    pub(crate) fn tell(&self, topic: Topic) {
        self.0[topic as usize].send_modify(|n| *n = n.wrapping_add(1));
    }
}
