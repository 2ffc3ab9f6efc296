//! What a batch of outcomes touches: read at once, changed in memory, written at once.
//!
//! A batch tells of thousands of moves and reads. A statement for each would cost more than all the rest of a round of
//! the control plane, so the rows that the batch names are looked up some hundreds at a time ([`Tx::touched`]), the
//! outcomes are applied to them in order ([`Touched`], which touches nothing), and what differs is written the same way
//! ([`Tx::write_touched`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foretide_flow::{FilePath, Move, MoveId, MoveState, Outcome, OutcomeBatch, SiteId, Timestamp, VolumeId, WarmupId};

use super::engine::{Row, Tx, VALUES_PER_IN, damaged};
use super::from_json;
use super::namespace::{path_of, volume_of};
use super::plans::{state_of, warmup_of};
use super::text::{Arg, Statement, args, count};
use super::words::move_state_number;
use crate::extents::{self, Ranges};
use crate::progress::{MoveEnd, move_ended};
use crate::{ResidentFile, Result};

/// A file as rows name it.
type Place = (VolumeId, FilePath);

/// A move that a batch names.
struct Known {
    state: MoveState,
    mv: Move,
}

/// How a move ended.
struct End {
    state: MoveState,
    at: Timestamp,
    wire_bytes: Option<u64>,
    why: Option<String>,
}

/// What is resident of a file: as stored, then as changed.
#[derive(Default)]
struct Residency {
    stored: Ranges,
    now: Ranges,
}

/// The rows that a batch names, and what becomes of them.
#[derive(Default)]
pub(super) struct Touched {
    moves: HashMap<MoveId, Known>,
    ended: BTreeMap<MoveId, End>,
    resident: BTreeMap<Place, Residency>,
    /// Sizes of files that were read, where they are known.
    sizes: HashMap<Place, u64>,
    /// How moves for warm-ups ended, in their order.
    pub(super) ended_for: BTreeMap<WarmupId, Vec<MoveEnd>>,
}

fn ranges_of(bytes: &[u8]) -> Option<Ranges> {
    let number = |b: &[u8]| b.try_into().ok().map(u64::from_le_bytes);
    let pair = |b: &[u8]| Some((number(b.get(..8)?)?, number(b.get(8..)?)?));
    bytes.chunks(16).map(|b| pair(b).filter(|(start, end)| start < end)).collect()
}

fn ranges_to_bytes(ranges: &Ranges) -> Vec<u8> {
    ranges.iter().flat_map(|(start, end)| [start.to_le_bytes(), end.to_le_bytes()].concat()).collect()
}

/// A file's residency from its volume, path and ranges, the first of these columns at `column`.
pub(super) fn resident_file(row: &Row, column: usize) -> Result<ResidentFile> {
    let (volume, path) = (volume_of(row, column)?, path_of(row, column + 1)?);
    let ranges = ranges_of(&row.blob(column + 2)?);
    let ranges = ranges.ok_or_else(|| damaged("residency of", &path, "its ranges are no pairs of numbers"))?;
    Ok(ResidentFile { volume, path, ranges })
}

impl Touched {
    /// A move brought its bytes.
    pub(super) fn arrived(&mut self, id: &MoveId, at: Timestamp, wire_bytes: u64) {
        if !self.end(id, at, Ok(wire_bytes)) {
            return;
        }
        let Some(Known { mv, .. }) = self.moves.get(id) else { return };
        let place = (mv.volume.clone(), mv.path.clone());
        extents::add(&mut self.resident.entry(place).or_default().now, mv.offset, mv.offset.saturating_add(mv.length));
        if let Some(warmup) = warmup_of(&mv.cause) {
            let end = MoveEnd::Arrived { bytes: mv.length, wire_bytes };
            self.ended_for.entry(warmup.into()).or_default().push(end);
        }
    }

    /// A move failed.
    pub(super) fn failed(&mut self, id: &MoveId, at: Timestamp, why: &str) {
        if !self.end(id, at, Err(why)) {
            return;
        }
        if let Some(Known { mv, .. }) = self.moves.get(id)
            && let Some(warmup) = warmup_of(&mv.cause)
        {
            let end = MoveEnd::Failed { why: why.to_owned(), path: mv.path.clone(), at };
            self.ended_for.entry(warmup.into()).or_default().push(end);
        }
    }

    fn end(&mut self, id: &MoveId, at: Timestamp, end: std::result::Result<u64, &str>) -> bool {
        let Some(known) = self.moves.get_mut(id) else { return false };
        let Some(state) = move_ended(known.state, end.is_ok()) else { return false };
        known.state = state;
        let end = End { state, at, wire_bytes: end.ok(), why: end.err().map(str::to_owned) };
        self.ended.insert(id.clone(), end);
        true
    }

    /// A read of a whole file makes it resident.
    pub(super) fn read(&mut self, volume: &VolumeId, path: &FilePath, bytes: u64) {
        let place = (volume.clone(), path.clone());
        if self.sizes.get(&place).is_some_and(|size| bytes >= *size) {
            extents::add(&mut self.resident.entry(place).or_default().now, 0, bytes);
        }
    }

    /// A file left.
    pub(super) fn evicted(&mut self, volume: &VolumeId, path: &FilePath) {
        self.resident.entry((volume.clone(), path.clone())).or_default().now.clear();
    }

    /// Files whose residency is another than was stored, as it is now, in order of volume and path.
    pub(super) fn changed_residency(&self) -> Vec<ResidentFile> {
        let changed = self.resident.iter().filter(|(_, r)| r.stored != r.now);
        changed
            .map(|((volume, path), r)| ResidentFile {
                volume: volume.clone(),
                path: path.clone(),
                ranges: r.now.clone(),
            })
            .collect()
    }
}

impl Tx {
    /// Looks up what a batch names.
    pub(super) async fn touched(&mut self, batch: &OutcomeBatch) -> Result<Touched> {
        let mut touched = Touched::default();
        let ids = batch.outcomes.iter().filter_map(|o| match o {
            Outcome::Moved { id, .. } | Outcome::Failed { id, .. } => Some(Arg::from(id.as_str())),
            _ => None,
        });
        let ids: Vec<_> = ids.collect();
        let select = "SELECT state, body FROM moves WHERE to_site = ? AND id";
        for row in self.rows_in(select, &[batch.site.as_str().into()], &ids).await? {
            let (state, mv) = (state_of(&row, 0)?, from_json::<Move>("move", &row.text(1)?)?);
            touched.moves.insert(mv.id.clone(), Known { state, mv });
        }
        self.look_up_sizes(batch, &mut touched).await?;
        self.look_up_residency(batch, &mut touched).await?;
        Ok(touched)
    }

    async fn look_up_sizes(&mut self, batch: &OutcomeBatch, touched: &mut Touched) -> Result<()> {
        let mut read: BTreeMap<(&VolumeId, FilePath), BTreeSet<&[u8]>> = BTreeMap::new();
        for outcome in &batch.outcomes {
            if let Outcome::Read { volume, path, bytes: 1.., .. } = outcome
                && let Some(directory) = path.parent()
            {
                read.entry((volume, directory)).or_default().insert(path.name());
            }
        }
        let select = "SELECT f.name, f.size FROM directories d JOIN files f ON f.directory = d.id
            WHERE d.volume = ? AND d.path = ? AND f.name";
        for ((volume, directory), names) in read {
            let names: Vec<_> = names.into_iter().map(Arg::from).collect();
            for row in self.rows_in(select, args![volume.as_str(), &directory], &names).await? {
                let name = row.blob(0)?;
                let path = directory.join(&name).map_err(|e| damaged("name in", &directory, e))?;
                touched.sizes.insert((volume.clone(), path), row.count(1)?);
            }
        }
        Ok(())
    }

    async fn look_up_residency(&mut self, batch: &OutcomeBatch, touched: &mut Touched) -> Result<()> {
        let mut named: BTreeMap<&VolumeId, BTreeSet<&FilePath>> = BTreeMap::new();
        for outcome in &batch.outcomes {
            let place = match outcome {
                Outcome::Moved { id, .. } => touched.moves.get(id).map(|k| (&k.mv.volume, &k.mv.path)),
                Outcome::Read { volume, path, .. } | Outcome::Evicted { volume, path, .. } => Some((volume, path)),
                Outcome::Failed { .. } | Outcome::Refused(_) => None,
            };
            if let Some((volume, path)) = place {
                named.entry(volume).or_default().insert(path);
            }
        }
        let select = "SELECT volume, path, ranges FROM resident WHERE site = ? AND volume = ? AND path";
        let mut found = Vec::new();
        for (volume, paths) in named {
            let paths: Vec<_> = paths.into_iter().map(Arg::from).collect();
            found.extend(self.rows_in(select, args![batch.site.as_str(), volume.as_str()], &paths).await?);
        }
        for row in &found {
            let ResidentFile { volume, path, ranges } = resident_file(row, 0)?;
            touched.resident.insert((volume, path), Residency { stored: ranges.clone(), now: ranges });
        }
        Ok(())
    }

    /// Writes what differs.
    pub(super) async fn write_touched(
        &mut self,
        site: &SiteId,
        recorded_at: Timestamp,
        touched: &Touched,
    ) -> Result<()> {
        let ended = touched.ended.iter().map(|(id, end)| {
            vec![
                Arg::from(id.as_str()),
                move_state_number(end.state).into(),
                end.at.into(),
                recorded_at.into(),
                end.wire_bytes.map_or(Arg::Int(None), count),
                end.why.as_deref().into(),
            ]
        });
        self.run_rows(
            "WITH ended (id, state, at, recorded_at, wire_bytes, why) AS (VALUES ",
            &ended.collect::<Vec<_>>(),
            ") UPDATE moves SET state = e.state, ended_at = e.at, end_recorded_at = e.recorded_at,
            wire_bytes = e.wire_bytes, why = e.why FROM ended e WHERE moves.id = e.id",
        )
        .await?;
        let changed: Vec<_> = touched.resident.iter().filter(|(_, r)| r.stored != r.now).collect();
        let blobs: Vec<_> = changed.iter().map(|(_, r)| ranges_to_bytes(&r.now)).collect();
        let mut kept = Vec::new();
        let mut gone: BTreeMap<&VolumeId, Vec<Arg<'_>>> = BTreeMap::new();
        for (((volume, path), residency), blob) in changed.iter().zip(&blobs) {
            if residency.now.is_empty() {
                gone.entry(volume).or_default().push(path.into());
            } else {
                kept.push(vec![site.as_str().into(), volume.as_str().into(), path.into(), blob.into()]);
            }
        }
        self.run_rows(
            "INSERT INTO resident (site, volume, path, ranges) VALUES ",
            &kept,
            " ON CONFLICT (site, volume, path) DO UPDATE SET ranges = excluded.ranges",
        )
        .await?;
        for (volume, paths) in gone {
            for some in paths.chunks(VALUES_PER_IN) {
                let mut delete = Statement::new("DELETE FROM resident");
                delete.add(" WHERE site = ? AND volume = ? AND path", args![site.as_str(), volume.as_str()]);
                self.perform(delete.add_in("", some)).await?;
            }
        }
        Ok(())
    }
}
