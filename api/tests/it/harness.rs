//! The server under test, and how to ask it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use foretide_api::{
    Accepted, AccessSink, AddedVolume, Advice, Adviser, Api, Certifier, Config, Courier, Directory, FilesRead,
    Listener, NotReplayed, Papers, PlanChanges, Ports, Question, Reader, Recordings, Rejected, Replayed, Scope,
    SiteAdvice, Way, WhatIf, digest_of, keep_house, mint,
};
use foretide_catalog::{Catalog, CatalogError, ResidentFile, Run, in_memory};
use foretide_flow::{
    AccessBatch, BitsPerSecond, CacheSpec, Effect, FilePath, Forecast, LeftOut, Link, Listing, Losses, Mode, NodeId,
    OutcomeBatch, Plan, Rule, Ruleset, RunStart, Site, SiteId, Timestamp, Topology, Volume, VolumeId,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::sync::watch;

pub fn site(name: &str) -> SiteId {
    SiteId::new(name).unwrap()
}

pub fn volume(name: &str) -> VolumeId {
    VolumeId::new(name).unwrap()
}

/// What the agent of `gpu-1` tells when a run begins there.
pub fn begun(run: &str, workload: &str, at: Timestamp) -> AccessBatch {
    let start = RunStart {
        run: run.into(),
        workload: workload.into(),
        command: "train.py --epochs #".into(),
        at,
        site: site("gpu-eu"),
        node: node("gpu-1"),
        numbers: vec![],
    };
    AccessBatch {
        node: node("gpu-1"),
        site: site("gpu-eu"),
        sequence: 1,
        started: vec![start],
        accesses: vec![],
        ended: vec![],
        losses: Losses::default(),
    }
}

pub fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// `store` (eu) holds the volumes `scans` (class phi) and `images`; `gpu-eu` and `gpu-us` have caches.
pub fn topology() -> Topology {
    let place = |jurisdiction: &str, cache: Option<u64>| Site {
        jurisdiction: jurisdiction.into(),
        labels: BTreeMap::new(),
        cache: cache.map(|capacity_bytes| CacheSpec { capacity_bytes }),
        accelerator_per_hour: 0.0,
    };
    let link = |to: &str| Link {
        from: site("store"),
        to: site(to),
        rate: BitsPerSecond(1_000_000_000),
        rtt_ms: 150.0,
        cost_per_gb: 0.0,
    };
    let phi = [("class".to_owned(), "phi".to_owned())].into();
    Topology {
        sites: [
            (site("store"), place("eu", None)),
            (site("gpu-eu"), place("eu", Some(1 << 30))),
            (site("gpu-us"), place("us", Some(1 << 30))),
        ]
        .into(),
        links: vec![link("gpu-eu"), link("gpu-us")],
        volumes: [
            (volume("scans"), Volume { tags: phi, ..Volume::at(site("store")) }),
            (volume("images"), Volume::at(site("store"))),
        ]
        .into(),
    }
}

/// `phi` data stays in eu; of `images`, what lies in `secret` does not go to `gpu-us`.
pub fn rules() -> Ruleset {
    let rule = |name: &str| Rule {
        name: name.into(),
        effect: Effect::Deny,
        volume: None,
        paths: None,
        tags: BTreeMap::new(),
        sites: vec![],
        jurisdictions: vec![],
        outside_jurisdictions: vec![],
        until: None,
    };
    let phi = Rule {
        tags: [("class".to_owned(), "phi".to_owned())].into(),
        outside_jurisdictions: vec!["eu".into()],
        ..rule("phi-stays-in-eu")
    };
    let secret = Rule {
        volume: Some(volume("images")),
        paths: Some("secret/**".into()),
        sites: vec![site("gpu-us")],
        ..rule("secret-stays")
    };
    Ruleset::new(vec![phi, secret], Effect::Allow, &topology()).unwrap()
}

struct Known {
    topology: Mutex<Arc<Topology>>,
    rules: Arc<Ruleset>,
}

impl Directory for Known {
    fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.lock().unwrap())
    }
    fn rules(&self) -> Arc<Ruleset> {
        Arc::clone(&self.rules)
    }
    fn digest(&self) -> blake3::Hash {
        digest_of(&self.topology(), &self.rules())
    }
    fn mode(&self) -> Mode {
        Mode::Enforce
    }
    fn volumes_added(&self, added: &BTreeMap<VolumeId, AddedVolume>) {
        let mut all = topology();
        let volumes = added.iter().map(|(name, v)| (name.clone(), v.volume()));
        all.volumes.extend(volumes);
        *self.topology.lock().unwrap() = Arc::new(all);
    }
}

/// Keeps what it is given. A batch that says another node's name, or `broken`, is refused as the real one would.
#[derive(Default)]
pub struct Lake(Mutex<Vec<Bytes>>);

impl Lake {
    pub fn kept(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[async_trait]
impl AccessSink for Lake {
    async fn accept(&self, node: &NodeId, parquet: Bytes) -> Result<Accepted, Rejected> {
        match parquet.as_ref() {
            b"broken" => Err(Rejected::Unusable { node: node.clone(), why: "no magic bytes".into() }),
            b"of another" => Err(Rejected::OtherNode { sent_by: node.clone(), says: self::node("gpu-9") }),
            b"disk full" => Err(Rejected::TryAgain("no space left on the lake".into())),
            _ => {
                let mut kept = self.0.lock().unwrap();
                let new = !kept.contains(&parquet);
                kept.push(parquet);
                Ok(Accepted { sequence: kept.len() as u64, accesses: 1, new })
            }
        }
    }
}

/// Hears what agents reported.
#[derive(Default)]
pub struct Ear {
    pub directories: AtomicUsize,
    pub batches: AtomicUsize,
    pub orders: Mutex<Vec<Forecast>>,
}

#[async_trait]
impl Listener for Ear {
    async fn listings(&self, listings: Vec<Listing>) {
        self.directories.fetch_add(listings.len(), Ordering::SeqCst);
    }
    async fn outcomes(&self, _: OutcomeBatch, _: Vec<ResidentFile>) {
        self.batches.fetch_add(1, Ordering::SeqCst);
    }
    async fn announced(&self, forecast: Forecast) {
        self.orders.lock().unwrap().push(forecast);
    }
}

/// Knows ten files of 100 bytes in whatever is asked for, and finds `gpu-us` better than `gpu-eu`.
struct Sage;

#[async_trait]
impl Adviser for Sage {
    fn explain(&self, plan: &Plan, path: &FilePath) -> String {
        format!("{} moves, asked about {path}", plan.moves.len())
    }
    fn proposals(&self, plan: &Plan) -> Vec<LeftOut> {
        plan.left_out.iter().filter(|l| l.why == "proposed").cloned().collect()
    }
    fn changes(&self, before: &Plan, after: &Plan) -> PlanChanges {
        PlanChanges { added: after.moves.clone(), removed: before.moves.clone(), changed: vec![], kept: 0 }
    }
    async fn advise(&self, question: Question, _: Timestamp) -> Result<Advice, CatalogError> {
        let mut sites = question.sites;
        if sites.is_empty() {
            sites = vec![site("gpu-eu"), site("gpu-us")];
        }
        sites.sort_by(|a, b| b.cmp(a));
        let free = question.free_accelerators;
        let one = |site: SiteId| SiteAdvice {
            possible: free.get(&site) != Some(&0),
            rule: None,
            missing_bytes: 1000,
            ready_p50_s: 10.0,
            ready_p90_s: 14.0,
            cost: 0.5,
            stall_now_s: 10.0,
            free_accelerators: free.get(&site).copied(),
            price: 0.5,
            reason: "1000 B to bring".into(),
            site,
        };
        Ok(Advice { files: 10, bytes: 1000, complete: true, sites: sites.into_iter().map(one).collect() })
    }
}

/// Knows that no cache of less than 1,000 bytes can be played, that one question at a time is enough, and that every run whose name is `trained` has read two files of `images`, and of no other run anything.
struct Scribe;

#[async_trait]
impl Recordings for Scribe {
    async fn files_read(&self, run: &Run, _: usize) -> FilesRead {
        if run.start.run.as_str() != "trained" {
            return Err("what was recorded of it is no longer kept".into());
        }
        let files = ["train/1", "train/2"].map(|p| FilePath::parse(p).unwrap());
        Ok([(volume("images"), files.into())].into())
    }
    async fn what_if(&self, question: WhatIf) -> Result<Replayed, NotReplayed> {
        match question.cache_bytes {
            Some(0) => Err(NotReplayed::Busy),
            Some(1..1000) => Err(NotReplayed::Refused("no file fits".into())),
            _ => {
                let way = Way {
                    name: "foretide".into(),
                    finished: true,
                    ended_s: question.until.since(question.from).as_secs_f64(),
                    stall_s: 1.0,
                    reads: 4,
                    hits: 3,
                    moved_bytes: question.budget_bytes.unwrap_or(0),
                    wasted_bytes: 0,
                    link_bytes: 0,
                    money: 0.0,
                    peak_link: 0.5,
                    peak_cache_bytes: question.cache_bytes.unwrap_or(0),
                };
                Ok(Replayed { jobs: 1, files: 2, bytes: 300, ways: vec![way] })
            }
        }
    }
}

/// A message: address, headers, body.
pub type Message = (String, Vec<(&'static str, String)>, Vec<u8>);

/// What was carried. Answers each message with the next status it was given, 200 after that.
#[derive(Default)]
pub struct Post {
    pub carried: Mutex<Vec<Message>>,
    pub answers: Mutex<Vec<u16>>,
}

#[async_trait]
impl Courier for Post {
    async fn post(&self, url: &str, headers: &[(&'static str, String)], body: Vec<u8>) -> Result<u16, String> {
        self.carried.lock().unwrap().push((url.to_owned(), headers.to_vec(), body));
        let mut answers = self.answers.lock().unwrap();
        Ok(if answers.is_empty() { 200 } else { answers.remove(0) })
    }
}

/// Reads from the web, as the real one does.
#[derive(Default)]
struct Web(reqwest::Client);

#[async_trait]
impl Reader for Web {
    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let answer = self.0.get(url).send().await.and_then(Response::error_for_status).map_err(|e| e.to_string())?;
        answer.bytes().await.map(Into::into).map_err(|e| e.to_string())
    }
}

/// Signs whatever is no empty request.
struct Notary;

impl Certifier for Notary {
    fn fingerprint(&self) -> &str {
        "abcd"
    }
    fn certify(&self, node: &NodeId, site: &SiteId, request_pem: &str) -> Result<Papers, String> {
        if request_pem.is_empty() {
            return Err("it is no request".into());
        }
        let certificate = format!("{node} at {site} by {request_pem}");
        Ok(Papers { certificate, authority: "authority".into(), token: "agents'".into() })
    }
}

/// A server on loopback with one token per scope.
pub struct Served {
    pub base: String,
    pub catalog: Arc<dyn Catalog>,
    pub lake: Arc<Lake>,
    pub ear: Arc<Ear>,
    pub post: Arc<Post>,
    pub client: reqwest::Client,
    pub secrets: HashMap<Scope, String>,
    pub stop: watch::Sender<bool>,
    pub task: tokio::task::JoinHandle<std::io::Result<()>>,
}

pub async fn serve() -> Served {
    serve_with(Config::default(), in_memory()).await
}

pub async fn serve_with(config: Config, catalog: Arc<dyn Catalog>) -> Served {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut secrets = HashMap::new();
    for scope in Scope::ALL {
        let secret = mint(catalog.as_ref(), scope.as_str(), &[scope], None, Timestamp::now()).await.unwrap();
        secrets.insert(scope, secret);
    }
    let directory = Known { topology: Mutex::new(Arc::new(topology())), rules: Arc::new(rules()) };
    let lake = Arc::new(Lake::default());
    let ear = Arc::new(Ear::default());
    let post = Arc::new(Post::default());
    let (stop, stopped) = watch::channel(false);
    let ports = Ports {
        directory: Arc::new(directory),
        accesses: lake.clone(),
        listener: ear.clone(),
        adviser: Arc::new(Sage),
        recordings: Arc::new(Scribe),
        courier: post.clone(),
        reader: Arc::new(Web::default()),
        certifier: Some(Arc::new(Notary)),
    };
    let api = Api::new(config, Arc::clone(&catalog), ports, stopped.clone());
    tokio::spawn(keep_house(api.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let down = async move {
        let mut stopped = stopped;
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let server = axum::serve(listener, foretide_api::router(api)).with_graceful_shutdown(down);
    let task = tokio::spawn(async move { server.await });
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    Served { base, catalog, lake, ear, post, client, secrets, stop, task }
}

impl Served {
    /// A request with the token of that scope.
    pub fn ask(&self, scope: Scope, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.secrets[&scope])
    }

    pub async fn get(&self, scope: Scope, path: &str) -> Response {
        self.ask(scope, Method::GET, path).send().await.unwrap()
    }

    /// The body of a 200.
    pub async fn got(&self, scope: Scope, path: &str) -> Value {
        let response = self.get(scope, path).await;
        assert_eq!(response.status(), StatusCode::OK, "GET {path}");
        response.json().await.unwrap()
    }

    pub async fn post(&self, scope: Scope, path: &str, body: &Value) -> Response {
        self.ask(scope, Method::POST, path).json(body).send().await.unwrap()
    }

    /// The body of a POST that was taken.
    pub async fn posted(&self, scope: Scope, path: &str, body: &Value) -> Value {
        let response = self.post(scope, path, body).await;
        let status = response.status();
        let body = response.text().await.unwrap();
        assert!(status.is_success(), "POST {path}: {status} {body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// Checks that an answer is a problem of that status and kind with all its members, and gives it.
pub async fn problem(response: Response, status: u16, kind: &str) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.status().as_u16(), status);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["type"], format!("/problems/{kind}"), "{body}");
    assert_eq!(body["status"], status);
    for member in ["title", "detail", "remedy"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member} in {body}");
    }
    body
}
