//! Which order a sampler of PyTorch's gives, drawn again from its parameters.
//!
//! A seed and a few numbers tell an epoch of a million files ([`foretide_draw`] has the generator and the shuffle), and
//! what follows is exact, not a forecast. `tests/data/samplers.py` records what PyTorch draws, and the tests here draw the
//! same.
//!
//! - `RandomSampler` draws from one generator over all epochs, and two permutations in each: that of the epoch, and one
//!   of which it takes what is left over of `num_samples`, which is nothing unless that is set.
//! - `DistributedSampler` seeds anew with `seed + epoch`, goes on from the front until all ranks have as many (or
//!   with `drop_last` leaves out the end), and gives rank `r` every `world_size`-th from `r` on.

use foretide_draw::{Twister, permutation};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Files of a data set of which an order is drawn. PyTorch itself draws otherwise from 2^32 / 20 on; far below that,
/// a list of indices is some megabytes.
pub(crate) const DRAWN_MAX_FILES: u64 = 2_000_000;
/// Numbers drawn for one order, about a second's work: what comes before an epoch of a generator has to be drawn, too.
const DRAWS_MAX: u64 = 1 << 28;

/// Which of PyTorch's samplers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// `SequentialSampler`: one file after the other.
    #[default]
    Sequential,
    /// `RandomSampler` with a generator that was seeded before epoch 0 and used for nothing else.
    Random,
    /// `DistributedSampler`.
    Distributed,
}

/// A sampler's parameters, in PyTorch's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sampler {
    /// Which one.
    pub kind: SamplerKind,
    /// `seed` of the distributed one, or what the random one's generator was seeded with.
    pub seed: u64,
    /// Which epoch, from 0 on.
    #[schema(maximum = 1000000)]
    pub epoch: u64,
    /// Which rank's share: of the distributed one alone, as all that follows.
    pub rank: u32,
    /// How many ranks there are (`num_replicas`).
    #[schema(minimum = 1)]
    pub world_size: u32,
    /// Whether it shuffles.
    pub shuffle: bool,
    /// Whether files are left out, rather than read twice, where the ranks' shares do not come out even.
    pub drop_last: bool,
    /// How the order begins, as the job has drawn it: if it does not begin so here, the announcement is refused.
    #[schema(max_items = 100)]
    pub begins: Vec<u64>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            kind: SamplerKind::Sequential,
            seed: 0,
            epoch: 0,
            rank: 0,
            world_size: 1,
            shuffle: true,
            drop_last: false,
            begins: Vec::new(),
        }
    }
}

impl Sampler {
    /// Whether it can be drawn of so many files; else what is wrong, in words.
    pub(crate) fn check(&self, files: u64) -> Result<(), String> {
        let Self { kind, epoch, rank, world_size, .. } = *self;
        if !(1..=DRAWN_MAX_FILES).contains(&files) {
            return Err(format!("a data set of {files} files: an order is drawn of 1 to {DRAWN_MAX_FILES}"));
        }
        if rank >= world_size {
            return Err(format!("rank {rank} of {world_size}: ranks count from 0"));
        }
        if kind != SamplerKind::Distributed && world_size != 1 {
            return Err("rank and world_size are the distributed sampler's".into());
        }
        if epoch > 1_000_000 || self.begins.len() > 100 {
            return Err("give an epoch of at most 1000000, and at most 100 indices in begins".into());
        }
        if kind == SamplerKind::Random && (2 * epoch + 1).saturating_mul(files) > DRAWS_MAX {
            return Err(format!(
                "epoch {epoch} of one generator over {files} files: too much has been drawn before; announce the list"
            ));
        }
        Ok(())
    }

    /// The indices of its epoch in order, of a data set that was [checked](Self::check).
    pub(crate) fn order(&self, files: u32) -> Vec<u32> {
        match self.kind {
            SamplerKind::Sequential => (0..files).collect(),
            SamplerKind::Random => {
                let mut generator = seeded(self.seed);
                generator.skip(2 * self.epoch * u64::from(files.saturating_sub(1)));
                permutation(&mut generator, files)
            }
            SamplerKind::Distributed => {
                let whole: Vec<u32> = if self.shuffle {
                    permutation(&mut seeded(self.seed.wrapping_add(self.epoch)), files)
                } else {
                    (0..files).collect()
                };
                self.share(&whole)
            }
        }
    }

    /// Every `world_size`-th of what all ranks read, which begins anew at its end.
    fn share(&self, whole: &[u32]) -> Vec<u32> {
        let (ranks, rank) = (self.world_size as usize, self.rank as usize);
        let each = if self.drop_last { whole.len() / ranks } else { whole.len().div_ceil(ranks) };
        (0..each).map(|turn| whole[(turn * ranks + rank) % whole.len()]).collect()
    }

    /// Whether the order that was drawn begins as the job says.
    pub(crate) fn agrees(&self, order: &[u32]) -> bool {
        self.begins.len() <= order.len()
            && self.begins.iter().zip(order).all(|(said, drawn)| *said == u64::from(*drawn))
    }
}

/// PyTorch keeps 64 bits of a seed and seeds with 32.
fn seeded(seed: u64) -> Twister {
    Twister::new((seed & u64::from(u32::MAX)) as u32)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[derive(Deserialize)]
    struct Recorded {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        sampler: Sampler,
        files: u32,
        draws: usize,
        first: Vec<u32>,
        sha256: String,
    }

    #[test]
    fn every_order_that_pytorch_drew_is_drawn_again() {
        let recorded: Recorded = serde_json::from_str(include_str!("../tests/data/samplers.json")).unwrap();
        assert!(recorded.cases.len() >= 15);
        for Case { sampler, files, draws, first, sha256 } in recorded.cases {
            sampler.check(u64::from(files)).unwrap();
            let order = sampler.order(files);
            assert_eq!((order.len(), &order[..first.len()]), (draws, &first[..]), "{sampler:?} of {files}");
            let text = order.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let digest: String = Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(digest, sha256, "{sampler:?} of {files}");
        }
    }

    #[test]
    fn together_the_ranks_read_everything() {
        for (files, world_size, drop_last) in [(10, 3, false), (10, 3, true), (2, 5, false), (2, 5, true)] {
            let of =
                |rank| Sampler { kind: SamplerKind::Distributed, rank, world_size, drop_last, ..Sampler::default() };
            let mut all: Vec<u32> = (0..world_size).flat_map(|rank| of(rank).order(files)).collect();
            let read = all.len() as u32;
            all.sort_unstable();
            all.dedup();
            let dropped = if drop_last { files % world_size } else { 0 };
            assert_eq!(all.len() as u32, files - dropped, "{files} over {world_size}, drop_last {drop_last}");
            assert_eq!(read % world_size, 0, "each has as many");
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let distributed = Sampler { kind: SamplerKind::Distributed, world_size: 4, ..Sampler::default() };
        assert!(distributed.check(10).is_ok());
        for (sampler, files) in [
            (distributed.clone(), 0),
            (distributed.clone(), DRAWN_MAX_FILES + 1),
            (Sampler { rank: 4, ..distributed.clone() }, 10),
            (Sampler { kind: SamplerKind::Random, world_size: 2, ..Sampler::default() }, 10),
            (Sampler { world_size: 0, ..Sampler::default() }, 10),
            (Sampler { kind: SamplerKind::Random, epoch: 200, ..Sampler::default() }, 1_000_000),
            (Sampler { epoch: u64::MAX, ..Sampler::default() }, 1),
        ] {
            assert!(sampler.check(files).is_err(), "{sampler:?} of {files}");
        }
    }

    #[test]
    fn a_job_that_draws_otherwise_is_noticed() {
        let sampler = |begins: &[u64]| Sampler { begins: begins.to_vec(), ..Sampler::default() };
        assert!(sampler(&[]).agrees(&[0, 1]) && sampler(&[0, 1]).agrees(&[0, 1]));
        assert!(!sampler(&[1]).agrees(&[0, 1]) && !sampler(&[0, 1, 2]).agrees(&[0, 1]));
    }
}
