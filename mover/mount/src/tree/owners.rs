//! Whose a file is here. A source's user and group numbers mean other people at another site, unless both ask one directory
//! service: a map says who is who.

use std::collections::BTreeMap;

use foretide_flow::Entry;

use crate::config::{Config, Numbers};

/// The numbers at the source, and here. What is not named keeps its number, unless all others are given one.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    users: Map,
    groups: Map,
}

#[derive(Clone, Debug, Default)]
struct Map {
    named: BTreeMap<u32, u32>,
    others: Option<u32>,
}

impl Map {
    fn new(numbers: &Numbers) -> Self {
        Self { named: numbers.named.iter().copied().collect(), others: numbers.others }
    }

    fn here(&self, there: u32) -> u32 {
        self.named.get(&there).copied().or(self.others).unwrap_or(there)
    }
}

impl Owners {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        Self { users: Map::new(&config.users), groups: Map::new(&config.groups) }
    }

    /// User and group of an entry, as they are here.
    pub(super) fn of(&self, entry: &Entry) -> (u32, u32) {
        (self.users.here(entry.uid), self.groups.here(entry.gid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_is_mapped_and_others_are_themselves_or_one() {
        let map = |others| Map::new(&Numbers { named: vec![(1000, 5001), (0, 65534)], others });
        assert_eq!([1000, 0, 7].map(|n| map(None).here(n)), [5001, 65534, 7]);
        assert_eq!([1000, 0, 7, 5001].map(|n| map(Some(9)).here(n)), [5001, 65534, 9, 9]);
    }
}
