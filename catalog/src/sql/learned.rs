//! Profiles, models, forecasts.

use async_trait::async_trait;
use foretide_flow::{Forecast, ForecastId, PredictedRead, Profile, SiteId, Timestamp, WorkloadId};

use super::engine::{Row, Tx, damaged};
use super::text::{Statement, args};
use super::{SqlCatalog, before, from_json, one_more, page, to_json};
use crate::codec::{decode, encode};
use crate::learned::check_model;
use crate::{ForecastFilter, Learned, ModelSnapshot, Page, Result, Topic, limits};

impl Tx {
    async fn put_forecast(&mut self, forecast: &Forecast) -> Result<()> {
        let number = self.take_numbers("forecasts", 1).await?;
        let head = to_json(&Forecast { reads: Vec::new(), ..forecast.clone() });
        let reads = encode(&forecast.reads);
        let sql = "INSERT INTO forecasts (id, number, workload, site, expires_at, head, reads)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (id) DO UPDATE SET number = excluded.number, workload = excluded.workload, site = excluded.site,
            expires_at = excluded.expires_at, withdrawn_at = NULL, head = excluded.head, reads = excluded.reads";
        let (id, workload, site) = (forecast.id.as_str(), forecast.workload.as_str(), forecast.site.as_str());
        self.run(sql, args![id, number, workload, site, forecast.expires_at, &head, &reads]).await?;
        self.prune("forecasts", "number", number, 1, limits::FORECASTS).await
    }
}

/// A forecast from its head, and its reads where they were asked for.
fn forecast_of(head: &Row, column: usize, reads: Option<Vec<u8>>) -> Result<Forecast> {
    let mut forecast: Forecast = from_json("forecast", &head.text(column)?)?;
    if let Some(bytes) = reads {
        forecast.reads = decode::<Vec<PredictedRead>>(&bytes).map_err(|e| damaged("forecast", &forecast.id, e))?;
    }
    Ok(forecast)
}

#[async_trait]
impl Learned for SqlCatalog {
    async fn put_profile(&self, profile: &Profile) -> Result<()> {
        let mut tx = self.engine.write().await?;
        let number = tx.take_numbers("profiles", 1).await?;
        let sql = "INSERT INTO profiles (workload, number, body) VALUES ($1, $2, $3)
            ON CONFLICT (workload) DO UPDATE SET number = excluded.number, body = excluded.body";
        tx.run(sql, args![profile.workload.as_str(), number, &to_json(profile)]).await?;
        tx.prune("profiles", "number", number, 1, limits::PROFILES).await?;
        self.commit(tx, &[Topic::Learned]).await
    }

    async fn profile(&self, workload: &WorkloadId) -> Result<Option<Profile>> {
        let row = self.engine.row("SELECT body FROM profiles WHERE workload = $1", args![workload.as_str()]).await?;
        row.map(|row| from_json("profile", &row.text(0)?)).transpose()
    }

    async fn profiles(&self, cursor: Option<u64>, limit: usize) -> Result<Page<Profile>> {
        let sql = "SELECT number, body FROM profiles WHERE number < $1 ORDER BY number DESC LIMIT $2";
        let rows = self.engine.rows(sql, args![before(cursor), one_more(limit)]).await?;
        page(rows, limit, |row| from_json("profile", &row.text(1)?))
    }

    async fn put_model(&self, name: &str, bytes: &[u8], at: Timestamp) -> Result<u64> {
        check_model(bytes)?;
        let mut tx = self.engine.write().await?;
        let version = tx.take_numbers(&format!("model {name}"), 1).await?;
        let digest = blake3::hash(bytes);
        let sql = "INSERT INTO models (name, version, at, digest, bytes) VALUES ($1, $2, $3, $4, $5)";
        tx.run(sql, args![name, version, at, digest.as_bytes().as_slice(), bytes]).await?;
        let sql = "DELETE FROM models WHERE name = $1 AND version <= $2";
        tx.run(sql, args![name, version - limits::MODEL_SNAPSHOTS as i64]).await?;
        self.commit(tx, &[]).await?;
        Ok(version as u64)
    }

    async fn model(&self, name: &str) -> Result<Option<ModelSnapshot>> {
        let sql = "SELECT version, at, digest, bytes FROM models WHERE name = $1 ORDER BY version DESC";
        for row in self.engine.rows(sql, args![name]).await? {
            let (version, bytes) = (row.count(0)?, row.blob(3)?);
            if blake3::hash(&bytes).as_bytes().as_slice() == row.blob(2)? {
                return Ok(Some(ModelSnapshot { name: name.to_owned(), version, at: Timestamp(row.int(1)?), bytes }));
            }
            tracing::warn!(
                model = name,
                version,
                "a snapshot is damaged and was passed over: its digest does not hold"
            );
        }
        Ok(None)
    }

    async fn put_forecasts(&self, forecasts: &[Forecast]) -> Result<()> {
        let mut tx = self.engine.write().await?;
        tx.hold("forecasts").await?;
        for forecast in forecasts {
            tx.put_forecast(forecast).await?;
        }
        self.commit(tx, &[Topic::Learned]).await
    }

    async fn withdraw_forecasts(&self, ids: &[ForecastId], at: Timestamp) -> Result<()> {
        let mut tx = self.engine.write().await?;
        tx.hold("forecasts").await?;
        for id in ids {
            let sql = "UPDATE forecasts SET withdrawn_at = $2 WHERE id = $1 AND withdrawn_at IS NULL";
            tx.run(sql, args![id.as_str(), at]).await?;
        }
        self.commit(tx, &[Topic::Learned]).await
    }

    async fn forecast(&self, id: &ForecastId) -> Result<Option<Forecast>> {
        let row = self.engine.row("SELECT head, reads FROM forecasts WHERE id = $1", args![id.as_str()]).await?;
        row.map(|row| forecast_of(&row, 0, Some(row.blob(1)?))).transpose()
    }

    async fn forecasts(
        &self,
        filter: &ForecastFilter,
        with_reads: bool,
        cursor: Option<u64>,
        limit: usize,
    ) -> Result<Page<Forecast>> {
        let columns = if with_reads { "number, head, reads" } else { "number, head" };
        let mut wanted = Statement::new(&format!("SELECT {columns} FROM forecasts"));
        wanted.add(" WHERE number < ?", &[before(cursor).into()]);
        wanted.add_if(" AND workload = ?", filter.workload.as_ref().map(WorkloadId::as_str));
        wanted.add_if(" AND site = ?", filter.site.as_ref().map(SiteId::as_str));
        wanted.add_if(" AND expires_at > ?", filter.holding_at);
        wanted.add_if(" AND (withdrawn_at IS NULL OR withdrawn_at > ?)", filter.holding_at);
        wanted.add(" ORDER BY number DESC LIMIT ?", &[one_more(limit).into()]);
        let reads = |row: &Row| if with_reads { row.blob(2).map(Some) } else { Ok(None) };
        page(self.engine.ask(&wanted).await?, limit, |row| forecast_of(row, 1, reads(row)?))
    }
}
