//! The document against the server, by somebody who knows only the document: schemathesis.

use std::process::Command;
use std::time::Duration;

use foretide_api::{Config, Scope, mint};
use foretide_catalog::in_memory;
use foretide_flow::{Forecast, ForecastId, Timestamp, WorkloadId};
use serde_json::json;

use crate::agents::{hello, plan_of_one};
use crate::harness::{Served, begun, serve_with, site, volume};

/// Where the settings of the run are, beside the script that starts it.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/api");

/// Something of each kind, so that lists are not empty.
async fn fill(served: &Served) {
    let now = Timestamp::now();
    served.posted(Scope::Agent, "/v1/agent/hello", &hello("gpu-1", "gpu-eu", &[])).await;
    served.catalog.put_plan(&plan_of_one("p1", "m1", "gpu-eu")).await.unwrap();
    let wanted = json!({ "volume": "images", "paths": ["train"], "site": "gpu-eu" });
    served.posted(Scope::Warm, "/v1/warmups", &wanted).await;
    let forecast = Forecast {
        id: ForecastId::from("f1"),
        workload: WorkloadId::from("train"),
        run: None,
        site: site("gpu-eu"),
        volume: volume("images"),
        made_at: now,
        expires_at: now + Duration::from_secs(3600),
        forecaster: "recurrence".into(),
        reason: "came back 5 times".into(),
        reads: vec![],
    };
    served.catalog.put_forecasts(&[forecast]).await.unwrap();
    served.catalog.record_batch(&begun("r1", "train", now), "lake/1.parquet", now).await.unwrap();
    let refused = json!({
        "node": "store-1", "site": "store", "sequence": 1, "census": [], "resident_bytes": 0, "capacity_bytes": 0,
        "outcomes": [{ "kind": "refused", "volume": "scans", "path": "a", "to": "gpu-us", "rule": "phi-stays-in-eu",
                       "by": "sender", "at": 5 }],
    });
    served.posted(Scope::Agent, "/v1/agent/outcomes", &refused).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs schemathesis: tests/api/schemathesis installs it and runs this"]
async fn schemathesis_finds_nothing() {
    let program = std::env::var_os("SCHEMATHESIS").expect("SCHEMATHESIS names the program");
    let generous = Config { wait_max_s: 1, rate_requests_per_s: 1_000_000, ..Config::default() };
    let served = serve_with(generous, in_memory()).await;
    fill(&served).await;
    let secret = mint(served.catalog.as_ref(), "fuzz", &Scope::ALL, None, Timestamp::now()).await.unwrap();
    // It leaves records where it runs.
    let folder = tempfile::tempdir().unwrap();
    for file in ["schemathesis.toml", "parquet.py"] {
        std::fs::copy(format!("{FOLDER}/{file}"), folder.path().join(file)).unwrap();
    }
    let work = folder.path().to_owned();
    let document = format!("{}/v1/openapi.json", served.base);
    let run = tokio::task::spawn_blocking(move || {
        Command::new(program)
            .current_dir(&work)
            .args([
                "--config-file",
                "schemathesis.toml",
                "run",
                &document,
                "-H",
                &format!("Authorization: Bearer {secret}"),
            ])
            .status()
    });
    let status = run.await.unwrap().expect("schemathesis starts");
    assert!(status.success(), "schemathesis found that the document and the server differ: see above");
}
