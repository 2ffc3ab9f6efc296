//! kube-scheduler's extender: nodes are kept and ranked by the site at which they stand.
//!
//! A pod that says what it reads is asked about once for each call; nodes without a site, and all nodes when the control
//! plane does not answer, stay as they are: the scheduler goes on by its own means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use foretide_api::{Advice, AdviceWanted, SiteAdvice};
use foretide_flow::SiteId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::wish;
use crate::client::ControlClient;

/// The most that an extender may say of a node.
const SCORE_MAX: f64 = 10.0;
/// Bytes of a call: thousands of nodes as kube-scheduler sends them.
const BODY_MAX_BYTES: usize = 256 << 20;

/// What kube-scheduler sends.
#[derive(Debug, Deserialize)]
struct ExtenderArgs {
    #[serde(alias = "Pod")]
    pod: Value,
    #[serde(default, alias = "Nodes")]
    nodes: Option<NodeList>,
}

#[derive(Debug, Default, Deserialize)]
struct NodeList {
    #[serde(default, alias = "Items")]
    items: Vec<Value>,
}

/// Answers kube-scheduler.
pub struct Extender {
    control: ControlClient,
    site_label: String,
}

impl Extender {
    /// With this control plane; `site_label` of a node names its site.
    pub fn new(control: ControlClient, site_label: String) -> Self {
        Self { control, site_label }
    }

    fn site<'n>(&self, node: &'n Value) -> Option<&'n str> {
        node["metadata"]["labels"][&self.site_label].as_str()
    }

    /// What is said of the sites of these nodes; nothing if the pod asks for nothing, or nobody answers.
    async fn advice(&self, pod: &Value, nodes: &[Value]) -> Option<Advice> {
        let annotations = pod["metadata"]["annotations"].as_object()?;
        let pairs = annotations.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let wanted = match wish::read(pairs) {
            Ok(wish) => wish?.wanted,
            Err(why) => {
                tracing::warn!(pod = name, why, "what a pod asks for cannot be meant");
                return None;
            }
        };
        let sites: BTreeSet<SiteId> =
            nodes.iter().filter_map(|n| self.site(n)).filter_map(|s| SiteId::new(s).ok()).collect();
        if sites.is_empty() {
            return None;
        }
        let question = AdviceWanted {
            volume: wanted.volume,
            paths: wanted.paths,
            globs: wanted.globs,
            workload: wanted.workload,
            run: wanted.run,
            sites: sites.into_iter().collect(),
            ..AdviceWanted::default()
        };
        match self.control.advise(&question).await {
            Ok(advice) => Some(advice),
            Err(error) => {
                tracing::warn!(pod = name, %error, "nothing is known of where it could run");
                None
            }
        }
    }
}

/// Both verbs.
pub fn router(extender: Arc<Extender>) -> Router {
    Router::new()
        .route("/filter", post(filter))
        .route("/prioritize", post(prioritize))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(extender)
}

/// With `nodeCacheCapable: true` names come in place of nodes, and names say nothing of a site.
const NAMES_ALONE: &str = "nodes came without their labels: set nodeCacheCapable to false for this extender";

async fn filter(State(extender): State<Arc<Extender>>, Json(args): Json<ExtenderArgs>) -> Json<Value> {
    let Some(NodeList { items }) = args.nodes else { return Json(json!({ "error": NAMES_ALONE })) };
    let advice = extender.advice(&args.pod, &items).await;
    let (kept, failed) = kept(items, advice.as_ref(), |node| extender.site(node).map(str::to_owned));
    Json(json!({ "nodes": { "items": kept }, "failedNodes": failed, "error": "" }))
}

async fn prioritize(State(extender): State<Arc<Extender>>, Json(args): Json<ExtenderArgs>) -> Json<Value> {
    let items = args.nodes.unwrap_or_default().items;
    let advice = extender.advice(&args.pod, &items).await;
    let scores = advice.as_ref().map(|advice| scores(&advice.sites)).unwrap_or_default();
    let one = |node: &Value| {
        let score = extender.site(node).and_then(|site| scores.get(site)).copied().unwrap_or(0);
        json!({ "host": node["metadata"]["name"], "score": score })
    };
    Json(items.iter().map(one).collect())
}

/// Nodes that may be, and why the others may not.
fn kept(
    nodes: Vec<Value>,
    advice: Option<&Advice>,
    site: impl Fn(&Value) -> Option<String>,
) -> (Vec<Value>, BTreeMap<String, String>) {
    let impossible: BTreeMap<&str, &str> = advice
        .iter()
        .flat_map(|advice| &advice.sites)
        .filter(|s| !s.possible)
        .map(|s| (s.site.as_str(), s.reason.as_str()))
        .collect();
    let (mut kept, mut failed) = (Vec::with_capacity(nodes.len()), BTreeMap::new());
    for node in nodes {
        match site(&node).and_then(|site| Some((impossible.get(site.as_str())?, site))) {
            Some((why, site)) => {
                let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                failed.insert(name, format!("site {site}: {why}"));
            }
            None => kept.push(node),
        }
    }
    (kept, failed)
}

/// From the dearest site to the cheapest, by the price of waiting and moving.
fn scores(sites: &[SiteAdvice]) -> BTreeMap<&str, u64> {
    let possible = || sites.iter().filter(|s| s.possible);
    let (low, high) = possible().fold((f64::MAX, f64::MIN), |(l, h), s| (l.min(s.price), h.max(s.price)));
    let score = |price: f64| {
        if high > low { (SCORE_MAX * (high - price) / (high - low)).round() as u64 } else { SCORE_MAX as u64 }
    };
    possible().map(|s| (s.site.as_str(), score(s.price))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(site: &str, possible: bool, price: f64) -> SiteAdvice {
        SiteAdvice {
            site: SiteId::new(site).unwrap(),
            possible,
            rule: None,
            missing_bytes: 0,
            ready_p50_s: 0.0,
            ready_p90_s: 0.0,
            cost: 0.0,
            stall_now_s: 0.0,
            free_accelerators: None,
            price,
            reason: "rule phi forbids it".into(),
        }
    }

    fn site(node: &Value) -> Option<String> {
        node["metadata"]["labels"]["site"].as_str().map(str::to_owned)
    }

    #[test]
    fn a_forbidden_site_loses_its_nodes_and_says_why_and_unknown_ones_stay() {
        let node = |name: &str, labels: Value| json!({ "metadata": { "name": name, "labels": labels } });
        let nodes =
            || vec![node("a", json!({ "site": "eu" })), node("b", json!({ "site": "us" })), node("c", json!({}))];
        let told = Advice {
            files: 1,
            bytes: 1,
            complete: true,
            sites: vec![advice("eu", true, 1.0), advice("us", false, 0.0)],
        };
        let (left, failed) = kept(nodes(), Some(&told), site);
        let names: Vec<_> = left.iter().map(|n| n["metadata"]["name"].clone()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(failed["b"], "site us: rule phi forbids it");
        assert_eq!(kept(nodes(), None, site).0.len(), 3, "nobody answers: the scheduler goes on");
    }

    #[test]
    fn the_cheapest_site_has_the_highest_score() {
        let sites = [advice("a", true, 1.0), advice("b", true, 3.0), advice("c", true, 2.0), advice("d", false, 0.0)];
        assert_eq!(scores(&sites), BTreeMap::from([("a", 10), ("b", 0), ("c", 5)]));
        assert_eq!(scores(&sites[..1]), BTreeMap::from([("a", 10)]), "all are alike");
        assert!(scores(&[]).is_empty());
    }
}
