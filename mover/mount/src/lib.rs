//! The read-only namespace at a GPU site.
