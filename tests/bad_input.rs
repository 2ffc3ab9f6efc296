//! Bad input gives one line that names the thing and the remedy, and an exit code that is not 0.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

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

/// A control plane that ends with its test.
struct Serve {
    child: Child,
    address: String,
    token: PathBuf,
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a control plane with sites `store` and `gpu` and the volume `vision` at `store`.
fn serve(folder: &Path) -> Serve {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "listen = \"127.0.0.1:{port}\"\nstate = \"{}/control\"\n[site.store]\n[site.gpu]\ncache = \"1 GB\"\n\
         [[link]]\nfrom = \"store\"\nto = \"gpu\"\nrate = \"1 Gbit/s\"\nrtt = \"1ms\"\n[volume.vision]\nat = \"store\"\n",
        folder.display()
    );
    let config = write(folder, "serve.toml", &text);
    let child = Command::new(env!("CARGO_BIN_EXE_foretide"))
        .args(["serve", "--config", &config])
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let serve = Serve { child, address: format!("http://127.0.0.1:{port}"), token: folder.join("control/token") };
    let began = Instant::now();
    while !serve.status().status.success() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not answer: {:?}", serve.status());
        std::thread::sleep(Duration::from_millis(50));
    }
    serve
}

impl Serve {
    fn ask(&self, arguments: &[&str]) -> Output {
        let token = self.token.display().to_string();
        foretide(&[arguments, &["--control", &self.address, "--token-file", &token]].concat())
    }

    fn status(&self) -> Output {
        self.ask(&["status"])
    }

    /// The configuration of an agent at `gpu` with a cache in `folder`, and the mount point given.
    fn agent(&self, folder: &Path, mount: &Path) -> String {
        let text = format!(
            "node = \"gpu-1\"\nsite = \"gpu\"\ncontrol = \"{}\"\ntoken_file = \"{}\"\nstate = \"{}/agent\"\n\
             [cache]\npath = \"{}/cache\"\ncapacity = \"100 MB\"\nmount = \"{}\"\n[trace]\nenabled = false\n",
            self.address,
            self.token.display(),
            folder.display(),
            folder.display(),
            mount.display()
        );
        write(folder, "agent.toml", &text)
    }
}

#[test]
fn a_wrong_token_an_unknown_site_and_a_deadline_in_the_past_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let serve = serve(folder.path());
    let told = complaint(&foretide(&["status", "--control", &serve.address, "--token", "ft_wrong"]));
    assert!(told.contains("401") && told.contains("token"), "{told}");
    let told = complaint(&serve.ask(&["warm", "ask", "vision", "--site", "mars"]));
    assert!(told.contains("mars") && told.contains("gpu"), "names the site and those that there are: {told}");
    let told = complaint(&serve.ask(&["warm", "ask", "visoin", "--site", "gpu"]));
    assert!(told.contains("visoin") && told.contains("vision"), "{told}");
    let told = complaint(&serve.ask(&["warm", "ask", "vision", "--site", "gpu", "--within", "0s"]));
    assert!(told.contains("need_by") && told.contains("past"), "{told}");
}

#[test]
fn a_mount_point_in_use_is_named_with_the_remedy() {
    if !is_root() {
        eprintln!("not root: a mount in use is tried in the mount's own tests only");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let serve = serve(folder.path());
    let config = serve.agent(folder.path(), Path::new("/proc"));
    let told = complaint(&foretide(&["agent", "--config", &config]));
    assert!(told.contains("/proc") && told.contains("in use") && told.contains("name another"), "{told}");
}

#[test]
fn a_volume_that_may_not_be_read_is_named() {
    if is_root() {
        // Root reads everything; a file in the place of a folder cannot be read by anybody.
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "vision", "no folder");
        return volume_is_refused(folder.path(), &file);
    }
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    volume_is_refused(folder.path(), &closed.display().to_string());
}

fn volume_is_refused(folder: &Path, volume: &str) {
    let text = format!(
        "node = \"n\"\nsite = \"a\"\ncontrol = \"http://127.0.0.1:1\"\ntoken_file = \"/nonexistent\"\nstate = \"{}\"\n\
         [source]\nlisten = \"127.0.0.1:0\"\n[source.volumes]\nvision = \"{volume}\"\n",
        folder.display()
    );
    let config = write(folder, "agent.toml", &text);
    let told = complaint(&foretide(&["agent", "--config", &config]));
    assert!(told.contains(volume) && told.contains("source.volumes.vision"), "{told}");
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_trace_that_is_cut_off_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let trace = write(folder.path(), "day.parquet", "PAR1 and then nothing more");
    let told = complaint(&foretide(&["trace", "show", &trace]));
    assert!(told.contains("day.parquet"), "{told}");
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
