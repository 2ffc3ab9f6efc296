//! Real mounts on a real /dev/fuse. Each test's name is the sentence that it proves; docs/SEMANTICS.md cites them.

mod documented;
mod errors;
mod failures;
mod observed;
mod reading;
mod reference;
mod rig;
mod semantics;
mod source;
mod whole_way;
