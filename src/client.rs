//! The control plane's API as this binary's own commands call it.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use foretide_api::{
    Advice, AdviceWanted, Approval, Assigned, BatchTaken, Files, Hello, JoinMade, JoinRequest, JoinWanted, Joined,
    List, Listings, ModeChoice, ModeView, Problem, SharedFiles, Sites, Tagging, TokenMade, TokenWanted, Tokens,
    VolumeList, VolumeView, VolumeWanted, WarmupView, WarmupWanted, Welcome, Whereabouts,
};
use foretide_flow::{
    FilePath, Forecast, NodeId, OutcomeBatch, Plan, PlanId, Profile, ReadSummary, Timestamp, VolumeId, Warmup,
    WarmupId, WarmupRequest,
};
use reqwest::{Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use crate::tls::{self, Authorities, TlsError, Trust};

/// Longest wait for an answer, long polls aside.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("{address}: {why}; is `foretide serve` running there?")]
    Unreachable {
        /// The control plane's address.
        address: String,
        /// The system's word.
        why: String,
    },
    /// It answered with a refusal.
    #[error("{status}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The problem's detail and remedy.
        detail: String,
    },
    /// The token's file cannot be read.
    #[error("token {}: {why}; `foretide serve` writes the first one into its state folder", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// The system's word.
        why: std::io::Error,
    },
    /// Its TLS cannot be spoken: a file is missing or wrong.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// It answered something else than its own OpenAPI says.
    #[error("{address} answered what was not expected: {why}; do both sides have the same version?")]
    Strange {
        /// The control plane's address.
        address: String,
        /// What was wrong.
        why: String,
    },
}

/// Where the token is.
#[derive(Clone, Debug)]
enum Token {
    Known(String),
    InFile(PathBuf),
}

/// A caller of one control plane.
#[derive(Clone, Debug)]
pub struct ControlClient {
    http: reqwest::Client,
    address: String,
    token: Token,
}

impl ControlClient {
    /// A caller of the control plane at `address`, with a token that is read from its file at each call, so that a
    /// token that is renewed is used at once.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(address: &str, token_file: PathBuf, trust: &Trust) -> Result<Self, ClientError> {
        Self::with(address, Token::InFile(token_file), trust)
    }

    /// The same with the token itself.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn with_token(address: &str, token: String, trust: &Trust) -> Result<Self, ClientError> {
        Self::with(address, Token::Known(token), trust)
    }

    fn with(address: &str, token: Token, trust: &Trust) -> Result<Self, ClientError> {
        let address = address.trim_end_matches('/').to_owned();
        let nobody = Trust { authorities: Authorities::Nobody, own: None };
        let trust = if address.starts_with("https:") { trust } else { &nobody };
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(tls::client(trust)?)
            .build()
            .map_err(|e| ClientError::Strange { address: address.clone(), why: e.to_string() })?;
        Ok(Self { http, address, token })
    }

    /// Where the dashboard is, with the token in the fragment, which no server sees.
    pub fn dashboard_address(&self) -> String {
        match self.secret() {
            Ok(token) => format!("{}/#token={token}", self.address),
            Err(_) => self.address.clone(),
        }
    }

    /// Whether it answers.
    pub async fn is_healthy(&self) -> bool {
        let answer = self.http.get(format!("{}/healthz", self.address)).timeout(PATIENCE).send().await;
        answer.is_ok_and(|r| r.status().is_success())
    }

    /// Switches all prefetch on or off.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn switch_prefetch(&self, on: bool) -> Result<(), ClientError> {
        let body = serde_json::json!({ "prefetch_off": !on });
        let _: serde_json::Value = self.json(self.request(Method::PUT, "/v1/switch")?.json(&body)).await?;
        Ok(())
    }

    /// The mode in force, after a choice if one is made.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn mode(&self, choice: Option<ModeChoice>) -> Result<ModeView, ClientError> {
        let request = match choice {
            Some(choice) => self.request(Method::PUT, "/v1/mode")?.json(&choice),
            None => self.request(Method::GET, "/v1/mode")?,
        };
        self.json(request).await
    }

    /// Asks for a warm-up by all that can be said of one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn want(&self, wanted: &WarmupWanted) -> Result<Warmup, ClientError> {
        self.json(self.request(Method::POST, "/v1/warmups")?.json(wanted)).await
    }

    /// Asks for a warm-up whose data and site are known.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask_warmup(&self, request: &WarmupRequest) -> Result<Warmup, ClientError> {
        self.json(self.request(Method::POST, "/v1/warmups")?.json(request)).await
    }

    /// Asks for a warm-up under a key: asked again, it is the same one as it is by then.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask_once(&self, wanted: &WarmupWanted, key: &str) -> Result<WarmupView, ClientError> {
        self.json(self.request(Method::POST, "/v1/warmups")?.header("idempotency-key", key).json(wanted)).await
    }

    /// One warm-up; waits up to `wait_s` seconds for it to change.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn warmup(&self, id: &WarmupId) -> Result<Warmup, ClientError> {
        self.json(self.request(Method::GET, &format!("/v1/warmups/{id}"))?).await
    }

    /// Takes a warm-up back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cancel_warmup(&self, id: &WarmupId) -> Result<Warmup, ClientError> {
        self.json(self.request(Method::DELETE, &format!("/v1/warmups/{id}"))?).await
    }

    /// Releases a warm-up whose job has run.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn release_warmup(&self, id: &WarmupId) -> Result<Warmup, ClientError> {
        self.json(self.request(Method::POST, &format!("/v1/warmups/{id}/release"))?).await
    }

    /// Sites ranked for a job.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn advise(&self, wanted: &AdviceWanted) -> Result<Advice, ClientError> {
        self.json(self.request(Method::POST, "/v1/advise")?.json(wanted)).await
    }

    /// A plan, or the one that holds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plan(&self, id: Option<&str>) -> Result<Plan, ClientError> {
        self.json(self.request(Method::GET, &format!("/v1/plans/{}", id.unwrap_or("latest")))?).await
    }

    /// Asks for what a plan proposes; the warm-ups that it becomes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn approve(&self, plan: &PlanId, approval: &Approval) -> Result<Vec<Warmup>, ClientError> {
        let request = self.request(Method::POST, &format!("/v1/plans/{plan}/approve"))?.json(approval);
        let list: List<Warmup> = self.json(request).await?;
        Ok(list.items)
    }

    /// All sites: caches, agents, links.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sites(&self) -> Result<Sites, ClientError> {
        self.json(self.request(Method::GET, "/v1/sites")?).await
    }

    /// Whatever a route that lists things answers, first page.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list<T: DeserializeOwned>(&self, route: &str) -> Result<Vec<T>, ClientError> {
        let list: List<T> = self.json(self.request(Method::GET, route)?).await?;
        Ok(list.items)
    }

    /// Adds a volume.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_volume(&self, wanted: &VolumeWanted) -> Result<VolumeView, ClientError> {
        self.json(self.request(Method::POST, "/v1/volumes")?.json(wanted)).await
    }

    /// All volumes, and who serves them.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn volumes(&self) -> Result<VolumeList, ClientError> {
        self.json(self.request(Method::GET, "/v1/volumes")?).await
    }

    /// A page of files that match.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn files(&self, query: &[(&str, String)]) -> Result<Files, ClientError> {
        self.json(self.request(Method::GET, "/v1/files")?.query(query)).await
    }

    /// Which sites hold how much of something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn whereabouts(&self, volume: &VolumeId, path: &FilePath) -> Result<Whereabouts, ClientError> {
        let query = [("volume", volume.to_string()), ("path", path.to_string())];
        self.json(self.request(Method::GET, "/v1/where")?.query(&query)).await
    }

    /// Makes a token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn make_token(&self, wanted: &TokenWanted) -> Result<TokenMade, ClientError> {
        self.json(self.request(Method::POST, "/v1/tokens")?.json(wanted)).await
    }

    /// All tokens, without their secrets.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tokens(&self) -> Result<Tokens, ClientError> {
        self.json(self.request(Method::GET, "/v1/tokens")?).await
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke_token(&self, name: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, &format!("/v1/tokens/{name}"))?).await.map(drop)
    }

    /// Makes a token by which one node can join once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn offer_join(&self, wanted: &JoinWanted) -> Result<JoinMade, ClientError> {
        self.json(self.request(Method::POST, "/v1/joins")?.json(wanted)).await
    }

    /// Joins by such a token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn join(&self, request: &JoinRequest) -> Result<Joined, ClientError> {
        self.json(self.request(Method::POST, "/v1/agent/join")?.json(request)).await
    }

    /// Tags a subtree.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tag(&self, tagging: &Tagging) -> Result<Tagging, ClientError> {
        self.json(self.request(Method::PUT, "/v1/tags")?.json(tagging)).await
    }

    /// Sums of the reads of all runs that began at or after `from`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn reads_since(&self, from: Timestamp) -> Result<Vec<ReadSummary>, ClientError> {
        self.list(&format!("/v1/runs?since={}", from.0)).await
    }

    /// Each profile, and the forecast of its workload that was made last.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn learned(&self) -> Result<Vec<(Profile, Option<Forecast>)>, ClientError> {
        let profiles: Vec<Profile> = self.list("/v1/profiles").await?;
        let forecasts: Vec<Forecast> = self.list("/v1/forecasts?reads=false").await?;
        let last_of = |profile: &Profile| {
            forecasts.iter().filter(|f| f.workload == profile.workload).max_by_key(|f| f.made_at).cloned()
        };
        Ok(profiles
            .into_iter()
            .map(|p| {
                let f = last_of(&p);
                (p, f)
            })
            .collect())
    }

    /// An agent says who it is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn hello(&self, hello: &Hello) -> Result<Welcome, ClientError> {
        self.json(self.request(Method::POST, "/v1/agent/hello")?.json(hello)).await
    }

    /// An access batch, as Parquet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_accesses(&self, node: &NodeId, parquet: Bytes) -> Result<BatchTaken, ClientError> {
        let request = self.request(Method::POST, &format!("/v1/agent/accesses?node={node}"))?;
        self.json(request.header("content-type", "application/vnd.apache.parquet").body(parquet)).await
    }

    /// Directories that the agent learned.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_listings(&self, listings: &Listings) -> Result<(), ClientError> {
        let _: serde_json::Value = self.json(self.request(Method::POST, "/v1/agent/listings")?.json(listings)).await?;
        Ok(())
    }

    /// Which chunks stand in several files.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_shared(&self, shared: &SharedFiles) -> Result<(), ClientError> {
        self.send(self.request(Method::POST, "/v1/agent/shared")?.json(shared)).await.map(drop)
    }

    /// Outcomes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_outcomes(&self, batch: &OutcomeBatch) -> Result<BatchTaken, ClientError> {
        self.json(self.request(Method::POST, "/v1/agent/outcomes")?.json(batch)).await
    }

    /// The agent's work since `cursor`, and the `ETag` to hand back next time; the answer comes when there is
    /// something new, or after `wait`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn assignment(
        &self,
        node: &NodeId,
        cursor: u64,
        wait: Duration,
        etag: Option<&str>,
        fleet: Option<&str>,
    ) -> Result<(Assigned, Option<String>), ClientError> {
        let mut route = format!("/v1/agent/assignment?node={node}&cursor={cursor}&wait_s={}", wait.as_secs());
        if let Some(fleet) = fleet {
            route = format!("{route}&fleet={fleet}");
        }
        let mut request = self.request(Method::GET, &route)?.timeout(PATIENCE + wait);
        if let Some(etag) = etag {
            request = request.header("if-none-match", etag);
        }
        let answer = self.send(request).await?;
        let etag = answer.headers().get("etag").and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok((self.decode(answer).await?, etag))
    }

    fn secret(&self) -> Result<String, ClientError> {
        match &self.token {
            Token::Known(secret) => Ok(secret.clone()),
            Token::InFile(path) => std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|why| ClientError::Token { path: path.clone(), why }),
        }
    }

    fn request(&self, method: Method, route: &str) -> Result<RequestBuilder, ClientError> {
        let url = format!("{}{route}", self.address);
        Ok(self.http.request(method, url).bearer_auth(self.secret()?).timeout(PATIENCE))
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        self.decode(self.send(request).await?).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    async fn decode<T: DeserializeOwned>(&self, answer: Response) -> Result<T, ClientError> {
        let body = answer.bytes().await.map_err(|e| self.unreachable(&e))?;
        serde_json::from_slice(&body)
            .map_err(|e| ClientError::Strange { address: self.address.clone(), why: e.to_string() })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { address: self.address.clone(), why: root_cause(error) }
    }
}

async fn refusal(answer: Response) -> ClientError {
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap_or_default();
    let detail = match serde_json::from_str::<Problem>(&text) {
        Ok(problem) => format!("{}; {}", problem.detail, problem.remedy),
        Err(_) => text,
    };
    ClientError::Refused { status, detail }
}

/// The innermost cause: what the system said.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Found by the demo: four thousand moves took a second and more to be told over 150 ms.
    #[tokio::test]
    async fn answers_are_asked_for_packed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            String::from_utf8(request).unwrap().to_lowercase()
        });
        let client = ControlClient::with_token(&address, "t".into(), &Trust::default()).unwrap();
        assert!(client.is_healthy().await);
        let request = answering.await.unwrap();
        assert!(request.contains("accept-encoding: gzip"), "{request}");
    }
}
