//! Short ways to write values down.

use std::sync::Arc;

use foretide_catalog::{Agent, WarmupUpdate};
use foretide_flow::*;

pub fn volume(name: &str) -> VolumeId {
    VolumeId::new(name).unwrap()
}

pub fn site(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

pub fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
}

pub fn entry(at: &str, kind: EntryKind, size: u64) -> Entry {
    Entry {
        path: path(at),
        kind,
        size,
        modified_at: Timestamp(size as i64 * 1_000),
        mode: 0o640,
        uid: 1000,
        gid: 100,
        links: 1,
        version: FileVersion(format!("v{size}").into()),
    }
}

/// A listing from names: `d/` is a directory, `l>target` a link, `f=12` a file of 12 bytes.
pub fn listing(vol: &str, directory: &str, seen_at: i64, names: &[&str]) -> Listing {
    let directory = path(directory);
    let mut entries: Vec<_> = names
        .iter()
        .map(|name| {
            let (name, kind, size) = if let Some(name) = name.strip_suffix('/') {
                (name, EntryKind::Directory, 0)
            } else if let Some((name, target)) = name.split_once('>') {
                (name, EntryKind::Symlink { target: target.to_owned() }, 0)
            } else {
                let (name, size) = name.split_once('=').unwrap_or((name, "1"));
                (name, EntryKind::File, size.parse().unwrap())
            };
            let at = directory.join(path(name).as_bytes()).unwrap();
            entry(&at.to_string(), kind, size)
        })
        .collect();
    entries.sort_by(|a, b| a.path.name().cmp(b.path.name()));
    Listing { volume: volume(vol), directory, seen_at: Timestamp(seen_at), entries }
}

/// A file of which these chunks, of ten bytes each, stand in others too: one after the other, from the first byte.
pub fn shared(file: &str, version: &str, chunks: &[u8]) -> SharedFile {
    let chunk = |(n, id): (u64, &u8)| SharedChunk { id: ChunkId([*id; 32]), offset: n * 10, length: 10 };
    let version = FileVersion(version.into());
    SharedFile { volume: volume("data"), path: path(file), version, chunks: (0..).zip(chunks).map(chunk).collect() }
}

pub fn agent(name: &str, seen_at: i64) -> Agent {
    Agent {
        node: node(name),
        site: site("gpu"),
        chunk_address: Some(format!("{name}:4711")),
        volumes: vec![volume("data")],
        offers: vec!["/data".into()],
        passes_on: true,
        probes: vec!["ebpf".into()],
        clock_ahead_us: Some(-seen_at),
        seen_at: Timestamp(seen_at),
    }
}

pub fn run_start(run: &str, workload: &str, at: i64) -> RunStart {
    RunStart {
        run: run.into(),
        workload: workload.into(),
        command: format!("train {workload}"),
        at: Timestamp(at),
        site: site("gpu"),
        node: node("n1"),
        numbers: Vec::new(),
    }
}

pub fn batch(sequence: u64, started: Vec<RunStart>, ended: Vec<RunEnd>) -> AccessBatch {
    let access = Access {
        at: Timestamp(5),
        run: "r".into(),
        process: 1,
        volume: volume("data"),
        path: path("a"),
        op: AccessOp::Read,
        offset: 0,
        length: 7,
        blocked_us: 3,
        found: Found::Unknown,
    };
    AccessBatch {
        node: node("n1"),
        site: site("gpu"),
        sequence,
        started,
        accesses: vec![access],
        ended,
        losses: Losses { dropped_events: 2, unresolved: 3, summarised: 5 },
    }
}

pub fn profile(workload: &str, updated_at: i64) -> Profile {
    Profile {
        workload: workload.into(),
        command: "train #".into(),
        updated_at: Timestamp(updated_at),
        runs: 3,
        accesses: 1_000,
        volume: Some(volume("data")),
        root: path("train"),
        files_per_epoch: 100,
        bytes_per_epoch: 1 << 40,
        epochs_per_run: 2.5,
        order: OrderHabit::Shuffled,
        extent: ExtentHabit::Partial { share: 0.375 },
        bytes_per_second: 1.25e9,
        readers: 4.0,
        reuse: 0.99,
        templates: vec![PathTemplate { volume: volume("data"), shape: "train/#.jpg".into(), files: 100, bytes: 5 }],
        calendar: Calendar {
            starts: vec![Timestamp(1), Timestamp(9)],
            period_s: Some(86_400.5),
            ..Calendar::default()
        },
        drawn: Some("drawn by PyTorch, seed 7 + epoch".into()),
    }
}

pub fn forecast(id: &str, workload: &str, expires_at: i64, reads: usize) -> Forecast {
    let window = TimeWindow { p10: Timestamp(1), p50: Timestamp(2), p90: Timestamp(3) };
    let read = |i: usize| PredictedRead {
        path: path(&format!("train/{i:06}.jpg")),
        offset: 0,
        length: 100 + i as u64,
        probability: 1.0 / f64::from(1u32 << (i % 20)),
        window,
    };
    Forecast {
        id: id.into(),
        workload: workload.into(),
        run: None,
        site: site("gpu"),
        volume: volume("data"),
        made_at: Timestamp(1),
        expires_at: Timestamp(expires_at),
        forecaster: "remaining_set".into(),
        reason: "it read these last time".into(),
        reads: (0..reads).map(read).collect(),
    }
}

pub fn a_move(id: &str, file: &str, offset: u64, length: u64, cause: MoveCause) -> Move {
    Move {
        id: id.into(),
        volume: volume("data"),
        path: path(file),
        offset,
        length,
        from: site("store"),
        to: site("gpu"),
        start_at: Timestamp(100),
        due_at: Timestamp(200),
        keep_until: Timestamp(300),
        priority: Priority::Background,
        probability: 0.7,
        benefit_s: 0.15,
        cost: 0.01,
        cause,
        reason: "expected".into(),
        shared_bytes: 0,
    }
}

pub fn by_forecast() -> MoveCause {
    MoveCause::Forecast { forecast: "f1".into(), workload: "w1".into() }
}

pub fn by_warmup(id: &str) -> MoveCause {
    MoveCause::Warmup { warmup: id.into() }
}

pub fn plan(id: &str, made_at: i64, moves: Vec<Move>) -> Plan {
    let left_out = LeftOut {
        volume: volume("data"),
        path: path("big"),
        to: site("gpu"),
        files: 1,
        bytes: 1 << 40,
        why: "no room".into(),
    };
    Plan {
        id: id.into(),
        made_at: Timestamp(made_at),
        horizon: Timestamp(made_at + 1_000),
        moves,
        refused: Vec::new(),
        left_out: vec![left_out],
    }
}

pub fn refusal(file: &str, at: i64) -> Refusal {
    Refusal {
        volume: volume("data"),
        path: path(file),
        to: site("gpu"),
        rule: "phi-stays".into(),
        by: "planner".into(),
        at: Timestamp(at),
    }
}

pub fn outcomes(sequence: u64, outcomes: Vec<Outcome>) -> OutcomeBatch {
    OutcomeBatch {
        node: node("n1"),
        site: site("gpu"),
        sequence,
        outcomes,
        census: Vec::new(),
        resident_bytes: 50,
        capacity_bytes: 100,
    }
}

pub fn counted(sequence: u64, warmup: &str, files: u64, bytes: u64) -> OutcomeBatch {
    let census = Census { warmup: warmup.into(), resident_files: files, resident_bytes: bytes };
    OutcomeBatch { census: vec![census], ..outcomes(sequence, Vec::new()) }
}

pub fn moved(id: &str, bytes: u64) -> Outcome {
    Outcome::Moved { id: id.into(), at: Timestamp(150), bytes, wire_bytes: bytes / 2, fallback_bytes: 0 }
}

pub fn read(run: Option<&str>, file: &str, bytes: u64, found: Found) -> Outcome {
    Outcome::Read {
        run: run.map(RunId::from),
        process: 7,
        volume: volume("data"),
        path: path(file),
        at: Timestamp(170),
        bytes,
        prefetched_bytes: bytes / 2,
        waited_us: 1_500,
        found,
        lead_us: Some(9),
    }
}

pub fn evicted(file: &str, bytes: u64, wasted: u64) -> Outcome {
    Outcome::Evicted {
        volume: volume("data"),
        path: path(file),
        at: Timestamp(180),
        bytes,
        unread_prefetched_bytes: wasted,
    }
}

pub fn warmup(id: &str, at: &str) -> Warmup {
    let request = WarmupRequest {
        need_by: Some(Timestamp(1_000)),
        label: "job 7".into(),
        ..WarmupRequest::new(volume("data"), vec![path("train")], site(at))
    };
    Warmup::new(id.into(), request, Timestamp(10))
}

pub fn required(bytes: u64, files: u64) -> WarmupUpdate {
    WarmupUpdate { required: Some((bytes, files)), ..WarmupUpdate::default() }
}

pub fn manifest(version: &str, lengths: &[u32]) -> Manifest {
    let chunk = |(i, length): (usize, &u32)| ChunkRef { id: ChunkId([i as u8; 32]), length: *length };
    Manifest {
        id: ManifestId([lengths.len() as u8; 32]),
        version: FileVersion(Arc::from(version)),
        size: lengths.iter().map(|l| u64::from(*l)).sum(),
        chunks: lengths.iter().enumerate().map(chunk).collect(),
    }
}
