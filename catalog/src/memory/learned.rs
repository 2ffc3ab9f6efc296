//! Profiles, models, forecasts.

use std::collections::BTreeMap;

use async_trait::async_trait;
use foretide_flow::{Forecast, ForecastId, Profile, Timestamp, WorkloadId};

use super::{InMemory, page};
use crate::learned::check_model;
use crate::{ForecastFilter, Learned, ModelSnapshot, Page, Result, Topic, limits};

/// What is known and expected, with the number of the row.
#[derive(Default)]
pub(super) struct Known {
    profiles: BTreeMap<WorkloadId, (u64, Profile)>,
    models: BTreeMap<String, Vec<ModelSnapshot>>,
    forecasts: BTreeMap<ForecastId, (u64, Forecast, Option<Timestamp>)>,
}

#[async_trait]
impl Learned for InMemory {
    async fn put_profile(&self, profile: &Profile) -> Result<()> {
        let mut state = self.state();
        let number = state.number();
        let profiles = &mut state.learned.profiles;
        profiles.insert(profile.workload.clone(), (number, profile.clone()));
        if profiles.len() > limits::PROFILES {
            let oldest = profiles.iter().min_by_key(|(_, p)| p.0).map(|(w, _)| w.clone());
            oldest.and_then(|w| profiles.remove(&w));
        }
        self.tell(&[Topic::Learned]);
        Ok(())
    }

    async fn profile(&self, workload: &WorkloadId) -> Result<Option<Profile>> {
        Ok(self.state().learned.profiles.get(workload).map(|p| p.1.clone()))
    }

    async fn profiles(&self, cursor: Option<u64>, limit: usize) -> Result<Page<Profile>> {
        Ok(page(self.state().learned.profiles.values().cloned(), cursor, limit))
    }

    async fn put_model(&self, name: &str, bytes: &[u8], at: Timestamp) -> Result<u64> {
        check_model(bytes)?;
        let mut state = self.state();
        let kept = state.learned.models.entry(name.to_owned()).or_default();
        let version = kept.last().map_or(1, |m| m.version + 1);
        kept.push(ModelSnapshot { name: name.to_owned(), version, at, bytes: bytes.to_vec() });
        let surplus = kept.len().saturating_sub(limits::MODEL_SNAPSHOTS);
        kept.drain(..surplus);
        Ok(version)
    }

    async fn model(&self, name: &str) -> Result<Option<ModelSnapshot>> {
        Ok(self.state().learned.models.get(name).and_then(|kept| kept.last()).cloned())
    }

    async fn put_forecasts(&self, forecasts: &[Forecast]) -> Result<()> {
        let mut state = self.state();
        for forecast in forecasts {
            let number = state.number();
            state.learned.forecasts.insert(forecast.id.clone(), (number, forecast.clone(), None));
        }
        let kept = &mut state.learned.forecasts;
        while kept.len() > limits::FORECASTS {
            let oldest = kept.iter().min_by_key(|(_, f)| f.0).map(|(id, _)| id.clone());
            oldest.and_then(|id| kept.remove(&id));
        }
        self.tell(&[Topic::Learned]);
        Ok(())
    }

    async fn withdraw_forecasts(&self, ids: &[ForecastId], at: Timestamp) -> Result<()> {
        let mut state = self.state();
        for id in ids {
            if let Some((_, _, withdrawn)) = state.learned.forecasts.get_mut(id) {
                withdrawn.get_or_insert(at);
            }
        }
        self.tell(&[Topic::Learned]);
        Ok(())
    }

    async fn forecast(&self, id: &ForecastId) -> Result<Option<Forecast>> {
        Ok(self.state().learned.forecasts.get(id).map(|f| f.1.clone()))
    }

    async fn forecasts(
        &self,
        filter: &ForecastFilter,
        with_reads: bool,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Page<Forecast>> {
        let state = self.state();
        let wanted = state.learned.forecasts.values().filter(|(_, f, withdrawn)| {
            filter.workload.as_ref().is_none_or(|w| *w == f.workload)
                && filter.site.as_ref().is_none_or(|s| *s == f.site)
                && filter.holding_at.is_none_or(|at| f.expires_at > at && withdrawn.is_none_or(|w| w > at))
        });
        let mut page = page(wanted.map(|(number, f, _)| (*number, f.clone())), cursor, limit);
        if !with_reads {
            page.items.iter_mut().for_each(|f| f.reads.clear());
        }
        Ok(page)
    }
}
