//! Sets: files of one kind, all of which a run reads, in whatever order.
//!
//! Once a run has read [`RECOGNISED`] files of such a kind, nearly whole, all of the kind that there are are expected,
//! one visit each; once it comes again to a file after nearly all were had, a further pass over all.

use std::collections::HashMap;

use crate::evaluate::demand::{Demand, Step};
use crate::shape::shape;

/// Files after which a set is recognised.
const RECOGNISED: usize = 32;
/// Share of the bytes of its files that must have been read, some of which are being read.
const WHOLE: f64 = 0.8;
/// Share of a set that must have been had before a file that comes again begins the next pass.
const HAD: f64 = 0.9;
/// Uses of a file by one stream with no other file between, or within so many requests, are one visit.
const ONE_VISIT: u32 = 32;

#[derive(Default)]
struct Set {
    files: Vec<u32>,
    /// Visits of each file, and when the last was, requests.
    visits: HashMap<u32, (u32, u32)>,
    read_bytes: u64,
    visited_bytes: u64,
    /// Passes that were told; 0 before it is recognised.
    passes: u32,
}

/// A set that was recognised, or is read once more: visits made of each of its files, and passes over all that are
/// under way.
pub(super) struct Pass {
    pub(super) files: Vec<(u32, u32)>,
    pub(super) passes: u32,
}

/// See the module.
#[derive(Default)]
pub(super) struct Sets {
    sets: Vec<Set>,
    of_file: HashMap<u32, usize>,
    at: HashMap<u32, u32>,
}

impl Sets {
    /// The sets that these files may make up.
    pub(super) fn new(demand: &Demand<'_>, files: &[u32]) -> Self {
        let mut of_kind: HashMap<String, usize> = HashMap::new();
        let mut out = Self::default();
        for file in files {
            let kind = shape(&demand.trace.files[*file as usize].path).text;
            let set = *of_kind.entry(kind).or_insert_with(|| {
                out.sets.push(Set::default());
                out.sets.len() - 1
            });
            out.sets[set].files.push(*file);
            out.of_file.insert(*file, set);
        }
        out
    }

    /// Takes a request, and tells of the set that it makes known, or begins anew.
    pub(super) fn observe(&mut self, demand: &Demand<'_>, step: &Step, request: u32) -> Option<Pass> {
        let set = &mut self.sets[*self.of_file.get(&step.file)?];
        let same = self.at.insert(step.stream, step.file) == Some(step.file);
        let (visits, last) = set.visits.entry(step.file).or_insert((0, request));
        let visit = *visits == 0 || (!same && request - *last > ONE_VISIT);
        *visits += u32::from(visit);
        *last = request;
        let visits = *visits;
        if visits == 1 {
            set.read_bytes += step.length;
            set.visited_bytes += if visit { demand.places[step.file as usize].size } else { 0 };
        }
        let had = set.visits.len() as f64 >= HAD * set.files.len() as f64;
        let whole = set.read_bytes as f64 >= WHOLE * set.visited_bytes as f64;
        let recognised = set.passes == 0 && set.visits.len() >= RECOGNISED && whole;
        let again = set.passes > 0 && visits > set.passes && had;
        (recognised || again).then(|| {
            set.passes = visits.max(1);
            let made = |file: &u32| set.visits.get(file).map_or(0, |(visits, _)| *visits);
            Pass { files: set.files.iter().map(|f| (*f, made(f))).collect(), passes: set.passes }
        })
    }

    /// Bytes that it keeps.
    pub(super) fn bytes(&self) -> usize {
        let files: usize = self.sets.iter().map(|s| s.files.len() + s.visits.len()).sum();
        files * size_of::<(u32, u32, u32)>() + self.of_file.len() * size_of::<(u32, usize)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{Format, Numbers, Request, RequestOp, Stream, Trace, TracedFile};

    /// A run that reads the files of one kind in this order, each whole or only its first tenth.
    fn trace(order: &[u32], files: u32, whole: bool) -> Trace {
        let request = |(i, file): (usize, &u32)| Request {
            at_us: i as i64 * 1000,
            stream: 0,
            file: *file,
            op: RequestOp::Read,
            offset: 0,
            length: if whole { 1000 } else { 100 },
        };
        Trace {
            path: "made".into(),
            format: Format::Ours,
            timed: true,
            numbers: Numbers::Addresses,
            files: (0..files).map(|i| TracedFile { path: format!("set/f-{i}").into_bytes(), size: 1000 }).collect(),
            streams: vec![Stream { run: "r".into(), job: "j".into(), process: 0 }],
            requests: order.iter().enumerate().map(request).collect(),
            left_out: 0,
        }
    }

    /// After how many requests a pass was told, and which.
    fn told(trace: &Trace) -> Vec<(usize, u32)> {
        let demand = Demand::new(trace, Some(1000), false, false);
        let files: Vec<u32> = (0..trace.files.len() as u32).collect();
        let mut sets = Sets::new(&demand, &files);
        let mut told = Vec::new();
        for (i, step) in demand.steps.iter().enumerate() {
            if let Some(pass) = sets.observe(&demand, step, i as u32) {
                assert_eq!(pass.files.len(), trace.files.len());
                told.push((i + 1, pass.passes));
            }
        }
        told
    }

    #[test]
    fn a_set_is_recognised_and_each_further_pass_told_once() {
        let order: Vec<u32> = (0..100).map(|i| i * 37 % 100).chain((0..100).map(|i| i * 61 % 100)).collect();
        assert_eq!(told(&trace(&order, 100, true)), [(RECOGNISED, 1), (101, 2)]);
    }

    #[test]
    fn files_read_in_parts_and_draws_make_no_set() {
        let order: Vec<u32> = (0..100).collect();
        assert_eq!(told(&trace(&order, 100, false)), []);
        let few: Vec<u32> = (0..400).map(|i| i * i % 31).collect();
        assert_eq!(told(&trace(&few, 1000, true)), []);
    }
}
