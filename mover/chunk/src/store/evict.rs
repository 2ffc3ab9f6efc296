//! Which file leaves when room is wanted: a pure order over candidates.
//!
//! Least recently used is the worst choice for training: an epoch reads every file once in a new order, so the
//! file that was used longest ago is the one that comes next, and a cache of half the dataset would hit nothing.
//! [`EpochAware`] keeps a fixed part of such a set instead (hits = its share), and what the planner said
//! (`keep_until`) stands above every guess.

use foretide_flow::Timestamp;

use super::FileKey;

/// Who asks for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Somebody waits for the bytes.
    Demand,
    /// A move that somebody asked for.
    Asked,
    /// A move that a forecast asks for.
    Guess,
    /// The same, where most of what moves brought has been read.
    ProvenGuess,
}

/// What is known of a file that could leave.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Which.
    pub key: &'a FileKey,
    /// Its number in the store.
    pub no: u64,
    /// Whether a newer version of its path is here.
    pub superseded: bool,
    /// Whether a pin covers it now.
    pub pinned: bool,
    /// Keep at least until then.
    pub keep_until: Option<Timestamp>,
    /// When bytes of it last arrived.
    pub arrived_at: Timestamp,
    /// When it was last used; its arrival if never.
    pub last_used: Timestamp,
    /// Whether any of it was read.
    pub was_read: bool,
    /// Bytes that leaving sets free.
    pub bytes: u64,
}

/// Smaller leaves first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Kind of reason.
    pub class: u8,
    /// Order inside it.
    pub order: u64,
}

/// Bytes that moves brought and that were read, beside those that left unread. The older they are the less they count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Proof {
    read_bytes: u64,
    unread_bytes: u64,
}

impl Proof {
    /// So much of what has been read or has left must have been read.
    const SHARE: f64 = 0.75;
    /// At so many bytes both sums are halved.
    const HALVED_AT_BYTES: u64 = 1 << 40;

    pub(super) fn holds(&self) -> bool {
        let known = self.read_bytes + self.unread_bytes;
        known > 0 && self.read_bytes as f64 >= known as f64 * Self::SHARE
    }

    pub(super) fn read(&mut self, bytes: u64) {
        self.read_bytes += bytes;
        self.age();
    }

    pub(super) fn left_unread(&mut self, bytes: u64) {
        self.unread_bytes += bytes;
        self.age();
    }

    fn age(&mut self) {
        if self.read_bytes + self.unread_bytes > Self::HALVED_AT_BYTES {
            self.read_bytes /= 2;
            self.unread_bytes /= 2;
        }
    }
}

/// A way to choose.
pub trait EvictionPolicy: Send + Sync + std::fmt::Debug {
    /// Its place in the order; none if it may not leave for this claim.
    fn rank(&self, candidate: &Candidate<'_>, claim: Claim, now: Timestamp) -> Option<Rank>;
}

/// The default. In this order: older versions; what a move brought and nobody read in its time; what nobody has
/// used for a day, oldest first; the rest in a fixed order of its own, which keeps the same part of a set that is
/// read round and round; and, for a reader that waits (promise G), what the planner keeps, furthest future first.
/// What is pinned stays, and a guess takes no room of what readers use before guesses have proved themselves (promise H).
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochAware;

/// Longer than the epochs of most trainings, shorter than the time until a dataset is forgotten.
const STALE_AFTER_S: u64 = 24 * 3600;

impl EvictionPolicy for EpochAware {
    fn rank(&self, c: &Candidate<'_>, claim: Claim, now: Timestamp) -> Option<Rank> {
        let oldest_first = c.last_used.0.max(0) as u64;
        if c.pinned {
            return None;
        }
        if c.superseded {
            return Some(Rank { class: 0, order: oldest_first });
        }
        match (c.keep_until.filter(|t| *t > now), claim) {
            (Some(until), Claim::Demand) => return Some(Rank { class: 4, order: u64::MAX - until.0.max(0) as u64 }),
            (Some(_), _) => return None,
            (None, _) => {}
        }
        Some(if c.keep_until.is_some() && !c.was_read {
            Rank { class: 1, order: oldest_first }
        } else if now.since(c.last_used).as_secs() > STALE_AFTER_S {
            Rank { class: 2, order: oldest_first }
        } else if claim == Claim::Guess {
            return None;
        } else {
            Rank { class: 3, order: scattered(c.no) }
        })
    }
}

/// A fixed order without relation to names or times (SplitMix64's finaliser).
fn scattered(no: u64) -> u64 {
    let mut x = no.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::{FilePath, FileVersion, VolumeId};

    fn key() -> FileKey {
        FileKey {
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::parse("f").unwrap(),
            version: FileVersion("1".into()),
        }
    }

    fn candidate(key: &FileKey, no: u64) -> Candidate<'_> {
        Candidate {
            key,
            no,
            superseded: false,
            pinned: false,
            keep_until: None,
            arrived_at: Timestamp(0),
            last_used: Timestamp(0),
            was_read: true,
            bytes: 1,
        }
    }

    #[test]
    fn promise_g_a_reader_displaces_what_is_kept_but_nothing_pinned_and_a_move_neither() {
        let key = key();
        let kept = Candidate { keep_until: Some(Timestamp(10)), ..candidate(&key, 1) };
        let pinned = Candidate { pinned: true, ..kept };
        let rank = |c: &Candidate<'_>, claim| EpochAware.rank(c, claim, Timestamp(5));
        assert!(rank(&kept, Claim::Asked).is_none() && rank(&kept, Claim::Demand).is_some());
        assert!(rank(&pinned, Claim::Asked).is_none() && rank(&pinned, Claim::Demand).is_none());
        assert!(rank(&candidate(&key, 2), Claim::Demand) < rank(&kept, Claim::Demand));
    }

    #[test]
    fn waste_leaves_before_what_is_used_and_old_versions_before_all() {
        let key = key();
        let now = Timestamp(100);
        let rank = |c: Candidate<'_>| EpochAware.rank(&c, Claim::ProvenGuess, now);
        let old = rank(Candidate { superseded: true, ..candidate(&key, 1) });
        let waste = rank(Candidate { keep_until: Some(Timestamp(50)), was_read: false, ..candidate(&key, 2) });
        let used = rank(candidate(&key, 3));
        assert!(old < waste && waste < used);
    }

    #[test]
    fn promise_h_a_guess_displaces_what_readers_use_only_once_guesses_have_proved_themselves() {
        let key = key();
        let used = candidate(&key, 1);
        let rank = |c: &Candidate<'_>, claim| EpochAware.rank(c, claim, Timestamp(5));
        assert!(rank(&used, Claim::Guess).is_none());
        assert!([Claim::ProvenGuess, Claim::Asked, Claim::Demand].iter().all(|c| rank(&used, *c).is_some()));
        let waste = Candidate { keep_until: Some(Timestamp(2)), was_read: false, ..used };
        assert!(rank(&waste, Claim::Guess).is_some());
        let forgotten = EpochAware.rank(&used, Claim::Guess, Timestamp(STALE_AFTER_S as i64 * 2_000_000));
        assert!(forgotten.is_some(), "nobody has used it for long");
    }

    /// A cache of half of a set that is read in a new order each epoch: a fixed order hits about half (the best
    /// that is possible without knowing the order), least recently used far less.
    #[test]
    fn a_set_read_round_and_round_keeps_a_fixed_part() {
        use rand::SeedableRng;
        use rand::seq::SliceRandom;
        let (files, room, epochs) = (400u64, 200usize, 6);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let key = key();
        let hits = |by: &dyn Fn(u64, i64) -> Rank, rng: &mut rand_chacha::ChaCha8Rng| {
            let mut held = std::collections::HashMap::<u64, i64>::new();
            let (mut clock, mut hits) = (0i64, 0u64);
            for epoch in 0..epochs {
                let mut order: Vec<u64> = (0..files).collect();
                order.shuffle(rng);
                for f in order {
                    clock += 1;
                    if held.insert(f, clock).is_some() {
                        hits += u64::from(epoch > 0);
                    } else if held.len() > room {
                        let out = *held.iter().min_by_key(|(f, used)| by(**f, **used)).unwrap().0;
                        held.remove(&out);
                    }
                }
            }
            hits as f64 / (files * (epochs - 1)) as f64
        };
        let ours = hits(
            &|no, used| {
                let c = Candidate { last_used: Timestamp(used), ..candidate(&key, no) };
                EpochAware.rank(&c, Claim::Demand, Timestamp(10_000)).unwrap()
            },
            &mut rng,
        );
        let lru = hits(&|_, used| Rank { class: 0, order: used as u64 }, &mut rng);
        assert!(ours > 0.45 && ours > lru + 0.1, "ours {ours}, least recently used {lru}");
    }
}
