//! The OpenAPI document, collected from the routes. What every guarded route has in common (the token, its scope,
//! the problems of a body or of parameters) is added here once, so that no handler can forget it.

use foretide_flow::Timestamp;
use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, RefOr, ResponseBuilder};

use crate::auth::Scope;
use crate::events::EventView;
use crate::problem::{PROBLEM_JSON, Problem};

/// The name of the security scheme.
const BEARER: &str = "bearer";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Foretide",
        description = "Moves data toward GPUs ahead of the reads. Moments are microseconds since 1970-01-01 UTC. \
                       Errors are application/problem+json with a remedy."
    ),
    components(schemas(Problem, EventView, Timestamp)),
    tags(
        (name = "warm-ups", description = "Have this there by then."),
        (name = "placement", description = "Where data could be, what a job says that it will read."),
        (name = "plans", description = "What is moved, why, and what was decided against."),
        (name = "learned", description = "What was read, and what is expected."),
        (name = "namespace", description = "Which files there are, and where; volumes and tags."),
        (name = "fleet", description = "Sites, and the one switch."),
        (name = "agents", description = "What agents report and take."),
        (name = "house", description = "Events, metrics, tokens, audit.")
    )
)]
struct Head;

/// The document without routes.
pub(crate) fn head() -> OpenApi {
    let mut document = Head::openapi();
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token with the scope that the route names."))
        .build();
    document.components.get_or_insert_default().add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    document
}

/// The whole document.
pub fn openapi() -> OpenApi {
    crate::routes::described().into_openapi()
}

/// Adds to each operation what its guard, its body and its parameters make possible.
pub(crate) fn complete(document: &mut OpenApi, scope: Option<Scope>) {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            add_common(operation, scope);
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.delete, &mut item.patch].into_iter().flatten()
}

fn add_common(operation: &mut Operation, scope: Option<Scope>) {
    if let Some(scope) = scope {
        operation.security = Some(vec![SecurityRequirement::new(BEARER, [scope.as_str()])]);
        add_problem(operation, "401", "No token, or one that is not known, has expired or was revoked.");
        add_problem(operation, "403", &format!("The token lacks the scope `{scope}`."));
        add_problem(operation, "429", "This token asks too often; `Retry-After` says when to go on.");
        add_problem(operation, "500", "The control plane cannot read or write its records.");
        add_problem(operation, "503", "The records, or the keys of the issuer of people's tokens, cannot be had now.");
    } else {
        operation.security = Some(Vec::new());
    }
    if operation.request_body.is_some() {
        add_problem(operation, "400", "The body is not JSON, or ended early; or a parameter cannot be meant.");
        add_problem(operation, "413", "The body is larger than this route takes.");
        add_problem(operation, "415", "The body is of another media type.");
        add_problem(operation, "422", "The body has another shape, or asks for what cannot be.");
    } else if operation.parameters.as_ref().is_some_and(|p| !p.is_empty()) {
        add_problem(operation, "400", "A parameter cannot be meant.");
    }
}

/// A handler's own words for a status go first.
fn add_problem(operation: &mut Operation, status: &str, description: &str) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build();
    operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
}
