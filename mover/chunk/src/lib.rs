//! Cut, hash, store and sweep chunks.
