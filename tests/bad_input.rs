//! Bad input gives one line that names the thing and the remedy, and an exit code that is not 0.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

fn foretide(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_foretide")).args(arguments).output().expect("the binary runs")
}

/// The one line on standard error, log lines aside.
fn complaint(done: &Output) -> String {
    assert!(!done.status.success(), "it must fail");
    let told = String::from_utf8_lossy(&done.stderr);
    let lines: Vec<&str> = told.lines().filter(|l| l.starts_with("foretide: ")).collect();
    assert_eq!(lines.len(), 1, "one line of complaint: {told}");
    told.into_owned()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn an_unknown_key_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "serve.toml", "state = \"/tmp/x\"\nlisten_on = \"here\"\n");
    let told = complaint(&foretide(&["serve", "--config", &config]));
    assert!(told.contains("serve.toml") && told.contains("listen_on"), "{told}");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let told = complaint(&foretide(&["serve", "--config", "/nonexistent/serve.toml"]));
    assert!(told.contains("/nonexistent/serve.toml"), "{told}");
}

#[test]
fn an_unknown_site_in_a_link_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "state = \"{}\"\n[site.a]\n[[link]]\nfrom = \"a\"\nto = \"mars\"\nrate = \"1 Gbit/s\"\nrtt = \"1ms\"\n",
        folder.path().display()
    );
    let config = write(folder.path(), "serve.toml", &text);
    let told = complaint(&foretide(&["serve", "--config", &config]));
    assert!(told.contains("mars") && told.contains("[site]"), "{told}");
}

#[test]
fn a_taken_port_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let config = write(folder.path(), "serve.toml", &format!("state = \"{}\"\n", folder.path().display()));
    let told = complaint(&foretide(&["serve", "--config", &config, "--listen", &at]));
    assert!(told.contains(&at) && told.contains("--listen"), "{told}");
}

#[test]
fn a_volume_path_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "node = \"n\"\nsite = \"a\"\ncontrol = \"http://127.0.0.1:1\"\ntoken_file = \"/nonexistent\"\nstate = \"{}\"\n\
         [source]\nlisten = \"127.0.0.1:0\"\n[source.volumes]\nvision = \"/nonexistent/vision\"\n",
        folder.path().display()
    );
    let config = write(folder.path(), "agent.toml", &text);
    let told = complaint(&foretide(&["agent", "--config", &config]));
    assert!(told.contains("/nonexistent/vision") && told.contains("source.volumes.vision"), "{told}");
}

#[test]
fn a_control_plane_that_is_not_there_is_named() {
    let told = complaint(&foretide(&["status", "--control", "http://127.0.0.1:1", "--token", "x"]));
    assert!(told.contains("http://127.0.0.1:1") && told.contains("foretide serve"), "{told}");
}

#[test]
fn a_rate_that_is_none_is_refused_with_an_example() {
    let done = foretide(&["demo", "--rate", "fast"]);
    assert!(!done.status.success());
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(told.contains("fast") && told.contains("1 Gbit/s"), "{told}");
}

#[test]
fn a_demo_folder_that_holds_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "thesis.tex", "dear to somebody");
    let told = complaint(&foretide(&["demo", "--folder", &folder.path().display().to_string()]));
    assert!(told.contains("--folder"), "{told}");
    assert_eq!(fs::read_to_string(folder.path().join("thesis.tex")).unwrap(), "dear to somebody");
}
