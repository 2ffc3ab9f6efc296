//! Carries webhooks over HTTP.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use foretide_api::Courier;

use crate::tls::{self, Trust};

/// A receiver that takes longer has not taken it: its queue is its own affair.
const PATIENCE: Duration = Duration::from_secs(10);

/// Over HTTP or HTTPS, following no redirect: a message goes where an admin said, or nowhere.
pub struct HttpCourier(reqwest::Client);

impl HttpCourier {
    /// A client with its own connections.
    ///
    /// # Errors
    /// If the system gives no randomness or no TLS roots.
    pub fn new() -> io::Result<Self> {
        let tls = tls::client(&Trust::default()).map_err(io::Error::other)?;
        let client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
        client.tls_backend_preconfigured(tls).build().map(Self).map_err(io::Error::other)
    }
}

#[async_trait]
impl Courier for HttpCourier {
    async fn post(&self, url: &str, headers: &[(&'static str, String)], body: Vec<u8>) -> Result<u16, String> {
        let mut request = self.0.post(url).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.send().await.map(|answer| answer.status().as_u16()).map_err(|e| e.without_url().to_string())
    }
}
