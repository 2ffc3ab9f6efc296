//! Processes that are killed (`kill -9`) in the middle of a transfer: the receiver, the sender, in turn.
//!
//! The processes are this test program again, told by the environment what to be.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use foretide_flow::Outcome;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::rig::{a_move, store};
use super::{moves, node, noise, serve};

const KILLS: u32 = 30;
const FILES: u64 = 12;
const FILE_BYTES: usize = 4_000_000;
/// Room for all files.
const CACHE_BYTES: u64 = 1 << 30;
const ROLE: &str = "FORETIDE_TEST_ROLE";

fn files() -> Vec<(String, u64)> {
    (0..FILES).map(|i| (format!("f{i}"), FILE_BYTES as u64)).collect()
}

/// Starts this program as one of the two; what it says first.
fn start(role: &str, folder: &Path, address: &str) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::a_process_that_may_be_killed", "--nocapture", "--ignored"])
        .envs([(ROLE, role), ("FORETIDE_TEST_ADDRESS", address)])
        .env("FORETIDE_TEST_FOLDER", folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.find_map(|l| l.unwrap().strip_prefix("says ").map(str::to_owned)).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    (child, said)
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[ignore = "a part of promise_e_thirty_kills_lose_nothing_that_was_verified, which starts it"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_may_be_killed() {
    let told = |name: &str| std::env::var(name).unwrap();
    let folder = std::path::PathBuf::from(std::env::var_os("FORETIDE_TEST_FOLDER").unwrap());
    let say = |what: String| {
        println!("\nsays {what}");
        std::io::stdout().flush().unwrap();
    };
    if told(ROLE) == "sender" {
        let server = serve(&folder, &told("FORETIDE_TEST_ADDRESS")).await;
        say(server.address().to_string());
        return std::future::pending().await;
    }
    let mut node = node(store(&folder, CACHE_BYTES), &told("FORETIDE_TEST_ADDRESS"));
    say(node.mover.store().resident_bytes().to_string());
    node.take(moves(&files()));
    loop {
        if let Outcome::Failed { id, .. } = node.next().await {
            node.take(vec![a_move(id.as_str().strip_prefix("move-").unwrap(), FILE_BYTES as u64)]);
        }
    }
}

#[test]
fn promise_e_thirty_kills_lose_nothing_that_was_verified() {
    let (source, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for i in 0..FILES {
        std::fs::write(source.path().join(format!("f{i}")), noise(i, FILE_BYTES)).unwrap();
    }
    let mut random = StdRng::seed_from_u64(9);
    let (mut sender, address) = start("sender", source.path(), "127.0.0.1:0");
    let (mut killed, mut before) = ([0; 2], 0);
    while killed.iter().sum::<u32>() < KILLS {
        let (receiver, resident) = start("receiver", cache.path(), &address);
        let resident: u64 = resident.parse().unwrap();
        assert!(resident >= before, "{before} bytes were verified, {resident} are left");
        before = resident;
        std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
        if random.random_bool(0.3) {
            kill(sender);
            killed[0] += 1;
            std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
            (sender, _) = start("sender", source.path(), &address);
            std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
        }
        kill(receiver);
        killed[1] += 1;
        if before == FILES * FILE_BYTES as u64 {
            // All is here: begin anew, so that each kill meets a transfer.
            std::fs::remove_dir_all(cache.path()).unwrap();
            before = 0;
        }
    }
    println!("killed: {} senders, {} receivers", killed[0], killed[1]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let node = node(store(cache.path(), CACHE_BYTES), &address);
        let report = node.mover.store().check(foretide_chunk::Subset::ALL).unwrap();
        assert_eq!(report.corrupt, 0, "half a chunk became visible");
        for i in 0..FILES {
            assert!(node.content(&format!("f{i}")).await.unwrap() == noise(i, FILE_BYTES), "f{i}");
        }
    });
    kill(sender);
}
