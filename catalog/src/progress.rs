//! How states follow from one another: of warm-ups and of moves. Pure, and the same for every store.

use foretide_flow::{FilePath, MoveState, Promised, Timestamp, Warmup, WarmupState};

use crate::WarmupUpdate;

/// Whether `to` may follow `from`. See [`Warmups`](crate::Warmups) for the picture.
fn follows(from: WarmupState, to: WarmupState) -> bool {
    use WarmupState::{Cancelled, Degraded, Expired, Failed, Moving, Partial, Planned, Queued, Ready};
    match (from, to) {
        (Failed | Cancelled | Expired, _) | (Ready, Failed) => false,
        (_, Cancelled | Failed | Expired) => true,
        (Queued, Planned | Moving | Partial | Ready) | (Planned, Moving | Partial | Ready) => true,
        (Moving, Partial | Ready) | (Partial | Degraded, Ready) | (Partial | Ready, Degraded) => true,
        _ => false,
    }
}

/// Takes a step that follows by itself, such as a plan's first move; none if it does not follow.
pub(crate) fn step(warmup: &Warmup, to: WarmupState) -> Option<Warmup> {
    // Only a count makes it ready again once it is degraded.
    let on_the_way = matches!(warmup.state, WarmupState::Queued | WarmupState::Planned);
    (on_the_way && follows(warmup.state, to)).then(|| Warmup { state: to, why: None, ..warmup.clone() })
}

/// How a move for a warm-up ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MoveEnd {
    /// Its bytes are there; so many crossed a link.
    Arrived { bytes: u64, wire_bytes: u64 },
    /// It was given up.
    Failed { why: String, path: FilePath, at: Timestamp },
}

/// What the ends of its moves, in their order, make of a warm-up: sums, reasons, and `Moving` when something arrived.
pub(crate) fn moves_ended(warmup: &Warmup, ends: &[MoveEnd]) -> Warmup {
    let mut next = warmup.clone();
    if warmup.state.is_over() {
        return next;
    }
    for end in ends {
        match end {
            MoveEnd::Arrived { bytes, wire_bytes } => {
                next.brought(*bytes, *wire_bytes);
                next = step(&next, WarmupState::Moving).unwrap_or(next);
            }
            MoveEnd::Failed { why, path, at } => next.failed(why, path, *at),
        }
    }
    next
}

/// What the store's count makes of it: `Ready` or `Degraded` (promise C), or only more bytes.
pub(crate) fn settle(warmup: &Warmup, counted_bytes: Option<u64>, at: Timestamp) -> Warmup {
    let mut next = warmup.clone();
    let Some(counted) = counted_bytes.filter(|_| !warmup.state.is_over()) else { return next };
    let capped = counted.min(warmup.required_bytes.unwrap_or(u64::MAX));
    match (warmup.required_bytes, warmup.state) {
        (Some(required), _) if counted >= required => {
            next.resident_bytes = required;
            if warmup.state != WarmupState::Ready {
                next.state = WarmupState::Ready;
                next.why = None;
                next.eta = None;
                next.ready_at.get_or_insert(at);
            }
        }
        (required, WarmupState::Ready | WarmupState::Degraded) => degrade(&mut next, required, counted, capped),
        // Who was told that it can begin is told when that is no longer so.
        (required, WarmupState::Partial) if !is_enough_to_begin(warmup, counted) => {
            degrade(&mut next, required, counted, capped);
        }
        _ => {
            next.resident_bytes = warmup.resident_bytes.max(capped);
            if is_enough_to_begin(warmup, counted) {
                next.state = WarmupState::Partial;
                next.why = None;
            }
        }
    }
    next
}

fn degrade(next: &mut Warmup, required: Option<u64>, counted: u64, capped: u64) {
    next.state = WarmupState::Degraded;
    next.resident_bytes = capped;
    next.why = required.map(|r| format!("{counted} of {r} bytes are resident at {}", next.request.site));
}

/// Whether the share that was asked for is counted.
fn is_enough_to_begin(warmup: &Warmup, counted: u64) -> bool {
    let (Some(required), Some(share)) = (warmup.required_bytes, warmup.request.min_fraction) else { return false };
    counted > 0 && counted as f64 >= required as f64 * share
}

/// Applies what became known; an error says why it may not be so.
pub(crate) fn update(
    warmup: &Warmup,
    update: &WarmupUpdate,
    counted_bytes: Option<u64>,
    at: Timestamp,
) -> Result<Warmup, String> {
    let mut next = warmup.clone();
    if let Some((bytes, files)) = update.required.filter(|_| !warmup.state.is_over()) {
        next.required_bytes = Some(bytes);
        next.required_files = Some(files);
        if let Some(most) =
            warmup.request.max_bytes.filter(|most| bytes > *most && follows(warmup.state, WarmupState::Failed))
        {
            next.why = Some(format!("it covers {bytes} bytes, more than the {most} that it may"));
            return Ok(Warmup { state: WarmupState::Failed, ..next });
        }
    }
    if let Some(eta) = update.eta.filter(|_| !warmup.state.is_over()) {
        next.eta = eta;
        next.promised = next.promised.or(eta.map(|eta| Promised { at, eta }));
        next.plan.clone_from(&update.plan);
    }
    if let Some(terms) = update.terms.as_ref().filter(|_| !warmup.state.is_over()) {
        terms.apply(&mut next.request);
    }
    let ends = update.state.is_some_and(|to| to.is_over() && follows(next.state, to));
    // What ends here need not be counted first: ready by that, it could not end any more.
    let mut next = if ends { next } else { settle(&next, counted_bytes, at) };
    if let Some(why) = &update.why {
        next.why = (!why.is_empty()).then(|| why.clone());
    }
    match update.state {
        None => Ok(next),
        Some(to) if to == next.state => Ok(next),
        Some(to @ (WarmupState::Partial | WarmupState::Ready | WarmupState::Degraded)) => {
            Err(format!("{to:?} follows from the store's count alone, and that does not say so"))
        }
        Some(to) if follows(next.state, to) => Ok(Warmup { state: to, ..next }),
        Some(to) => Err(format!("{to:?} does not follow {:?}", next.state)),
    }
}

/// What an outcome makes of a move; none if it stays. Bytes that arrived are there, whatever was thought of the move
/// since; a failure matters only while it was wanted.
pub(crate) fn move_ended(from: MoveState, arrived: bool) -> Option<MoveState> {
    match (from, arrived) {
        (MoveState::Done, _) => None,
        (_, true) => Some(MoveState::Done),
        (MoveState::Planned | MoveState::Running, false) => Some(MoveState::Failed),
        _ => None,
    }
}

/// Whether a move is planned or running.
pub(crate) fn is_active(state: MoveState) -> bool {
    matches!(state, MoveState::Planned | MoveState::Running)
}

/// Whether a plan may want a move again that is not active: not if the plan could not know yet that it had ended.
pub(crate) fn may_revive(state: MoveState, end_recorded_at: Timestamp, plan_made_at: Timestamp) -> bool {
    state == MoveState::Cancelled || plan_made_at > end_recorded_at
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::{FilePath, SiteId, VolumeId, WarmupId, WarmupRequest};
    use proptest::prelude::*;

    fn queued() -> Warmup {
        let (volume, site) = (VolumeId::new("v").unwrap(), SiteId::new("s").unwrap());
        let request = WarmupRequest::new(volume, vec![FilePath::root()], site);
        Warmup::new(WarmupId::from("w"), request, Timestamp(0))
    }

    #[test]
    fn promise_c_nobody_can_call_it_ready_but_the_count() {
        let mut w = queued();
        w.required_bytes = Some(10);
        let ready = WarmupUpdate { state: Some(WarmupState::Ready), ..WarmupUpdate::default() };
        assert!(update(&w, &ready, Some(9), Timestamp(1)).is_err());
        assert!(update(&w, &ready, None, Timestamp(1)).is_err());
        assert_eq!(update(&w, &ready, Some(10), Timestamp(1)).unwrap().state, WarmupState::Ready);
    }

    #[test]
    fn partial_is_as_true_as_ready() {
        let mut w = queued();
        w.required_bytes = Some(100);
        w.request.min_fraction = Some(0.5);
        let after = |w: &Warmup, count| settle(w, Some(count), Timestamp(1));
        let below = after(&w, 49);
        assert_eq!((below.state, below.resident_bytes), (WarmupState::Queued, 49));
        let enough = after(&below, 50);
        assert_eq!(enough.state, WarmupState::Partial);
        let fallen = after(&enough, 49);
        assert_eq!((fallen.state, fallen.resident_bytes), (WarmupState::Degraded, 49), "who began is told");
        assert_eq!(after(&fallen, 100).state, WarmupState::Ready);
    }

    #[test]
    fn what_covers_more_than_it_may_fails_with_both_numbers() {
        let mut w = queued();
        w.request.max_bytes = Some(10);
        let known = WarmupUpdate { required: Some((11, 2)), ..WarmupUpdate::default() };
        let failed = update(&w, &known, None, Timestamp(1)).unwrap();
        assert_eq!(failed.state, WarmupState::Failed);
        assert_eq!(failed.why.as_deref(), Some("it covers 11 bytes, more than the 10 that it may"));
    }

    #[test]
    fn what_is_given_up_ends_though_all_of_it_is_there() {
        let mut w = queued();
        w.required_bytes = Some(10);
        let forbid = WarmupUpdate { state: Some(WarmupState::Failed), why: Some("a rule".into()), ..Default::default() };
        let failed = update(&w, &forbid, Some(10), Timestamp(1)).unwrap();
        assert_eq!((failed.state, failed.why.as_deref()), (WarmupState::Failed, Some("a rule")));
        let ready = settle(&w, Some(10), Timestamp(1));
        assert!(update(&ready, &forbid, Some(10), Timestamp(2)).is_err(), "what was promised is not taken back by a word");
    }

    #[test]
    fn the_ends_of_moves_are_added_up_until_it_is_over() {
        let arrived = MoveEnd::Arrived { bytes: 10, wire_bytes: 4 };
        let failed = MoveEnd::Failed { why: "link cut".into(), path: FilePath::parse("a").unwrap(), at: Timestamp(2) };
        let moved = moves_ended(&queued(), &[failed.clone(), arrived.clone(), failed.clone()]);
        assert_eq!((moved.state, moved.moved_bytes, moved.wire_bytes), (WarmupState::Moving, 10, 4));
        assert_eq!((moved.failures[0].why.as_str(), moved.failures[0].moves), ("link cut", 2));
        assert_eq!(moves_ended(&queued(), &[failed]).state, WarmupState::Queued, "a failure brings nothing");
        let over = Warmup { state: WarmupState::Cancelled, ..moved };
        assert_eq!(moves_ended(&over, &[arrived]), over);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Count(u64),
        Ask(WarmupUpdate),
        Plan(WarmupState),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        use WarmupState::{Cancelled, Degraded, Expired, Failed, Moving, Partial, Planned, Queued, Ready};
        let state = prop_oneof![
            Just(Queued),
            Just(Planned),
            Just(Moving),
            Just(Ready),
            Just(Degraded),
            Just(Failed),
            Just(Cancelled),
            Just(Expired),
            Just(Partial)
        ];
        prop_oneof![
            4 => (0u64..12).prop_map(Step::Count),
            1 => (proptest::option::of(state), proptest::option::of((5u64..10, 1u64..3))).prop_map(|(state, required)| {
                Step::Ask(WarmupUpdate { state, required, ..WarmupUpdate::default() })
            }),
            1 => prop_oneof![Just(Planned), Just(Moving)].prop_map(Step::Plan),
        ]
    }

    proptest! {
        /// Promise C, and progress that never goes back but by becoming degraded; what is over stays over.
        #[test]
        fn whatever_happens_states_only_follow(
            steps in proptest::collection::vec(any_step(), 0..40),
            min_fraction in proptest::option::of(0.2..=1.0),
            max_bytes in proptest::option::of(4u64..12),
        ) {
            let (mut w, mut counted) = (queued(), None);
            w.request.min_fraction = min_fraction;
            w.request.max_bytes = max_bytes;
            for (i, s) in steps.into_iter().enumerate() {
                let at = Timestamp(i as i64);
                let next = match s {
                    Step::Count(n) => { counted = Some(n); settle(&w, counted, at) }
                    Step::Ask(u) => update(&w, &u, counted, at).unwrap_or_else(|_| w.clone()),
                    Step::Plan(to) => step(&w, to).unwrap_or_else(|| w.clone()),
                };
                // The count may take its step before what was asked.
                let step = |from, to| from == to || follows(from, to);
                let mids = [w.state, WarmupState::Partial, WarmupState::Ready, WarmupState::Degraded];
                prop_assert!(mids.into_iter().any(|mid| step(w.state, mid) && step(mid, next.state)));
                let enough = next.required_bytes.is_some_and(|r| counted.is_some_and(|c| c >= r));
                prop_assert_eq!(next.state == WarmupState::Ready, enough && !next.state.is_over());
                let share = next.required_bytes.unwrap_or(0) as f64 * next.request.min_fraction.unwrap_or(1.0);
                prop_assert!(next.state != WarmupState::Partial || counted.is_some_and(|c| c as f64 >= share));
                // All that is asked for is there: where less is asked for now, less is.
                let whole = Some(next.resident_bytes) == next.required_bytes;
                prop_assert!(next.resident_bytes >= w.resident_bytes || next.state == WarmupState::Degraded || whole);
                if w.state.is_over() { prop_assert_eq!(&next.state, &w.state); }
                w = next;
            }
        }
    }
}
