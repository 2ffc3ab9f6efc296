//! Several sources as one tree, laid over each other in the order in which they were named.
//!
//! 1. A name that several layers have is the first one's; directories of one name are one directory.
//! 2. What is no directory in a layer hides everything below that name in the layers after it.
//! 3. A directory is told whole or not at all: a layer that fails, for any other reason than having no such directory,
//!    fails the listing. Nobody takes a part for the whole.
//!
//! Nothing is told of changes, since a watch sees one layer only: peers believe a merged directory for a lease.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use foretide_flow::{Entry, FilePath};

use super::{Source, SourceFile};

/// See the module.
pub struct Merged {
    layers: Vec<Box<dyn Source>>,
}

impl Merged {
    /// One tree of these, of which the first ones win.
    pub fn new(layers: Vec<Box<dyn Source>>) -> Self {
        Self { layers }
    }

    /// What the first layer answers that has the name.
    fn first<T>(&self, ask: impl Fn(&dyn Source) -> io::Result<T>) -> io::Result<T> {
        for layer in &self.layers {
            match ask(layer.as_ref()) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                answered => return answered,
            }
        }
        Err(ErrorKind::NotFound.into())
    }
}

impl Source for Merged {
    fn list(&self, directory: &FilePath) -> io::Result<Vec<Entry>> {
        let mut merged: Option<BTreeMap<FilePath, Entry>> = None;
        for layer in &self.layers {
            match layer.list(directory) {
                Ok(entries) => {
                    let merged = merged.get_or_insert_default();
                    for entry in entries {
                        merged.entry(entry.path.clone()).or_insert(entry);
                    }
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) if e.kind() == ErrorKind::NotADirectory && merged.is_some() => break,
                Err(e) => return Err(e),
            }
        }
        merged.map(|entries| entries.into_values().collect()).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn stat(&self, path: &FilePath) -> io::Result<Entry> {
        self.first(|layer| layer.stat(path))
    }

    fn open(&self, path: &FilePath) -> io::Result<Box<dyn SourceFile>> {
        self.first(|layer| layer.open(path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use foretide_flow::EntryKind;
    use proptest::prelude::*;

    use super::*;
    use crate::LocalDirectory;

    /// What a layer holds, by path; a directory has no content.
    type Layer = BTreeMap<String, Option<String>>;

    fn path(text: &str) -> FilePath {
        FilePath::parse(text).unwrap()
    }

    fn make(at: &Path, layer: &Layer) -> Box<dyn Source> {
        fs::create_dir_all(at).unwrap();
        for (name, content) in layer {
            let target = at.join(name);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            match content {
                Some(text) => fs::write(target, text).unwrap(),
                None => fs::create_dir_all(target).unwrap(),
            }
        }
        Box::new(LocalDirectory::open(at).unwrap())
    }

    fn read(source: &dyn Source, at: &FilePath) -> String {
        let file = source.open(at).unwrap();
        let mut bytes = vec![0; file.stamp().unwrap().size as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// All that a walk finds: files with their content.
    fn walk(source: &dyn Source, directory: &FilePath, found: &mut Layer) {
        for entry in source.list(directory).unwrap() {
            assert_eq!(source.stat(&entry.path).unwrap().version, entry.version, "list and stat tell the same");
            if entry.kind == EntryKind::Directory {
                walk(source, &entry.path, found);
            } else {
                found.insert(entry.path.to_string(), Some(read(source, &entry.path)));
            }
        }
    }

    /// A plain merge of the layers' files: the first one wins, and a file hides what later layers have below it.
    fn plain(layers: &[Layer]) -> Layer {
        let mut merged = Layer::new();
        let mut hidden: Vec<String> = Vec::new();
        let mut folders: Vec<String> = Vec::new();
        for layer in layers {
            let (before, was_folder) = (hidden.clone(), folders.clone());
            for (name, content) in layer {
                let below = |h: &String| name.starts_with(&format!("{h}/"));
                let ancestors = name.match_indices('/').map(|(at, _)| name[..at].to_owned());
                folders.extend(ancestors.chain(content.is_none().then(|| name.clone())));
                if before.iter().any(below) {
                    continue;
                }
                if content.is_some() {
                    hidden.push(name.clone());
                    if !merged.contains_key(name) && !was_folder.contains(name) {
                        merged.insert(name.clone(), content.clone());
                    }
                }
            }
        }
        merged
    }

    /// Names of a small alphabet, so that layers meet; a name that would need a file to be a directory is left out.
    fn layer() -> impl Strategy<Value = Layer> {
        let name = proptest::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4);
        proptest::collection::vec((name, any::<bool>()), 0..8).prop_map(|names| {
            let mut layer = Layer::new();
            for (at, (name, is_file)) in names.into_iter().enumerate() {
                let name = name.join("/");
                let clashes = |other: &String| {
                    other.starts_with(&format!("{name}/"))
                        || name.starts_with(&format!("{other}/")) && layer[other].is_some()
                };
                if !layer.contains_key(&name) && !layer.keys().any(clashes) {
                    layer.insert(name.clone(), is_file.then(|| format!("{name} as number {at}")));
                }
            }
            layer
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_tree_is_a_plain_merge_of_its_layers(layers in proptest::collection::vec(layer(), 1..4)) {
            let folder = tempfile::tempdir().unwrap();
            let made = layers.iter().enumerate().map(|(i, l)| make(&folder.path().join(i.to_string()), l)).collect();
            let mut found = Layer::new();
            walk(&Merged::new(made), &FilePath::root(), &mut found);
            prop_assert_eq!(found, plain(&layers));
        }
    }

    /// A layer whose store does not answer.
    struct Away;

    impl Source for Away {
        fn list(&self, _: &FilePath) -> io::Result<Vec<Entry>> {
            Err(ErrorKind::TimedOut.into())
        }
        fn stat(&self, _: &FilePath) -> io::Result<Entry> {
            Err(ErrorKind::TimedOut.into())
        }
        fn open(&self, _: &FilePath) -> io::Result<Box<dyn SourceFile>> {
            Err(ErrorKind::TimedOut.into())
        }
    }

    #[test]
    fn a_layer_that_is_away_fails_the_listing_and_not_what_lies_over_it() {
        let folder = tempfile::tempdir().unwrap();
        let layer = Layer::from([("here".to_owned(), Some("text".to_owned()))]);
        let merged = Merged::new(vec![make(folder.path(), &layer), Box::new(Away)]);
        assert_eq!(merged.list(&FilePath::root()).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(read(&merged, &path("here")), "text");
        assert_eq!(merged.stat(&path("elsewhere")).unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn what_no_layer_has_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let one = |name: &str, at: &str| {
            make(&folder.path().join(name), &Layer::from([(at.to_owned(), Some(String::new()))]))
        };
        let merged = Merged::new(vec![one("0", "a"), one("1", "b/c")]);
        assert_eq!(merged.list(&path("none")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(merged.list(&path("a")).unwrap_err().kind(), ErrorKind::NotADirectory);
        assert_eq!(merged.stat(&path("a/c")).unwrap_err().kind(), ErrorKind::NotADirectory);
        assert!(merged.descriptor(&FilePath::root()).unwrap().is_none(), "nobody watches one layer for all");
    }
}
