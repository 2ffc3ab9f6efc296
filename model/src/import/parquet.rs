//! Foretide's own access batches, as agents ship them and the lake keeps them.
//!
//! Which job a run belongs to stands in the file's metadata, which a table does not show: all runs count as of one job.

use foretide_flow::AccessOp;

use super::build::Build;
use super::source::Source;
use super::{Format, Numbers, Request, RequestOp, Trace};
use crate::error::ModelError;
use crate::lake::accesses_of_lake;

pub(super) fn is(head: &[u8]) -> bool {
    head.starts_with(b"PAR1")
}

pub(super) fn read(source: &Source) -> Result<Trace, ModelError> {
    let mut build = Build::new(source, Format::Parquet, true);
    for row in accesses_of_lake(source.path())? {
        let stream = build.stream(&row.run, "trace", row.process);
        let file = build.file(&[row.volume.as_bytes(), b"/", &row.path].concat());
        let op = match row.op {
            AccessOp::Open => RequestOp::Open,
            AccessOp::Create => RequestOp::Create,
            AccessOp::Read | AccessOp::Fault => RequestOp::Read,
            AccessOp::Close => RequestOp::Close,
        };
        build.push(Request { at_us: row.at_us, stream, file, op, offset: row.offset, length: row.length });
    }
    Ok(build.done(Numbers::Addresses))
}
