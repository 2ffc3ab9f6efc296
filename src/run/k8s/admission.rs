//! Kueue's admission checks: [`verdict`] decides from what is known of a warm-up, [`Controller`] carries it to and fro.

use std::collections::BTreeSet;
use std::time::Duration;

use foretide_api::WarmupView;
use foretide_flow::{OnUnready, Timestamp, WarmupState};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::wish::{self, Wish};
use crate::client::{ClientError, ControlClient};

/// The controller that an AdmissionCheck names to be answered by us.
const CONTROLLER: &str = "foretide.dev/warm-up";
const API: &str = "kueue.x-k8s.io/v1beta1";
const CHECKS: &str = "/apis/kueue.x-k8s.io/v1beta1/admissionchecks";
const WORKLOADS: &str = "/apis/kueue.x-k8s.io/v1beta1/workloads";
/// Between two rounds, if nothing changes in the cluster: a job that may start is let go within so much.
const ROUND_EVERY: Duration = Duration::from_secs(5);
/// After a change, that much is waited for those that come with it.
const GATHER: Duration = Duration::from_millis(200);
/// A check that failed for a while is tried again after this.
const RETRY_AFTER_S: u64 = 60;

/// What a check says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Not yet.
    Pending(String),
    /// It may start; at this site, if its data is there.
    Ready(String, Option<String>),
    /// Let go of the quota, and try again later.
    Retry(String),
    /// Never.
    Rejected(String),
}

/// What the control plane said.
enum Told {
    Warmup(Box<WarmupView>),
    /// It refused what was asked; to ask again does not help.
    Refused(String),
    /// It did not answer.
    Nothing(String),
}

/// What a check says of a wish for which it has waited so long.
fn verdict(wish: &Wish, told: &Told, waited: Duration) -> Verdict {
    use WarmupState::{Cancelled, Degraded, Expired, Failed, Moving, Partial, Planned, Queued, Ready};
    let out_of_patience = waited >= wish.patience;
    let view = match told {
        Told::Warmup(view) => view,
        Told::Refused(why) => return unready(wish, format!("no warm-up: {why}"), true),
        // A control plane that is down holds nobody back for longer than he wants to wait, whatever he wants (promise A).
        Told::Nothing(why) if out_of_patience => return Verdict::Ready(format!("runs cold: {why}"), None),
        Told::Nothing(why) => return Verdict::Pending(format!("waits for the control plane: {why}")),
    };
    let warmup = &view.warmup;
    let site = || Some(warmup.request.site.to_string());
    let state = format!("{:?}", warmup.state).to_uppercase();
    let why = warmup.why.as_deref().map_or(String::new(), |why| format!(": {why}"));
    let said = format!("warm-up {} at {} is {state}{why}", warmup.id, warmup.request.site);
    match warmup.state {
        Ready | Partial => Verdict::Ready(said, site()),
        Failed | Cancelled | Expired => unready(wish, said, true),
        Queued | Planned | Moving | Degraded if out_of_patience => match unready(wish, said, false) {
            Verdict::Ready(why, _) => Verdict::Ready(why, site()),
            other => other,
        },
        Queued | Planned | Moving | Degraded => Verdict::Pending(said + &eta(view)),
    }
}

/// What a job does whose data is not there: as it asked. `for_good` if that will not change.
fn unready(wish: &Wish, why: String, for_good: bool) -> Verdict {
    match (wish.wanted.on_unready, for_good) {
        (OnUnready::RunCold, _) => Verdict::Ready(format!("runs cold: {why}"), None),
        (OnUnready::Fail, _) => Verdict::Rejected(why),
        (OnUnready::Wait, true) => Verdict::Retry(why),
        (OnUnready::Wait, false) => Verdict::Pending(why),
    }
}

fn eta(view: &WarmupView) -> String {
    let bytes = match view.warmup.required_bytes {
        Some(required) => format!(", {} of {required} bytes there", view.warmup.resident_bytes),
        None => String::new(),
    };
    let moment = |at: Timestamp| {
        let at = jiff::Timestamp::from_microsecond(at.0).ok()?;
        Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    match view.eta_p50.zip(view.eta_p90).and_then(|(p50, p90)| Some((moment(p50)?, moment(p90)?))) {
        Some((p50, p90)) => format!("{bytes}; ready by {p50}, nine times in ten by {p90}"),
        None => bytes,
    }
}

/// What of a workload concerns us.
struct Workload<'w> {
    object: &'w Value,
    /// Our checks on it, with their state.
    checks: Vec<(&'w str, &'w str, &'w Value)>,
}

impl<'w> Workload<'w> {
    fn of(object: &'w Value, ours: &BTreeSet<String>) -> Option<Self> {
        let all = object["status"]["admissionChecks"].as_array().map_or(&[][..], Vec::as_slice);
        let text = |value: &'w Value| value.as_str().unwrap_or_default();
        let checks: Vec<_> = all
            .iter()
            .map(|check| (text(&check["name"]), text(&check["state"]), check))
            .filter(|(name, ..)| ours.contains(*name))
            .collect();
        (!checks.is_empty()).then_some(Self { object, checks })
    }

    fn text(&self, field: &str) -> &'w str {
        self.object["metadata"][field].as_str().unwrap_or_default()
    }

    fn has(&self, condition: &str) -> bool {
        let all = self.object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        all.iter().any(|c| c["type"] == condition && c["status"] == "True")
    }

    /// Of the workload itself, then of its pods: what is said first holds.
    fn wish(&self) -> Result<Option<Wish>, String> {
        let pods = self.object["spec"]["podSets"].as_array().map_or(&[][..], Vec::as_slice);
        let of_pods = pods.iter().rev().map(|set| &set["template"]["metadata"]["annotations"]);
        let all = of_pods.chain([&self.object["metadata"]["annotations"]]);
        let pairs = all.filter_map(Value::as_object).flatten();
        wish::read(pairs.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))))
    }

    fn pod_sets(&self) -> impl Iterator<Item = &'w str> {
        let pods = self.object["spec"]["podSets"].as_array().map_or(&[][..], Vec::as_slice);
        pods.iter().filter_map(|set| set["name"].as_str())
    }

    /// Since when the oldest of our checks waits.
    fn waits_since(&self) -> Option<jiff::Timestamp> {
        let since = |check: &Value| check["lastTransitionTime"].as_str()?.parse().ok();
        self.checks.iter().filter_map(|(_, _, check)| since(check)).min()
    }
}

/// The status that says the verdict; the moment of the last change stays if the state does.
fn status(workload: &Workload<'_>, verdict: &Verdict, site_label: &str, now: jiff::Timestamp) -> Value {
    let (state, message) = match verdict {
        Verdict::Pending(message) => ("Pending", message),
        Verdict::Ready(message, _) => ("Ready", message),
        Verdict::Retry(message) => ("Retry", message),
        Verdict::Rejected(message) => ("Rejected", message),
    };
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let one = |(name, before, check): &(&str, &str, &Value)| {
        let since = check["lastTransitionTime"].as_str().filter(|_| *before == state).unwrap_or(&now);
        let mut said = json!({ "name": name, "state": state, "message": message, "lastTransitionTime": since });
        if let Verdict::Ready(_, Some(site)) = verdict {
            let select = |set: &str| json!({ "name": set, "nodeSelector": { site_label: site } });
            said["podSetUpdates"] = workload.pod_sets().map(select).collect();
        }
        if let Verdict::Retry(_) = verdict {
            said["requeueAfterSeconds"] = json!(RETRY_AFTER_S);
        }
        said
    };
    json!({
        "apiVersion": API,
        "kind": "Workload",
        "metadata": { "name": workload.text("name"), "namespace": workload.text("namespace") },
        "status": { "admissionChecks": workload.checks.iter().map(one).collect::<Vec<_>>() },
    })
}

/// Whether the checks say it already.
fn is_said(workload: &Workload<'_>, status: &Value) -> bool {
    let said = status["status"]["admissionChecks"].as_array().map_or(&[][..], Vec::as_slice);
    workload.checks.iter().zip(said).all(|((_, _, before), now)| {
        let same = |field: &str| before[field] == now[field];
        same("state") && same("message") && (now["podSetUpdates"].is_null() || same("podSetUpdates"))
    })
}

/// The controller.
pub struct Controller {
    kube: Cluster,
    control: ControlClient,
    cluster: String,
    site_label: String,
}

impl Controller {
    /// Between this cluster and this control plane.
    pub fn new(kube: Cluster, control: ControlClient, cluster: String, site_label: String) -> Self {
        Self { kube, control, cluster, site_label }
    }

    /// Turns for ever. What fails is logged and tried again in the next round.
    pub async fn turn(&self) {
        loop {
            match self.round().await {
                Ok(version) => {
                    self.kube.changed(WORKLOADS, &version, ROUND_EVERY).await;
                    tokio::time::sleep(GATHER).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "a round failed");
                    tokio::time::sleep(ROUND_EVERY).await;
                }
            }
        }
    }

    /// Looks at everything once; answers the version of what was seen.
    async fn round(&self) -> Result<String, String> {
        let ours = self.activate().await?;
        let list = self.kube.list(WORKLOADS).await?;
        for workload in list.items.iter().filter_map(|object| Workload::of(object, &ours)) {
            if let Err(error) = self.attend(&workload).await {
                tracing::warn!(%error, name = workload.text("name"), "a workload was not attended to");
            }
        }
        Ok(list.version)
    }

    /// The checks that are ours. Kueue uses none whose controller has not said that it is there.
    async fn activate(&self) -> Result<BTreeSet<String>, String> {
        let mut ours = BTreeSet::new();
        for check in self.kube.list(CHECKS).await?.items {
            let name = check["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if check["spec"]["controllerName"] != CONTROLLER {
                continue;
            }
            let conditions = check["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
            if !conditions.iter().any(|c| c["type"] == "Active" && c["status"] == "True") {
                let active = json!({
                    "type": "Active", "status": "True", "reason": "Active", "message": "foretide k8s answers it",
                    "observedGeneration": check["metadata"]["generation"],
                    "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                });
                let body = json!({ "apiVersion": API, "kind": "AdmissionCheck", "metadata": { "name": name },
                                   "status": { "conditions": [active] } });
                self.kube.apply_status(&format!("{CHECKS}/{name}"), &body).await?;
            }
            ours.insert(name);
        }
        Ok(ours)
    }

    async fn attend(&self, workload: &Workload<'_>) -> Result<(), String> {
        let wish = workload.wish();
        if workload.has("Finished") {
            return match wish {
                Ok(Some(wish)) => self.release(workload, &wish).await,
                _ => Ok(()),
            };
        }
        // Before quota is reserved the job may go anywhere or nowhere; what was decided stays.
        if !workload.has("QuotaReserved") || workload.checks.iter().all(|(_, state, _)| *state != "Pending") {
            return Ok(());
        }
        let now = jiff::Timestamp::now();
        let verdict = match &wish {
            Ok(None) => Verdict::Ready("it says nothing of its data".into(), None),
            Err(why) => Verdict::Ready(format!("runs cold: {why}"), None),
            Ok(Some(wish)) => {
                let waited = workload
                    .waits_since()
                    .map_or(Duration::ZERO, |since| Duration::try_from(now.duration_since(since)).unwrap_or_default());
                verdict(wish, &self.ask(workload, wish).await, waited)
            }
        };
        let status = status(workload, &verdict, &self.site_label, now);
        if is_said(workload, &status) {
            return Ok(());
        }
        let namespace = workload.text("namespace");
        let path = format!("/apis/{API}/namespaces/{namespace}/workloads/{}", workload.text("name"));
        self.kube.apply_status(&path, &status).await
    }

    /// A workload that is let in again after it was put off is another question.
    fn key(&self, workload: &Workload<'_>) -> String {
        let attempt = &workload.object["status"]["requeueState"]["count"];
        format!("k8s/{}/{}/{}", self.cluster, workload.text("uid"), attempt.as_u64().unwrap_or(0))
    }

    async fn ask(&self, workload: &Workload<'_>, wish: &Wish) -> Told {
        let mut wanted = wish.wanted.clone();
        let name = format!("{}/{}", workload.text("namespace"), workload.text("name"));
        if wanted.label.is_empty() {
            wanted.label = format!("Kubernetes {name}");
        }
        wanted.labels.insert("kubernetes_workload".into(), name);
        match self.control.ask_once(&wanted, &self.key(workload)).await {
            Ok(view) => Told::Warmup(Box::new(view)),
            Err(ClientError::Refused { status, detail }) if (400..500).contains(&status) && status != 429 => {
                Told::Refused(detail)
            }
            Err(error) => Told::Nothing(error.to_string()),
        }
    }

    /// Asking again under the key finds the warm-up; one that is over needs nothing.
    async fn release(&self, workload: &Workload<'_>, wish: &Wish) -> Result<(), String> {
        match self.ask(workload, wish).await {
            Told::Warmup(view) => {
                if view.warmup.state.is_over() {
                    return Ok(());
                }
                self.control.release_warmup(&view.warmup.id).await.map(drop).map_err(|e| e.to_string())
            }
            Told::Refused(_) => Ok(()),
            Told::Nothing(why) => Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use foretide_flow::{FilePath, SiteId, VolumeId, Warmup, WarmupRequest};

    use super::*;

    fn wish(on_unready: OnUnready) -> Wish {
        let annotations = [("foretide.dev/volume", "v"), ("foretide.dev/patience-s", "60")];
        let mut wish = wish::read(annotations.into_iter()).unwrap().unwrap();
        wish.wanted.on_unready = on_unready;
        wish
    }

    fn told(state: WarmupState) -> Told {
        let (volume, site) = (VolumeId::new("v").unwrap(), SiteId::new("gpu").unwrap());
        let request = WarmupRequest::new(volume, vec![FilePath::root()], site);
        let warmup = Warmup {
            state,
            why: Some("because".into()),
            required_bytes: Some(100),
            ..Warmup::new("w".into(), request, Timestamp(0))
        };
        let at = Timestamp(1_800_000_000_000_000);
        Told::Warmup(Box::new(WarmupView {
            warmup,
            from: None,
            eta_p50: Some(at),
            eta_p90: Some(at + Duration::from_secs(60)),
            slack_s: None,
            cost: None,
            deduplicated_bytes: 0,
        }))
    }

    const EARLY: Duration = Duration::from_secs(1);
    const LATE: Duration = Duration::from_secs(60);

    #[test]
    fn data_that_is_there_lets_a_job_in_at_its_site() {
        for state in [WarmupState::Ready, WarmupState::Partial] {
            let Verdict::Ready(said, site) = verdict(&wish(OnUnready::Wait), &told(state), LATE) else {
                panic!("{state:?}")
            };
            assert!(site.as_deref() == Some("gpu") && said.contains("warm-up w at gpu"), "{said}");
        }
    }

    #[test]
    fn one_waits_as_long_as_one_wants_and_then_does_what_one_wants() {
        let moving = || told(WarmupState::Moving);
        let Verdict::Pending(said) = verdict(&wish(OnUnready::RunCold), &moving(), EARLY) else { panic!() };
        assert!(said.contains("0 of 100 bytes") && said.contains("2027-01-15T08:00:00Z, nine times"), "{said}");
        assert!(
            matches!(verdict(&wish(OnUnready::RunCold), &moving(), LATE), Verdict::Ready(_, Some(site)) if site == "gpu")
        );
        assert!(matches!(verdict(&wish(OnUnready::Wait), &moving(), LATE), Verdict::Pending(_)));
        assert!(matches!(verdict(&wish(OnUnready::Fail), &moving(), LATE), Verdict::Rejected(_)));
        let failed = || told(WarmupState::Failed);
        assert!(matches!(verdict(&wish(OnUnready::RunCold), &failed(), EARLY), Verdict::Ready(_, None)));
        assert!(matches!(verdict(&wish(OnUnready::Wait), &failed(), EARLY), Verdict::Retry(_)));
        assert!(matches!(verdict(&wish(OnUnready::Fail), &failed(), EARLY), Verdict::Rejected(_)));
        let refused = Told::Refused("rule x forbids it".into());
        assert!(
            matches!(verdict(&wish(OnUnready::RunCold), &refused, EARLY), Verdict::Ready(why, None) if why.contains("rule x"))
        );
    }

    #[test]
    fn promise_a_a_control_plane_that_is_down_holds_nobody_for_ever() {
        for on_unready in [OnUnready::RunCold, OnUnready::Wait, OnUnready::Fail] {
            let down = Told::Nothing("connection refused".into());
            assert!(matches!(verdict(&wish(on_unready), &down, EARLY), Verdict::Pending(_)));
            assert!(matches!(verdict(&wish(on_unready), &down, LATE), Verdict::Ready(_, None)), "{on_unready:?}");
        }
    }

    #[test]
    fn a_status_sets_our_check_alone_and_keeps_the_moment_of_its_state() {
        let object = json!({
            "metadata": { "name": "job", "namespace": "ml", "uid": "u", "annotations": { "foretide.dev/label": "of it" } },
            "spec": { "podSets": [
                { "name": "main", "template": { "metadata": { "annotations": { "foretide.dev/volume": "v", "foretide.dev/label": "of pod" } } } },
                { "name": "workers", "template": { "metadata": {} } },
            ] },
            "status": { "admissionChecks": [
                { "name": "other", "state": "Pending" },
                { "name": "warm", "state": "Pending", "message": "x", "lastTransitionTime": "2026-11-25T10:00:00Z" },
            ] },
        });
        let ours = BTreeSet::from(["warm".to_owned()]);
        let workload = Workload::of(&object, &ours).unwrap();
        assert_eq!(workload.wish().unwrap().unwrap().wanted.label, "of it", "the workload's own word goes first");
        let now: jiff::Timestamp = "2026-11-25T11:00:00Z".parse().unwrap();
        let pending = status(&workload, &Verdict::Pending("x".into()), "site", now);
        assert_eq!(pending["status"]["admissionChecks"].as_array().unwrap().len(), 1);
        assert_eq!(pending["status"]["admissionChecks"][0]["lastTransitionTime"], "2026-11-25T10:00:00Z");
        assert!(is_said(&workload, &pending), "nothing is written that is said already");
        let ready = status(&workload, &Verdict::Ready("there".into(), Some("gpu".into())), "site", now);
        let said = &ready["status"]["admissionChecks"][0];
        assert_eq!(said["lastTransitionTime"], "2026-11-25T11:00:00Z");
        assert_eq!(said["podSetUpdates"][1], json!({ "name": "workers", "nodeSelector": { "site": "gpu" } }));
        assert!(!is_said(&workload, &ready));
        assert!(Workload::of(&object, &BTreeSet::new()).is_none());
    }
}
