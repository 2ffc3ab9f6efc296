//! The document says what the server does.

use std::fs;

use foretide_api::Scope;
use serde_json::Value;

use crate::harness::serve;

/// Where the dashboard and other clients take their types from.
const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

#[test]
fn the_document_checked_in_is_the_code_s() {
    let ours = serde_json::to_string_pretty(&foretide_api::openapi()).unwrap() + "\n";
    if std::env::var_os("FORETIDE_UPDATE_OPENAPI").is_some() {
        fs::write(CHECKED_IN, &ours).unwrap();
    }
    let kept = fs::read_to_string(CHECKED_IN).unwrap_or_default();
    assert!(kept == ours, "api/openapi.json is not what the routes say: run this test with FORETIDE_UPDATE_OPENAPI=1");
}

#[tokio::test]
async fn the_server_hands_out_the_same_document() {
    let served = serve().await;
    let handed: Value = served.got(Scope::Read, "/v1/openapi.json").await;
    assert_eq!(handed, serde_json::to_value(foretide_api::openapi()).unwrap());
}

#[test]
fn every_reference_resolves_and_every_guarded_route_names_its_problems() {
    let document = serde_json::to_value(foretide_api::openapi()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut references = Vec::new();
    collect(&document, &mut references);
    for reference in references {
        let name = reference.strip_prefix("#/components/schemas/").expect("a schema");
        assert!(schemas.contains_key(name), "{reference} leads nowhere");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            let answers = operation["responses"].as_object().unwrap();
            let guarded = operation["security"].get(0).is_some();
            let needed: &[&str] = if guarded { &["401", "403", "429", "500", "503"] } else { &[] };
            for status in needed {
                let content = &answers[*status]["content"]["application/problem+json"];
                assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem", "{method} {path} {status}");
            }
            for status in if operation["requestBody"].is_object() { &["400", "413", "415", "422"][..] } else { &[] } {
                assert!(answers.contains_key(*status), "{method} {path} {status}");
            }
        }
    }
}

fn collect(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            into.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|v| collect(v, into));
        }
        Value::Array(items) => items.iter().for_each(|v| collect(v, into)),
        _ => {}
    }
}
