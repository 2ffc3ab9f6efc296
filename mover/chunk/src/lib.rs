//! Cut, hash, store and sweep chunks: synchronous, to be called from threads that may block.
//!
//! A file version is cut where its content says ([`Cutter`]), so that an insertion moves no boundary but its own;
//! each chunk is named by a digest keyed with its dedup domain's key ([`DomainKey`]), and the list of names is the
//! file's [`Manifest`](foretide_flow::Manifest). A source keeps no chunks: they are ranges of its files. A cache
//! site keeps them in a [`Store`]. Of a chunk that changed a little only the difference need cross a link
//! ([`Signature`], [`delta`]).

mod cut;
mod delta;
mod digest;
pub mod encoding;
mod gear;
mod manifest;
mod map;
mod store;

pub use cut::{CutConfig, CutError, Cutter};
pub use delta::{Signature, apply, delta};
pub use digest::DomainKey;
pub use manifest::{
    ManifestError, decode_difference, decode_manifest, encode_difference, encode_manifest, manifest_of,
};
pub use map::ChunkMap;
pub use store::{
    Arrival, Candidate, Census, CheckReport, Claim, Config, Disk, EpochAware, Evicted, EvictionPolicy, Expelled,
    FileKey, Fill, Lost, Rank, ReadNote, RealDisk, Resident, Store, StoreError, Subset, WholeFile,
};
