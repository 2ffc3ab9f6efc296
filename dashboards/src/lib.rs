//! The dashboard's built page, embedded and served.
//!
//! `web/` is the app; its build is checked in under `web/dist` (a machine that builds Foretide needs no Node), and
//! `check-build` rebuilds it and compares. The page knows nothing but the API's routes: it asks for the token, keeps it
//! in the tab and sends it with each call, so what is served here is the same for everybody and needs no token.
//!
//! Files under `assets/` carry a digest of their content in their names and are kept for good; the few others are asked
//! for again each time and answered with 304 while their digest stands. The policy allows the page's own files and the
//! own host, nothing inline, and no frame around it: what a run calls itself can never become code. Where people sign in at
//! an issuer, the page may ask that one host besides, for tokens.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

#[derive(RustEmbed)]
#[folder = "web/dist"]
struct Page;

/// Shared with the page's own tests, which run it under the same policy.
const POLICY: &str = include_str!("../csp.txt");
/// A name with a digest in it never means anything else: a year, the longest that caches honour.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";
/// The others may change with the next version of Foretide.
const ASK_AGAIN: &str = "no-cache";

/// Where the page's own host stands among those that it may ask.
const OWN_HOST: &str = "connect-src 'self'";

/// Under which policy the page is served.
#[derive(Clone)]
struct Policy {
    value: HeaderValue,
    /// A page that is kept with another policy is another page.
    digest: u64,
}

impl Policy {
    /// The page may ask `also_asks` beside its own host; nobody if that cannot stand in a policy.
    fn of(also_asks: Option<&str>) -> Self {
        let usual = POLICY.trim_ascii();
        let wider = also_asks.map(|origin| usual.replace(OWN_HOST, &format!("{OWN_HOST} {origin}")));
        let value = wider.and_then(|text| HeaderValue::from_str(&text).ok());
        let value = value.unwrap_or(HeaderValue::from_static(usual));
        let mut hasher = DefaultHasher::new();
        value.as_bytes().hash(&mut hasher);
        Self { digest: hasher.finish(), value }
    }
}

/// The page at `/`, and what it loads. `also_asks` is scheme, host and port of the one place beside its own host that the
/// page may ask. It has no fallback, so it merges with a router that has one.
pub fn router(also_asks: Option<&str>) -> Router {
    let file = |path: &'static str| {
        get(move |State(policy): State<Policy>, headers: HeaderMap| async move { serve(path, &policy, &headers) })
    };
    Router::new()
        .route("/", file("index.html"))
        .route("/favicon.svg", file("favicon.svg"))
        .route("/licences.txt", file("licences.txt"))
        .route("/assets/{name}", get(asset))
        .with_state(Policy::of(also_asks))
}

async fn asset(State(policy): State<Policy>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    serve(&format!("assets/{name}"), &policy, &headers)
}

fn serve(path: &str, policy: &Policy, request: &HeaderMap) -> Response {
    let Some(file) = Page::get(path) else {
        return (StatusCode::NOT_FOUND, format!("{path} is no file of the dashboard: load / again\n")).into_response();
    };
    let etag = etag_of(&file, policy);
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept(path)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy.value.clone());
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    if has(request, &etag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(path)));
    (headers, file.data).into_response()
}

fn kept(path: &str) -> &'static str {
    if path.starts_with("assets/") { FOR_GOOD } else { ASK_AGAIN }
}

/// Half of the file's SHA-256 and the policy's digest: enough to tell versions apart.
fn etag_of(file: &EmbeddedFile, policy: &Policy) -> String {
    let digest: String = file.metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digest}-{:016x}\"", policy.digest)
}

/// Whether the client has that version: `If-None-Match` compares weakly, so a proxy that compressed is no obstacle.
fn has(request: &HeaderMap, etag: &str) -> bool {
    let known = request.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()).unwrap_or_default();
    known.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == etag || tag == "*")
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str, known: Option<&str>) -> Response {
        ask_at(router(None), path, known).await
    }

    async fn ask_at(router: Router, path: &str, known: Option<&str>) -> Response {
        let mut request = Request::get(path);
        if let Some(tag) = known {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    fn says(response: &Response, name: header::HeaderName) -> &str {
        response.headers()[name].to_str().unwrap()
    }

    #[tokio::test]
    async fn the_page_comes_with_a_policy_that_allows_nothing_inline() {
        let page = ask("/", None).await;
        assert_eq!(page.status(), StatusCode::OK);
        let policy = says(&page, header::CONTENT_SECURITY_POLICY);
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(says(&page, header::CACHE_CONTROL), ASK_AGAIN);
        let html = String::from_utf8(to_bytes(page.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap();
        assert!(!html.contains("<style") && !html.contains("://") && html.matches("<script").count() == 1, "{html}");
    }

    #[tokio::test]
    async fn the_page_may_ask_the_issuer_s_host_and_nobody_else() {
        let usual = ask("/", None).await;
        let wider = ask_at(router(Some("https://id.example")), "/", None).await;
        let told = says(&wider, header::CONTENT_SECURITY_POLICY);
        assert!(told.contains("connect-src 'self' https://id.example;"), "{told}");
        let without = told.replace(" https://id.example", "");
        assert_eq!(without, says(&usual, header::CONTENT_SECURITY_POLICY), "and is allowed nothing else");
        let kept = says(&usual, header::ETAG).to_owned();
        let again = ask_at(router(Some("https://id.example")), "/", Some(&kept)).await;
        assert_eq!(again.status(), StatusCode::OK, "a page kept under another policy is sent anew");
        let broken = ask_at(router(Some("https://id.example\n")), "/", None).await;
        assert_eq!(says(&broken, header::CONTENT_SECURITY_POLICY), says(&usual, header::CONTENT_SECURITY_POLICY));
    }

    #[tokio::test]
    async fn every_file_that_the_page_names_is_there_and_kept_for_good() {
        let html = String::from_utf8(Page::get("index.html").unwrap().data.to_vec()).unwrap();
        let named: Vec<&str> = html.split('"').filter(|s| s.starts_with("/assets/")).collect();
        assert!(named.len() >= 2, "{html}");
        for path in named {
            let file = ask(path, None).await;
            assert_eq!(file.status(), StatusCode::OK, "{path}");
            assert_eq!(says(&file, header::CACHE_CONTROL), FOR_GOOD);
            assert_ne!(says(&file, header::CONTENT_TYPE), "application/octet-stream", "{path}");
        }
    }

    #[tokio::test]
    async fn who_has_the_file_is_not_sent_it_again() {
        let first = ask("/", None).await;
        let etag = says(&first, header::ETAG).to_owned();
        for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}")] {
            assert_eq!(ask("/", Some(&known)).await.status(), StatusCode::NOT_MODIFIED, "{known}");
        }
        assert_eq!(ask("/", Some("\"x\"")).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_404_and_nothing_outside_is_served() {
        for path in ["/assets/none.js", "/assets/..%2f..%2fpackage.json"] {
            assert_eq!(ask(path, None).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
