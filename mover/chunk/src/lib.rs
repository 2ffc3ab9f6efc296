//! Cut, hash, store and sweep chunks: synchronous, to be called from threads that may block.

mod store;

pub use store::{
    Arrival, Census, CheckReport, Config, Evicted, FileKey, Fill, ReadNote, Resident, Store, StoreError, Subset,
    WholeFile,
};
