//! States and kinds as the small numbers that columns hold. A number keeps its meaning for ever; new ones are added.

use foretide_flow::{EntryKind, MoveState, WarmupState};

/// What is planned or running, as a list for `IN`.
pub(super) const ACTIVE_MOVES: &str = "(0, 1)";
/// What has failed, was cancelled or has expired, as a list for `IN`.
pub(super) const WARMUPS_OVER: &str = "(5, 6, 8)";
/// A regular file.
pub(super) const FILE: i64 = 0;

/// The number of a kind, and a link's target.
pub(super) fn kind_number(kind: &EntryKind) -> (i64, Option<&str>) {
    match kind {
        EntryKind::File => (FILE, None),
        EntryKind::Directory => (1, None),
        EntryKind::Symlink { target } => (2, Some(target)),
    }
}

pub(super) fn kind(number: i64, target: Option<String>) -> Option<EntryKind> {
    match (number, target) {
        (FILE, _) => Some(EntryKind::File),
        (1, _) => Some(EntryKind::Directory),
        (2, Some(target)) => Some(EntryKind::Symlink { target }),
        _ => None,
    }
}

const MOVE_STATES: [MoveState; 5] =
    [MoveState::Planned, MoveState::Running, MoveState::Done, MoveState::Failed, MoveState::Cancelled];

pub(super) fn move_state_number(state: MoveState) -> i64 {
    MOVE_STATES.iter().position(|s| *s == state).map_or(0, |i| i as i64)
}

pub(super) fn move_state(number: i64) -> Option<MoveState> {
    MOVE_STATES.get(usize::try_from(number).ok()?).copied()
}

const WARMUP_STATES: [WarmupState; 9] = [
    WarmupState::Queued,
    WarmupState::Planned,
    WarmupState::Moving,
    WarmupState::Ready,
    WarmupState::Degraded,
    WarmupState::Failed,
    WarmupState::Cancelled,
    WarmupState::Partial,
    WarmupState::Expired,
];

pub(super) fn warmup_state_number(state: WarmupState) -> i64 {
    WARMUP_STATES.iter().position(|s| *s == state).map_or(0, |i| i as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress;

    #[test]
    fn the_lists_for_in_name_the_states_that_they_mean() {
        let moves = |list: &str| MOVE_STATES.map(|s| list.contains(&move_state_number(s).to_string()));
        assert_eq!(moves(ACTIVE_MOVES), MOVE_STATES.map(progress::is_active));
        let over = WARMUP_STATES.map(|s| WARMUPS_OVER.contains(&warmup_state_number(s).to_string()));
        assert_eq!(over, WARMUP_STATES.map(WarmupState::is_over));
        assert!(MOVE_STATES.iter().all(|s| move_state(move_state_number(*s)) == Some(*s)));
    }
}
