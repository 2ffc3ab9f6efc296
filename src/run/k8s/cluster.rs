//! The kube-apiserver, as far as it is asked here: list, watch, apply.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use crate::client::root_cause;
use crate::tls::{self, Authorities, Trust};

/// Where a pod finds who it is.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Under which name the fields that we set are ours (server-side apply).
const FIELD_MANAGER: &str = "foretide";
/// A list of tens of thousands of workloads fits.
const ANSWER_MAX_BYTES: usize = 256 << 20;
/// Longest wait for an answer, watches aside.
const PATIENCE: Duration = Duration::from_secs(30);

/// Objects of one kind.
#[derive(Debug)]
pub struct List {
    /// The objects.
    pub items: Vec<Value>,
    /// A watch from here misses nothing.
    pub version: String,
}

/// One kube-apiserver.
pub struct Cluster {
    http: reqwest::Client,
    address: String,
    /// Read at each call: it is renewed.
    token: Option<PathBuf>,
}

impl Cluster {
    /// The one of the cluster in which this runs as a pod.
    ///
    /// # Errors
    /// In words, if this is no pod.
    pub fn around_us() -> Result<Self, String> {
        let told = |name: &str| {
            env::var(name).map_err(|_| format!("this runs in no pod ({name} is not set): say with --kube where to ask"))
        };
        let (host, port) = (told("KUBERNETES_SERVICE_HOST")?, told("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let account = Path::new(ACCOUNT);
        let trust = Trust { authorities: Authorities::Only(account.join("ca.crt")), own: None };
        Self::new(format!("https://{host}:{port}"), Some(account.join("token")), &trust)
    }

    /// The one at an address.
    ///
    /// # Errors
    /// In words.
    pub fn at(address: &str, token: Option<PathBuf>) -> Result<Self, String> {
        Self::new(address.trim_end_matches('/').to_owned(), token, &Trust::default())
    }

    fn new(address: String, token: Option<PathBuf>, trust: &Trust) -> Result<Self, String> {
        let config = tls::client(trust).map_err(|e| e.to_string())?;
        let http = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(config).build();
        Ok(Self { http: http.map_err(|e| root_cause(&e))?, address, token })
    }

    /// All objects at a path.
    ///
    /// # Errors
    /// In words.
    pub async fn list(&self, path: &str) -> Result<List, String> {
        let body = self.ask(Method::GET, path, None).await?;
        let version = body["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let Value::Array(items) = body["items"].clone() else { return Err(format!("{path} answered no list")) };
        Ok(List { items, version })
    }

    /// Returns when something at a path has changed since `version`, or after `wait`. That it failed is not told: the next
    /// list says more.
    pub async fn changed(&self, path: &str, version: &str, wait: Duration) {
        let path = format!("{path}?watch=1&resourceVersion={version}&timeoutSeconds={}", wait.as_secs().max(1));
        let first = async {
            let request = self.request(Method::GET, &path, None).ok()?;
            request.send().await.ok()?.chunk().await.ok()?
        };
        let began = tokio::time::Instant::now();
        if !matches!(tokio::time::timeout(wait, first).await, Ok(Some(_))) {
            // Ended without an event, or refused: the time is waited for, so that nobody is asked in a loop.
            tokio::time::sleep_until(began + wait).await;
        }
    }

    /// Sets the fields of `body` in the status of an object, as theirs who set them.
    ///
    /// # Errors
    /// In words.
    pub async fn apply_status(&self, path: &str, body: &Value) -> Result<(), String> {
        let path = format!("{path}/status?fieldManager={FIELD_MANAGER}&force=true");
        self.ask(Method::PATCH, &path, Some(body)).await.map(drop)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let what = format!("{method} {}{path}", self.address);
        let request = self.request(method, path, body)?.timeout(PATIENCE);
        let failed = |e: reqwest::Error| format!("{what}: {}", root_cause(&e));
        let mut answer = request.send().await.map_err(failed)?;
        let (status, mut body) = (answer.status(), Vec::new());
        while let Some(part) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&part);
            if body.len() > ANSWER_MAX_BYTES {
                return Err(format!("{what}: it answers more than {ANSWER_MAX_BYTES} bytes"));
            }
        }
        let told: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(told);
        }
        Err(format!("{what}: {status} {}", told["message"].as_str().unwrap_or_default()))
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<RequestBuilder, String> {
        let mut request =
            self.http.request(method, format!("{}{path}", self.address)).header("accept", "application/json");
        if let Some(file) = &self.token {
            let token = fs::read_to_string(file).map_err(|e| format!("token {}: {e}", file.display()))?;
            request = request.bearer_auth(token.trim());
        }
        Ok(match body {
            Some(body) => request.header("content-type", "application/apply-patch+yaml").body(body.to_string()),
            None => request,
        })
    }
}
