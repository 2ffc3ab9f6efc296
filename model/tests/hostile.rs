//! Traces and settings that nobody means: each is played or refused with a reason, and none brings the judge down.

use std::path::PathBuf;

use foretide_model::ModelError;
use foretide_model::evaluate::site::Link;
use foretide_model::evaluate::{CacheSize, Options, evaluate};
use foretide_model::import::{Format, Numbers, Request, RequestOp, Stream, Trace, TracedFile, read_trace};

/// A few records of each text format.
const SAMPLES: [(Format, &str); 9] = [
    (
        Format::Ours,
        "time_s,run,job,host_pid,op,path,offset,length\n1.5,r1,j,7,open,a/b,0,0\n1.6,r1,j,7,read,a/b,10,500\n\
         1.7,r1,j,7,fault,a/c,70000,4096\n1.8,r1,j,7,close,a/b,0,0\n",
    ),
    (Format::Arc, "110765 64 0 0\n110888 1 0 1\n7 3 0 2\n110765 64 0 3\n"),
    (Format::Lirs, "3\n*\n5\n3\n5\n9\n"),
    (Format::Csv, "version,time,op,size,lbn\n1,5,2a,512,100\n1,6,28,4096,8\n1,7,28,512,100\n"),
    (
        Format::Dftracer,
        "[\n{\"id\":\"1\",\"name\":\"open64\",\"cat\":\"POSIX\",\"pid\":\"0\",\"tid\":\"5\",\"ts\":\"1\",\"dur\":\"8\",\
         \"ph\":\"X\",\"args\":{\"fname\":\"/d/a\",\"flags\":\"0\",\"ret\":\"7\"}}\n\
         {\"id\":\"2\",\"name\":\"read\",\"cat\":\"POSIX\",\"pid\":\"0\",\"tid\":\"5\",\"ts\":\"3\",\"dur\":\"8\",\
         \"ph\":\"X\",\"args\":{\"fname\":\"/d/a\",\"fd\":\"7\",\"count\":\"100\",\"ret\":\"50\"}}\n",
    ),
    (
        Format::WfCommons,
        "{\"name\":\"w\",\"schemaVersion\":\"1.5\",\"workflow\":{\"specification\":{\"tasks\":[{\"id\":\"b\",\
         \"parents\":[\"a\"],\"inputFiles\":[\"m\"],\"outputFiles\":[]},{\"id\":\"a\",\"parents\":[],\
         \"inputFiles\":[\"in\"],\"outputFiles\":[\"m\"]}],\"files\":[{\"id\":\"in\",\"sizeInBytes\":10},{\"id\":\"m\",\
         \"sizeInBytes\":20}]},\"execution\":{\"tasks\":[{\"id\":\"a\",\"runtimeInSeconds\":3},{\"id\":\"b\",\
         \"runtimeInSeconds\":1}]}}}",
    ),
    (
        Format::DarshanDxt,
        "# darshan log version: 3.41\n# exe: ./app --x\n\n# DXT, file_id: 1, file_name: /l/a\n\
         # DXT, rank: 0, hostname: n\n X_POSIX 0 read 0 4096 100 0.5 0.6\n X_POSIX 1 write 0 0 10 0.1 0.2 [3]\n",
    ),
    (
        Format::Strace,
        "100 1700000000.000001 openat(AT_FDCWD, \"/d/a\", O_RDONLY|O_CLOEXEC) = 3</d/a>\n\
         100 1700000000.000002 read(3</d/a>, \"x\"..., 4096) = 4096\n\
         100 1700000000.000005 pread64(3</d/a>, \"q\", 7, 9000) = 7\n100 1700000000.000008 lseek(3</d/a>, 100, SEEK_SET) = 100\n\
         100 1700000000.000009 read(3</d/a>, \"q\", 5) = 5\n",
    ),
    (
        Format::FioIolog,
        "fio version 2 iolog\n/d/f add\n/d/f open\n/d/f read 4096 512\n/d/f wait 500 0\n/d/f write 0 512\n/d/f close\n",
    ),
];

/// What stands in place of a number.
const NUMBERS: [&str; 8] = [
    "0",
    "-1",
    "999999999999999",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999999999",
    "1e300",
    "nan",
];

const LINKS: [Link; 2] = [Link::Instant, Link::Wire { bits_per_s: 1_000_000_000, rtt_us: 150_000 }];

/// Reads a trace and plays it, unless it is refused.
fn play(content: &[u8], format: Option<Format>) -> Result<(), ModelError> {
    let dir = tempfile::tempdir().expect("a folder for the trace");
    let path = dir.path().join("trace");
    std::fs::write(&path, content).expect("the trace is written");
    let trace = read_trace(&path, format, None)?;
    for link in LINKS {
        let report = evaluate(&trace, &Options { link, ..Options::default() })?;
        for row in &report.rows {
            let shares = [row.hit_ratio, row.byte_coverage, row.byte_precision, row.on_time];
            assert!(shares.iter().all(|s| (0.0..=1.0).contains(s)), "{row:?}");
            assert!(row.stall_s >= 0.0, "{row:?}");
        }
    }
    Ok(())
}

/// Where the runs of digits of a text lie.
fn numbers(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut out: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, _) in text.bytes().enumerate().filter(|(_, c)| c.is_ascii_digit()) {
        match out.last_mut().filter(|last| last.end == i) {
            Some(last) => last.end = i + 1,
            None => out.push(i..i + 1),
        }
    }
    out
}

#[test]
fn every_sample_is_played_as_it_is() {
    for (format, text) in SAMPLES {
        play(text.as_bytes(), None).unwrap_or_else(|e| panic!("{format}: {e}"));
    }
}

#[test]
fn whatever_number_stands_in_a_record_it_is_played_or_refused() {
    for (format, text) in SAMPLES {
        for range in numbers(text) {
            for number in NUMBERS {
                let mut changed = text.to_owned();
                changed.replace_range(range.clone(), number);
                if let Err(e) = play(changed.as_bytes(), Some(format)) {
                    assert!(!e.to_string().is_empty());
                }
            }
        }
    }
}

#[test]
fn wherever_a_file_ends_it_is_played_or_refused() {
    for (format, text) in SAMPLES {
        for end in 0..text.len() {
            let _ = play(&text.as_bytes()[..end], Some(format));
        }
    }
}

#[test]
fn whatever_byte_is_damaged_in_binary_records_they_are_played_or_refused() {
    let record = |time_s: u32, object: u64, bytes: u32| {
        [&time_s.to_le_bytes()[..], &object.to_le_bytes(), &bytes.to_le_bytes(), &(-1i64).to_le_bytes()].concat()
    };
    let records = [record(1, 7, 4096), record(1, 9, 100), record(2, 7, 4096)].concat();
    play(&records, None).unwrap();
    for at in 0..records.len() {
        let mut damaged = records.clone();
        damaged[at] = 0xff;
        let _ = play(&damaged, Some(Format::OracleGeneral));
        let _ = play(&records[..at], Some(Format::OracleGeneral));
    }
    let packed = zstd::encode_all(&records[..], 1).unwrap();
    for end in 0..packed.len() {
        let _ = play(&packed[..end], None);
    }
}

#[test]
fn records_in_any_order_are_played_in_order_of_time() {
    let (format, text) = SAMPLES[0];
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..].reverse();
    let reversed = format!("{}\n", lines.join("\n"));
    play(reversed.as_bytes(), Some(format)).unwrap();
}

/// A request for so many bytes at a place of the only file, at a time.
fn one_device(requests: &[(i64, u64, u64)]) -> Trace {
    let request = |(at_us, offset, length): &(i64, u64, u64)| Request {
        at_us: *at_us,
        stream: 0,
        file: 0,
        op: RequestOp::Read,
        offset: *offset,
        length: *length,
    };
    Trace {
        path: PathBuf::from("made"),
        format: Format::Lirs,
        timed: true,
        numbers: Numbers::Addresses,
        files: vec![TracedFile { path: b"device".to_vec(), size: 1 << 50 }],
        streams: vec![Stream { run: "r".into(), job: "j".into(), process: 0 }],
        requests: requests.iter().map(request).collect(),
        left_out: 0,
    }
}

#[test]
fn nothing_and_a_single_access_have_a_table() {
    for requests in [&[][..], &[(5, 0, 1)], &[(-1_000_000, 4096, 4096)], &[(0, (1 << 50) - 1, 1)]] {
        for link in LINKS {
            let report = evaluate(&one_device(requests), &Options { link, ..Options::default() }).unwrap();
            assert_eq!(report.requests, requests.len() as u64);
            assert!(report.rows.iter().all(|r| r.hit_ratio == 0.0 && r.wasted_bytes == 0), "{report}");
        }
    }
}

#[test]
fn a_request_for_more_blocks_than_can_be_played_asks_for_larger_ones() {
    let trace = one_device(&[(0, 0, 1 << 50)]);
    let told = evaluate(&trace, &Options::default()).unwrap_err().to_string();
    assert!(told.contains("larger blocks"), "{told}");
    evaluate(&trace, &Options { block_bytes: Some(1 << 31), ..Options::default() }).unwrap();
}

#[test]
fn settings_that_cannot_be_meant_are_refused_by_name() {
    let trace = one_device(&[(0, 0, 4096), (1, 8192, 4096)]);
    let usual = Options::default();
    let wire = |bits_per_s, rtt_us| Options { link: Link::Wire { bits_per_s, rtt_us }, ..usual };
    for (name, options) in [
        ("block", Options { block_bytes: Some(0), ..usual }),
        ("block", Options { block_bytes: Some(u64::MAX), ..usual }),
        ("rate", wire(0, 0)),
        ("rtt", wire(1_000_000, u64::MAX)),
        ("lead", Options { link: Link::Lead(u32::MAX), ..usual }),
        ("cache", Options { cache: CacheSize::Share(f64::NAN), ..usual }),
        ("cache", Options { cache: CacheSize::Share(-1.0), ..usual }),
        ("cache", Options { cache: CacheSize::Bytes(0), ..usual }),
    ] {
        let told = evaluate(&trace, &options).unwrap_err().to_string();
        assert!(told.contains(&format!("setting {name} = ")), "{told}");
    }
    evaluate(&trace, &Options { cache: CacheSize::Bytes(u64::MAX), ..usual }).unwrap();
}
