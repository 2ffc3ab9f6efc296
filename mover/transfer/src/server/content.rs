//! A file version that is being sent: read from the source, or passed on from the cache.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use foretide_chunk::{ChunkMap, DomainKey};
use foretide_flow::{FilePath, Priority};

use super::answer::Answer;
use super::volume::{Cut, Volume};
use crate::TransferError;
use crate::message::Failure;
use crate::mover::Passage;

#[derive(Clone)]
pub(super) enum Content {
    /// A file of a volume whose source is here.
    Source { volume: Arc<Volume>, path: FilePath, cut: Cut },
    /// What the cache holds, or fetches for the asker.
    Passed(Arc<Passage>),
}

/// A giver says why it has not got something in its log: the asker goes on to the source, whose word counts.
impl From<TransferError> for Failure {
    fn from(failure: TransferError) -> Self {
        tracing::debug!(error = %failure, "not passed on");
        Self::NotHeld
    }
}

impl Content {
    pub(super) fn map(&self) -> &Arc<ChunkMap> {
        match self {
            Self::Source { cut, .. } => &cut.map,
            Self::Passed(passage) => passage.map(),
        }
    }

    /// What the chunks of this domain are named with.
    pub(super) fn domain(&self) -> &DomainKey {
        match self {
            Self::Source { volume, .. } => volume.key(),
            Self::Passed(passage) => passage.domain(),
        }
    }

    /// Ranges of whole chunks, for an answer.
    pub(super) async fn bytes(&self, answer: &Answer, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, Failure> {
        match self {
            Self::Source { cut: Cut { bytes: Some(whole), .. }, .. } => {
                Ok(ranges.into_iter().map(|range| whole.slice(range.start as usize..range.end as usize)).collect())
            }
            Self::Source { volume, path, cut } => {
                let (volume, path, map) = (volume.clone(), path.clone(), cut.map.clone());
                Ok(answer.blocking(move || volume.read(&path, &map, &ranges)).await??)
            }
            Self::Passed(passage) => {
                let mut all = Vec::with_capacity(ranges.len());
                for range in ranges {
                    all.push(passed(passage, answer, range).await?);
                }
                Ok(all)
            }
        }
    }
}

/// Waits for bytes that are on their way here; who raises the answer raises what brings them.
async fn passed(passage: &Passage, answer: &Answer, range: Range<u64>) -> Result<Bytes, Failure> {
    if answer.urgency.now() == Priority::Demand {
        passage.raise();
    }
    let bytes = passage.bytes(range);
    tokio::pin!(bytes);
    let bytes = tokio::select! {
        bytes = &mut bytes => bytes,
        () = answer.urgency.raised() => {
            passage.raise();
            bytes.await
        }
    };
    Ok(bytes?)
}
