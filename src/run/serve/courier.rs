//! Carries webhooks over HTTP, and reads what an issuer of people's tokens publishes.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use foretide_api::{Courier, Reader};

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
        client().map(Self)
    }
}

fn client() -> io::Result<reqwest::Client> {
    let tls = tls::client(&Trust::default()).map_err(io::Error::other)?;
    let client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
    client.tls_backend_preconfigured(tls).build().map_err(io::Error::other)
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

/// What an issuer publishes is some kilobytes.
const PUBLISHED_MAX_BYTES: usize = 1 << 20;

/// The same client for reading, and as strict: an issuer's keys come from the address that it named, or not at all.
pub struct HttpReader(reqwest::Client);

impl HttpReader {
    /// A client with its own connections.
    ///
    /// # Errors
    /// If the system gives no randomness or no TLS roots.
    pub fn new() -> io::Result<Self> {
        client().map(Self)
    }
}

#[async_trait]
impl Reader for HttpReader {
    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let told = |e: reqwest::Error| e.without_url().to_string();
        let mut answer = self.0.get(url).send().await.and_then(|a| a.error_for_status()).map_err(told)?;
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(told)? {
            if body.len() + part.len() > PUBLISHED_MAX_BYTES {
                return Err(format!("it is larger than {PUBLISHED_MAX_BYTES} bytes"));
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}
