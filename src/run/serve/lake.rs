//! The lake: every access batch as the agent sent it, one Parquet file each, so that a model can be trained again.
//!
//! A batch is acknowledged once its file and its record in the catalog are durable (promise E), and told to the
//! ring after that. The oldest files go when the lake is full (promise K).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use foretide_api::{Accepted, AccessSink, Rejected};
use foretide_catalog::Catalog;
use foretide_flow::{AccessBatch, NodeId, Timestamp};
use tokio::sync::mpsc;

use super::ring::News;

/// Bytes of the lake. A busy node writes about 30 bytes an access, so this is some hundreds of millions of them.
pub const LAKE_MAX_BYTES: u64 = 16 << 30;
/// How often the bound is looked at, in batches: the lake may exceed it by so many.
const BATCHES_BETWEEN_SWEEPS: u64 = 256;

/// Where batches are kept.
pub struct Lake {
    root: PathBuf,
    catalog: Arc<dyn Catalog>,
    ring: mpsc::Sender<News>,
}

impl Lake {
    /// A lake in the folder `root`, which is made.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(root: PathBuf, catalog: Arc<dyn Catalog>, ring: mpsc::Sender<News>) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        Ok(Self { root, catalog, ring })
    }
}

#[async_trait]
impl AccessSink for Lake {
    async fn accept(&self, node: &NodeId, parquet: bytes::Bytes) -> Result<Accepted, Rejected> {
        let batch = foretide_collector::parquet::decode(&parquet)
            .map_err(|e| Rejected::Unusable { node: node.clone(), why: e.to_string() })?;
        if &batch.node != node {
            return Err(Rejected::OtherNode { sent_by: node.clone(), says: batch.node });
        }
        let try_again = |e: &dyn std::fmt::Display| Rejected::TryAgain(e.to_string());
        let name = file_name(&batch);
        let (root, target) = (self.root.clone(), self.root.join(&name));
        let sweep = batch.sequence % BATCHES_BETWEEN_SWEEPS == 0;
        tokio::task::spawn_blocking(move || {
            write_durably(&target, &parquet)?;
            if sweep { drop_oldest(&root, LAKE_MAX_BYTES) } else { Ok(()) }
        })
        .await
        .map_err(|e| try_again(&e))?
        .map_err(|e| try_again(&e))?;
        let recorded = self.catalog.record_batch(&batch, &name, Timestamp::now()).await.map_err(|e| try_again(&e))?;
        let accepted = Accepted { sequence: batch.sequence, accesses: batch.accesses.len() as u64, new: recorded.new };
        if recorded.new {
            // The ring is behind by its whole queue only if it died, and then the process ends.
            self.ring.send(News::Accesses(batch)).await.map_err(|e| try_again(&e))?;
        }
        Ok(accepted)
    }
}

fn file_name(batch: &AccessBatch) -> String {
    format!("{}-{:012}.parquet", batch.node, batch.sequence)
}

/// A file is there whole or not at all, also after a power loss.
fn write_durably(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = target.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, target)?;
    target.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn drop_oldest(root: &Path, max_bytes: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let about = entry.metadata()?;
        files.push((about.modified()?, about.len(), entry.path()));
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, path) in files {
        if total <= max_bytes {
            break;
        }
        fs::remove_file(&path)?;
        total -= bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_the_lake_is_full_promise_k() {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..5u64 {
            let path = folder.path().join(format!("n-{i}.parquet"));
            write_durably(&path, &[0; 1000]).unwrap();
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + i);
            File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        }
        drop_oldest(folder.path(), 2500).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["n-3.parquet", "n-4.parquet"]);
    }
}
