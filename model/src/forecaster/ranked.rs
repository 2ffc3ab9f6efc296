//! The learned one: a forest that ranks the files there are by how probably the next run reads them.
//!
//! Trained per workload on its past runs (see [`crate::train`]). It is asked only where, trained on all but the
//! newest run, it told that newest run better than the plain rules did; else it is silent.

use super::recurrence::claims;
use super::{Claim, Forecaster, View};

/// See the module.
pub struct Ranked;

impl Forecaster for Ranked {
    fn name(&self) -> &'static str {
        "ranked"
    }

    fn claim(&self, view: &View<'_>) -> Vec<Claim> {
        view.ranked.map(|o| claims(view, o)).unwrap_or_default()
    }
}
