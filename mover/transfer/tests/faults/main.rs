//! Links that break and processes that die: right bytes or a clear error, every time.
//!
//! Each test prints how many faults it tried. Seeds are fixed; a seed that once failed stays in its list.

mod killed;
mod link;
#[allow(dead_code, reason = "each of the test programs uses a part")]
#[path = "../rig/mod.rs"]
mod rig;

use std::path::Path;
use std::sync::Arc;

use foretide_chunk::Store;
use foretide_flow::Move;
use foretide_transfer::{ClientConfig, Server, ServerConfig, Token};

use rig::{Node, TOKEN, a_move, hasty, identity, local, loopback, no_borders, noise, serve_with, volume, with_client};

async fn serve(folder: &Path, listen: &str) -> Server {
    let config = ServerConfig { listen: listen.parse().unwrap(), ..loopback() };
    serve_with(config, Token::new(TOKEN), vec![(volume(), local(folder))], no_borders()).await
}

/// With patience for a link that fails, and none with one that falls silent.
fn node(store: Arc<Store>, address: &str) -> Node {
    let client = ClientConfig { patience_s: 5, silence_limit_s: 1, ..hasty() };
    Node::start(address, identity("gpu", "n1"), store, with_client(client), Token::new(TOKEN), no_borders())
}

fn moves(files: &[(String, u64)]) -> Vec<Move> {
    files.iter().map(|(name, length)| a_move(name, *length)).collect()
}
