//! Which files of a volume somebody means: made by who asks, taken by who counts and by who moves, so that both mean the
//! same (promise C).

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::FilePath;

/// A glob that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{glob:?} is no glob: {why}")]
pub struct SelectorError {
    /// As written.
    pub glob: String,
    /// The parser's word.
    pub why: String,
}

/// Files below some paths, not below others, whose path matches a glob.
///
/// Of the paths that are named on the way from a file to the root, the nearest decides. A `*` of a glob does not cross
/// folders, `**` does.
#[derive(Clone, Debug)]
pub struct Selector {
    named: BTreeMap<FilePath, bool>,
    globs: Option<GlobSet>,
}

impl Selector {
    /// Files below `paths` and not below `except`, of those that match one of `globs`; of all, if there is none.
    ///
    /// # Errors
    /// [`SelectorError`] for the first glob that does not parse.
    pub fn new(paths: &[FilePath], except: &[FilePath], globs: &[String]) -> Result<Self, SelectorError> {
        let meant = paths.iter().map(|path| (path.clone(), true));
        let named = except.iter().map(|path| (path.clone(), false)).chain(meant).collect();
        Ok(Self { named, globs: if globs.is_empty() { None } else { Some(compile(globs)?) } })
    }

    /// Whether the file is meant.
    pub fn covers(&self, file: &FilePath) -> bool {
        let mut way = std::iter::successors(Some(file.clone()), FilePath::parent);
        way.find_map(|path| self.named.get(&path).copied()).unwrap_or(false)
            && self.globs.as_ref().is_none_or(|globs| globs.is_match(file.as_os_path()))
    }
}

fn compile(globs: &[String]) -> Result<GlobSet, SelectorError> {
    let bad = |glob: &str, e: globset::Error| SelectorError { glob: glob.to_owned(), why: e.kind().to_string() };
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(GlobBuilder::new(glob).literal_separator(true).build().map_err(|e| bad(glob, e))?);
    }
    set.build().map_err(|e| bad(&globs.join(", "), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FilePath {
        FilePath::parse(text).unwrap()
    }

    fn selector(paths: &[&str], except: &[&str], globs: &[&str]) -> Selector {
        let all = |texts: &[&str]| texts.iter().map(|t| path(t)).collect::<Vec<_>>();
        Selector::new(&all(paths), &all(except), &globs.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_nearest_named_path_decides() {
        let chosen = selector(&["a", "a/b/c"], &["a/b"], &[]);
        let covered = ["a/1", "a/b/1", "a/b/c/1", "ab/1", "x"].map(|p| chosen.covers(&path(p)));
        assert_eq!(covered, [true, false, true, false, false]);
        assert!(selector(&[""], &[], &[]).covers(&path("x/y")), "the root means all");
    }

    #[test]
    fn a_glob_narrows_what_is_below_the_paths() {
        let chosen = selector(&["train"], &[], &["train/*.tar", "**/*.idx"]);
        let covered = ["train/1.tar", "train/x/1.tar", "train/x/1.idx", "val/1.idx"].map(|p| chosen.covers(&path(p)));
        assert_eq!(covered, [true, false, true, false]);
    }

    #[test]
    fn what_is_no_glob_is_named() {
        let told = Selector::new(&[path("a")], &[], &["a[".to_owned()]).unwrap_err().to_string();
        assert!(told.contains("\"a[\" is no glob"), "{told}");
    }
}
