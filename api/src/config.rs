//! Bounds of the API (promise K). Each has a reason; the defaults serve a control plane of some hundred nodes.

use serde::{Deserialize, Serialize};

use crate::people::Oidc;

/// What an admin may set under `[api]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A JSON body of people and schedulers may have this many bytes: a warm-up that names 10,000 paths fits.
    pub body_max_bytes: usize,
    /// A Parquet batch of accesses may have this many bytes: the collector cuts its batches well below.
    pub accesses_max_bytes: usize,
    /// An agent's JSON report (listings, outcomes) may have this many bytes: a directory of 100,000 names fits.
    pub report_max_bytes: usize,
    /// A long poll is answered after at most this many seconds, whatever it asked for (at most 60): below the idle
    /// time-outs of usual proxies.
    pub wait_max_s: u64,
    /// Events kept for listeners that come back; about 1 KiB each. Who was away longer is told to load anew.
    pub events_kept: usize,
    /// Listeners of the event stream at a time. Each costs a socket and a cursor into the events kept.
    pub listeners_max: usize,
    /// A silent event stream sends a comment this often, seconds, so that proxies keep it open.
    pub keep_alive_s: u64,
    /// Requests that one token may make at once before it is slowed down.
    pub burst_requests: u32,
    /// Requests a second that one token may go on making.
    pub rate_requests_per_s: u32,
    /// An agent that has not been heard of for this many seconds is shown as gone: three missed long polls.
    pub agent_gone_after_s: u64,
    /// The issuer whose tokens people may show in place of ours.
    pub oidc: Option<Oidc>,
    /// Agents must show a certificate when they connect: set by the server that can ask for it, and not by an admin.
    #[serde(skip)]
    pub agents_show_certificates: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_max_bytes: 2 << 20,
            accesses_max_bytes: 64 << 20,
            report_max_bytes: 64 << 20,
            wait_max_s: 60,
            events_kept: 8192,
            listeners_max: 1000,
            keep_alive_s: 15,
            burst_requests: 2000,
            rate_requests_per_s: 1000,
            agent_gone_after_s: 180,
            oidc: None,
            agents_show_certificates: false,
        }
    }
}
