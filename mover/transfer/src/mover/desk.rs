//! Which move is next: a table and pure answers.
//!
//! Invariant: every move of `moves` is in exactly one of `waiting` (its start lies ahead) and `ready`; what was told of a
//! file's move last is in `told` until that move has ended.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use foretide_flow::{FilePath, Move, MoveCause, MoveId, Priority, SiteId, Timestamp, VolumeId};

use super::fetch::Crossed;

#[derive(Debug, Default)]
pub(super) struct Desk {
    moves: HashMap<MoveId, Move>,
    waiting: BTreeSet<(Timestamp, MoveId)>,
    ready: BTreeSet<(Turn, MoveId)>,
    told: HashMap<(VolumeId, FilePath), Told>,
}

/// What a plan says of a file that others may ask for, too.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) id: MoveId,
    pub(super) from: SiteId,
    pub(super) keep_until: Timestamp,
    /// What of it crossed a link because another agent asked for it first.
    pub(super) crossed: Crossed,
}

/// What goes first: by priority, then by deadline, then what spares its reader most for its bytes. Many small files
/// that are due together with a large one are all there before it would be.
type Turn = (Priority, Timestamp, Reverse<u64>);

fn turn(m: &Move) -> Turn {
    let spared_us_per_mb = 1e12 * m.benefit_s / m.length.max(1) as f64;
    (m.priority, m.due_at, Reverse(spared_us_per_mb as u64))
}

impl Desk {
    /// Takes a move in, in place of an earlier one of its name.
    pub(super) fn put(&mut self, m: Move) {
        self.remove(&m.id);
        let told =
            Told { id: m.id.clone(), from: m.from.clone(), keep_until: m.keep_until, crossed: Crossed::default() };
        self.told.insert((m.volume.clone(), m.path.clone()), told);
        self.waiting.insert((m.start_at, m.id.clone()));
        self.moves.insert(m.id.clone(), m);
    }

    /// What was told of a file's move that has not ended.
    pub(super) fn told(&self, volume: &VolumeId, path: &FilePath) -> Option<&Told> {
        self.told.get(&(volume.clone(), path.clone()))
    }

    /// Bytes of a move crossed a link for another agent.
    pub(super) fn crossed(&mut self, id: &MoveId, volume: &VolumeId, path: &FilePath, crossed: Crossed) {
        if let Some(told) = self.told.get_mut(&(volume.clone(), path.clone())).filter(|told| told.id == *id) {
            told.crossed += crossed;
        }
    }

    /// A move that was taken to run is over.
    pub(super) fn ended(&mut self, id: &MoveId, volume: &VolumeId, path: &FilePath) -> Option<Told> {
        let file = (volume.clone(), path.clone());
        self.told.get(&file).filter(|told| told.id == *id)?;
        self.told.remove(&file)
    }

    pub(super) fn remove(&mut self, id: &MoveId) -> Option<Move> {
        let m = self.moves.remove(id)?;
        self.ended(id, &m.volume, &m.path);
        self.waiting.remove(&(m.start_at, id.clone()));
        self.ready.remove(&(turn(&m), id.clone()));
        Some(m)
    }

    /// Forgets everything that a forecast wanted.
    pub(super) fn drop_forecasts(&mut self) {
        let forecast = |m: &&Move| matches!(m.cause, MoveCause::Forecast { .. });
        let ids: Vec<MoveId> = self.moves.values().filter(forecast).map(|m| m.id.clone()).collect();
        ids.iter().for_each(|id| drop(self.remove(id)));
    }

    /// The move that should run now, of those whose start has come.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<Move> {
        while let Some((start_at, _)) = self.waiting.first() {
            if *start_at > now {
                break;
            }
            let (_, id) = self.waiting.pop_first().expect("just seen");
            self.ready.insert((turn(&self.moves[&id]), id));
        }
        let (_, id) = self.ready.pop_first()?;
        self.moves.remove(&id)
    }

    /// When a move that waits will be due to start.
    pub(super) fn next_start(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(at, _)| *at)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &MoveId> {
        self.moves.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretide_flow::{FilePath, ForecastId, SiteId, VolumeId, WorkloadId};

    pub(crate) fn a_move(id: &str, priority: Priority, start: i64, due: i64) -> Move {
        Move {
            id: id.into(),
            volume: VolumeId::new("v").unwrap(),
            path: FilePath::parse("f").unwrap(),
            offset: 0,
            length: 1,
            from: SiteId::new("a").unwrap(),
            to: SiteId::new("b").unwrap(),
            start_at: Timestamp(start),
            due_at: Timestamp(due),
            keep_until: Timestamp(due),
            priority,
            probability: 1.0,
            benefit_s: 0.0,
            cost: 0.0,
            cause: MoveCause::Forecast { forecast: ForecastId::from("x"), workload: WorkloadId::from("w") },
            reason: String::new(),
            shared_bytes: 0,
        }
    }

    #[test]
    fn moves_start_in_time_by_priority_then_deadline_then_worth() {
        let mut desk = Desk::default();
        let sized = |id, length| Move { benefit_s: 0.2, length, ..a_move(id, Priority::Background, 0, 5) };
        for m in [
            sized("a large one", 100_000_000),
            sized("many small", 100_000),
            a_move("late", Priority::Background, 0, 9),
            a_move("soon", Priority::Background, 0, 4),
            a_move("asked", Priority::Deadline, 0, 99),
            a_move("future", Priority::Demand, 50, 50),
        ] {
            desk.put(m);
        }
        let mut order = Vec::new();
        while let Some(m) = desk.next(Timestamp(10)) {
            order.push(m.id.to_string());
        }
        assert_eq!(order, ["asked", "soon", "many small", "a large one", "late"]);
        assert_eq!(desk.next_start(), Some(Timestamp(50)));
        assert_eq!(desk.next(Timestamp(50)).unwrap().id, "future".into());
    }

    #[test]
    fn what_was_told_of_a_file_is_known_until_its_move_has_ended() {
        let (mut desk, m) = (Desk::default(), a_move("m", Priority::Background, 0, 9));
        let told = |desk: &Desk| desk.told(&m.volume, &m.path).map(|t| t.id.to_string());
        desk.put(m.clone());
        let running = desk.next(Timestamp(10)).unwrap();
        assert_eq!(told(&desk).as_deref(), Some("m"), "it runs");
        desk.put(a_move("newer", Priority::Background, 0, 9));
        desk.ended(&running.id, &running.volume, &running.path);
        assert_eq!(told(&desk).as_deref(), Some("newer"), "another move of the file is not forgotten with it");
        desk.remove(&"newer".into());
        assert_eq!(told(&desk), None);
    }

    #[test]
    fn a_changed_move_replaces_itself_and_a_cancelled_one_is_gone() {
        let mut desk = Desk::default();
        desk.put(a_move("m", Priority::Background, 0, 9));
        desk.put(a_move("m", Priority::Deadline, 100, 9));
        assert!(desk.next(Timestamp(10)).is_none());
        assert!(desk.remove(&"m".into()).is_some() && desk.next(Timestamp(1000)).is_none());
        desk.put(a_move("m", Priority::Background, 0, 9));
        desk.drop_forecasts();
        assert!(desk.next(Timestamp(10)).is_none() && desk.ids().count() == 0);
    }
}
