//! What a person or a scheduler asks for: taken by the API, planned by the planner.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{FilePath, PlanId, Selector, SelectorError, SiteId, TimeWindow, Timestamp, VolumeId, WarmupId};

/// "Have this there by then."
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WarmupRequest {
    /// From which volume.
    pub volume: VolumeId,
    /// Files or directories (with all below); the root alone means the whole volume.
    pub paths: Vec<FilePath>,
    /// Files or directories below `paths` that are not meant; what `paths` names below these is meant again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<FilePath>,
    /// Only files whose path in the volume matches one of these globs (`**` crosses folders); all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub globs: Vec<String>,
    /// Where.
    pub site: SiteId,
    /// By when. A soft deadline: late is better than never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need_by: Option<Timestamp>,
    /// When its job starts, where that is not certain: without `need_by`, it is due at p10, so that nine of ten starts
    /// find it there, and it is kept beyond p90.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<TimeWindow>,
    /// Void from then on, whatever is there: a hard end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_at: Option<Timestamp>,
    /// Kept at least until then, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_until: Option<Timestamp>,
    /// Kept at least so long after it first was READY, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin_for_s: Option<u64>,
    /// Warm-ups of a higher one are served first, whatever their deadlines; 0 unless asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i8,
    /// Nothing of it moves before each of these was READY; it fails if one of them can no longer be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run_after: Vec<WarmupId>,
    /// The share of the bytes, above 0 and at most 1, with which the job can begin: PARTIAL from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_fraction: Option<f64>,
    /// It fails if it covers more bytes than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// What its job does if the data is not there when it could start: for those who start it.
    #[serde(default, skip_serializing_if = "OnUnready::is_default")]
    pub on_unready: OnUnready,
    /// Free text for people, such as a job's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Names and values for programs, such as a job's number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl WarmupRequest {
    /// As soon as possible, without conditions.
    pub fn new(volume: VolumeId, paths: Vec<FilePath>, site: SiteId) -> Self {
        Self {
            volume,
            paths,
            except: Vec::new(),
            globs: Vec::new(),
            site,
            need_by: None,
            starts: None,
            expire_at: None,
            pin_until: None,
            pin_for_s: None,
            priority: 0,
            run_after: Vec::new(),
            min_fraction: None,
            max_bytes: None,
            on_unready: OnUnready::default(),
            label: String::new(),
            labels: BTreeMap::new(),
        }
    }

    /// Which files of the volume it means.
    ///
    /// # Errors
    /// [`SelectorError`] for a glob that does not parse.
    pub fn selector(&self) -> Result<Selector, SelectorError> {
        Selector::new(&self.paths, &self.except, &self.globs)
    }

    /// By when it should be there, if it matters.
    pub fn due(&self) -> Option<Timestamp> {
        self.need_by.or(self.starts.map(|starts| starts.p10))
    }

    /// When its job starts at the latest, as far as anybody can say.
    pub fn last_start(&self) -> Option<Timestamp> {
        self.need_by.max(self.starts.map(|starts| starts.p90))
    }
}

fn is_zero(n: &i8) -> bool {
    *n == 0
}

/// What a job does whose data is not there when it could start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnUnready {
    /// It starts, and reads over the link what is missing.
    #[default]
    RunCold,
    /// It waits.
    Wait,
    /// It does not run.
    Fail,
}

impl OnUnready {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How far a warm-up is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WarmupState {
    /// Taken; its files are being learned or it waits for room or rate.
    Queued,
    /// Its moves are in a plan.
    Planned,
    /// Bytes are arriving.
    Moving,
    /// At least `min_fraction` of the bytes are resident and verified, counted in the site's store.
    Partial,
    /// All bytes resident and verified, counted in the site's store (promise C).
    Ready,
    /// Was ready, or partly so; bytes have since been evicted or found corrupt.
    Degraded,
    /// A rule, an error or missing files prevent it; `why` says which.
    Failed,
    /// Taken back.
    Cancelled,
    /// Its `expire_at` has passed.
    Expired,
}

impl WarmupState {
    /// Whether nothing more becomes of it.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled | Self::Expired)
    }
}

/// A warm-up and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Warmup {
    /// Its name.
    pub id: WarmupId,
    /// What was asked.
    pub request: WarmupRequest,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// How far it is.
    pub state: WarmupState,
    /// Why it is in this state, in words, where that is not obvious.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Bytes that the request covers; none until its files are known.
    pub required_bytes: Option<u64>,
    /// Files that the request covers.
    pub required_files: Option<u64>,
    /// Bytes of it that are in the site's store and verified.
    pub resident_bytes: u64,
    /// Bytes that moves for it have brought; what was there already is not among them.
    #[serde(default)]
    pub moved_bytes: u64,
    /// Of these, bytes that crossed a link; the rest were chunks that were there already, or was spared by compression.
    #[serde(default)]
    pub wire_bytes: u64,
    /// Why moves for it failed, newest first, at most [`Warmup::MAX_FAILURES`] different reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<MoveFailures>,
    /// The plan that named `eta`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanId>,
    /// When the plan expects it to be ready.
    pub eta: Option<Timestamp>,
    /// The first `eta` that was told, and when: what the truth of later ones is learned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised: Option<Promised>,
    /// When it first was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
}

impl Warmup {
    /// Reasons why moves failed: as many as a person reads, and they say the rest of the story.
    pub const MAX_FAILURES: usize = 8;

    /// As it was asked for at a moment, nothing known of it yet.
    pub fn new(id: WarmupId, request: WarmupRequest, asked_at: Timestamp) -> Self {
        Self {
            id,
            request,
            asked_at,
            state: WarmupState::Queued,
            why: None,
            required_bytes: None,
            required_files: None,
            resident_bytes: 0,
            moved_bytes: 0,
            wire_bytes: 0,
            failures: Vec::new(),
            plan: None,
            eta: None,
            promised: None,
            ready_at: None,
        }
    }

    /// Until when its bytes may not be evicted, if they are pinned. What is to be pinned from READY on is not, before.
    pub fn pinned_until(&self) -> Option<Timestamp> {
        let from_ready = self.ready_at.zip(self.request.pin_for_s);
        self.request.pin_until.max(from_ready.map(|(at, s)| at + Duration::from_secs(s)))
    }

    /// A move for it has ended well.
    pub fn brought(&mut self, bytes: u64, wire_bytes: u64) {
        self.moved_bytes = self.moved_bytes.saturating_add(bytes);
        self.wire_bytes = self.wire_bytes.saturating_add(wire_bytes);
    }

    /// A move for it has failed. One reason is one group; the groups that failed last stay.
    pub fn failed(&mut self, why: &str, path: &FilePath, at: Timestamp) {
        let before = self.failures.iter().position(|f| f.why == why).map(|i| self.failures.remove(i));
        let moves = 1 + before.map_or(0, |f| f.moves);
        self.failures.insert(0, MoveFailures { why: why.to_owned(), moves, last_path: path.clone(), last_at: at });
        self.failures.truncate(Self::MAX_FAILURES);
    }
}

/// Moves of one warm-up that failed for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MoveFailures {
    /// The reason, in words.
    pub why: String,
    /// How many.
    pub moves: u64,
    /// The last file.
    pub last_path: FilePath,
    /// When it failed.
    pub last_at: Timestamp,
}

/// A time that was named for a warm-up to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Promised {
    /// When it was named.
    pub at: Timestamp,
    /// The time named.
    pub eta: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warmup() -> Warmup {
        let (volume, site) = (VolumeId::new("v").unwrap(), SiteId::new("s").unwrap());
        Warmup::new("w".into(), WarmupRequest::new(volume, vec![FilePath::root()], site), Timestamp(0))
    }

    #[test]
    fn what_was_stored_before_reads_back() {
        let old = r#"{"id":"w","request":{"volume":"v","paths":[""],"site":"s"},"asked_at":0,"state":"QUEUED",
            "required_bytes":null,"required_files":null,"resident_bytes":0,"eta":null}"#;
        assert_eq!(serde_json::from_str::<Warmup>(old).unwrap(), warmup());
    }

    #[test]
    fn a_start_that_is_not_certain_is_met_early_and_held_late() {
        let mut request = warmup().request;
        let at = |n: i64| Timestamp(n * 1_000_000);
        request.starts = Some(TimeWindow { p10: at(10), p50: at(20), p90: at(60) });
        assert_eq!((request.due(), request.last_start()), (Some(at(10)), Some(at(60))));
        request.need_by = Some(at(15));
        assert_eq!((request.due(), request.last_start()), (Some(at(15)), Some(at(60))), "a deadline is a deadline");
    }

    #[test]
    fn a_pin_from_ready_on_begins_there() {
        let mut w = warmup();
        w.request.pin_for_s = Some(30);
        assert_eq!(w.pinned_until(), None);
        w.ready_at = Some(Timestamp(5_000_000));
        assert_eq!(w.pinned_until(), Some(Timestamp(35_000_000)));
        w.request.pin_until = Some(Timestamp(90_000_000));
        assert_eq!(w.pinned_until(), Some(Timestamp(90_000_000)), "the later of the two");
    }

    #[test]
    fn failures_are_grouped_by_their_reason_and_bounded() {
        let (mut w, path) = (warmup(), FilePath::parse("a").unwrap());
        w.failed("gone", &path, Timestamp(1));
        (0..Warmup::MAX_FAILURES as i64).for_each(|n| w.failed(&format!("reason {n}"), &path, Timestamp(n)));
        assert_eq!(w.failures.len(), Warmup::MAX_FAILURES);
        w.failed("reason 3", &path, Timestamp(20));
        let newest = &w.failures[0];
        assert_eq!((newest.why.as_str(), newest.moves, newest.last_at), ("reason 3", 2, Timestamp(20)));
        assert!(w.failures.iter().all(|f| f.why != "gone"), "the oldest reason went");
    }
}
