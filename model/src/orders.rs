//! The model and drawn orders: when it looks for them, and what it makes of what it finds.
//!
//! A running run is looked at when it has visited 4 files, 8, 16 and so on, until its order is recognised; then it is
//! followed before each forecast, and looked at again if it leaves the order. A run that has ended unrecognised is a puzzle:
//! its seed is looked for among a million, and among what the numbers of its command line seed, some thousand of them each
//! time that the model is asked (promise K), so that no answer waits for it. Nothing of this is done at an access.

use foretide_flow::{FilePath, RunId};

use crate::drawn::follow::{Following, known};
use crate::drawn::{Effort, Puzzle, Reading, Recognised, Seen, readings, recognise};
use crate::habit::number_slots;
use crate::history::{Workload, common_directory};
use crate::model::{Followed, Model, State};
use crate::run::LiveRun;

/// Visits after which a run is looked at first; after that each time that they have doubled.
const FIRST_LOOK: u64 = 4;
/// Tries at a puzzle each time: some milliseconds.
const PUZZLED: u64 = 1 << 13;

impl Model {
    /// Looks for the order of a running run, or follows it.
    pub(crate) fn follow_order(&self, followed: &mut Followed) {
        let follow = |mut it: Following, run: &LiveRun| it.follow(run, &self.state.names).then_some(it);
        let mut following = followed.following.take().and_then(|it| follow(it, &followed.run));
        if following.is_none() {
            following = self.look_for_order(followed).and_then(|it| follow(it, &followed.run));
        }
        followed.following = following;
    }

    fn look_for_order(&self, followed: &mut Followed) -> Option<Following> {
        let visits = followed.run.turns;
        if visits < FIRST_LOOK.max(2 * followed.looked_at) {
            return None;
        }
        followed.looked_at = visits;
        let workload = self.state.workloads.get(&followed.run.workload)?;
        let readings = readings_of(&followed.run, &self.state);
        let said = number_slots(&followed.run.numbers);
        let found = recognise(&readings, &said, last_drawn(workload), Effort::BRIEF);
        found.filter(Recognised::believed).map(Following::new)
    }

    /// Tries some seeds of the first puzzle that there is.
    pub(crate) fn puzzle(&mut self) {
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
    let found = recognise(&readings, &said, last_drawn(workload), Effort::BRIEF);
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
