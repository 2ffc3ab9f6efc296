//! A source tells the peers that listed a directory what changes in it, over real connections.

#[allow(dead_code, reason = "each of the test programs uses a part")]
mod rig;

use std::fs;
use std::path::Path;
use std::time::Duration;

use foretide_transfer::{Change, Listed, MoverConfig, News, Server, ServerConfig, Token};
use tempfile::TempDir;
use tokio::sync::mpsc;

use rig::{Node, TOKEN, identity, local, loopback, no_borders, path, serve_with, store, volume};

struct House {
    folder: TempDir,
    server: Option<Server>,
    node: Node,
    news: mpsc::Receiver<News>,
}

async fn serve(root: &Path, config: ServerConfig) -> Server {
    serve_with(config, Token::new(TOKEN), vec![(volume(), local(root))], no_borders()).await
}

async fn house(watched_directories: usize) -> House {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("source");
    fs::create_dir_all(root.join("d")).unwrap();
    let server = serve(&root, ServerConfig { watched_directories, ..loopback() }).await;
    let (kept, address) = (store(&folder.path().join("store"), 1 << 30), server.address().to_string());
    let own = identity("gpu", "gpu-1");
    let node = Node::start(&address, own, kept, MoverConfig::default(), Token::new(TOKEN), no_borders());
    let news = node.mover.news();
    House { folder, server: Some(server), node, news }
}

impl House {
    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("source").join(name)
    }

    /// Lists until the listing is one that is told of: the watch opens beside the first.
    async fn told_listing(&self, directory: &str) -> Listed {
        for _ in 0..400 {
            if let Ok(listed) = self.node.mover.list(&volume(), &path(directory), false).await
                && listed.live.is_live()
            {
                return listed;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no watch was opened");
    }

    async fn next(&mut self) -> News {
        tokio::time::timeout(Duration::from_secs(20), self.news.recv()).await.expect("nothing is told").unwrap()
    }

    /// Skips what is told until it is this name's.
    async fn told_of(&mut self, name: &str) -> Option<foretide_flow::Entry> {
        loop {
            match self.next().await {
                News::Changed(Change::Name { path: told, entry, .. }) if told == path(name) => return entry,
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_in_a_listed_directory_is_told_as_it_is_then() {
    let mut house = house(100).await;
    house.told_listing("d").await;
    fs::write(house.at("d/new"), "12345").unwrap();
    // Created, and perhaps told once before it was written to.
    let mut size = house.told_of("d/new").await.unwrap().size;
    while size != 5 {
        size = house.told_of("d/new").await.unwrap().size;
    }
    fs::remove_file(house.at("d/new")).unwrap();
    // What was told of the writing comes first, if there is more of it.
    while house.told_of("d/new").await.is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_the_oldest_directory_is_said_to_be_unsure_k() {
    let mut house = house(1).await;
    fs::create_dir(house.at("e")).unwrap();
    house.told_listing("d").await;
    house.told_listing("e").await;
    loop {
        match house.next().await {
            News::Changed(Change::Unsure { directory, .. }) if directory == path("d") => break,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_moved_away_is_unsure() {
    let mut house = house(100).await;
    house.told_listing("d").await;
    fs::rename(house.at("d"), house.at("elsewhere")).unwrap();
    loop {
        match house.next().await {
            News::Changed(Change::Unsure { directory, .. }) if directory == path("d") => break,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_source_is_gone_nothing_is_live_and_when_it_is_back_listings_are_again() {
    let mut house = house(100).await;
    let listed = house.told_listing("d").await;
    let address = house.server.as_ref().unwrap().address();
    house.server.take();
    loop {
        if house.next().await == News::Lost(vec![volume()]) {
            break;
        }
    }
    assert!(!listed.live.is_live(), "ended before it was said");
    let root = house.at("");
    house.server = Some(serve(&root, ServerConfig { listen: address, ..ServerConfig::default() }).await);
    house.told_listing("d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_may_not_watch_serves_all_the_same() {
    let house = house(0).await;
    fs::write(house.at("d/f"), "x").unwrap();
    let listed = house.node.mover.list(&volume(), &path("d"), false).await.unwrap();
    assert_eq!(listed.listing.entries.len(), 1);
    assert!(!listed.live.is_live());
}

#[tokio::test(flavor = "multi_thread")]
async fn small_directories_below_come_in_the_same_answer_and_are_told_of_too() {
    let mut house = house(100).await;
    for (directory, files) in [("d/few", 3), ("d/none", 0), ("d/many", 2500)] {
        fs::create_dir(house.at(directory)).unwrap();
        (0..files).for_each(|i| fs::write(house.at(&format!("{directory}/{i:04}")), "x").unwrap());
    }
    fs::create_dir_all(house.at("d/few/deeper")).unwrap();
    house.told_listing("d").await;
    let listed = house.node.mover.list(&volume(), &path("d"), true).await.unwrap();
    assert!(listed.listing.entries.len() >= 3 && listed.live.is_live());
    let below: Vec<_> =
        listed.below.iter().map(|(l, live)| (l.directory.to_string(), l.entries.len(), live.is_live())).collect();
    assert_eq!(below, [("d/few".to_owned(), 4, true), ("d/none".to_owned(), 0, true)], "the large one is left out");
    fs::write(house.at("d/none/new"), "x").unwrap();
    loop {
        match house.next().await {
            News::Changed(Change::Name { path: told, entry: Some(_), .. }) if told == path("d/none/new") => break,
            _ => {}
        }
    }
    let plain = house.node.mover.list(&volume(), &path("d"), false).await.unwrap();
    assert!(plain.below.is_empty() && plain.listing.entries.len() == listed.listing.entries.len());
}
