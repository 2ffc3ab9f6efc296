//! Schemas of the values that are text on the wire: what each text may be, said once, beside the values.
//!
//! The other values derive theirs. Built only with the feature `openapi`, so that nothing but the API pays for it.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::{
    ChunkId, FilePath, FileVersion, ForecastId, ManifestId, MoveId, NodeId, PlanId, RunId, SiteId, VolumeId, WarmupId,
    WorkloadId,
};

/// What a name chosen by people may be: see [`crate::IdError::Name`].
const NAME: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";
/// 32 bytes in hexadecimal.
const DIGEST: &str = "^[0-9a-fA-F]{64}$";

fn text(description: &str, pattern: Option<&str>, max_bytes: Option<usize>) -> RefOr<Schema> {
    let object: Object = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .pattern(pattern)
        .max_length(max_bytes)
        .build();
    RefOr::T(Schema::Object(object))
}

macro_rules! text_schema {
    ($($name:ident: $description:literal, $pattern:expr, $max_bytes:expr;)*) => {
        $(
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    text($description, $pattern, $max_bytes)
                }
            }
            impl ToSchema for $name {
                fn name() -> Cow<'static, str> {
                    Cow::Borrowed(stringify!($name))
                }
            }
        )*
    };
}

text_schema! {
    SiteId: "A place with storage or accelerators.", Some(NAME), None;
    NodeId: "One machine at a site that runs an agent.", Some(NAME), None;
    VolumeId: "A tree of files with one source of truth.", Some(NAME), None;
    WorkloadId: "A workload: what comes back.", None, None;
    RunId: "One run of a workload.", None, None;
    ForecastId: "One forecast.", None, None;
    PlanId: "One plan.", None, None;
    MoveId: "One move; stable over plans.", None, None;
    WarmupId: "One warm-up request.", None, None;
    ChunkId: "A chunk: keyed BLAKE3 of its bytes.", Some(DIGEST), None;
    ManifestId: "A manifest: keyed BLAKE3 of its encoding.", Some(DIGEST), None;
    FileVersion: "What the source says of a file's version; equal means the same bytes.", None, None;
    FilePath: "A path relative to its volume's root: no leading '/', no empty, '.' or '..' component; empty is the \
               root. A byte that is no printable UTF-8, and '%', is written %XX.", None, Some(3 * FilePath::MAX_BYTES);
}
