//! A made-up site: a directory of files, jobs that read them, batches as a collector would send them.

use std::time::{Duration, Instant};

use foretide_flow::{
    Access, AccessBatch, AccessOp, Entry, EntryKind, FilePath, FileVersion, Forecast, Found, Listing, Losses, RunEnd,
    RunStart, Timestamp,
};
use foretide_model::{Advice, Model};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Names of things here.
pub mod names {
    use foretide_flow::{NodeId, SiteId, Timestamp, VolumeId};

    /// A moment, seconds after this world began.
    pub fn at(seconds: f64) -> Timestamp {
        Timestamp::from_secs_f64(1_790_000_000.0 + seconds)
    }
    pub fn volume() -> VolumeId {
        VolumeId::new("data").unwrap()
    }
    pub fn node() -> NodeId {
        NodeId::new("gpu-1").unwrap()
    }
    pub fn gpu() -> SiteId {
        SiteId::new("gpu").unwrap()
    }
}

/// The files of a volume, and the batches sent from it.
pub struct Site {
    pub files: Vec<(String, u64)>,
    sequence: u64,
    /// Forecasts of runs to come, as given out while playing.
    pub last_awaited: Vec<Forecast>,
    pub slowest: Duration,
    pub observing: Duration,
    pub accesses: u32,
}

/// What a job reads: file, first byte and bytes, in order, by so many workers.
pub struct Job {
    reads: Vec<(usize, u64, u64)>,
    workers: usize,
    numbers: Vec<Option<u32>>,
}

impl Job {
    fn by(reads: Vec<(usize, u64, u64)>, workers: usize) -> Self {
        Self { reads, workers, numbers: Vec::new() }
    }

    /// The same with these numbers on its command line.
    pub fn with(self, numbers: &[Option<u32>]) -> Self {
        Self { numbers: numbers.to_vec(), ..self }
    }

    pub fn shuffled(site: &Site, epochs: u64, workers: usize) -> Self {
        let mut draw = StdRng::seed_from_u64(7);
        let mut reads = Vec::new();
        for _ in 0..epochs {
            let mut order: Vec<usize> = (0..site.train()).collect();
            order.shuffle(&mut draw);
            reads.extend(order.into_iter().map(|f| (f, 0, site.files[f].1)));
        }
        Self::by(reads, workers)
    }

    /// These files of `train/`, by number.
    pub fn of(site: &Site, order: &[u32], workers: usize) -> Self {
        let files = order.iter().map(|f| *f as usize);
        Self::by(files.map(|f| (f, 0, site.files[f].1)).collect(), workers)
    }

    pub fn by_name(site: &Site, workers: usize) -> Self {
        let mut order: Vec<usize> = (0..site.train()).collect();
        order.sort_by_key(|f| site.files[*f].0.clone());
        Self::by(order.into_iter().map(|f| (f, 0, site.files[f].1)).collect(), workers)
    }

    pub fn drawn(site: &Site, count: usize, workers: usize) -> Self {
        let mut draw = StdRng::seed_from_u64(11);
        let files = (0..count).map(|_| draw.random_range(0..site.train()));
        Self::by(files.map(|f| (f, 0, site.files[f].1)).collect(), workers)
    }

    pub fn seeks(site: &Site, count: usize) -> Self {
        let mut draw = StdRng::seed_from_u64(13);
        let size = site.files[0].1;
        Self::by((0..count).map(|_| (0, draw.random_range(0..size / 4096) * 4096, 4096)).collect(), 1)
    }

    pub fn changing(site: &Site, before: usize) -> Self {
        let mut order: Vec<usize> = (0..site.train()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(17));
        order.truncate(before);
        order.extend(site.train()..site.files.len());
        Self::by(order.into_iter().map(|f| (f, 0, site.files[f].1)).collect(), 4)
    }
}

impl Site {
    /// `train/` with this many files, one in a thousand of them large, and `other/` with half as many.
    pub fn new(count: usize) -> Self {
        let size = |i: usize| if count == 1 { 64 << 20 } else { 50_000 + (i as u64 * 7919) % 150_000 };
        let mut files: Vec<(String, u64)> = (0..count).map(|i| (format!("train/img-{i:05}.jpg"), size(i))).collect();
        files.extend((0..count / 2).map(|i| (format!("other/doc-{i:05}.txt"), size(i))));
        Self {
            files,
            sequence: 0,
            last_awaited: Vec::new(),
            slowest: Duration::ZERO,
            observing: Duration::ZERO,
            accesses: 0,
        }
    }

    fn train(&self) -> usize {
        self.files.iter().filter(|f| f.0.starts_with("train/")).count()
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().filter(|f| f.0.starts_with("train/")).map(|f| f.1).sum()
    }

    fn listing(&self, directory: &FilePath, at: Timestamp) -> Listing {
        let entry = |(path, size): &(String, u64)| Entry {
            path: FilePath::parse(path).unwrap(),
            kind: EntryKind::File,
            size: *size,
            modified_at: names::at(-86_400.0),
            mode: 0o644,
            uid: 0,
            gid: 0,
            links: 1,
            version: FileVersion("v1".into()),
        };
        let entries = self.files.iter().map(entry).filter(|e| e.path.parent().as_ref() == Some(directory)).collect();
        Listing { volume: names::volume(), directory: directory.clone(), seen_at: at, entries }
    }

    /// Plays a job at 1,000 files a second in batches of 50 ms, answering what the model wants to know.
    pub fn play(
        &mut self,
        model: &mut Model,
        job: &Job,
        run: &str,
        start_s: f64,
        mut heard: impl FnMut(usize, &Advice),
    ) {
        self.run(model, job, run, start_s, usize::MAX, &mut heard);
    }

    /// Plays the first reads of a job and leaves the run open.
    pub fn play_part(&mut self, model: &mut Model, job: &Job, run: &str, start_s: f64, reads: usize) {
        self.run(model, job, run, start_s, reads, &mut |_, _| {});
    }

    /// Tells the start of a run that has read nothing yet; what the model then says.
    pub fn begin(&mut self, model: &mut Model, job: &Job, run: &str, start_s: f64) -> Advice {
        self.send(model, vec![start(job, run, start_s)], vec![], vec![]);
        model.advise(names::at(start_s))
    }

    fn run(
        &mut self,
        model: &mut Model,
        job: &Job,
        run: &str,
        start_s: f64,
        most: usize,
        heard: &mut dyn FnMut(usize, &Advice),
    ) {
        const PER_BATCH: usize = 50;
        let reads = &job.reads[..most.min(job.reads.len())];
        let mut started = vec![start(job, run, start_s)];
        let mut seen = 0;
        for chunk in reads.chunks(PER_BATCH) {
            let accesses = self.accesses_of(chunk, seen, job.workers, run, start_s);
            seen += chunk.len();
            let at = start_s + seen as f64 / 1000.0;
            let ended = (seen == job.reads.len()).then(|| RunEnd { run: run.into(), at: names::at(at) });
            self.send(model, std::mem::take(&mut started), accesses, ended.into_iter().collect());
            self.ask(model, at, seen, heard);
        }
    }

    fn accesses_of(
        &self,
        chunk: &[(usize, u64, u64)],
        before: usize,
        workers: usize,
        run: &str,
        start_s: f64,
    ) -> Vec<Access> {
        let mut out = Vec::new();
        // Workers overlap: each opens its file before the one before has closed its own.
        for (i, (file, offset, length)) in chunk.iter().enumerate() {
            let at = start_s + (before + i) as f64 / 1000.0;
            let access = |op, after: f64| Access {
                at: names::at(at + after),
                run: run.into(),
                process: ((before + i) % workers) as u32,
                volume: names::volume(),
                path: FilePath::parse(&self.files[*file].0).unwrap(),
                op,
                offset: if op == AccessOp::Read { *offset } else { 0 },
                length: if op == AccessOp::Read { *length } else { 0 },
                blocked_us: 0,
                found: Found::Unknown,
            };
            out.push(access(AccessOp::Open, 0.0));
            out.push(access(AccessOp::Read, 0.0001));
            out.push(access(AccessOp::Close, workers as f64 / 1000.0 - 0.0005));
        }
        out.sort_by_key(|a| a.at);
        out
    }

    fn send(&mut self, model: &mut Model, started: Vec<RunStart>, accesses: Vec<Access>, ended: Vec<RunEnd>) {
        self.sequence += 1;
        self.accesses += accesses.len() as u32;
        let batch = AccessBatch {
            node: names::node(),
            site: names::gpu(),
            sequence: self.sequence,
            started,
            accesses,
            ended,
            losses: Losses::default(),
        };
        let began = Instant::now();
        model.observe(&batch);
        self.observing += began.elapsed();
    }

    fn ask(&mut self, model: &mut Model, at: f64, seen: usize, heard: &mut dyn FnMut(usize, &Advice)) {
        let began = Instant::now();
        let mut advice = model.advise(names::at(at));
        self.slowest = self.slowest.max(began.elapsed());
        for wanted in &advice.wanted {
            let directories: Vec<FilePath> = if wanted.recursive {
                ["train", "other"].iter().map(|d| FilePath::parse(d).unwrap()).collect()
            } else {
                vec![wanted.directory.clone()]
            };
            for directory in directories.iter().filter(|d| d.is_within(&wanted.directory)) {
                model.learn(&self.listing(directory, names::at(at)));
            }
        }
        if !advice.wanted.is_empty() {
            let again = model.advise(names::at(at));
            advice.forecasts.extend(again.forecasts);
            advice.withdrawn.extend(again.withdrawn);
        }
        let awaited: Vec<Forecast> = advice.forecasts.iter().filter(|f| f.run.is_none()).cloned().collect();
        if !awaited.is_empty() {
            self.last_awaited = awaited;
        }
        heard(seen, &advice);
    }
}

fn start(job: &Job, run: &str, start_s: f64) -> RunStart {
    RunStart {
        run: run.into(),
        workload: "w".into(),
        command: "train --seed #".into(),
        at: names::at(start_s),
        site: names::gpu(),
        node: names::node(),
        numbers: job.numbers.clone(),
    }
}
