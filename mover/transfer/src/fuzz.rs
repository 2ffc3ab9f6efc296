//! Every decoder of what peers say, against a corpus that is kept in `tests/data/corpus` and what a seeded fuzzer makes of
//! it: it reads or refuses, and what it reads it would write so that it reads the same.
//!
//! The corpus is of protocol 5: who changes what peers say counts the protocol up and writes it anew with
//! `FORETIDE_UPDATE_CORPUS=1`. A record that once went wrong is added as a file; each file is fuzzed as well.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use foretide_chunk::{DomainKey, decode_difference, decode_manifest, encode_difference, encode_manifest, manifest_of};
use foretide_flow::{
    ChunkRef, Entry, EntryKind, FilePath, FileVersion, Manifest, ManifestId, NodeId, Refusal, SiteId, Timestamp,
    VolumeId,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::frame::{Frame, FrameReader, FrameWriter, Kind};
use crate::handshake::{Identity, PROTOCOL, Token, decode_challenge, decode_hello, encode_challenge, encode_hello};
use crate::message::{
    Change, Effort, Failure, ReadRequest, Request, Want, below, changes, entries, put_below, put_change, put_entry,
};

/// The protocol that the corpus is of.
const CORPUS_OF: u16 = 5;
/// Variants made of each record.
const VARIANTS: usize = 4000;
/// A variant is bent in up to so many places.
const BENDS: usize = 4;

/// What a decoder reads is written again; nothing where it refuses.
type Decode = fn(&[u8]) -> Option<Vec<u8>>;

/// Decoders by the names of their folders.
const DECODERS: [(&str, Decode); 9] = [
    ("request", |record| Request::decode(record).ok().map(|r| r.encode())),
    ("failure", |record| Failure::decode(record).ok().map(|f| f.encode())),
    ("entries", |record| entries(record).ok().map(|all| written(&all, put_entry))),
    ("below", |record| below(record).ok().map(|(directory, watch, found)| written_below(&directory, watch, &found))),
    ("changes", |record| changes(record).ok().map(|all| written(&all, put_change))),
    ("hello", |record| decode_hello(record).ok().map(|(_, nonce, who)| encode_hello(&nonce, &who))),
    ("challenge", |record| decode_challenge(record).ok().map(|(_, nonce, mac)| encode_challenge(&nonce, &mac))),
    ("manifest", |record| decode_manifest(&DomainKey::default(), record).ok().map(|m| encode_manifest(&m))),
    ("difference", |record| {
        let read = decode_difference(&DomainKey::default(), &base(), record).ok()?;
        Some(encode_difference(&base(), &read))
    }),
];

fn written<T>(all: &[T], put: fn(&mut Vec<u8>, &T)) -> Vec<u8> {
    let mut out = Vec::new();
    all.iter().for_each(|one| put(&mut out, one));
    out
}

fn written_below(directory: &FilePath, watch: u32, found: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    put_below(&mut out, directory, watch, found);
    out
}

fn volume() -> VolumeId {
    VolumeId::new("data").unwrap()
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).unwrap()
}

fn manifest(version: &str, lengths: &[u32]) -> Manifest {
    let key = DomainKey::default();
    let chunks = lengths.iter().map(|length| ChunkRef { id: key.chunk_id(&length.to_le_bytes()), length: *length });
    manifest_of(&key, FileVersion(version.into()), chunks.collect())
}

/// What differences are written against.
fn base() -> Manifest {
    manifest("1,2,3", &[10, 20, 30, 40, 50])
}

fn some_entries() -> Vec<Entry> {
    let kinds = [EntryKind::File, EntryKind::Directory, EntryKind::Symlink { target: "../x".into() }];
    let entry = |(n, kind): (usize, EntryKind)| Entry {
        path: path(&format!("folder/name-{n}%FF")),
        kind,
        size: 1 << (20 * n),
        modified_at: Timestamp(-(n as i64)),
        mode: 0o644,
        uid: 7,
        gid: u32::MAX,
        links: 1,
        version: FileVersion("8,12,5".into()),
    };
    kinds.into_iter().enumerate().map(entry).collect()
}

/// One record of each shape.
fn shapes() -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let id = ManifestId([9; 32]);
    let wants = [
        Want::Manifest,
        Want::Bytes(0..u64::MAX),
        Want::Chunks { manifest: id, chunks: 3..9 },
        Want::Delta { manifest: id, chunks: 0..1, signature: vec![1, 2, 3].into() },
        Want::Soon(5..7),
    ];
    let efforts = [Effort::Held, Effort::Source, Effort::Own];
    let read = |(n, want): (usize, Want)| {
        let known = Some(FileVersion("8,12,5".into())).filter(|_| n % 2 == 0);
        let (holds, effort) = (Some(id).filter(|_| n % 2 == 1), efforts[n % 3]);
        let (volume, path) = (volume(), path("a/b"));
        Request::Read(ReadRequest {
            volume,
            path,
            version: known.clone(),
            unless: known,
            holds,
            recut: n == 3,
            effort,
            want,
        })
    };
    let others = [
        Request::List { volume: volume(), directory: FilePath::root(), names_below: 7 },
        Request::Stat { volume: volume(), path: path("a") },
        Request::Warm { bytes: 1 << 20 },
        Request::Watch,
    ];
    let requests = wants.into_iter().enumerate().map(read).chain(others).map(|r| r.encode());
    let refusal = Refusal {
        volume: volume(),
        path: path("a/b"),
        to: SiteId::new("gpu").unwrap(),
        rule: "stays".into(),
        by: "sender".into(),
        at: Timestamp(5),
    };
    let failures = [
        Failure::NotFound,
        Failure::Changed,
        Failure::Refused(Box::new(refusal)),
        Failure::NoVolume,
        Failure::Denied("no".into()),
        Failure::NotHeld,
        Failure::Other("why".into()),
    ];
    let told = some_entries().into_iter().map(Some).chain([None]);
    let name = |entry| Change::Name { volume: volume(), path: path("a"), entry };
    let unsure = Change::Unsure { volume: volume(), directory: path("a") };
    let all_changes: Vec<Change> = told.map(name).chain([unsure]).collect();
    let who = Identity { site: SiteId::new("gpu").unwrap(), node: NodeId::new("n1").unwrap() };
    let mac = Token::new("t").listener_mac(&[1; 32], &[2; 32]);
    BTreeMap::from([
        ("request", requests.collect()),
        ("failure", failures.iter().map(Failure::encode).collect()),
        ("entries", vec![written(&some_entries(), put_entry), Vec::new()]),
        ("below", vec![written_below(&path("folder"), 3, &some_entries())]),
        ("changes", vec![written(&all_changes, put_change)]),
        ("hello", vec![encode_hello(&[3; 32], &who)]),
        ("challenge", vec![encode_challenge(&[4; 32], &mac)]),
        ("manifest", vec![encode_manifest(&base()), encode_manifest(&manifest("empty", &[]))]),
        ("difference", vec![encode_difference(&base(), &manifest("4", &[10, 21, 30, 31, 50, 60]))]),
        ("frames", vec![frames()]),
    ])
}

fn frames() -> Vec<u8> {
    let mut bytes = Vec::new();
    let kinds = [Kind::Request, Kind::Data, Kind::Head, Kind::Ping, Kind::End, Kind::Failed];
    let all: Vec<Frame> = (0u32..).zip(kinds).map(|(n, kind)| Frame::new(kind, n, vec![n as u8; 40])).collect();
    block_on(async { FrameWriter::new(&mut bytes).send(&all).await.unwrap() });
    bytes
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus")
}

/// The kept records of a decoder, by file name.
fn kept(decoder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus().join(decoder);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut all: Vec<_> = files
        .map(|file| {
            let at = file.unwrap().path();
            (at.file_name().unwrap().to_string_lossy().into_owned(), fs::read(at).unwrap())
        })
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{}: no records", folder.display());
    all
}

/// A record bent in a few places.
fn bent(record: &[u8], others: &[(String, Vec<u8>)], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = record.to_vec();
    for _ in 0..rng.random_range(1..=BENDS) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.random()),
            2 => drop(bytes.splice(at.., others[rng.random_range(0..others.len())].1.iter().skip(at).copied())),
            // A length or a count that is far too large, or none.
            3 => bytes.iter_mut().skip(at).take(4).for_each(|b| *b = 0xff),
            4 => bytes.iter_mut().skip(at).take(4).for_each(|b| *b = 0),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << rng.random_range(0..8)),
        }
    }
    bytes
}

#[test]
fn the_corpus_is_of_this_protocol_and_reads() {
    if env::var_os("FORETIDE_UPDATE_CORPUS").is_some() {
        for (decoder, records) in shapes() {
            let folder = corpus().join(decoder);
            fs::create_dir_all(&folder).unwrap();
            (0..).zip(records).for_each(|(n, record)| fs::write(folder.join(format!("{n:02}.bin")), record).unwrap());
        }
    }
    assert_eq!(PROTOCOL, CORPUS_OF, "what peers say has changed: write the corpus anew");
    for (decoder, records) in shapes() {
        let kept = kept(decoder);
        for (n, record) in records.into_iter().enumerate() {
            assert!(
                kept[n].1 == record,
                "{decoder} {n}: written otherwise than peers of protocol {CORPUS_OF} write it"
            );
        }
    }
    for (decoder, decode) in DECODERS {
        let refused: Vec<_> = kept(decoder).into_iter().filter(|(_, r)| decode(r).as_ref() != Some(r)).collect();
        assert!(refused.iter().all(|(name, _)| name.starts_with("bad")), "{decoder}: {refused:?}");
    }
}

#[test]
fn whatever_comes_is_read_as_it_would_be_written_or_refused() {
    let (mut read, mut refused) = (0, 0);
    for (decoder, decode) in DECODERS {
        let records = kept(decoder);
        for (name, record) in &records {
            let mut rng = StdRng::seed_from_u64(name.bytes().fold(record.len() as u64, |s, b| s * 31 + u64::from(b)));
            for variant in 0..VARIANTS {
                let bytes = bent(record, &records, &mut rng);
                let Some(again) = decode(&bytes) else {
                    refused += 1;
                    continue;
                };
                read += 1;
                assert_eq!(decode(&again).as_ref(), Some(&again), "{decoder} {name} variant {variant}: {bytes:02x?}");
            }
        }
    }
    assert!(
        read > 1000 && refused > 1000,
        "{read} were read and {refused} refused: the fuzzer bends too little or too much"
    );
}

#[test]
fn of_a_bent_stream_the_frames_before_the_bend_are_read_and_no_other() {
    let records = kept("frames");
    let whole = read_frames(&records[0].1);
    assert_eq!(whole.len(), 6);
    let mut rng = StdRng::seed_from_u64(1);
    let mut ended_early = 0;
    for _ in 0..VARIANTS {
        let bytes = bent(&records[0].1, &records, &mut rng);
        let read = read_frames(&bytes);
        ended_early += usize::from(read.len() < whole.len());
        for (n, frame) in read.iter().enumerate() {
            // A chunk's digest tells of what is bent in data.
            let same = if frame.kind == Kind::Data { whole[n].request == frame.request } else { whole[n] == *frame };
            assert!(same, "{frame:?} in {bytes:02x?}");
        }
    }
    assert!(ended_early > VARIANTS / 2, "{ended_early}");
}

fn read_frames(bytes: &[u8]) -> Vec<Frame> {
    block_on(async {
        let mut reader = FrameReader::new(bytes);
        reader.trust();
        let mut read = Vec::new();
        while let Ok(frame) = reader.next().await {
            read.push(frame);
        }
        read
    })
}
