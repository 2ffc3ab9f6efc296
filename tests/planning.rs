//! The commands that plan, without a control plane: what a recording would have cost, and what the borders say.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use foretide_collector::parquet;
use foretide_flow::{
    Access, AccessBatch, AccessOp, FilePath, Found, Losses, NodeId, RunEnd, RunStart, SiteId, Timestamp, VolumeId,
};
use serde_json::Value;

const TOPOLOGY: &str = r#"
    [site.store]
    jurisdiction = "eu"
    [site.gpu]
    jurisdiction = "us"
    cache = "1 GB"
    accelerator_per_hour = 3.0
    [[link]]
    from = "store"
    to = "gpu"
    rate = "1 Gbit/s"
    rtt = "100ms"
    cost_per_gb = 0.05
    [volume.local]
    at = "store"
    [[policy.rule]]
    name = "patients-stay"
    effect = "deny"
    paths = "patients/**"
    outside_jurisdictions = ["eu"]
"#;
/// Files of an epoch.
const FILES: usize = 120;
/// Epochs of a run.
const EPOCHS: usize = 3;

fn foretide(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_foretide")).args(arguments).output().expect("the binary runs")
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// One run that reads all files in another order each epoch, 20 ms of computing before each.
fn recording() -> AccessBatch {
    let (node, site, volume) =
        (NodeId::new("n").unwrap(), SiteId::new("gpu").unwrap(), VolumeId::new("local").unwrap());
    let mut accesses = Vec::new();
    let mut at_us = 1_800_000_000_000_000;
    for epoch in 0..EPOCHS {
        for n in 0..FILES {
            let file = (n * 37 + epoch * 11) % FILES;
            at_us += 20_000;
            let access = |op, length| Access {
                at: Timestamp(at_us),
                run: "run".into(),
                process: 7,
                volume: volume.clone(),
                path: FilePath::parse(&format!("train/{file:04}.jpg")).unwrap(),
                op,
                offset: 0,
                length,
                blocked_us: 0,
                found: Found::Unknown,
            };
            accesses.extend([access(AccessOp::Open, 0), access(AccessOp::Read, 200_000), access(AccessOp::Close, 0)]);
        }
    }
    let start = RunStart {
        run: "run".into(),
        workload: "train".into(),
        command: "train".into(),
        at: accesses[0].at,
        site: site.clone(),
        node: node.clone(),
        numbers: vec![],
    };
    let ended = vec![RunEnd { run: "run".into(), at: Timestamp(at_us) }];
    AccessBatch { node, site, sequence: 1, started: vec![start], accesses, ended, losses: Losses::default() }
}

#[test]
fn a_recording_is_replayed_in_four_ways() {
    let folder = tempfile::tempdir().unwrap();
    let topology = write(folder.path(), "t.toml", TOPOLOGY.as_bytes());
    let trace = write(folder.path(), "0.parquet", &parquet::encode(&recording()).unwrap());
    let picture = folder.path().join("p.svg").display().to_string();
    let arguments = ["simulate", "--topology", &topology, "--trace", &trace, "--json", "--picture", &picture];
    let done = foretide(&arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let ways: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap();
    let of = |name: &str, key: &str| ways.iter().find(|w| w["name"] == name).unwrap()[key].as_f64().unwrap();
    for way in &ways {
        assert_eq!((way["finished"].as_bool(), way["reads"].as_u64()), (Some(true), Some((FILES * EPOCHS) as u64)));
    }
    let stall = |name: &str| of(name, "stall_s");
    assert!(stall("on demand") < 0.5 * stall("off"), "two of three epochs are in the cache");
    assert!(stall("foretide") <= 1.01 * stall("on demand"), "{} of {}", stall("foretide"), stall("on demand"));
    assert!(stall("oracle") < 0.2 * stall("on demand"), "{} of {}", stall("oracle"), stall("on demand"));
    assert!((of("off", "link_bytes") - 200_000.0 * (FILES * EPOCHS) as f64).abs() < 1_000.0);
    assert!((of("on demand", "money") - 0.05 * 200_000.0 * FILES as f64 / 1e9).abs() < 1e-6);
    assert!(fs::read_to_string(&picture).unwrap().starts_with("<svg"));
    let again = foretide(&arguments);
    assert_eq!(again.stdout, done.stdout, "the same question, the same answer");
    let table =
        foretide(&["simulate", "--topology", &topology, "--trace", &trace, "--cache", "0 GB", "--budget", "1 MB"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("foretide"));
}

#[test]
fn what_cannot_be_simulated_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let trace = write(folder.path(), "0.parquet", &parquet::encode(&recording()).unwrap());
    let refused = |topology: &str, more: &[&str]| {
        let topology = write(folder.path(), "t.toml", topology.as_bytes());
        let done = foretide(&[&["simulate", "--topology", &topology, "--trace", &trace], more].concat());
        assert!(!done.status.success());
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    assert!(refused(&TOPOLOGY.replace("[volume.local]", "[volume.other]"), &[]).contains("local"));
    assert!(refused(TOPOLOGY, &["--at", "mars"]).contains("mars"));
    assert!(refused(&TOPOLOGY.replace("1 Gbit/s", "0 Gbit/s"), &[]).contains("rate"));
    assert!(
        refused(
            &TOPOLOGY
                .replace("to = \"gpu\"", "to = \"gpu\"\nboth_ways = false")
                .replace("from = \"store\"\n    to = \"gpu\"", "from = \"gpu\"\n    to = \"store\""),
            &[]
        )
        .contains("link")
    );
}

#[test]
fn the_borders_say_who_decides() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "serve.toml", format!("state = \"/tmp/x\"\n{TOPOLOGY}").as_bytes());
    let asked = |path: &str, site: &str| foretide(&["policy", "check", path, "--site", site, "--config", &config]);
    let denied = asked("patients/1.dcm", "gpu");
    assert!(!denied.status.success());
    assert!(String::from_utf8_lossy(&denied.stdout).contains("rule patients-stay"));
    assert!(asked("patients/1.dcm", "store").status.success() && asked("public/1", "gpu").status.success());
    let rules = foretide(&["policy", "rules", "--config", &config]);
    assert!(String::from_utf8_lossy(&rules.stdout).contains("patients-stay: paths patients/**; outside eu"));
}

#[test]
fn sites_are_ranked_without_a_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "serve.toml", format!("state = \"/tmp/x\"\n{TOPOLOGY}").as_bytes());
    let advise = |path: &str| {
        let told = ["advise", "local", path, "--bytes", "500 MB", "--files", "100", "--json", "--config"];
        let done = foretide(&[&told[..], &[&config]].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<Value>(&done.stdout).unwrap()["sites"].as_array().unwrap().clone()
    };
    let ranked = advise("train");
    assert_eq!((ranked[0]["site"].as_str(), ranked[1]["site"].as_str()), (Some("store"), Some("gpu")));
    assert!(ranked[1]["ready_p50_s"].as_f64().unwrap() > 4.0 && ranked[1]["cost"].as_f64().unwrap() > 0.02);
    let forbidden = advise("patients");
    assert_eq!(
        (forbidden[1]["possible"].as_bool(), forbidden[1]["rule"].as_str()),
        (Some(false), Some("patients-stay"))
    );
}

/// The configuration that the page on planning shows is one.
#[test]
fn the_documents_example_is_a_configuration() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PLANNING.md")).unwrap();
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "serve.toml", format!("state = \"/tmp/x\"\n{example}").as_bytes());
    let denied = foretide(&["policy", "check", "scans:/a/1.dcm", "--site", "gpu", "--config", &config]);
    assert!(
        String::from_utf8_lossy(&denied.stdout).contains("phi-stays-in-eu"),
        "{}",
        String::from_utf8_lossy(&denied.stderr)
    );
    let wrong = write(
        folder.path(),
        "w.toml",
        format!("state = \"/tmp/x\"\n{}", example.replace("share = 0.3", "share = 3")).as_bytes(),
    );
    let told = foretide(&["policy", "rules", "--config", &wrong]);
    assert!(String::from_utf8_lossy(&told.stderr).contains("planner.link_hours.share is 3"));
}
