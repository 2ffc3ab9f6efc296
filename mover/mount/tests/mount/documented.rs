//! What `docs/SEMANTICS.md` says of the mount, against the tests that it names.

use std::fs;
use std::path::Path;

const DOCUMENT: &str = "../../docs/SEMANTICS.md";
const HEADING: &str = "# What a program may count on below the mount";

/// Words between backticks that are tests' names: lower case, with three underscores or more.
fn tests_named(line: &str) -> Vec<&str> {
    let is_test = |word: &&str| {
        word.matches('_').count() >= 3
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    line.split('`').skip(1).step_by(2).filter(is_test).collect()
}

fn sources(folder: &Path) -> String {
    let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    files.filter(|at| at.extension().is_some_and(|e| e == "rs")).map(|at| fs::read_to_string(at).unwrap()).collect()
}

#[test]
fn each_sentence_of_the_document_has_its_test() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(crate_root.join(DOCUMENT)).unwrap();
    let (_, of_the_mount) = document.split_once(HEADING).expect("the document has the mount's part");
    let folders = ["tests/mount", "../transfer/tests", "../transfer/tests/givers", "../transfer/tests/transfer"];
    let tests: String = folders.iter().map(|folder| sources(&crate_root.join(folder))).collect();
    let sentences: Vec<&str> = of_the_mount.lines().filter(|line| line.starts_with("- ")).collect();
    assert!(sentences.len() > 20, "the list is there");
    for sentence in sentences {
        let named = tests_named(sentence);
        assert!(!named.is_empty(), "no test is named: {sentence}");
        for test in named {
            assert!(tests.contains(&format!("fn {test}(")), "there is no such test: {test}");
        }
    }
}
