//! What a caller sees. A volume whose tag `tenant` names one is that tenant's; a token made for a tenant sees the volumes of
//! its tenant and those that nobody owns, and of everything else only what is about them. What it does not see is not
//! there for it: it is never told apart from what nobody has.
//!
//! Sites, links and their counters are shared and seen by all. What can only be told of all tenants together (metrics, a
//! replay of what was recorded) is not for a tenant's token.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use foretide_catalog::Event;
use foretide_flow::{Plan, Topology, VolumeId, Warmup, WarmupId};

use crate::Api;
use crate::auth::Caller;
use crate::error::ApiError;

/// The tag of a volume that names its tenant.
const OWNER: &str = "tenant";

/// What one caller sees at one moment.
#[derive(Clone)]
pub(crate) struct Sight {
    /// None sees everything.
    tenant: Option<String>,
    topology: Arc<Topology>,
}

impl Sight {
    pub(crate) fn of(api: &Api, tenant: Option<String>) -> Self {
        let whole = api.directory.topology();
        let Some(own) = &tenant else { return Self { tenant, topology: whole } };
        let mut narrowed = Topology::clone(&whole);
        narrowed.volumes.retain(|_, volume| volume.tags.get(OWNER).is_none_or(|owner| owner == own));
        Self { topology: Arc::new(narrowed), tenant }
    }

    /// Sites, links, and the volumes that are seen.
    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Whether the caller is a tenant's.
    pub(crate) fn is_narrow(&self) -> bool {
        self.tenant.is_some()
    }

    /// Whether a volume, which may be gone from the topology, is seen.
    pub(crate) fn sees(&self, volume: &VolumeId) -> bool {
        self.tenant.is_none() || self.topology.volumes.contains_key(volume)
    }

    /// Refuses what can only be told of all tenants together.
    pub(crate) fn whole(&self) -> Result<(), ApiError> {
        match &self.tenant {
            None => Ok(()),
            Some(own) => Err(ApiError::NotYours(format!(
                "this tells of all tenants together, and the token given is tenant {own:?}'s"
            ))),
        }
    }

    /// What of a plan is seen.
    pub(crate) fn of_plan(&self, mut plan: Plan) -> Plan {
        if self.is_narrow() {
            plan.moves.retain(|m| self.sees(&m.volume));
            plan.refused.retain(|r| self.sees(&r.volume));
            plan.left_out.retain(|l| self.sees(&l.volume));
        }
        plan
    }

    /// A warm-up that was looked up, if it is seen.
    pub(crate) fn of_warmup(&self, found: Option<Warmup>, id: &WarmupId) -> Result<Warmup, ApiError> {
        found.filter(|w| self.sees(&w.request.volume)).ok_or_else(|| ApiError::not_found("warm-up", id))
    }

    /// Whether an event is seen: of those that are about data, what is about data that is seen.
    pub(crate) fn sees_event(&self, event: &Event) -> bool {
        let volume = |value: &serde_json::Value| {
            let name = value.as_str().and_then(|name| VolumeId::new(name).ok());
            name.is_some_and(|volume| self.sees(&volume))
        };
        match event.kind.as_str() {
            _ if !self.is_narrow() => true,
            "warmup" => volume(&event.body["request"]["volume"]),
            "refusal" => volume(&event.body["volume"]),
            "switch" | "mode" => true,
            // Counts over all tenants.
            _ => false,
        }
    }
}

/// The caller's, who was found good before the handler is called.
impl FromRequestParts<Api> for Sight {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>().ok_or(ApiError::NoToken)?;
        Ok(Self::of(api, caller.tenant.clone()))
    }
}
