//! Which chunks stand in several files.
//!
//! A file's chunks are one blob, told and replaced together. They are numbered as they are told, so that the bound on all of
//! them is one comparison: what lies further back than it is forgotten, whether it was replaced since or not.

use foretide_flow::{FileVersion, Listing, SharedFile, VolumeId};

use super::engine::{Row, Tx, damaged};
use super::namespace::{path_of, volume_of};
use super::text::{Arg, Statement, Subtree, args};
use crate::codec::{decode_shared, encode_shared};
use crate::{Result, SharedRecord, limits};

/// The list of which each chunk takes a number.
const TOLD: &str = "shared";

/// A record from the columns number, volume, directory, name, version, chunks.
pub(super) fn shared_record(row: &Row) -> Result<SharedRecord> {
    let (volume, directory) = (volume_of(row, 1)?, path_of(row, 2)?);
    let path = directory.join(&row.blob(3)?).map_err(|e| damaged("name in", &directory, e))?;
    let chunks = decode_shared(&row.blob(5)?).map_err(|e| damaged("shared chunks of", &path, e))?;
    let version = FileVersion(row.text(4)?.into());
    Ok(SharedRecord { id: row.count(0)?, file: SharedFile { volume, path, version, chunks } })
}

impl Tx {
    pub(super) async fn put_shared(&mut self, file: &SharedFile) -> Result<()> {
        let directory = file.path.parent().unwrap_or_default();
        let place = [file.volume.as_str().into(), Arg::from(&directory), file.path.name().into()];
        let Some(last) = file.chunks.len().checked_sub(1) else {
            let sql = "DELETE FROM shared WHERE volume = $1 AND directory = $2 AND name = $3";
            return self.run(sql, &place).await.map(drop);
        };
        let number = self.take_numbers(TOLD, file.chunks.len()).await? + last as i64;
        let sql =
            "INSERT INTO shared (volume, directory, name, version, number, chunks) VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (volume, directory, name) DO UPDATE SET version = excluded.version, number = excluded.number,
            chunks = excluded.chunks";
        let chunks = encode_shared(&file.chunks);
        let [volume, directory, name] = place;
        self.run(sql, &[volume, directory, name, file.version.0.as_ref().into(), number.into(), (&chunks).into()])
            .await?;
        let forgotten = number - limits::SHARED_CHUNKS as i64;
        self.run("DELETE FROM shared WHERE number <= $1", args![forgotten]).await.map(drop)
    }

    /// Of files that a directory, numbered `id` and just written, has no longer or in another version.
    pub(super) async fn forget_shared_of_others(&mut self, id: i64, listing: &Listing) -> Result<()> {
        let sql = "DELETE FROM shared WHERE volume = $1 AND directory = $2 AND NOT EXISTS (SELECT 1 FROM files f
            WHERE f.directory = $3 AND f.name = shared.name AND f.version = shared.version)";
        self.run(sql, args![listing.volume.as_str(), &listing.directory, id]).await.map(drop)
    }

    /// Of all files in a subtree.
    pub(super) async fn forget_shared_below(&mut self, volume: &VolumeId, subtree: &Subtree) -> Result<()> {
        let mut delete = Statement::new("DELETE FROM shared");
        delete.add(" WHERE volume = ?", &[volume.as_str().into()]);
        subtree.add_to("directory", &mut delete);
        self.perform(&delete).await.map(drop)
    }
}
