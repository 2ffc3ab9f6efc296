//! One suite for every catalog: stories that each must tell alike, and random calls compared with the plain model,
//! which is the catalog in memory.

mod model;
mod stores;
mod stories;
mod values;
