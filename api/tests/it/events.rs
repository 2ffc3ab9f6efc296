//! The event stream.

use std::time::Duration;

use foretide_api::{Config, EventView, Scope, Told, tell};
use foretide_catalog::in_memory;
use foretide_flow::{Timestamp, Warmup};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Served, problem, serve, serve_with};

/// Reads a stream frame by frame.
struct Frames {
    response: Response,
    text: String,
}

#[derive(Debug, Default, PartialEq)]
struct Frame {
    id: Option<u64>,
    kind: String,
    data: Value,
}

impl Frames {
    async fn open(served: &Served, query: &str, last: Option<u64>) -> Self {
        let mut request = served.ask(Scope::Read, Method::GET, &format!("/v1/events{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next frame that is no comment; none at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let raw: String = self.text.drain(..end + 2).collect();
                let frame = parse(&raw);
                if !frame.kind.is_empty() {
                    return Some(frame);
                }
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

fn parse(raw: &str) -> Frame {
    let mut frame = Frame::default();
    for line in raw.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => frame.id = id.parse().ok(),
            Some(("event", kind)) => frame.kind = kind.to_owned(),
            Some(("data", data)) => frame.data = serde_json::from_str(data).unwrap(),
            _ => {}
        }
    }
    frame
}

async fn told(served: &Served, changed: u64) {
    tell(served.catalog.as_ref(), &Told::Forecasts { changed }, Timestamp(9)).await.unwrap();
}

#[tokio::test]
async fn what_happens_is_heard_and_reads_back_as_it_was_told() {
    let served = serve().await;
    told(&served, 1).await;
    let mut live = Frames::open(&served, "", None).await;
    let body = json!({ "volume": "images", "paths": [""], "site": "gpu-eu" });
    let warmup = served.posted(Scope::Warm, "/v1/warmups", &body).await;
    let heard = live.next().await.unwrap();
    assert_eq!((heard.id, heard.kind.as_str()), (Some(2), "warmup"), "what was before is not told");
    let view: EventView = serde_json::from_value(heard.data).unwrap();
    let same = |w: &Warmup| json!(w).as_object().unwrap().iter().all(|(name, value)| &warmup[name] == value);
    assert!(matches!(&view.told, Told::Warmup(w) if same(w)), "{view:?}");

    served.ask(Scope::Admin, Method::PUT, "/v1/switch").json(&json!({ "prefetch_off": true })).send().await.unwrap();
    let heard = live.next().await.unwrap();
    let view: EventView = serde_json::from_value(heard.data).unwrap();
    assert_eq!((view.id, view.told), (3, Told::Switch { prefetch_off: true }));
}

#[tokio::test]
async fn who_comes_back_misses_nothing() {
    let served = serve().await;
    for n in 1..=600 {
        told(&served, n).await;
    }
    let mut back = Frames::open(&served, "", Some(3)).await;
    for expected in 4..=600 {
        let frame = back.next().await.unwrap();
        assert_eq!((frame.id, &frame.data["body"]["changed"]), (Some(expected), &json!(expected)));
    }
    let mut all = Frames::open(&served, "?after=0&kinds=forecasts", None).await;
    assert_eq!(all.next().await.unwrap().id, Some(1));
    let mut others = Frames::open(&served, "?after=0&kinds=switch", None).await;
    served.ask(Scope::Admin, Method::PUT, "/v1/switch").json(&json!({ "prefetch_off": false })).send().await.unwrap();
    assert_eq!(others.next().await.unwrap().id, Some(601));
}

/// Promise J: what can no longer be told is said to be missing.
#[tokio::test]
async fn promise_j_a_number_that_nobody_knows_is_answered_with_lost() {
    let served = serve().await;
    told(&served, 1).await;
    let mut strange = Frames::open(&served, "", Some(77)).await;
    let lost = strange.next().await.unwrap();
    assert_eq!((lost.kind.as_str(), &lost.data["after"]), ("lost", &json!(77)));
    told(&served, 2).await;
    assert_eq!(strange.next().await.unwrap().id, Some(2));
}

/// Promise K: listeners are bounded, and one that goes makes room.
#[tokio::test]
async fn promise_k_no_more_listen_than_may() {
    let served = serve_with(Config { listeners_max: 2, ..Config::default() }, in_memory()).await;
    let first = Frames::open(&served, "", None).await;
    let _second = Frames::open(&served, "", None).await;
    problem(served.get(Scope::Read, "/v1/events").await, 503, "too-many-listeners").await;
    drop(first);
    let mut tries = 0;
    while served.get(Scope::Read, "/v1/events").await.status() != StatusCode::OK {
        tries += 1;
        assert!(tries < 100, "the room of a listener that went stays taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_server() {
    let served = serve().await;
    let mut stream = Frames::open(&served, "", None).await;
    served.stop.send(true).unwrap();
    assert_eq!(stream.next().await, None);
    served.task.await.unwrap().unwrap();
}
