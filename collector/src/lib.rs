//! From kernel events to accesses.
