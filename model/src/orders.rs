//! The model and drawn orders: when it looks for them, and what it makes of what it finds.
//!
//! A running run is looked at when it has visited 4 files, 8, 16 and so on, until its order is recognised; then it is
//! followed before each forecast, and looked at again, as at its beginning, when it leaves the order or comes to the end of
//! what is known of it: how epochs follow one another is seen in the second. A look is brief. Once some files tell more
//! than chance could, the run is a puzzle: its seed is looked for among a million, and among what the numbers of its command
//! line seed, some thousand of them each time that the model is asked (promise K), so that no answer waits for it. A run that
//! has ended unrecognised is one once more, by all that it took. Nothing of this is done at an access.

use foretide_flow::{FilePath, RunId};
use serde::{Deserialize, Serialize};

use crate::drawn::follow::{Following, known};
use crate::drawn::{Effort, Puzzle, Reading, Recognised, Seen, confirmed, readings, recognise};
use crate::habit::number_slots;
use crate::history::{Workload, common_directory};
use crate::model::{Followed, Model, State};
use crate::namespace::Namespace;
use crate::run::LiveRun;

/// Visits after which a run is looked at first; after that each time that they have doubled.
const FIRST_LOOK: u64 = 4;
/// Visits from which on a running run is puzzled over: chance takes so many files in a given order of any set that is told of
/// more seldom than all that is tried could make up for, also where readers side by side take them nearly in turn.
const PUZZLED_FROM: u64 = 256;
/// Tries at a puzzle each time: some milliseconds.
const PUZZLED: u64 = 1 << 13;

/// How far the order of a running run is known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sought {
    stage: Stage,
    /// Visits from which on it is looked for, and at which it was last.
    from: u64,
    looked_at: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
enum Stage {
    /// Not yet.
    #[default]
    Unknown,
    /// It is being puzzled over.
    Puzzle(Box<Puzzle>),
    /// It was, in vain.
    Unsolved,
    /// Where the run is in it.
    Followed(Box<Following>),
    /// It was followed until it was known no further, or the run left it.
    Left(Box<Recognised>),
}

impl Sought {
    /// Where the run is in the drawn orders that it keeps to, if they are recognised.
    pub(crate) fn following(&self) -> Option<&Following> {
        match &self.stage {
            Stage::Followed(following) => Some(following),
            _ => None,
        }
    }

    /// What was recognised of the run, whether or not it still keeps to it.
    fn recognised(&self) -> Option<&Recognised> {
        match &self.stage {
            Stage::Followed(following) => Some(&following.recognised),
            Stage::Left(recognised) => Some(recognised),
            _ => None,
        }
    }

    /// It is looked for anew: the set may be another than it seemed.
    pub(crate) fn names_changed(&mut self) {
        self.looked_at = self.from;
    }

    fn is_due(&self, visits: u64) -> bool {
        visits.saturating_sub(self.from) >= FIRST_LOOK.max(2 * self.looked_at.saturating_sub(self.from))
    }

    /// Goes on with what is followed. Whether that has just been left.
    fn leaves(&mut self, run: &LiveRun, names: &Namespace) -> bool {
        let Stage::Followed(following) = &mut self.stage else { return false };
        let leaves = !following.follow(run, names);
        if leaves {
            self.stage = Stage::Left(Box::new(following.recognised.clone()));
            self.from = run.turns;
        }
        leaves
    }

    /// Tries a part of a puzzle.
    fn puzzle_over(&mut self) {
        let Stage::Puzzle(puzzle) = &mut self.stage else { return };
        let Some(found) = puzzle.try_more(PUZZLED) else { return };
        self.stage = match found.filter(Recognised::believed) {
            Some(recognised) => Stage::Followed(Box::new(Following::new(recognised))),
            None => Stage::Unsolved,
        };
    }
}

impl Model {
    /// Looks for the order of a running run, or follows it.
    pub(crate) fn follow_order(&self, followed: &mut Followed) {
        let Followed { run, sought, .. } = followed;
        let leaves = sought.leaves(run, &self.state.names);
        if leaves || (sought.following().is_none() && sought.is_due(run.turns)) {
            self.look_for_order(followed);
        }
    }

    fn look_for_order(&self, Followed { run, sought, .. }: &mut Followed) {
        let Some(workload) = self.state.workloads.get(&run.workload) else { return };
        sought.looked_at = run.turns;
        let readings = readings_of(run, &self.state);
        let said = number_slots(&run.numbers);
        let found = sought
            .recognised()
            .and_then(|known| confirmed(&readings, known))
            .or_else(|| recognise(&readings, &said, last_drawn(workload), Effort::BRIEF))
            .filter(Recognised::believed);
        if let Some(found) = found {
            let mut following = Following::new(found);
            if following.follow(run, &self.state.names) {
                sought.stage = Stage::Followed(Box::new(following));
                return;
            }
        }
        if matches!(sought.stage, Stage::Unknown) && run.turns >= PUZZLED_FROM {
            let puzzle = readings.into_iter().next().and_then(|reading| Puzzle::new(reading, &said));
            sought.stage = puzzle.map_or(Stage::Unsolved, |puzzle| Stage::Puzzle(Box::new(puzzle)));
        }
    }

    /// Tries some seeds of the first puzzle that there is. Those of running runs come first: who solves them helps the run.
    pub(crate) fn puzzle(&mut self) {
        let puzzling = |followed: &&mut Followed| matches!(followed.sought.stage, Stage::Puzzle(_));
        match self.state.live.values_mut().find(puzzling) {
            Some(followed) => {
                followed.sought.puzzle_over();
                followed.stale |= followed.sought.following().is_some();
            }
            None => self.puzzle_over_ended(),
        }
    }

    fn puzzle_over_ended(&mut self) {
        let Some(workload) = self.state.workloads.values_mut().find(|w| w.puzzle.is_some()) else { return };
        let Some((run, puzzle)) = &mut workload.puzzle else { return };
        let Some(found) = puzzle.try_more(PUZZLED) else { return };
        // What was only supposed gives way.
        let believed = |drawn: &Option<Recognised>| drawn.as_ref().is_some_and(Recognised::believed);
        let record = workload.records.iter_mut().find(|r| r.run == *run).filter(|r| !believed(&r.drawn));
        if let (Some(record), true) = (record, found.is_some()) {
            record.drawn = found;
            self.memos.remove(&workload.id);
            self.state.changed.insert(workload.id.clone());
        }
        workload.puzzle = None;
    }
}

/// What a run that has ended was recognised to have read, and else what is to be puzzled over.
pub(crate) fn ended_order(followed: &Followed, state: &State) -> (Option<Recognised>, Option<(RunId, Puzzle)>) {
    let Some(workload) = state.workloads.get(&followed.run.workload) else { return (None, None) };
    let readings = readings_of(&followed.run, state);
    let said = number_slots(&followed.run.numbers);
    let found = followed
        .sought
        .recognised()
        .and_then(|known| confirmed(&readings, known))
        .or_else(|| recognise(&readings, &said, last_drawn(workload), Effort::BRIEF));
    let puzzle = readings.into_iter().next().filter(|_| !found.as_ref().is_some_and(Recognised::believed));
    (found, puzzle.and_then(|reading| Puzzle::new(reading, &said)).map(|puzzle| (followed.run.run.clone(), puzzle)))
}

fn last_drawn(workload: &Workload) -> Option<&Recognised> {
    workload.records.back().and_then(|r| r.drawn.as_ref())
}

/// What a run has read of each set that its order may be drawn of.
fn readings_of(run: &LiveRun, state: &State) -> Vec<Reading> {
    let seen: Vec<Seen<'_>> = run.files().iter().map(Seen::from).collect();
    let last = run.recent().back().map(|visit| visit.file);
    let first = run.begun().as_slice().first().map_or(&[][..], Vec::as_slice);
    let Some(volume) = last.map(|file| run.files()[file as usize].key.volume.clone()) else { return Vec::new() };
    let paths: Vec<&FilePath> = first
        .iter()
        .map(|file| &run.files()[*file as usize].key)
        .filter(|k| k.volume == volume)
        .map(|k| &k.path)
        .collect();
    let top = common_directory(&paths);
    let there = known(&state.names, &volume, &top, run.started_at);
    readings(&top, &there, &seen, run.begun(), last)
}
