//! People with tokens of an issuer: a small real one, which publishes its keys over HTTP and signs with them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use foretide_api::{Config, Grant, Oidc, PageClient, Scope, ShownToken, WaysIn};
use foretide_catalog::in_memory;
use reqwest::{Method, Response};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use crate::harness::{Served, problem, serve_with};
use crate::scopes::{ROUTES, may};

/// An RSA key of nobody's: ring makes none.
const RSA: &[u8] = include_bytes!("../data/issuer-rsa.der");

/// One of an issuer's keys.
enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Key {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_pkcs8(RSA).unwrap())
    }

    fn ec() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap())
    }

    fn ed() -> Self {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Self::Ec(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    fn published(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(key) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": text(n), "e": text(e) })
            }
            Self::Ec(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": kid, "x": text(x), "y": text(y) })
            }
            Self::Ed(key) => json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(key.public_key()) }),
        }
    }
}

/// Keys by name, whether it answers, and how often its keys were asked for.
#[derive(Default)]
struct Published {
    base: Mutex<String>,
    keys: Mutex<HashMap<String, Key>>,
    is_down: AtomicBool,
    asked: AtomicUsize,
}

async fn discovery(State(issuer): State<Arc<Published>>) -> Result<Json<Value>, StatusCode> {
    if issuer.is_down.load(Ordering::SeqCst) {
        return Err(StatusCode::BAD_GATEWAY);
    }
    let base = issuer.base.lock().unwrap().clone();
    Ok(Json(json!({
        "issuer": base,
        "jwks_uri": format!("{base}/keys"),
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
        "revocation_endpoint": format!("{base}/revoke"),
        "end_session_endpoint": format!("{base}/logout"),
        "authorization_response_iss_parameter_supported": true,
    })))
}

async fn keys(State(issuer): State<Arc<Published>>) -> Json<Value> {
    issuer.asked.fetch_add(1, Ordering::SeqCst);
    let mut keys: Vec<Value> = issuer.keys.lock().unwrap().iter().map(|(kid, key)| key.published(kid)).collect();
    keys.push(json!({ "kty": "of a later time" }));
    Json(json!({ "keys": keys }))
}

/// A running issuer, and its tokens.
struct Issuer(Arc<Published>);

impl Issuer {
    async fn start() -> Self {
        let published = Arc::new(Published::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        *published.base.lock().unwrap() = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .with_state(Arc::clone(&published));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self(published)
    }

    fn base(&self) -> String {
        self.0.base.lock().unwrap().clone()
    }

    fn add(&self, kid: &str, key: Key) {
        self.0.keys.lock().unwrap().insert(kid.into(), key);
    }

    fn take_back(&self, kid: &str) {
        self.0.keys.lock().unwrap().remove(kid);
    }

    fn go_down(&self) {
        self.0.is_down.store(true, Ordering::SeqCst);
    }

    fn come_back(&self) {
        self.0.is_down.store(false, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// What it says of somebody in these groups, for ten minutes.
    fn claims(&self, groups: &[&str]) -> Value {
        json!({ "iss": self.base(), "aud": ["foretide", "other"], "sub": "ann", "groups": groups, "exp": now_s() + 600 })
    }

    /// Signed with the key of that name.
    fn token(&self, kid: &str, claims: &Value) -> String {
        let keys = self.0.keys.lock().unwrap();
        signed(&keys[kid], json!({ "alg": keys[kid].algorithm(), "kid": kid }), claims)
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn signed(key: &Key, head: Value, claims: &Value) -> String {
    let said = format!("{}.{}", text(head.to_string()), text(claims.to_string()));
    let signature = text(key.sign(said.as_bytes()));
    format!("{said}.{signature}")
}

/// A control plane that believes the issuer: `admins` may administer, `readers` read, `vision` is a tenant.
async fn believing(issuer: &Issuer) -> Served {
    let grant = |value: &str, scopes: &[Scope], tenant: Option<&str>| Grant {
        value: value.into(),
        scopes: scopes.to_vec(),
        tenant: tenant.map(Into::into),
    };
    let grants = vec![
        grant("admins", &[Scope::Admin], None),
        grant("readers", &[Scope::Read], None),
        grant("starters", &[Scope::Warm], None),
        grant("vision", &[Scope::Read], Some("vision")),
    ];
    served_with(Oidc { grants, ..Oidc::of(&issuer.base(), "foretide") }).await
}

async fn served_with(oidc: Oidc) -> Served {
    oidc.check().unwrap();
    serve_with(Config { oidc: Some(oidc), ..Config::default() }, in_memory()).await
}

/// A control plane whose page signs people in there.
async fn signing_in(issuer: &Issuer, client_id: &str) -> Served {
    let page = PageClient {
        client_id: client_id.into(),
        name: Some("The Lab".into()),
        scopes: vec!["openid".into(), "offline_access".into()],
        parameters: [("audience".to_owned(), "foretide".to_owned())].into(),
        token_origin: None,
    };
    served_with(Oidc { page: Some(page), ..Oidc::of(&issuer.base(), "foretide") }).await
}

/// As somebody without a token.
async fn ways_in(served: &Served) -> Response {
    served.client.get(format!("{}/v1/sign-in", served.base)).send().await.unwrap()
}

async fn ask(served: &Served, method: Method, path: &str, token: &str) -> Response {
    served.client.request(method, format!("{}{path}", served.base)).bearer_auth(token).send().await.unwrap()
}

async fn me(served: &Served, token: &str) -> Response {
    ask(served, Method::GET, "/v1/me", token).await
}

#[tokio::test]
async fn each_kind_of_key_proves_who_somebody_is() {
    let issuer = Issuer::start().await;
    let served = believing(&issuer).await;
    for (kid, key) in [("rsa", Key::rsa()), ("ec", Key::ec()), ("ed", Key::ed())] {
        issuer.add(kid, key);
    }
    for kid in ["rsa", "ec", "ed"] {
        let answer = me(&served, &issuer.token(kid, &issuer.claims(&["admins"]))).await;
        assert_eq!(answer.status().as_u16(), 200, "{kid}");
        let person: Value = answer.json().await.unwrap();
        assert_eq!(person, json!({ "name": "oidc:ann", "scopes": ["read", "warm", "admin"], "tenant": null }));
    }
    assert_eq!(issuer.asked(), 1, "keys are kept");
    let tenant: Value = me(&served, &issuer.token("ed", &issuer.claims(&["vision"]))).await.json().await.unwrap();
    assert_eq!(tenant["tenant"], "vision");
    assert_eq!(served.got(Scope::Read, "/v1/me").await["name"], "read", "tokens of our own go on");
    let off = ask(&served, Method::PUT, "/v1/switch", &issuer.token("ec", &issuer.claims(&["readers"]))).await;
    problem(off, 403, "wrong-scope").await;
}

#[tokio::test]
async fn people_reach_what_their_groups_are_worth_and_nothing_else() {
    let issuer = Issuer::start().await;
    issuer.add("k", Key::ed());
    let served = believing(&issuer).await;
    let worth = [
        ("readers", Some(Scope::Read)),
        ("starters", Some(Scope::Warm)),
        ("admins", Some(Scope::Admin)),
        ("guests", None),
    ];
    for (group, held) in worth {
        let token = issuer.token("k", &issuer.claims(&[group]));
        for (method, _, path, needed) in ROUTES {
            let Some(needed) = needed else { continue };
            let answer = ask(&served, method.parse().unwrap(), path, &token).await;
            let status = answer.status().as_u16();
            if held.is_some_and(|held| may(held, *needed)) {
                assert!(![401, 403].contains(&status), "{method} {path} as {group}: {status}");
            } else {
                problem(answer, 403, "wrong-scope").await;
            }
        }
    }
}

#[tokio::test]
async fn what_the_issuer_did_not_say_of_us_is_not_believed() {
    let issuer = Issuer::start().await;
    issuer.add("k", Key::ec());
    issuer.add("rsa", Key::rsa());
    let served = believing(&issuer).await;
    let good = issuer.claims(&["admins"]);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let head = json!({ "alg": "ES256", "kid": "k" });
    let (stranger, none) = (Key::ec(), format!("{}.{}.", text(r#"{"alg":"none"}"#), text(good.to_string())));
    let of_k = issuer.token("k", &good);
    let (said, _) = of_k.rsplit_once('.').unwrap();
    let changed = {
        let (_, signature) = of_k.rsplit_once('.').unwrap();
        format!("{}.{}.{signature}", text(head.to_string()), text(with("sub", json!("root")).to_string()))
    };
    let cases = [
        ("another audience", issuer.token("k", &with("aud", json!("other")))),
        ("no audience", issuer.token("k", &without("aud"))),
        ("another issuer", issuer.token("k", &with("iss", json!("https://evil.example")))),
        ("expired", issuer.token("k", &with("exp", json!(now_s() - 120)))),
        ("without an end", issuer.token("k", &without("exp"))),
        ("an end that is no number", issuer.token("k", &with("exp", json!("never")))),
        ("not valid yet", issuer.token("k", &with("nbf", json!(now_s() + 300)))),
        ("a start that is no number", issuer.token("k", &with("nbf", json!("now")))),
        ("of nobody", issuer.token("k", &without("sub"))),
        ("alg none", none),
        ("a stranger's signature", signed(&stranger, head.clone(), &good)),
        ("no signature", format!("{said}.")),
        ("another's claims", changed),
        ("the algorithm of another key", signed(&stranger, json!({ "alg": "ES256", "kid": "rsa" }), &good)),
        ("a secret's algorithm", signed(&stranger, json!({ "alg": "HS256", "kid": "k" }), &good)),
        (
            "a key of its own",
            signed(&stranger, json!({ "alg": "ES256", "kid": "mine", "jwk": stranger.published("mine") }), &good),
        ),
        ("critical", signed(&stranger, json!({ "alg": "ES256", "kid": "k", "crit": ["exp"] }), &good)),
        ("no JWT", "a.b.c".to_owned()),
        ("too large", format!("{}.b.c", "x".repeat(20_000))),
    ];
    for (what, token) in cases {
        let answer = me(&served, &token).await;
        assert_eq!(answer.headers()["www-authenticate"], "Bearer", "{what}");
        problem(answer, 401, "bad-token").await;
    }
    let late = issuer.token("k", &with("exp", json!(now_s() - 20)));
    assert_eq!(me(&served, &late).await.status().as_u16(), 200, "clocks differ a little");
}

#[tokio::test]
async fn new_keys_are_found_old_ones_outlive_their_issuer_and_nobody_makes_us_ask_often() {
    let issuer = Issuer::start().await;
    issuer.add("old", Key::ed());
    let served = believing(&issuer).await;
    let of_old = issuer.token("old", &issuer.claims(&["readers"]));
    assert_eq!(me(&served, &of_old).await.status().as_u16(), 200);

    issuer.add("new", Key::ec());
    let of_new = issuer.token("new", &issuer.claims(&["readers"]));
    problem(me(&served, &of_new).await, 401, "bad-token").await;
    assert_eq!(issuer.asked(), 1, "it was asked a moment ago");
    tokio::time::sleep(Duration::from_millis(5100)).await;
    assert_eq!(me(&served, &of_new).await.status().as_u16(), 200, "an unknown name has the keys fetched again");

    issuer.take_back("old");
    assert_eq!(me(&served, &of_old).await.status().as_u16(), 200, "until the keys are fetched again");
    issuer.go_down();
    assert_eq!(me(&served, &of_new).await.status().as_u16(), 200, "what is kept goes on");
    let invented = signed(&Key::ed(), json!({ "alg": "EdDSA", "kid": "x" }), &issuer.claims(&["admins"]));
    for _ in 0..20 {
        problem(me(&served, &invented).await, 401, "bad-token").await;
    }
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn without_a_key_people_are_told_to_come_again() {
    let issuer = Issuer::start().await;
    issuer.add("k", Key::ed());
    issuer.go_down();
    let served = believing(&issuer).await;
    let token = issuer.token("k", &issuer.claims(&["readers"]));
    for _ in 0..2 {
        let answer = me(&served, &token).await;
        assert!(answer.headers().contains_key("retry-after"));
        let told = problem(answer, 503, "unavailable").await;
        assert!(told["detail"].as_str().unwrap().contains("issuer"), "{told}");
    }
    assert!(served.get(Scope::Read, "/v1/me").await.status().is_success(), "tokens of our own need no issuer");
}

#[tokio::test]
async fn a_page_is_told_where_people_sign_in() {
    let issuer = Issuer::start().await;
    issuer.add("k", Key::ed());
    let base = issuer.base();
    let before_us = foretide_flow::Timestamp::now();
    for (client_id, shown) in [("foretide", ShownToken::Id), ("foretide-page", ShownToken::Access)] {
        let told: WaysIn = ways_in(&signing_in(&issuer, client_id).await).await.json().await.unwrap();
        let told = told.oidc.expect("the page signs people in");
        assert_eq!(
            (told.issuer.as_str(), told.name.as_str(), told.client_id.as_str()),
            (base.as_str(), "The Lab", client_id)
        );
        assert_eq!(
            (told.authorization_endpoint, told.token_endpoint),
            (format!("{base}/authorize"), format!("{base}/token"))
        );
        assert_eq!(told.revocation_endpoint, Some(format!("{base}/revoke")));
        assert_eq!(told.end_session_endpoint, Some(format!("{base}/logout")));
        assert_eq!((told.scope.as_str(), told.parameters["audience"].as_str()), ("openid offline_access", "foretide"));
        assert_eq!((told.shown_token, told.names_itself), (shown, true));
        assert!(told.now >= before_us);
    }
    let pasted: WaysIn = ways_in(&believing(&issuer).await).await.json().await.unwrap();
    assert_eq!(pasted.oidc, None, "an issuer that is believed is not yet one that people are sent to");
}

#[tokio::test]
async fn while_the_issuer_is_down_the_page_is_told_to_come_again_and_what_is_known_goes_on() {
    let issuer = Issuer::start().await;
    issuer.add("k", Key::ed());
    issuer.go_down();
    let served = signing_in(&issuer, "foretide").await;
    for _ in 0..3 {
        let answer = ways_in(&served).await;
        assert!(answer.headers().contains_key("retry-after"));
        let told = problem(answer, 503, "unavailable").await;
        assert!(told["detail"].as_str().unwrap().contains(&issuer.base()), "{told}");
    }
    issuer.come_back();
    problem(ways_in(&served).await, 503, "unavailable").await;
    assert_eq!(issuer.asked(), 0, "nobody makes us ask often");
    tokio::time::sleep(Duration::from_millis(5100)).await;
    assert!(ways_in(&served).await.status().is_success());
    issuer.go_down();
    assert!(ways_in(&served).await.status().is_success(), "what is kept goes on");
    let token = issuer.token("k", &issuer.claims(&[]));
    problem(me(&served, &token).await, 403, "wrong-scope").await;
    assert_eq!(issuer.asked(), 1, "endpoints and keys come together");
}
