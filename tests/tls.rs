//! The control plane over TLS: who has which certificate gets how far.

mod process;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use process::{Process, eventually, free_port};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;

/// A control plane that asks agents for certificates, and the folder of all.
struct Control {
    folder: TempDir,
    port: u16,
    _serve: Process,
}

impl Control {
    fn start() -> Self {
        Self::start_with("")
    }

    /// With more in its configuration, in which `{folder}` is the folder of all.
    fn start_with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let tls = certify(folder.path(), &["--host", "127.0.0.1", "--host", "control.example"]);
        let config = format!(
            "listen = \"127.0.0.1:{port}\"\nstate = \"{}\"\n[site.store]\n[volume.data]\nat = \"store\"\n{tls}{}",
            at("state"),
            more.replace("{folder}", &folder.path().display().to_string())
        );
        fs::write(at("serve.toml"), config).unwrap();
        let serve = Process::start(folder.path(), "serve", &["serve", "--config", &at("serve.toml")]);
        let control = Self { folder, port, _serve: serve };
        eventually("the first token is written", || control.at("state/token").exists());
        control
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `foretide status`, which every caller may ask.
    fn status(&self, host: &str, more: &[&str]) -> Output {
        let control = format!("{host}:{}", self.port);
        let token = self.at("state/token");
        let mut command = Command::new(env!("CARGO_BIN_EXE_foretide"));
        command.args(["status", "--json", "--control", &control, "--token-file"]).arg(token).args(more);
        command.output().unwrap()
    }

    fn trusted(&self) -> Output {
        let authority = self.at("certificates/authority.pem").display().to_string();
        self.status("https://127.0.0.1", &["--authority", &authority])
    }

    /// An agent that serves nothing and observes nothing.
    fn agent(&self, node: &str, more: &str) -> Process {
        let at = |name: &str| self.at(name).display().to_string();
        let config = format!(
            "node = \"{node}\"\nsite = \"store\"\ncontrol = \"https://127.0.0.1:{}\"\ntoken_file = \"{}\"\n\
             state = \"{}\"\n[trace]\nenabled = false\n{more}",
            self.port,
            at("state/token"),
            at(node),
        );
        fs::write(at(&format!("{node}.toml")), config).unwrap();
        Process::start(self.folder.path(), node, &["agent", "--config", &at(&format!("{node}.toml"))])
    }
}

fn certify(folder: &Path, what: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretide"));
    command.arg("certify").args(what).arg("--authority").arg(folder.join("authority"));
    let made = command.arg("--into").arg(folder.join("certificates")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn people_reach_it_by_its_certificate_and_agents_by_their_own() {
    let control = Control::start();
    eventually("it answers who trusts its authority", || control.trusted().status.success());

    let strange = control.status("https://127.0.0.1", &[]);
    assert!(!strange.status.success() && words(&strange).contains("certificate"), "{}", words(&strange));
    let plain = control.status("http://127.0.0.1", &[]);
    assert!(!plain.status.success(), "tokens do not pass in the clear");
    let missing = control.status("https://127.0.0.1", &["--authority", "/nowhere/authority.pem"]);
    assert!(words(&missing).contains("/nowhere/authority.pem"), "{}", words(&missing));

    let tls = certify(control.folder.path(), &["store-1", "--site", "store"]);
    let _good = control.agent("store-1", &tls);
    eventually("an agent with a certificate is known", || {
        String::from_utf8_lossy(&control.trusted().stdout).contains("store-1")
    });

    // The certificate of a server: of the same authority, and of no agent.
    let certificates = control.at("certificates").display().to_string();
    let as_server = format!(
        "[tls]\nauthority = \"{certificates}/authority.pem\"\ncertificate = \"{certificates}/control.pem\"\n\
         key = \"{certificates}/control.key\"\n"
    );
    let _bad = control.agent("store-2", &as_server);
    let log = control.at("store-2.log");
    eventually("one that shows another's certificate is told", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("UnsupportedCertificate"))
    });
    assert!(!String::from_utf8_lossy(&control.trusted().stdout).contains("store-2"));
}

#[test]
fn an_agents_token_without_a_certificate_is_refused() {
    let control = Control::start();
    eventually("it answers who trusts its authority", || control.trusted().status.success());
    let authority = CertificateDer::from_pem_file(control.at("certificates/authority.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let http = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    let token = fs::read_to_string(control.at("state/token")).unwrap();
    let address = format!("https://127.0.0.1:{}/v1/agent/hello", control.port);
    let hello = serde_json::json!({ "node": "store-3", "site": "store" });
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let answer = http.post(address).bearer_auth(&token).json(&hello).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 403);
        let problem: serde_json::Value = answer.json().await.unwrap();
        assert!(problem["type"].as_str().unwrap().ends_with("no-certificate"), "{problem}");
        assert!(problem["remedy"].as_str().unwrap().contains("foretide certify"), "{problem}");
    });
}

/// A control plane whose configuration lets nodes join, and where a new node's files are.
impl Control {
    fn that_lets_join() -> Self {
        Self::start_with("[join]\nauthority = \"{folder}/authority\"\n")
    }

    fn foretide(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_foretide")).args(arguments).output().unwrap()
    }

    /// What `foretide token join` prints.
    fn join_token(&self, node: &str, good_for: &str) -> String {
        let (address, path) = (self.address(), |name: &str| self.at(name).display().to_string());
        let (token, authority) = (path("state/token"), path("certificates/authority.pem"));
        let made = self.foretide(&[
            "token",
            "join",
            node,
            "--site",
            "store",
            "--for",
            good_for,
            "--control",
            &address,
            "--token-file",
            &token,
            "--authority",
            &authority,
        ]);
        assert!(made.status.success(), "{}", words(&made));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    /// `foretide join` on a node whose configuration is `folder/agent.toml`.
    fn join(&self, node: &str, folder: &str, token: &str) -> Output {
        let (address, config) = (self.address(), self.at(folder).join("agent.toml").display().to_string());
        let state = self.at(folder).join("state").display().to_string();
        self.foretide(&[
            "join", "--server", &address, "--token", token, "--node", node, "--config", &config, "--state", &state,
        ])
    }

    fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

#[test]
fn a_node_joins_by_a_token_and_is_an_agent_then() {
    use std::os::unix::fs::PermissionsExt;
    let control = Control::that_lets_join();
    let token = control.join_token("gpu-7", "10min");
    let joined = control.join("gpu-7", "node", &token);
    assert!(joined.status.success(), "{}", words(&joined));
    let config = control.at("node/agent.toml");
    let mode = |name: &str| fs::metadata(control.at("node").join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("agent.key"), mode("agents.token"), mode("agent.pem")), (0o600, 0o600, 0o644));

    let _agent = Process::start(control.folder.path(), "gpu-7", &["agent", "--config", &config.display().to_string()]);
    eventually("the node that joined is known", || {
        String::from_utf8_lossy(&control.trusted().stdout).contains("gpu-7")
    });

    let again = control.join("gpu-7", "node", &token);
    assert!(words(&again).contains("is there already"), "{}", words(&again));
    let spent = control.join("gpu-7", "elsewhere", &token);
    assert!(!spent.status.success() && words(&spent).contains("401"), "{}", words(&spent));
    assert!(!control.at("elsewhere/agent.key").exists(), "nothing is left of a node that did not join");
}

#[test]
fn nobody_joins_by_another_s_token_or_at_a_stranger() {
    let control = Control::that_lets_join();
    let token = control.join_token("gpu-7", "10min");
    let other = control.join("gpu-8", "node", &token);
    assert!(!other.status.success() && words(&other).contains("made for node gpu-7"), "{}", words(&other));

    let (secret, digest) = token.split_once('.').unwrap();
    let turned: String = digest.chars().map(|c| if c == '0' { '1' } else { '0' }).collect();
    let strange = control.join("gpu-7", "node", &format!("{secret}.{turned}"));
    assert!(!strange.status.success() && words(&strange).contains("certificate"), "{}", words(&strange));
    let wrong = control.join("gpu-7", "node", &format!("ft_{}.{digest}", "0".repeat(64)));
    assert!(!wrong.status.success() && words(&wrong).contains("401"), "{}", words(&wrong));
    let short = control.join_token("gpu-7", "2s");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let late = control.join("gpu-7", "node", &short);
    assert!(!late.status.success() && words(&late).contains("401"), "{}", words(&late));
    let cut = control.join("gpu-7", "node", secret);
    assert!(!cut.status.success() && words(&cut).contains("no join token"), "{}", words(&cut));

    assert!(control.join("gpu-7", "node", &token).status.success(), "what was refused has spent nothing");
}

#[test]
fn a_node_with_a_configuration_has_its_papers_where_that_says() {
    let control = Control::that_lets_join();
    let folder = control.at("node");
    fs::create_dir_all(&folder).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    let config = |site: &str| {
        format!(
            "node = \"store-5\"\nsite = \"{site}\"\ncontrol = \"{}\"\ntoken_file = \"{}\"\nstate = \"{}\"\n\
             [trace]\nenabled = false\n[tls]\nauthority = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
            control.address(),
            at("papers/token"),
            at("state"),
            at("papers/authority.pem"),
            at("papers/own.pem"),
            at("papers/own.key"),
        )
    };
    let token = control.join_token("store-5", "10min");
    let address = control.address();
    let join = || control.foretide(&["join", "--server", &address, "--token", &token, "--config", &at("agent.toml")]);
    fs::write(at("agent.toml"), config("gpu")).unwrap();
    let misplaced = join();
    assert!(words(&misplaced).contains("made for node store-5 at store"), "{}", words(&misplaced));
    fs::write(at("agent.toml"), config("store")).unwrap();
    let joined = join();
    assert!(joined.status.success(), "{}", words(&joined));
    let _agent = Process::start(control.folder.path(), "store-5", &["agent", "--config", &at("agent.toml")]);
    eventually("it is known", || String::from_utf8_lossy(&control.trusted().stdout).contains("store-5"));
}

#[test]
fn a_copy_is_made_with_the_certificate_of_the_nodes_agent() {
    let control = Control::that_lets_join();
    for (node, folder) in [("store-1", "source"), ("gpu-7", "node")] {
        let joined = control.join(node, folder, &control.join_token(node, "10min"));
        assert!(joined.status.success(), "{}", words(&joined));
    }
    let at = |name: &str| control.at(name).display().to_string();
    fs::create_dir_all(control.at("data/set")).unwrap();
    fs::write(control.at("data/set/one"), [7; 300_000]).unwrap();
    let (port, config) = (free_port(), control.at("source/agent.toml"));
    let serves = format!(
        "[source]\nlisten = \"127.0.0.1:{port}\"\n[source.volumes]\ndata = \"{}\"\n[trace]\nenabled = false\n",
        at("data")
    );
    fs::write(&config, fs::read_to_string(&config).unwrap() + &serves).unwrap();
    let _source = Process::start(control.folder.path(), "source", &["agent", "--config", &at("source/agent.toml")]);
    eventually("the source listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());

    let from = format!("foretide://127.0.0.1:{port}/data/set");
    let copied = control.foretide(&["copy", &from, &at("copy"), "--config", &at("node/agent.toml"), "--json"]);
    assert!(copied.status.success(), "{}", words(&copied));
    let told: serde_json::Value = serde_json::from_slice(&copied.stdout).unwrap();
    assert_eq!((told["files"].as_u64(), told["logical_bytes"].as_u64()), (Some(1), Some(300_000)));
    assert!(fs::read(control.at("copy/one")).unwrap() == [7; 300_000]);

    let by_token_alone = control.foretide(&["copy", &from, &at("none"), "--token-file", &at("node/agents.token")]);
    assert!(!by_token_alone.status.success(), "nothing passes in the clear");
    assert!(words(&by_token_alone).contains("--config"), "{}", words(&by_token_alone));
    assert!(!control.at("none/one").exists());
}
