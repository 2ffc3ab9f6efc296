//! Every route and who may call it.

use foretide_api::{FIRST_TOKEN, Scope, first_token, mint};
use foretide_catalog::in_memory;
use foretide_flow::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{problem, serve};

/// Method, path as documented, path to try, scope; none for what anyone may call.
pub const ROUTES: &[(&str, &str, &str, Option<Scope>)] = &[
    ("GET", "/healthz", "/healthz", None),
    ("GET", "/v1/openapi.json", "/v1/openapi.json", None),
    ("GET", "/v1/sign-in", "/v1/sign-in", None),
    ("GET", "/metrics", "/metrics", Some(Scope::Read)),
    ("GET", "/v1/warmups", "/v1/warmups", Some(Scope::Read)),
    ("GET", "/v1/warmups/{id}", "/v1/warmups/x", Some(Scope::Read)),
    ("POST", "/v1/warmups", "/v1/warmups", Some(Scope::Warm)),
    ("POST", "/v1/warmups/{id}/release", "/v1/warmups/x/release", Some(Scope::Warm)),
    ("DELETE", "/v1/warmups/{id}", "/v1/warmups/x", Some(Scope::Warm)),
    ("GET", "/v1/plans", "/v1/plans", Some(Scope::Read)),
    ("GET", "/v1/plans/latest", "/v1/plans/latest", Some(Scope::Read)),
    ("GET", "/v1/plans/{id}", "/v1/plans/x", Some(Scope::Read)),
    ("GET", "/v1/plans/{id}/explain", "/v1/plans/x/explain", Some(Scope::Read)),
    ("GET", "/v1/plans/{id}/changes", "/v1/plans/x/changes?since=y", Some(Scope::Read)),
    ("GET", "/v1/plans/{id}/proposals", "/v1/plans/x/proposals", Some(Scope::Read)),
    ("POST", "/v1/plans/{id}/approve", "/v1/plans/x/approve", Some(Scope::Warm)),
    ("GET", "/v1/moves", "/v1/moves", Some(Scope::Read)),
    ("GET", "/v1/forecasts", "/v1/forecasts", Some(Scope::Read)),
    ("GET", "/v1/forecasts/{id}", "/v1/forecasts/x", Some(Scope::Read)),
    ("GET", "/v1/profiles", "/v1/profiles", Some(Scope::Read)),
    ("GET", "/v1/profiles/{workload}", "/v1/profiles/x", Some(Scope::Read)),
    ("GET", "/v1/runs", "/v1/runs", Some(Scope::Read)),
    ("PUT", "/v1/tags", "/v1/tags", Some(Scope::Admin)),
    ("GET", "/v1/volumes", "/v1/volumes", Some(Scope::Read)),
    ("POST", "/v1/volumes", "/v1/volumes", Some(Scope::Admin)),
    ("GET", "/v1/sites", "/v1/sites", Some(Scope::Read)),
    ("GET", "/v1/refusals", "/v1/refusals", Some(Scope::Read)),
    ("GET", "/v1/switch", "/v1/switch", Some(Scope::Read)),
    ("PUT", "/v1/switch", "/v1/switch", Some(Scope::Admin)),
    ("GET", "/v1/mode", "/v1/mode", Some(Scope::Read)),
    ("PUT", "/v1/mode", "/v1/mode", Some(Scope::Admin)),
    ("GET", "/v1/me", "/v1/me", Some(Scope::Read)),
    ("PATCH", "/v1/warmups/{id}", "/v1/warmups/x", Some(Scope::Warm)),
    ("POST", "/v1/announcements", "/v1/announcements", Some(Scope::Warm)),
    ("POST", "/v1/advise", "/v1/advise", Some(Scope::Read)),
    ("POST", "/v1/what-if", "/v1/what-if", Some(Scope::Read)),
    ("GET", "/v1/files", "/v1/files", Some(Scope::Read)),
    ("GET", "/v1/where", "/v1/where?volume=images&path=a", Some(Scope::Read)),
    ("GET", "/v1/policy", "/v1/policy", Some(Scope::Read)),
    ("GET", "/v1/policy/verdicts", "/v1/policy/verdicts?volume=images", Some(Scope::Read)),
    ("GET", "/v1/webhooks", "/v1/webhooks", Some(Scope::Admin)),
    ("POST", "/v1/webhooks", "/v1/webhooks", Some(Scope::Admin)),
    ("DELETE", "/v1/webhooks/{name}", "/v1/webhooks/x", Some(Scope::Admin)),
    ("GET", "/v1/events", "/v1/events?after=x", Some(Scope::Read)),
    ("GET", "/v1/tokens", "/v1/tokens", Some(Scope::Admin)),
    ("POST", "/v1/tokens", "/v1/tokens", Some(Scope::Admin)),
    ("DELETE", "/v1/tokens/{name}", "/v1/tokens/x", Some(Scope::Admin)),
    ("GET", "/v1/audit", "/v1/audit", Some(Scope::Admin)),
    ("POST", "/v1/agent/hello", "/v1/agent/hello", Some(Scope::Agent)),
    ("POST", "/v1/agent/accesses", "/v1/agent/accesses?node=n", Some(Scope::Agent)),
    ("POST", "/v1/agent/listings", "/v1/agent/listings", Some(Scope::Agent)),
    ("POST", "/v1/agent/shared", "/v1/agent/shared", Some(Scope::Agent)),
    ("POST", "/v1/agent/outcomes", "/v1/agent/outcomes", Some(Scope::Agent)),
    ("GET", "/v1/agent/assignment", "/v1/agent/assignment?node=n", Some(Scope::Agent)),
    ("POST", "/v1/agent/join", "/v1/agent/join", Some(Scope::Join)),
    ("POST", "/v1/joins", "/v1/joins", Some(Scope::Admin)),
];

/// What admins may do by being admins.
pub fn may(held: Scope, needed: Scope) -> bool {
    held == needed || (held == Scope::Admin && matches!(needed, Scope::Read | Scope::Warm))
}

#[tokio::test]
async fn each_route_answers_its_scope_and_no_other() {
    let served = serve().await;
    for (method, _, path, needed) in ROUTES {
        let method: Method = method.parse().unwrap();
        let bare = || served.client.request(method.clone(), format!("{}{path}", served.base));
        let Some(needed) = needed else {
            assert!(bare().send().await.unwrap().status().is_success(), "{method} {path} is open");
            continue;
        };
        let none = bare().send().await.unwrap();
        assert_eq!(none.headers()["www-authenticate"], "Bearer");
        problem(none, 401, "no-token").await;
        problem(bare().bearer_auth("ft_wrong").send().await.unwrap(), 401, "bad-token").await;
        for held in Scope::ALL {
            let response = served.ask(held, method.clone(), path).send().await.unwrap();
            let status = response.status().as_u16();
            if may(held, *needed) {
                assert!(![401, 403].contains(&status), "{method} {path} with {held}: {status}");
            } else {
                let told = problem(response, 403, "wrong-scope").await;
                assert!(told["remedy"].as_str().unwrap().contains(needed.as_str()), "{told}");
            }
        }
    }
}

#[test]
fn the_table_and_the_document_list_the_same_routes_and_scopes() {
    let document = serde_json::to_value(foretide_api::openapi()).unwrap();
    let mut documented = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scope = operation["security"].get(0).map(|s| s["bearer"][0].as_str().unwrap().to_owned());
            documented.push((method.to_uppercase(), path.clone(), scope));
        }
    }
    let mut listed: Vec<_> = ROUTES
        .iter()
        .map(|(method, path, _, scope)| ((*method).to_owned(), (*path).to_owned(), scope.map(|s| s.to_string())))
        .collect();
    documented.sort();
    listed.sort();
    assert_eq!(documented, listed);
}

#[tokio::test]
async fn the_first_token_is_made_once() {
    let catalog = in_memory();
    let secret = first_token(catalog.as_ref(), Timestamp(1)).await.unwrap().expect("the first start makes one");
    assert_eq!(secret.len(), "ft_".len() + 64);
    let token = catalog.token(&secret, Timestamp(2)).await.unwrap().unwrap();
    assert_eq!((token.name.as_str(), token.scope.as_str()), (FIRST_TOKEN, "read warm admin agent"));
    assert_eq!(first_token(catalog.as_ref(), Timestamp(3)).await.unwrap(), None);
}

#[tokio::test]
async fn a_token_is_made_used_and_revoked() {
    let served = serve().await;
    let wanted = json!({ "name": "ci", "scopes": ["read"] });
    let made = served.posted(Scope::Admin, "/v1/tokens", &wanted).await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    let with = || served.client.get(format!("{}/v1/sites", served.base)).bearer_auth(&secret);
    assert!(with().send().await.unwrap().status().is_success());

    problem(served.post(Scope::Admin, "/v1/tokens", &wanted).await, 409, "conflict").await;
    let listed = served.got(Scope::Admin, "/v1/tokens").await;
    assert!(listed["items"].as_array().unwrap().iter().any(|t| t["name"] == "ci" && t["scopes"] == json!(["read"])));
    assert!(!listed.to_string().contains(&secret), "a secret is shown once");

    let revoked = served.ask(Scope::Admin, Method::DELETE, "/v1/tokens/ci").send().await.unwrap();
    assert_eq!(revoked.status().as_u16(), 204);
    problem(with().send().await.unwrap(), 401, "bad-token").await;
    let again = served.ask(Scope::Admin, Method::DELETE, "/v1/tokens/ci").send().await.unwrap();
    problem(again, 404, "not-found").await;
    let audit = served.got(Scope::Admin, "/v1/audit").await;
    let deeds: Vec<&Value> = audit["items"].as_array().unwrap().iter().map(|e| &e["what"]).collect();
    assert_eq!(deeds, ["token.make", "token.revoke"]);
}

#[tokio::test]
async fn an_expired_token_is_void() {
    let served = serve().await;
    let past = Timestamp::now() - std::time::Duration::from_secs(1);
    let secret = mint(served.catalog.as_ref(), "old", &[Scope::Read], Some(past), Timestamp(0)).await.unwrap();
    let response = served.client.get(format!("{}/v1/sites", served.base)).bearer_auth(secret).send().await.unwrap();
    problem(response, 401, "bad-token").await;
    let wanted = json!({ "name": "late", "scopes": ["read"], "expires_at": past.0 });
    problem(served.post(Scope::Admin, "/v1/tokens", &wanted).await, 422, "in-the-past").await;
}

#[tokio::test]
async fn a_token_can_ask_what_it_may() {
    let served = serve().await;
    let admin = served.got(Scope::Admin, "/v1/me").await;
    assert_eq!(admin, json!({ "name": "admin", "scopes": ["read", "warm", "admin"], "tenant": null }));
    assert_eq!(served.got(Scope::Read, "/v1/me").await["scopes"], json!(["read"]));
}
