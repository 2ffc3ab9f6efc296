//! What the sources tell of changes, from all of them together.

use std::sync::{Arc, Weak};

use foretide_flow::VolumeId;
use tokio::sync::mpsc;

use super::{Inner, Mover, lock};
use crate::client::{Client, Said};
use crate::message::Change;

/// Changes between the sources and whoever takes them; beyond it the sources wait, and give a peer up that takes none.
const NEWS_WAITING: usize = 1024;

/// What a source says of directories that were listed there.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Something changed.
    Changed(Change),
    /// Nothing more is told of what was listed in these volumes before; what is listed from now on may be told again.
    Lost(Vec<VolumeId>),
}

impl Mover {
    /// What the sources tell of changes from now on. Who calls last is told; a mover that nobody asks keeps no watch.
    pub fn news(&self) -> mpsc::Receiver<News> {
        let (sender, receiver) = mpsc::channel(NEWS_WAITING);
        *lock(&self.inner.news) = Some(sender);
        let mut clients: Vec<Arc<Client>> = lock(&self.inner.clients).values().cloned().collect();
        clients.sort_by_key(Arc::as_ptr);
        clients.dedup_by(|a, b| Arc::ptr_eq(a, b));
        clients.iter().for_each(|client| self.inner.watch(client));
        receiver
    }
}

impl Inner {
    /// A volume has another source: what the one before told of it is over.
    pub(super) fn source_changed(&self, volume: &VolumeId) {
        let Some(news) = lock(&self.news).clone() else { return };
        let lost = News::Lost(vec![volume.clone()]);
        self.runtime.spawn(async move {
            // Nobody takes news any more: then nobody believes them either.
            let _ = news.send(lost).await;
        });
    }

    /// Keeps a watch open at a client, if anybody wants news.
    pub(super) fn watch(self: &Arc<Self>, client: &Arc<Client>) {
        let Some(news) = lock(&self.news).clone() else { return };
        let (said, mut hears) = mpsc::channel(1);
        // Neither is kept alive by its news: the client goes with its last volume.
        let (inner, weak) = (Arc::downgrade(self), Arc::downgrade(client));
        client.watch(said);
        self.runtime.spawn(async move {
            while let Some(said) = hears.recv().await {
                let told: Vec<News> = match said {
                    Said::Changed(changes) => changes.into_iter().map(News::Changed).collect(),
                    Said::Lost => vec![News::Lost(volumes_of(&inner, &weak))],
                };
                for news_item in told {
                    if news.send(news_item).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

fn volumes_of(inner: &Weak<Inner>, client: &Weak<Client>) -> Vec<VolumeId> {
    let Some(inner) = inner.upgrade() else { return Vec::new() };
    let clients = lock(&inner.clients);
    clients.iter().filter(|(_, c)| std::ptr::eq(Arc::as_ptr(c), client.as_ptr())).map(|(v, _)| v.clone()).collect()
}
