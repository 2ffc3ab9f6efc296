//! Who is to be told of which directory, and what waits to be told. `W` names a watch of the kernel's.
//!
//! Invariants: a place is told to a watch only while `watched` says so; what waits for a peer is bounded, and a peer
//! for whom it is not enough loses its watch.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use foretide_flow::{FilePath, NodeId, VolumeId};
use tokio::sync::Notify;

/// Names that may wait for one peer: what a burst of a second brings. About 200 bytes each.
const WAITING_MAX: usize = 65_536;

/// What a peer is to be told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) enum Told {
    /// Nothing more of this directory.
    Unsure(VolumeId, FilePath),
    /// This name is something else now.
    Name(VolumeId, FilePath),
}

/// A directory that the kernel watches. Two volumes may show the same one.
struct Watched {
    places: Vec<(VolumeId, FilePath)>,
    peers: HashSet<u32>,
    listed: u64,
}

/// One peer's watch.
struct Peer {
    node: NodeId,
    waiting: BTreeSet<Told>,
    woken: Arc<Notify>,
    ended: bool,
}

/// See the module.
pub(super) struct Table<W> {
    watched: HashMap<W, Watched>,
    /// By when they were listed last, oldest first.
    by_age: BTreeMap<u64, W>,
    peers: HashMap<u32, Peer>,
    next_peer: u32,
    next_listed: u64,
    directories_max: usize,
}

impl<W: Copy + Eq + Hash> Table<W> {
    pub(super) fn new(directories_max: usize) -> Self {
        Self {
            watched: HashMap::new(),
            by_age: BTreeMap::new(),
            peers: HashMap::new(),
            next_peer: 1,
            next_listed: 0,
            directories_max: directories_max.max(1),
        }
    }

    pub(super) fn subscribe(&mut self, node: &NodeId) -> (u32, Arc<Notify>) {
        for peer in self.peers.values_mut().filter(|p| p.node == *node) {
            peer.end();
        }
        let (id, woken) = (self.next_peer, Arc::new(Notify::new()));
        self.next_peer = self.next_peer.checked_add(1).unwrap_or(1);
        let peer = Peer { node: node.clone(), waiting: BTreeSet::new(), woken: woken.clone(), ended: false };
        self.peers.insert(id, peer);
        (id, woken)
    }

    /// Watches that nobody needs any more stay until they are the oldest: the peer will be back.
    pub(super) fn unsubscribe(&mut self, id: u32) {
        self.peers.remove(&id);
        for watched in self.watched.values_mut() {
            watched.peers.remove(&id);
        }
    }

    /// The watch that a node has open.
    pub(super) fn of_node(&self, node: &NodeId) -> Option<u32> {
        self.peers.iter().find(|(_, p)| p.node == *node && !p.ended).map(|(id, _)| *id)
    }

    /// Changes of this directory are told to `peer`. Answers the watches that had to go for it.
    pub(super) fn hold(&mut self, watch: W, volume: &VolumeId, directory: &FilePath, peer: u32) -> Vec<W> {
        self.next_listed += 1;
        let listed = self.next_listed;
        let new = || Watched { places: Vec::new(), peers: HashSet::new(), listed };
        let watched = self.watched.entry(watch).or_insert_with(new);
        self.by_age.remove(&watched.listed);
        self.by_age.insert(listed, watch);
        watched.listed = listed;
        if !watched.places.iter().any(|(v, d)| v == volume && d == directory) {
            watched.places.push((volume.clone(), directory.clone()));
        }
        watched.peers.insert(peer);
        let mut evicted = Vec::new();
        while self.watched.len() > self.directories_max {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.gone(oldest);
            evicted.push(oldest);
        }
        evicted
    }

    /// A name in a watched directory is something else now.
    pub(super) fn changed(&mut self, watch: W, name: &[u8]) {
        let Some(watched) = self.watched.get(&watch) else { return };
        for (volume, directory) in &watched.places {
            // A name that no path of ours can hold was never listed.
            let Ok(path) = directory.join(name) else { continue };
            for peer in &watched.peers {
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.tell(Told::Name(volume.clone(), path.clone()));
                }
            }
        }
    }

    /// The kernel tells nothing more of this directory.
    pub(super) fn gone(&mut self, watch: W) {
        let Some(watched) = self.watched.remove(&watch) else { return };
        self.by_age.remove(&watched.listed);
        for (volume, directory) in watched.places {
            for peer in &watched.peers {
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.tell(Told::Unsure(volume.clone(), directory.clone()));
                }
            }
        }
    }

    /// Something was lost, nobody knows what.
    pub(super) fn end_all(&mut self) {
        self.peers.values_mut().for_each(Peer::end);
    }

    /// What waits for a peer; none if its watch has ended.
    pub(super) fn take(&mut self, id: u32) -> Option<Vec<Told>> {
        let peer = self.peers.get_mut(&id).filter(|p| !p.ended)?;
        Some(std::mem::take(&mut peer.waiting).into_iter().collect())
    }
}

impl Peer {
    fn tell(&mut self, told: Told) {
        if self.ended {
            return;
        }
        self.waiting.insert(told);
        if self.waiting.len() > WAITING_MAX {
            return self.end();
        }
        self.woken.notify_one();
    }

    fn end(&mut self) {
        self.ended = true;
        self.waiting.clear();
        self.woken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> FilePath {
        FilePath::parse(text).unwrap()
    }

    fn setup(directories_max: usize) -> (Table<u8>, VolumeId, u32) {
        let mut table = Table::new(directories_max);
        let (peer, _) = table.subscribe(&NodeId::new("gpu").unwrap());
        (table, VolumeId::new("v").unwrap(), peer)
    }

    #[test]
    fn many_changes_of_one_name_are_told_once_and_to_who_listed_it() {
        let (mut table, volume, peer) = setup(10);
        let (other, _) = table.subscribe(&NodeId::new("other").unwrap());
        assert!(table.hold(1, &volume, &at("d"), peer).is_empty());
        (0..5).for_each(|_| table.changed(1, b"f"));
        table.changed(2, b"nobody listed it");
        assert_eq!(table.take(peer), Some(vec![Told::Name(volume, at("d/f"))]));
        assert_eq!((table.take(peer), table.take(other)), (Some(vec![]), Some(vec![])));
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_and_its_peers_are_told_k() {
        let (mut table, volume, peer) = setup(2);
        assert!(table.hold(1, &volume, &at("a"), peer).is_empty());
        assert!(table.hold(2, &volume, &at("b"), peer).is_empty());
        assert!(table.hold(1, &volume, &at("a"), peer).is_empty(), "listed again: b is older now");
        assert_eq!(table.hold(3, &volume, &at("c"), peer), [2]);
        assert_eq!(table.take(peer), Some(vec![Told::Unsure(volume, at("b"))]));
        table.changed(2, b"f");
        assert_eq!(table.take(peer), Some(vec![]));
    }

    #[test]
    fn a_node_has_one_watch_and_a_peer_that_cannot_keep_up_loses_it() {
        let (mut table, volume, first) = setup(10);
        let node = NodeId::new("gpu").unwrap();
        let (second, _) = table.subscribe(&node);
        assert_eq!((table.take(first), table.of_node(&node)), (None, Some(second)));
        table.hold(1, &volume, &at("d"), second);
        (0..=WAITING_MAX).for_each(|i| table.changed(1, format!("f{i}").as_bytes()));
        assert_eq!((table.take(second), table.of_node(&node)), (None, None));
        table.unsubscribe(second);
        table.changed(1, b"f");
    }
}
