//! The past of one workload as a table: a row for each file, a column for each start.

use std::collections::{BTreeMap, HashMap};

use foretide_flow::{Timestamp, VolumeId};

use crate::drawn::Recognised;
use crate::history::PastUse;
use crate::run::FileKey;
use crate::shape::{Slot, shape};

/// A file as it was known at a start.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Which file.
    pub key: FileKey,
    /// Bytes.
    pub size: u64,
    /// When it was last changed.
    pub modified_at: Timestamp,
}

/// One start, past or to come.
#[derive(Clone, Debug)]
pub struct Occasion<'a> {
    /// When.
    pub at: Timestamp,
    /// Numbers and days on its command line; none if it is not known.
    pub arguments: Vec<Slot>,
    /// What there was.
    pub candidates: Vec<Candidate>,
    /// What it then read; nothing for the one to come.
    pub uses: &'a [PastUse],
    /// What order it was recognised to have read in.
    pub drawn: Option<&'a Recognised>,
}

/// A file on one occasion.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cell<'a> {
    /// Its size, if it was there.
    pub size: Option<u64>,
    /// When it was last changed.
    pub modified_at: Timestamp,
    /// What the run did with it, if it read it without having made it.
    pub used: Option<&'a PastUse>,
}

/// A file over all occasions.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Which.
    pub key: FileKey,
    /// The variable parts of its path.
    pub slots: Vec<Slot>,
    /// By occasion.
    pub cells: Vec<Cell<'a>>,
}

/// The files of one shape.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The shape.
    pub shape: String,
    /// Its files, in order of name.
    pub rows: Vec<Row<'a>>,
}

/// Groups that were read at least once, over these occasions (oldest first).
pub fn groups<'a>(occasions: &'a [Occasion<'a>]) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<(VolumeId, String), Group<'a>> = BTreeMap::new();
    let mut places: HashMap<FileKey, ((VolumeId, String), usize)> = HashMap::new();
    for (i, occasion) in occasions.iter().enumerate() {
        for candidate in &occasion.candidates {
            let cell = cell(&mut groups, &mut places, &candidate.key, occasions.len(), i);
            cell.size = Some(candidate.size);
            cell.modified_at = candidate.modified_at;
        }
        for used in occasion.uses.iter().filter(|u| u.visits > 0 && !u.created) {
            let cell = cell(&mut groups, &mut places, &used.key, occasions.len(), i);
            // What was read was there, though no listing told.
            cell.size.get_or_insert(used.size);
            cell.used = Some(used);
        }
    }
    let mut read: Vec<Group<'a>> =
        groups.into_values().filter(|g| g.rows.iter().any(|r| r.cells.iter().any(|c| c.used.is_some()))).collect();
    for group in &mut read {
        group.rows.sort_by(|a, b| a.key.cmp(&b.key));
    }
    read
}

fn cell<'t, 'a>(
    groups: &'t mut BTreeMap<(VolumeId, String), Group<'a>>,
    places: &mut HashMap<FileKey, ((VolumeId, String), usize)>,
    key: &FileKey,
    occasions: usize,
    i: usize,
) -> &'t mut Cell<'a> {
    let (group, row) = match places.get(key) {
        Some(place) => place.clone(),
        None => {
            let cut = shape(key.path.as_bytes());
            let group = (key.volume.clone(), cut.text.clone());
            let rows = &mut groups
                .entry(group.clone())
                .or_insert_with(|| Group { shape: cut.text.clone(), rows: Vec::new() })
                .rows;
            rows.push(Row { key: key.clone(), slots: cut.slots, cells: vec![Cell::default(); occasions] });
            places.insert(key.clone(), (group.clone(), rows.len() - 1));
            (group, rows.len() - 1)
        }
    };
    &mut groups.get_mut(&group).expect("a place names a group that is there").rows[row].cells[i]
}
