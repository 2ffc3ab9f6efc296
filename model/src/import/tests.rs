//! Each format by a few lines of it: told by content, read right, refused where it stops making sense.

use std::io::Write;

use super::*;

fn reads(content: &[u8]) -> Result<Trace, ModelError> {
    let dir = tempfile::tempdir().unwrap();
    // Named so that nothing can go by the name.
    let path = dir.path().join(format!("{:p}", content.as_ptr()));
    std::fs::write(&path, content).unwrap();
    read_trace(&path, None, None)
}

fn read(content: &str) -> Trace {
    reads(content.as_bytes()).unwrap()
}

fn refused(content: &str) -> String {
    reads(content.as_bytes()).unwrap_err().to_string()
}

/// Op, path, offset, length of each request.
fn told(trace: &Trace) -> Vec<(RequestOp, String, u64, u64)> {
    let path = |r: &Request| String::from_utf8(trace.files[r.file as usize].path.clone()).unwrap();
    trace.requests.iter().map(|r| (r.op, path(r), r.offset, r.length)).collect()
}

const STRACE: &str = "\
100 1700000000.000001 openat(AT_FDCWD, \"/d/a\", O_RDONLY|O_CLOEXEC) = 3</d/a>
100 1700000000.000002 read(3</d/a>, \"x, y\"..., 4096) = 4096
100 1700000000.000003 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD) = 101
101 1700000000.000004 read(3</d/a>,  <unfinished ...>
100 1700000000.000005 pread64(3</d/a>, \"q\", 7, 9000) = 7
101 1700000000.000006 <... read resumed>\"z\"..., 10) = 10
100 1700000000.000007 read(3</d/a>, \"\", 50) = 50
100 1700000000.000008 lseek(3</d/a>, 100, SEEK_SET) = 100
101 1700000000.000009 read(3</d/a>, \"q\", 5) = 5
100 1700000000.000010 read(4<socket:[1]>, \"q\", 7) = 7
101 1700000000.000011 close(3</d/a>) = 0
100 1700000000.000012 +++ exited with 0 +++
";

#[test]
fn strace_keeps_positions_over_fork_seek_and_interruption() {
    let trace = read(STRACE);
    assert_eq!(trace.format, Format::Strace);
    let reads: Vec<(u64, u64, u32)> = trace
        .requests
        .iter()
        .filter(|r| r.op == RequestOp::Read)
        .map(|r| (r.offset, r.length, trace.streams[r.stream as usize].process))
        .collect();
    // Parent and child share the position; a read at a place of its own does not move it.
    assert_eq!(reads, [(0, 4096, 100), (4096, 10, 101), (9000, 7, 100), (4106, 50, 100), (100, 5, 101)]);
    assert_eq!(trace.requests[2].at_us, 1_700_000_000_000_004, "an interrupted call counts from its entry");
    let cut = format!("{STRACE}100 17000");
    assert!(refused(&cut).contains("line 13"), "{}", refused(&cut));
}

#[test]
fn our_own_columns_give_a_fault_its_window_and_leave_maps_out() {
    let head = "time_s,run,job,host_pid,op,path,offset,length\n";
    let rows = "1.5,r1,j,7,open,a/b,0,0\n1.6,r1,j,7,mmap,a/b,0,999999\n1.7,r1,j,7,fault,a/b,70000,4096\n";
    let trace = read(&format!("{head}{rows}"));
    assert_eq!(trace.format, Format::Ours);
    assert_eq!(told(&trace), [(RequestOp::Open, "a/b".into(), 0, 0), (RequestOp::Read, "a/b".into(), 65536, 65536)]);
    assert_eq!((trace.left_out, trace.streams[0].process), (1, 7));
    assert!(refused(&format!("{head}{rows}1.8,r1,j,7,re")).contains("line 5: eight fields"));
    assert!(refused(&format!("{head}1.8,r1,j,7,write,a,0,1\n")).contains("line 2: op \"write\" is not known"));
}

#[test]
fn what_trace_export_writes_is_read_with_its_quotes() {
    let head = "at_s,run,process,volume,path,op,offset,length,blocked_us,found\n";
    let trace = read(&format!("{head}1.5,r1,7,v,\"a, \"\"b\"\"\",read,10,20,0,unknown\n"));
    assert_eq!(told(&trace), [(RequestOp::Read, "v/a, \"b\"".into(), 10, 20)]);
    assert!(refused(&format!("{head}1.5,r1,7,v,a,read,10\n")).contains("line 2: ten fields are wanted and 7"));
}

#[test]
fn arc_has_pages_if_all_requests_are_of_one_and_sectors_else() {
    let pages = read("7 1 0 0\n9 1 0 0\n");
    assert_eq!(told(&pages)[1], (RequestOp::Read, "device".into(), 9 * 4096, 4096));
    let sectors = read("110765 64 0 0\n110888 1 0 1\n");
    assert_eq!(told(&sectors)[0], (RequestOp::Read, "device".into(), 110_765 * 512, 64 * 512));
    assert_eq!(sectors.requests[1].at_us, 1_000_000 / PACE_PER_SECOND);
    assert!(refused("7 1 0 0\n9 1 0\n8 1 0 0\n7 1 0 0\n").contains("no known format"));
    let long: String = (0..200).map(|i| format!("{i} 1 0 0\n")).collect();
    assert!(refused(&format!("{long}5 x\n")).contains("line 201: four numbers"));
}

#[test]
fn numbers_given_in_order_of_appearance_are_names_and_a_scan_is_none() {
    let mut renumbered = String::new();
    let mut shuffled = 1u64;
    for i in 0..2000u64 {
        shuffled = shuffled.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        renumbered += &format!("{i}\n{}\n", (shuffled >> 33) % (i + 1));
    }
    assert_eq!(read(&renumbered).numbers, Numbers::Opaque);
    let scan: String = (0..2000u64).map(|i| format!("{i}\n")).collect();
    assert_eq!(read(&scan).numbers, Numbers::Addresses);
    let scattered: String = (0..2000u64).map(|i| format!("{}\n", i * 7919 % 65_537)).collect();
    assert_eq!(read(&scattered).numbers, Numbers::Addresses);
}

#[test]
fn an_address_that_cannot_be_is_refused() {
    assert!(refused("5\n18446744073709551615\n7\n").contains("no address is so large"));
}

#[test]
fn lirs_leaves_stars_out() {
    let trace = read("3\n*\n5\n");
    assert_eq!((trace.format, trace.requests.len(), trace.left_out), (Format::Lirs, 2, 1));
    assert!(reads(b"3\n5\n").is_ok());
}

#[test]
fn libcachesim_csv_takes_sectors_bytes_and_objects() {
    let blocks = read("version,time,op,size,lbn\n1,5,2a,512,100\n1,6,28,4096,8\n1,7,35,0,0\n");
    assert_eq!(blocks.format, Format::Csv);
    assert_eq!(
        told(&blocks),
        [(RequestOp::Write, "device".into(), 51_200, 512), (RequestOp::Read, "device".into(), 4096, 4096)]
    );
    let objects = read("time,object,size,next_access_vtime\n0,abc,10,-2\n1,def,20,-2\n");
    assert_eq!((objects.numbers, objects.files.len()), (Numbers::Opaque, 2));
    assert!(refused("time,object,size\n0,abc,1\nx,abc,1\n").contains("line 3: the time is no number"));
    assert!(refused("time,offset,size\n0,12\n").contains("line 2: it has fewer fields"));
}

fn record(time: u32, object: u64, bytes: u32, next: i64) -> Vec<u8> {
    let mut out = time.to_le_bytes().to_vec();
    out.extend(object.to_le_bytes());
    out.extend(bytes.to_le_bytes());
    out.extend(next.to_le_bytes());
    out
}

#[test]
fn oracle_general_is_binary_and_opaque() {
    let bytes = [record(1, 1 << 40, 4096, 2), record(1, 9, 100, -1), record(2, 1 << 40, 4096, -1)].concat();
    let trace = reads(&bytes).unwrap();
    assert_eq!((trace.format, trace.numbers, trace.files.len()), (Format::OracleGeneral, Numbers::Opaque, 2));
    assert_eq!(told(&trace)[1], (RequestOp::Read, "9".into(), 0, 100));
    let cut = reads(&bytes[..50]).unwrap_err().to_string();
    assert!(cut.contains("byte 48: a record has 24 bytes, and 2 are left"), "{cut}");
    let mut packed = zstd::encode_all(&bytes[..], 1).unwrap();
    assert_eq!(reads(&packed).unwrap().requests.len(), 3);
    packed.truncate(packed.len() - 3);
    assert!(reads(&packed).is_err(), "a truncated archive is refused");
}

#[test]
fn dftracer_keeps_positions_and_packs_as_gzip() {
    let event = |name: &str, ts: u32, args: &str| {
        format!(
            "{{\"id\":\"1\",\"name\":\"{name}\",\"cat\":\"POSIX\",\"pid\":\"0\",\"tid\":\"5\",\"ts\":\"{ts}\",\
             \"dur\":\"8\",\"ph\":\"X\",\"args\":{{{args}}}}}\n"
        )
    };
    let text = [
        "[\n".to_owned(),
        event("open64", 1, "\"fname\":\"/d/a\",\"flags\":\"0\",\"ret\":\"7\""),
        event("lseek64", 2, "\"fname\":\"/d/a\",\"fd\":\"7\",\"offset\":\"0\",\"whence\":\"2\",\"ret\":\"900\""),
        event("read", 3, "\"fname\":\"/d/a\",\"fd\":\"7\",\"count\":\"100\",\"ret\":\"50\""),
        event("read", 4, "\"fname\":\"/d/a\",\"fd\":\"7\",\"count\":\"100\",\"ret\":\"0\""),
        event("close", 5, "\"fname\":\"/d/a\",\"fd\":\"7\",\"ret\":\"0\""),
    ]
    .concat();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(text.as_bytes()).unwrap();
    let trace = reads(&gz.finish().unwrap()).unwrap();
    assert_eq!(
        told(&trace),
        [
            (RequestOp::Open, "/d/a".into(), 0, 0),
            (RequestOp::Read, "/d/a".into(), 900, 50),
            (RequestOp::Close, "/d/a".into(), 0, 0)
        ]
    );
    assert!(refused(&text[..text.len() - 20]).contains("line 6: is no event"));
}

#[test]
fn darshan_takes_posix_rows_and_sorts_them_by_time() {
    let text = "# darshan log version: 3.41\n# exe: ./app --x\n\n# DXT, file_id: 1, file_name: /l/a\n\
                # DXT, rank: 0, hostname: n\n X_POSIX 0 read 0 4096 100 0.5 0.6\n X_MPIIO 0 read 0 4096 100 0.5 0.6\n\
                # DXT, file_id: 2, file_name: /l/b\n X_POSIX 1 write 0 0 10 0.1 0.2 [3]\n";
    let trace = read(text);
    assert_eq!(trace.format, Format::DarshanDxt);
    assert_eq!(told(&trace), [(RequestOp::Write, "/l/b".into(), 0, 10), (RequestOp::Read, "/l/a".into(), 4096, 100)]);
    assert_eq!((trace.left_out, trace.streams[0].job.as_str()), (1, "./app"));
    assert!(refused(&format!("{text} X_POSIX 1 wri")).contains("line 10: eight columns"));
}

#[test]
fn fio_reads_both_versions() {
    let two = read("fio version 2 iolog\n/d/f add\n/d/f open\n/d/f read 4096 512\n/d/f wait 500 0\n/d/f close\n");
    assert_eq!((two.format, two.requests.len(), two.timed), (Format::FioIolog, 3, false));
    assert_eq!(two.requests[2].at_us, 2 * 1_000_000 / PACE_PER_SECOND + 500);
    let three = read("fio version 3 iolog\n0 /d/f open\n12 /d/f write 0 8\n");
    assert_eq!((three.requests[1].at_us, three.requests[1].op), (12_000, RequestOp::Write));
    assert!(refused("fio version 2 iolog\n/d/f read 4096\n").contains("line 2: a file and an action"));
}

#[test]
fn a_workflow_starts_tasks_when_their_parents_have_ended() {
    let text = r#"{"name":"w","schemaVersion":"1.5","workflow":{"specification":{
        "tasks":[{"id":"b","parents":["a"],"inputFiles":["m"],"outputFiles":[]},
                 {"id":"a","parents":[],"inputFiles":["in"],"outputFiles":["m"]}],
        "files":[{"id":"in","sizeInBytes":10},{"id":"m","sizeInBytes":20}]},
        "execution":{"tasks":[{"id":"a","runtimeInSeconds":3},{"id":"b","runtimeInSeconds":1}]}}}"#;
    let trace = read(text);
    assert_eq!(trace.format, Format::WfCommons);
    let reads: Vec<_> =
        trace.requests.iter().filter(|r| r.op == RequestOp::Read).map(|r| (r.at_us, r.length)).collect();
    assert_eq!(reads, [(0, 10), (3_000_000, 20)]);
    assert!(refused(&text.replace("\"parents\":[]", "\"parents\":[\"b\"]")).contains("in a circle"));
    assert!(refused(&text[..300]).contains("is no WfFormat"));
}

#[test]
fn what_is_nothing_of_this_is_said_to_be() {
    for foreign in ["", "hello\nworld\n", "a,b,c\n1,2,3\n", "{\"x\": 1}"] {
        let error = refused(foreign);
        assert!(error.contains("no known format") && error.contains("strace"), "{error}");
    }
    let error = "atari".parse::<Format>().unwrap_err();
    assert!(error.contains("\"atari\"") && error.contains("dftracer"), "{error}");
}
