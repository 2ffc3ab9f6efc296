//! `foretide k8s` between a real control plane and a kube-apiserver. The apiserver is a stand-in: it lists, watches and
//! merges a server-side apply of the one list that concerns us, as the real one is documented to do.

mod process;

use std::fs::{self, File};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path as Segments, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use axum::{Json, Router};
use process::{Process, eventually, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::watch;

const CONFIG: &str = r#"
    [site.store]
    jurisdiction = "eu"
    [site.gpu]
    jurisdiction = "eu"
    cache = "10 GB"
    [site.far]
    jurisdiction = "us"
    cache = "10 GB"
    [[link]]
    from = "store"
    to = "gpu"
    rate = "10 Gbit/s"
    rtt = "1ms"
    [[link]]
    from = "store"
    to = "far"
    rate = "1 Gbit/s"
    rtt = "150ms"
    [volume.data]
    at = "store"
    [volume.scans]
    at = "store"
    tags = { class = "phi" }
    [[policy.rule]]
    name = "phi-stays-in-eu"
    effect = "deny"
    tags = { class = "phi" }
    outside_jurisdictions = ["eu"]
"#;
/// Files of `data`, 1,000 bytes each.
const FILES: u64 = 20;

/// A control plane that knows the files of `data`.
struct Control {
    address: String,
    token: String,
    folder: TempDir,
    serve: Option<Process>,
    http: reqwest::Client,
    runtime: Runtime,
}

impl Control {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let config = folder.path().join("serve.toml");
        let mut file = File::create(&config).unwrap();
        let state = folder.path().join("state");
        writeln!(file, "listen = \"{address}\"\nstate = \"{}\"\n{CONFIG}", state.display()).unwrap();
        let serve = Some(Process::start(folder.path(), "serve", &["serve", "--config", config.to_str().unwrap()]));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let runtime = Runtime::new().unwrap();
        let token_file = state.join("token");
        let address = format!("http://{address}");
        let mut control = Self { address, token: String::new(), folder, serve, http, runtime };
        eventually("the control plane is up", || control.ask("GET", "/healthz", None).is_some());
        control.token = fs::read_to_string(token_file).unwrap().trim().to_owned();
        let entry = |n: u64| {
            json!({ "path": format!("img-{n}.jpg"), "kind": "file", "size": 1000, "modified_at": 1, "mode": 420, "uid": 0,
                    "gid": 0, "links": 1, "version": "1" })
        };
        control.post("/v1/agent/hello", &json!({ "node": "store-1", "site": "store", "volumes": ["data", "scans"] }));
        let entries: Vec<Value> = (0..FILES).map(entry).collect();
        let listing = json!({ "volume": "data", "directory": "", "seen_at": 1, "entries": entries });
        control.post("/v1/agent/listings", &json!({ "node": "store-1", "listings": [listing] }));
        control
    }

    /// The JSON of an answer that is no refusal.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
        self.ask_at(method, &format!("{}{path}", self.address), body)
    }

    fn ask_at(&self, method: &str, address: &str, body: Option<&Value>) -> Option<Value> {
        let request = self.http.request(method.parse().unwrap(), address).bearer_auth(&self.token);
        let request = if let Some(body) = body { request.json(body) } else { request };
        self.runtime.block_on(async { request.send().await.ok()?.error_for_status().ok()?.json().await.ok() })
    }

    fn post(&self, path: &str, body: &Value) {
        assert!(self.ask("POST", path, Some(body)).is_some(), "{path} was refused");
    }

    fn warmups(&self) -> Vec<Value> {
        self.ask("GET", "/v1/warmups", None).unwrap()["items"].as_array().unwrap().clone()
    }

    /// `foretide k8s` with this control plane.
    fn k8s(&self, log: &str, arguments: &[&str]) -> Process {
        let mut all = vec!["k8s", "--control", &self.address, "--token", &self.token];
        all.extend(arguments);
        Process::start(self.folder.path(), log, &all)
    }
}

/// The stand-in for a kube-apiserver.
#[derive(Clone)]
struct Kube {
    objects: Arc<Mutex<Objects>>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct Objects {
    checks: Vec<Value>,
    workloads: Vec<Value>,
    watches: u64,
}

fn named<'o>(objects: &'o mut [Value], name: &str) -> Option<&'o mut Value> {
    objects.iter_mut().find(|o| o["metadata"]["name"] == name)
}

/// Merges a list whose entries are told apart by `key`, as server-side apply does.
fn merge(into: &mut Value, applied: &Value, key: &str) {
    let Some(applied) = applied.as_array() else { return };
    if !into.is_array() {
        *into = json!([]);
    }
    let known = into.as_array_mut().unwrap();
    for entry in applied {
        match known.iter_mut().find(|e| e[key] == entry[key]) {
            Some(before) => *before = entry.clone(),
            None => known.push(entry.clone()),
        }
    }
}

impl Kube {
    fn change(&self, change: impl FnOnce(&mut Objects)) {
        change(&mut self.objects.lock().unwrap());
        self.version.send_modify(|v| *v += 1);
    }

    /// One check of one workload.
    fn check(&self, workload: &str, check: &str) -> Value {
        let mut objects = self.objects.lock().unwrap();
        let workload = named(&mut objects.workloads, workload).unwrap();
        let checks = workload["status"]["admissionChecks"].as_array().unwrap();
        checks.iter().find(|c| c["name"] == check).unwrap().clone()
    }

    fn says(&self, workload: &str, state: &str, words: &str) {
        eventually(&format!("{workload} is {state}: {words}"), || {
            let check = self.check(workload, "warm");
            check["state"] == state && check["message"].as_str().unwrap_or_default().contains(words)
        });
    }

    async fn serve(self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/apis/kueue.x-k8s.io/v1beta1/admissionchecks", get(list_checks))
            .route("/apis/kueue.x-k8s.io/v1beta1/workloads", get(list_workloads))
            .route("/apis/kueue.x-k8s.io/v1beta1/admissionchecks/{name}/status", patch(apply_check))
            .route("/apis/kueue.x-k8s.io/v1beta1/namespaces/{namespace}/workloads/{name}/status", patch(apply_workload))
            .with_state(self);
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }
}

async fn list_checks(State(kube): State<Kube>) -> Json<Value> {
    let items = kube.objects.lock().unwrap().checks.clone();
    Json(json!({ "kind": "AdmissionCheckList", "metadata": { "resourceVersion": "1" }, "items": items }))
}

#[derive(serde::Deserialize)]
struct ListQuery {
    watch: Option<u8>,
    #[serde(rename = "resourceVersion")]
    since: Option<u64>,
    #[serde(rename = "timeoutSeconds")]
    wait_s: Option<u64>,
}

async fn list_workloads(State(kube): State<Kube>, Query(query): Query<ListQuery>) -> Response {
    if query.watch.is_none() {
        let version = kube.version.borrow().to_string();
        let items = kube.objects.lock().unwrap().workloads.clone();
        let list = json!({ "kind": "WorkloadList", "metadata": { "resourceVersion": version }, "items": items });
        return Json(list).into_response();
    }
    kube.objects.lock().unwrap().watches += 1;
    let mut news = kube.version.subscribe();
    let since = query.since.unwrap_or(0);
    let wait = Duration::from_secs(query.wait_s.unwrap_or(1));
    let event = async move {
        let changed = news.wait_for(|version| *version > since);
        let line = match tokio::time::timeout(wait, changed).await {
            Ok(_) => "{\"type\":\"MODIFIED\",\"object\":{}}\n",
            Err(_) => "",
        };
        Ok::<_, std::io::Error>(Bytes::from(line))
    };
    Body::from_stream(futures::stream::once(event)).into_response()
}

/// What every apply of ours must be.
fn is_apply(headers: &HeaderMap, query: &str) -> bool {
    headers["content-type"] == "application/apply-patch+yaml" && query == "fieldManager=foretide&force=true"
}

async fn apply_check(
    State(kube): State<Kube>,
    Segments(name): Segments<String>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let body: Value = serde_json::from_slice(&body).unwrap();
    if !is_apply(&headers, uri.query().unwrap_or_default()) {
        return StatusCode::BAD_REQUEST;
    }
    kube.change(|objects| {
        let check = named(&mut objects.checks, &name).unwrap();
        merge(&mut check["status"]["conditions"], &body["status"]["conditions"], "type");
    });
    StatusCode::OK
}

async fn apply_workload(
    State(kube): State<Kube>,
    Segments((namespace, name)): Segments<(String, String)>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let body: Value = serde_json::from_slice(&body).unwrap();
    if !is_apply(&headers, uri.query().unwrap_or_default()) || body["metadata"]["namespace"] != namespace.as_str() {
        return StatusCode::BAD_REQUEST;
    }
    kube.change(|objects| {
        let workload = named(&mut objects.workloads, &name).unwrap();
        merge(&mut workload["status"]["admissionChecks"], &body["status"]["admissionChecks"], "name");
    });
    StatusCode::OK
}

/// A workload with quota, as Kueue has it before its checks are answered.
fn workload(name: &str, annotations: Value) -> Value {
    let pending =
        |check: &str| json!({ "name": check, "state": "Pending", "lastTransitionTime": "2026-11-25T00:00:00Z" });
    let now: Value = {
        // Waits from now on: patience is counted from this moment.
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({ "name": "warm", "state": "Pending", "message": "", "lastTransitionTime": now })
    };
    json!({
        "metadata": { "name": name, "namespace": "ml", "uid": format!("uid-{name}") },
        "spec": { "podSets": [{ "name": "main", "template": { "metadata": { "annotations": annotations } } }] },
        "status": {
            "conditions": [{ "type": "QuotaReserved", "status": "True" }],
            "admissionChecks": [pending("other"), now],
        },
    })
}

#[test]
fn a_job_is_let_in_when_its_data_is_there_and_never_held_for_ever() {
    let mut control = Control::start();
    let check = |name: &str, controller: &str| json!({ "metadata": { "name": name }, "spec": { "controllerName": controller } });
    let reads = |more: Value| {
        let mut annotations = json!({ "foretide.dev/volume": "data", "foretide.dev/sites": "gpu" });
        annotations.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        annotations
    };
    let kube = Kube { objects: Arc::default(), version: watch::Sender::new(1) };
    kube.change(|objects| {
        objects.checks = vec![check("warm", "foretide.dev/warm-up"), check("other", "example.org/other")];
        objects.workloads = vec![
            workload("trains", reads(json!({ "foretide.dev/on-unready": "wait" }))),
            workload("silent", json!({ "team": "vision" })),
            workload("garbled", json!({ "foretide.dev/volume": "No Volume" })),
            workload("strict", reads(json!({ "foretide.dev/globs": "*.none", "foretide.dev/on-unready": "fail" }))),
        ];
    });
    let address = control.runtime.block_on(kube.clone().serve());
    let admission = control.k8s("admission", &["admission", "--kube", &address]);

    kube.says("silent", "Ready", "says nothing of its data");
    kube.says("garbled", "Ready", "runs cold");
    kube.says("strict", "Rejected", "no files that match its globs");
    kube.says("trains", "Pending", "0 of 20000 bytes there");
    assert_eq!(kube.objects.lock().unwrap().checks[0]["status"]["conditions"][0]["type"], "Active");
    assert!(kube.objects.lock().unwrap().checks[1]["status"].is_null(), "another's check is touched");
    assert_eq!(kube.check("trains", "other"), workload("x", json!({}))["status"]["admissionChecks"][0]);

    let asked = control.warmups();
    let trains = asked.iter().find(|w| w["request"]["labels"]["kubernetes_workload"] == "ml/trains").unwrap();
    let id = trains["id"].as_str().unwrap().to_owned();
    let bytes = FILES * 1000;
    let census = json!({ "warmup": id, "resident_files": FILES, "resident_bytes": bytes });
    let report = json!({ "node": "gpu-1", "site": "gpu", "sequence": 1, "outcomes": [], "census": [census],
                         "resident_bytes": bytes, "capacity_bytes": 10_000_000_000u64 });
    control.post("/v1/agent/outcomes", &report);
    kube.says("trains", "Ready", "is READY");
    let updates = kube.check("trains", "warm")["podSetUpdates"].clone();
    assert_eq!(updates, json!([{ "name": "main", "nodeSelector": { "foretide.dev/site": "gpu" } }]));
    let of_it =
        control.warmups().iter().filter(|w| w["request"]["labels"]["kubernetes_workload"] == "ml/trains").count();
    assert_eq!(of_it, 1, "however often it is looked at, it is asked for once");

    kube.change(|objects| {
        let trains = named(&mut objects.workloads, "trains").unwrap();
        trains["status"]["conditions"].as_array_mut().unwrap().push(json!({ "type": "Finished", "status": "True" }));
    });
    eventually("the warm-up of a job that is over is released", || {
        control.warmups().iter().any(|w| w["id"] == id.as_str() && w["state"] == "EXPIRED")
    });

    // Promise A: without a control plane a job waits as long as it wants to, and runs.
    control.serve = None;
    kube.change(|objects| objects.workloads.push(workload("late", reads(json!({ "foretide.dev/patience-s": "8" })))));
    kube.says("late", "Pending", "waits for the control plane");
    kube.says("late", "Ready", "runs cold");
    assert!(kube.objects.lock().unwrap().watches > 0);
    drop(admission);
}

#[test]
fn nodes_are_kept_and_ranked_by_the_site_at_which_they_stand() {
    let control = Control::start();
    let listen = format!("127.0.0.1:{}", free_port());
    let _extender = control.k8s("extender", &["extender", "--listen", &listen, "--site-label", "site"]);
    let node = |name: &str, labels: Value| json!({ "metadata": { "name": name, "labels": labels } });
    let nodes = json!({ "items": [node("near", json!({ "site": "gpu" })), node("far-1", json!({ "site": "far" })), node("plain", json!({}))] });
    let ask = |verb: &str, volume: &str| {
        let pod = json!({ "metadata": { "name": "p", "annotations": { "foretide.dev/volume": volume } } });
        let body = json!({ "pod": pod, "nodes": nodes, "nodenames": null });
        control.ask_at("POST", &format!("http://{listen}{verb}"), Some(&body))
    };
    eventually("the extender is up", || ask("/filter", "data").is_some());
    let kept = ask("/filter", "scans").unwrap();
    let names: Vec<&str> =
        kept["nodes"]["items"].as_array().unwrap().iter().map(|n| n["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["near", "plain"]);
    assert!(kept["failedNodes"]["far-1"].as_str().unwrap().contains("phi-stays-in-eu"), "{kept}");
    let ranked = ask("/prioritize", "data").unwrap();
    assert_eq!(ranked[0], json!({ "host": "near", "score": 10 }));
    assert_eq!((&ranked[1]["score"], &ranked[2]["score"]), (&json!(0), &json!(0)));
    let names_alone = json!({ "pod": {}, "nodenames": ["a"] });
    let told = control.ask_at("POST", &format!("http://{listen}/filter"), Some(&names_alone)).unwrap();
    assert!(told["error"].as_str().unwrap().contains("nodeCacheCapable"), "{told}");
}
