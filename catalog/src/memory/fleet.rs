//! Agents, batches, runs.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use foretide_flow::{AccessBatch, Losses, NodeId, RunId, RunStart, Timestamp};

use super::{InMemory, State, page};
use crate::{Agent, Fleet, NextSequences, NodeLosses, Page, Recorded, Result, Run, RunFilter, Topic, limits};

/// What was seen by whom.
#[derive(Default)]
pub(super) struct Seen {
    agents: BTreeMap<NodeId, Agent>,
    accounts: BTreeMap<NodeId, Account>,
    lake_files: BTreeMap<u64, (Timestamp, String)>,
    pub(super) runs: BTreeMap<RunId, (u64, RunStart)>,
    pub(super) ends: BTreeMap<RunId, Timestamp>,
    pub(super) outcome_sequences: BTreeMap<NodeId, Sequences>,
}

#[derive(Default)]
struct Account {
    sequences: Sequences,
    batches: u64,
    accesses: u64,
    losses: Losses,
}

/// Which numbers came.
#[derive(Default)]
pub(super) struct Sequences {
    first: Option<u64>,
    last: u64,
    /// Everything below counts as come.
    floor: u64,
    came: BTreeSet<u64>,
}

impl Sequences {
    /// Whether this number is new; it is not the next time.
    pub(super) fn come(&mut self, sequence: u64) -> bool {
        if sequence < self.floor || !self.came.insert(sequence) {
            return false;
        }
        self.first = Some(self.first.map_or(sequence, |f| f.min(sequence)));
        self.last = self.last.max(sequence);
        while self.came.len() > limits::BATCHES_PER_NODE {
            self.floor = self.came.pop_first().map_or(self.floor, |oldest| oldest + 1);
        }
        true
    }

    pub(super) fn next(&self) -> u64 {
        self.first.map_or(0, |_| self.last + 1)
    }
}

impl State {
    fn record_batch(&mut self, batch: &AccessBatch, lake_file: &str, at: Timestamp) -> bool {
        let account = self.fleet.accounts.entry(batch.node.clone()).or_default();
        if !account.sequences.come(batch.sequence) {
            return false;
        }
        account.batches += 1;
        account.accesses += batch.accesses.len() as u64;
        account.losses.dropped_events += batch.losses.dropped_events;
        account.losses.unresolved += batch.losses.unresolved;
        account.losses.summarised += batch.losses.summarised;
        let number = self.number();
        self.fleet.lake_files.insert(number, (at, lake_file.to_owned()));
        while self.fleet.lake_files.len() > limits::LAKE_FILES {
            self.fleet.lake_files.pop_first();
        }
        for start in &batch.started {
            let number = self.number();
            // Numbers are for the model alone, and stay in the lake.
            let start = RunStart { numbers: Vec::new(), ..start.clone() };
            self.fleet.runs.entry(start.run.clone()).or_insert((number, start));
        }
        for end in &batch.ended {
            self.fleet.ends.entry(end.run.clone()).or_insert(end.at);
        }
        true
    }
}

#[async_trait]
impl Fleet for InMemory {
    async fn put_agent(&self, agent: &Agent) -> Result<()> {
        let mut state = self.state();
        let before = state.fleet.agents.insert(agent.node.clone(), agent.clone());
        while state.fleet.agents.len() > limits::AGENTS {
            let silent = state.fleet.agents.values().min_by_key(|a| a.seen_at).map(|a| a.node.clone());
            silent.and_then(|node| state.fleet.agents.remove(&node));
        }
        self.tell(agent.topics(before.as_ref()));
        Ok(())
    }

    async fn agents(&self) -> Result<Vec<Agent>> {
        Ok(self.state().fleet.agents.values().cloned().collect())
    }

    async fn next_sequences(&self, node: &NodeId) -> Result<NextSequences> {
        let state = self.state();
        Ok(NextSequences {
            accesses: state.fleet.accounts.get(node).map_or(0, |a| a.sequences.next()),
            outcomes: state.fleet.outcome_sequences.get(node).map_or(0, Sequences::next),
        })
    }

    async fn record_batch(&self, batch: &AccessBatch, lake_file: &str, at: Timestamp) -> Result<Recorded> {
        let new = self.state().record_batch(batch, lake_file, at);
        if new {
            self.tell(&[Topic::Fleet]);
        }
        Ok(Recorded { new })
    }

    async fn lake_files(&self, from: Timestamp, cursor: Option<u64>) -> Result<Page<String>> {
        let state = self.state();
        let rest = state.fleet.lake_files.range(cursor.map_or(0, |c| c + 1)..).filter(|(_, f)| f.0 >= from);
        let mut files: Vec<_> = rest.take(limits::PAGE_ITEMS + 1).map(|(n, f)| (*n, f.1.clone())).collect();
        let more = files.len() > limits::PAGE_ITEMS;
        files.truncate(limits::PAGE_ITEMS);
        let next = files.last().filter(|_| more).map(|f| f.0);
        Ok(Page { items: files.into_iter().map(|f| f.1).collect(), next })
    }

    async fn runs(&self, filter: &RunFilter, cursor: Option<u64>, limit: usize) -> Result<Page<Run>> {
        let state = self.state();
        let runs = state.fleet.runs.values().map(|(number, start)| {
            (*number, Run { start: start.clone(), ended_at: state.fleet.ends.get(&start.run).copied() })
        });
        let wanted = runs.filter(|(_, r)| {
            filter.run.as_ref().is_none_or(|run| *run == r.start.run)
                && filter.workload.as_ref().is_none_or(|w| *w == r.start.workload)
                && filter.site.as_ref().is_none_or(|s| *s == r.start.site)
                && filter.started_from.is_none_or(|from| r.start.at >= from)
                && !(filter.running && r.ended_at.is_some())
        });
        Ok(page(wanted, cursor, limit))
    }

    async fn losses(&self) -> Result<Vec<NodeLosses>> {
        let state = self.state();
        let accounts = state.fleet.accounts.iter();
        Ok(accounts
            .map(|(node, a)| NodeLosses {
                node: node.clone(),
                batches: a.batches,
                missing_batches: a.sequences.first.map_or(0, |f| a.sequences.last - f + 1 - a.batches),
                accesses: a.accesses,
                losses: a.losses,
            })
            .collect())
    }
}
