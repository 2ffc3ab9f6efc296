//! Whom to ask for bytes, and in which order.
//!
//! For each file the nodes of a site stand in an order, the same on all of them: by a digest of both names. Who wants
//! bytes asks the first node before itself that is there, and that one fetches what it has not got. So a file crosses the
//! link once for a site, whoever wants it and however many at once; and since questions go up the order only, no two
//! nodes wait for each other. The first node asks a few of those after it what they hold. Then comes a copy of the volume
//! that stands at this site, then the site that a plan names, then the source, whose word is the last. Only when the source
//! cannot be reached are other sites asked what they hold, first those at which a copy stands.
//!
//! An agent that serves a copy reads a tree of its own and knows nothing of the source's versions. So it is asked for
//! contents, by the manifest that the source has told, and says so if what it has is another: nobody takes a copy for the
//! source. It is asked only where the rules let the file rest at its site.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use foretide_flow::{FilePath, NodeId, SiteId, VolumeId};
use tokio::time::Instant;

use super::lock;
use crate::client::{Client, ClientConfig};
use crate::handshake::Identity;
use crate::message::Effort;
use crate::surroundings::Surroundings;
use crate::tls::Credentials;
use crate::{Borders, TransferError};

/// An agent that gives bytes of volumes of which it is not the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Giver {
    /// Its site.
    pub site: SiteId,
    /// Its node.
    pub node: NodeId,
    /// `host:port`.
    pub address: String,
    /// Whether it passes on what its cache holds.
    pub passes_on: bool,
    /// Volumes of which it serves a whole copy.
    pub copies: Vec<VolumeId>,
}

/// Connections to a neighbour: its link is short, so one window fills it, and another is kept for demands.
const NEIGHBOUR_CONNECTIONS: usize = 2;
/// A neighbour that says nothing at all for this long is gone, seconds.
const NEIGHBOUR_SILENCE_S: u64 = 4;
/// Neighbours that the first node of a file asks what they hold before it asks the source: each costs a round trip
/// within the site.
const HELD_ASKED: usize = 2;
/// Nodes of a site that are tried: of those that serve a copy, and of another site.
const TRIED: usize = 2;
/// Sites that are asked what they hold when the source cannot be reached.
const LAST_RESORTS: usize = 2;
/// A giver that failed is left alone for so long.
const SHUNNED: Duration = Duration::from_secs(10);

/// What is wanted, and how hard to try.
#[derive(Clone, Debug)]
pub(super) struct Errand {
    pub(super) volume: VolumeId,
    pub(super) path: FilePath,
    /// The site from which a plan fetches it.
    pub(super) planned: Option<SiteId>,
    pub(super) effort: Effort,
}

/// A giver that may be asked.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) client: Arc<Client>,
    pub(super) effort: Effort,
    /// Whether it stands at this site.
    pub(super) is_near: bool,
    /// Whether it reads a tree of its own: it knows contents, not the source's versions.
    pub(super) has_a_copy: bool,
    known: Arc<Known>,
}

impl Way {
    /// Its node.
    pub(super) fn node(&self) -> &NodeId {
        &self.known.giver.node
    }

    /// Its site.
    pub(super) fn site(&self) -> &SiteId {
        &self.known.giver.site
    }

    /// Leaves it alone for a while.
    pub(super) fn shun(&self) {
        *lock(&self.known.shunned_until) = Some(Instant::now() + SHUNNED);
    }
}

#[derive(Debug)]
struct Known {
    giver: Giver,
    /// Dialled when it is first asked; neighbours at once.
    client: OnceLock<Arc<Client>>,
    shunned_until: Mutex<Option<Instant>>,
}

impl Known {
    fn is_shunned(&self) -> bool {
        lock(&self.shunned_until).is_some_and(|until| Instant::now() < until)
    }

    /// Not to be asked now. Who was lost is dialled on, and asked again once he answers.
    fn is_away(&self) -> bool {
        self.is_shunned() || self.client.get().is_some_and(|client| client.is_lost())
    }

    fn is_there(&self) -> bool {
        !self.is_shunned() && self.client.get().is_some_and(|client| client.connected() > 0)
    }
}

/// All givers.
#[derive(Debug)]
pub(super) struct Givers {
    around: Arc<dyn Surroundings>,
    own: Identity,
    borders: Arc<Borders>,
    credentials: Credentials,
    config: ClientConfig,
    runtime: tokio::runtime::Handle,
    known: Mutex<Arc<Vec<Arc<Known>>>>,
}

impl Givers {
    pub(super) fn new(
        around: Arc<dyn Surroundings>,
        own: Identity,
        borders: Arc<Borders>,
        credentials: Credentials,
        config: ClientConfig,
    ) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self { around, own, borders, credentials, config, runtime, known: Mutex::default() }
    }

    /// Takes the givers there are now; those that were known keep their connections.
    pub(super) fn set(&self, givers: Vec<Giver>) {
        let mut known = lock(&self.known);
        let before = known.clone();
        let taken = givers.into_iter().filter(|g| g.node != self.own.node).map(|giver| {
            let old = before.iter().find(|k| k.giver == giver).cloned();
            old.unwrap_or_else(|| Arc::new(Known { giver, client: OnceLock::new(), shunned_until: Mutex::default() }))
        });
        let taken: Vec<_> = taken.collect();
        taken.iter().filter(|k| k.giver.passes_on && k.giver.site == self.own.site).for_each(|k| drop(self.client(k)));
        *known = Arc::new(taken);
    }

    fn client(&self, known: &Known) -> Arc<Client> {
        let dialled = known.client.get_or_init(|| {
            let _inside = self.runtime.enter();
            let config = match known.giver.site == self.own.site {
                true => ClientConfig {
                    connections: NEIGHBOUR_CONNECTIONS,
                    warm_bytes: 0,
                    silence_limit_s: NEIGHBOUR_SILENCE_S.min(self.config.silence_limit_s),
                    ..self.config.clone()
                },
                false => self.config.clone(),
            };
            let (around, credentials) = (self.around.clone(), self.credentials.clone());
            Client::within(around, config, &known.giver.address, credentials, self.own.clone())
        });
        dialled.clone()
    }

    /// The site that a plan names, if that is neither the source's nor this one.
    pub(super) fn named_site<'e>(&self, errand: &'e Errand) -> Option<&'e SiteId> {
        let named = errand.planned.as_ref().filter(|_| errand.effort == Effort::Own)?;
        let is_other = *named != self.own.site && Some(named) != self.borders.source_site(&errand.volume).as_ref();
        is_other.then_some(named)
    }

    /// Whether a copy of a volume stands at this site: then a further question for a file's manifest spares its bytes the
    /// way from the source.
    pub(super) fn has_copy_here(&self, volume: &VolumeId) -> bool {
        let serves_it = |k: &Arc<Known>| k.giver.site == self.own.site && k.giver.copies.contains(volume);
        lock(&self.known).iter().any(|k| serves_it(k) && !k.is_away())
    }

    fn way(&self, known: &Arc<Known>, effort: Effort, has_a_copy: bool) -> Way {
        let is_near = known.giver.site == self.own.site;
        Way { client: self.client(known), effort, is_near, has_a_copy, known: known.clone() }
    }

    /// Whom to ask before the source, one after the other; nobody where the source is at this site. Where `held` says
    /// so, the first node asks those after it, too.
    pub(super) fn before_the_source(&self, errand: &Errand, held: bool) -> Vec<Way> {
        let source = self.borders.source_site(&errand.volume);
        if errand.effort == Effort::Held || source.as_ref() == Some(&self.own.site) {
            return Vec::new();
        }
        let known = lock(&self.known).clone();
        let near: Vec<&Arc<Known>> = of_site(&known, &self.own.site).collect();
        let nodes: Vec<_> = near.iter().map(|k| (&k.giver.node, k.is_there())).collect();
        let mut ways = match neighbours(&nodes, &self.own.node, errand) {
            Neighbours::Before(first) => vec![self.way(near[first], errand.effort, false)],
            Neighbours::After(some) if held => some.iter().map(|i| self.way(near[*i], Effort::Held, false)).collect(),
            Neighbours::After(_) => Vec::new(),
        };
        ways.extend(self.copies_at(&known, &self.own.site, errand));
        if let Some(site) = self.named_site(errand) {
            let there = self.copies_at(&known, site, errand).into_iter();
            ways.extend(there.chain(self.caches_at(&known, site, errand, Effort::Source)).take(TRIED));
        }
        ways
    }

    /// Whom to ask when the source cannot be reached; copies only if it is known what the file consists of.
    pub(super) fn instead_of_the_source(&self, errand: &Errand, manifest_is_known: bool) -> Vec<Way> {
        if errand.effort != Effort::Own {
            return Vec::new();
        }
        let known = lock(&self.known).clone();
        let source = self.borders.source_site(&errand.volume);
        let is_asked_already = |site: &SiteId| {
            *site == self.own.site || Some(site) == source.as_ref() || Some(site) == errand.planned.as_ref()
        };
        let mut sites: Vec<&SiteId> = known.iter().map(|k| &k.giver.site).filter(|s| !is_asked_already(s)).collect();
        sites.sort();
        sites.dedup();
        let copied = if manifest_is_known { sites.as_slice() } else { &[] };
        let copy = |site: &&SiteId| self.copies_at(&known, site, errand).into_iter().next();
        let cache = |site: &&SiteId| self.caches_at(&known, site, errand, Effort::Held).into_iter().next();
        copied.iter().filter_map(copy).chain(sites.iter().filter_map(cache)).take(LAST_RESORTS).collect()
    }

    /// Nodes of a site that serve a copy of the volume, where the rules let the file rest there.
    fn copies_at(&self, known: &[Arc<Known>], site: &SiteId, errand: &Errand) -> Vec<Way> {
        let serves_it = |k: &&Arc<Known>| k.giver.site == *site && k.giver.copies.contains(&errand.volume);
        let serving: Vec<_> = known.iter().filter(serves_it).filter(|k| !k.is_away()).take(TRIED).collect();
        if serving.is_empty() || !self.borders.lets_rest(&errand.volume, &errand.path, site) {
            return Vec::new();
        }
        serving.into_iter().map(|k| self.way(k, Effort::Held, true)).collect()
    }

    /// Nodes of another site that may hold a file in their caches, in the file's order.
    fn caches_at(&self, known: &[Arc<Known>], site: &SiteId, errand: &Errand, effort: Effort) -> Vec<Way> {
        let mut caches: Vec<_> = of_site(known, site).filter(|k| !k.is_away()).collect();
        caches.sort_by_cached_key(|k| place(errand, &k.giver.node));
        caches.into_iter().take(TRIED).map(|k| self.way(k, effort, false)).collect()
    }
}

fn of_site<'k>(known: &'k [Arc<Known>], site: &'k SiteId) -> impl Iterator<Item = &'k Arc<Known>> {
    known.iter().filter(move |k| k.giver.passes_on && k.giver.site == *site)
}

/// Whether a failure is the giver's own: a link that broke, a lie. That it has not got something is none.
pub(super) fn is_its_fault(failure: &TransferError) -> bool {
    use TransferError::{Disconnected, Protocol, Token, Unreachable, Version, WrongBytes};
    matches!(
        failure,
        Disconnected { .. } | Unreachable { .. } | WrongBytes { .. } | Protocol { .. } | Token { .. } | Version { .. }
    )
}

/// Whom of its site a node asks, by their places in the list that was looked at.
#[derive(Debug, PartialEq, Eq)]
enum Neighbours {
    /// This one: it fetches what it has not got.
    Before(usize),
    /// None stands before this node; these may hold something.
    After(Vec<usize>),
}

/// Of the other nodes of a site, and whether each is there: the first of those before `own`, or the first few after it.
fn neighbours(nodes: &[(&NodeId, bool)], own: &NodeId, errand: &Errand) -> Neighbours {
    let own = place(errand, own);
    let there = nodes.iter().enumerate().filter(|(_, (_, is_there))| *is_there);
    let mut places: Vec<_> = there.map(|(i, (node, _))| (place(errand, node), i)).collect();
    places.sort();
    match places.first() {
        Some((first, i)) if *first < own => Neighbours::Before(*i),
        _ => Neighbours::After(places.into_iter().map(|(_, i)| i).take(HELD_ASKED).collect()),
    }
}

/// Where a node stands for a file: the lowest is first.
fn place(errand: &Errand, node: &NodeId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("foretide v1 order of nodes");
    for part in [errand.volume.as_str().as_bytes(), errand.path.as_bytes(), node.as_str().as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(path: &str) -> Errand {
        let (volume, path) = (VolumeId::new("v").unwrap(), FilePath::parse(path).unwrap());
        Errand { volume, path, planned: None, effort: Effort::Own }
    }

    /// Whom each of five nodes asks, by number, where only some are there.
    fn asked(path: &str, there: [bool; 5]) -> Vec<Option<usize>> {
        let names: Vec<NodeId> = (0..5).map(|i| NodeId::new(&format!("n{i}")).unwrap()).collect();
        let of = |own: usize| {
            let others: Vec<usize> = (0..5).filter(|i| *i != own).collect();
            let nodes: Vec<_> = others.iter().map(|i| (&names[*i], there[*i])).collect();
            match neighbours(&nodes, &names[own], &errand(path)) {
                Neighbours::Before(i) => Some(others[i]),
                Neighbours::After(_) => None,
            }
        };
        (0..5).map(of).collect()
    }

    #[test]
    fn all_nodes_of_a_site_ask_the_same_one_and_that_one_asks_nobody() {
        let mut firsts = [0; 5];
        for n in 0..500 {
            let path = format!("file-{n}");
            let asked_by = asked(&path, [true; 5]);
            let first = asked_by.iter().position(Option::is_none).unwrap();
            assert!(asked_by.iter().enumerate().all(|(i, a)| if i == first { a.is_none() } else { *a == Some(first) }));
            firsts[first] += 1;
            let mut there = [true; 5];
            there[first] = false;
            let without = asked(&path, there);
            let second = (0..5).find(|i| *i != first && without[*i].is_none()).unwrap();
            let others = (0..5).filter(|i| *i != first && *i != second);
            assert!(others.into_iter().all(|i| without[i] == Some(second)), "who is gone is passed over by all alike");
        }
        assert!(firsts.iter().all(|n| (50..150).contains(n)), "files are shared out evenly: {firsts:?}");
    }

    #[test]
    fn questions_go_up_the_order_only_whatever_each_node_believes_of_the_others() {
        for n in 0..100 {
            let path = format!("file-{n}");
            let mut beliefs = (0..32u32).map(|bits| asked(&path, std::array::from_fn(|i| bits >> i & 1 == 1)));
            let place_of = |i: usize| place(&errand(&path), &NodeId::new(&format!("n{i}")).unwrap());
            let goes_up = |asks: &Vec<Option<usize>>| {
                asks.iter().enumerate().all(|(i, asked)| asked.is_none_or(|a| place_of(a) < place_of(i)))
            };
            assert!(beliefs.all(|asks| goes_up(&asks)));
        }
    }

    #[test]
    fn the_first_node_asks_a_few_of_those_after_it() {
        let names: Vec<NodeId> = (0..9).map(|i| NodeId::new(&format!("n{i}")).unwrap()).collect();
        let first = names.iter().min_by_key(|n| place(&errand("f"), n)).unwrap();
        let others: Vec<_> = names.iter().filter(|n| *n != first).map(|n| (n, true)).collect();
        let Neighbours::After(asked) = neighbours(&others, first, &errand("f")) else { panic!("nobody is before it") };
        assert_eq!(asked.len(), HELD_ASKED);
        let gone: Vec<_> = others.iter().map(|(n, _)| (*n, false)).collect();
        assert_eq!(neighbours(&gone, first, &errand("f")), Neighbours::After(Vec::new()));
    }
}
