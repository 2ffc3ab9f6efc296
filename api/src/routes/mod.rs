//! Every route, each behind the guard of its scope.

pub(crate) mod agent;
pub(crate) mod files;
pub(crate) mod fleet;
pub(crate) mod house;
pub(crate) mod joining;
pub(crate) mod learned;
pub(crate) mod orders;
pub(crate) mod placement;
pub(crate) mod plans;
pub(crate) mod policy;
pub(crate) mod volumes;
mod warmups;
pub(crate) mod webhooks;
pub(crate) mod whatif;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use foretide_catalog::Page;
use serde::{Deserialize, Serialize};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Api;
use crate::auth::{Scope, guard};
use crate::document;
use crate::error::ApiError;
use crate::extract::within;
use crate::metrics;

/// Items of a page if nothing else is asked for.
const PAGE_DEFAULT: u16 = 100;
/// Items of a page at most: the catalog's own bound.
const PAGE_MAX: u16 = 1000;
/// Smaller answers are sent as they are: compressing them costs more than it saves.
const COMPRESS_ABOVE_BYTES: u64 = 4096;

/// Part of a list, and where the rest begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// The items, newest first unless the route says otherwise.
    pub items: Vec<T>,
    /// Give this as `cursor` for what comes after; null at the end.
    pub next: Option<u64>,
}

impl<T> List<T> {
    fn of<U: Into<T>>(page: Page<U>) -> Self {
        Self { items: page.items.into_iter().map(Into::into).collect(), next: page.next }
    }
}

fn page_size(limit: Option<u16>) -> Result<usize, ApiError> {
    within("limit", limit.unwrap_or(PAGE_DEFAULT), 1, PAGE_MAX).map(usize::from)
}

/// The routes of each scope; none for those that anyone may call.
fn groups() -> Vec<(Option<Scope>, OpenApiRouter<Api>)> {
    let open = OpenApiRouter::default()
        .routes(routes!(house::healthz))
        .routes(routes!(house::openapi_json))
        .routes(routes!(house::ways_in));
    let read = OpenApiRouter::default()
        .routes(routes!(warmups::list))
        .routes(routes!(warmups::one))
        .routes(routes!(plans::list))
        .routes(routes!(plans::latest))
        .routes(routes!(plans::one))
        .routes(routes!(plans::explain))
        .routes(routes!(plans::changes))
        .routes(routes!(plans::proposals))
        .routes(routes!(plans::moves))
        .routes(routes!(learned::forecasts))
        .routes(routes!(learned::forecast))
        .routes(routes!(learned::profiles))
        .routes(routes!(learned::profile))
        .routes(routes!(learned::runs))
        .routes(routes!(fleet::sites))
        .routes(routes!(fleet::refusals))
        .routes(routes!(fleet::switch))
        .routes(routes!(fleet::mode))
        .routes(routes!(house::me))
        .routes(routes!(policy::policy))
        .routes(routes!(policy::verdicts))
        .routes(routes!(placement::advise))
        .routes(routes!(whatif::what_if))
        .routes(routes!(files::find))
        .routes(routes!(files::whereabouts))
        .routes(routes!(volumes::list))
        .routes(routes!(house::events))
        .routes(routes!(house::metrics));
    let warm = OpenApiRouter::default()
        .routes(routes!(warmups::ask))
        .routes(routes!(warmups::change))
        .routes(routes!(warmups::cancel))
        .routes(routes!(warmups::release))
        .routes(routes!(plans::approve))
        .routes(routes!(orders::announce));
    let admin = OpenApiRouter::default()
        .routes(routes!(files::tag))
        .routes(routes!(volumes::add))
        .routes(routes!(fleet::throw_switch))
        .routes(routes!(fleet::choose_mode))
        .routes(routes!(joining::offer))
        .routes(routes!(house::tokens))
        .routes(routes!(house::make_token))
        .routes(routes!(house::revoke_token))
        .routes(routes!(house::audit))
        .routes(routes!(webhooks::webhooks))
        .routes(routes!(webhooks::make))
        .routes(routes!(webhooks::remove));
    let agents = OpenApiRouter::default()
        .routes(routes!(agent::hello))
        .routes(routes!(agent::accesses))
        .routes(routes!(agent::listings))
        .routes(routes!(agent::shared))
        .routes(routes!(agent::outcomes))
        .routes(routes!(agent::assignment));
    let joins = OpenApiRouter::default().routes(routes!(joining::join));
    vec![
        (None, open),
        (Some(Scope::Read), read),
        (Some(Scope::Warm), warm),
        (Some(Scope::Admin), admin),
        (Some(Scope::Agent), agents),
        (Some(Scope::Join), joins),
    ]
}

/// All routes with their description, unguarded: for the document alone.
pub(crate) fn described() -> OpenApiRouter<Api> {
    groups().into_iter().fold(OpenApiRouter::with_openapi(document::head()), |all, (scope, mut group)| {
        document::complete(group.get_openapi_mut(), scope);
        all.merge(group)
    })
}

/// The API as a service. Whatever it does not know it answers with a problem, so it is the last to be asked: merge
/// other routers into it.
pub fn router(api: Api) -> Router {
    let guarded = groups().into_iter().fold(Router::new(), |all, (scope, group)| {
        let routes: Router<Api> = group.into();
        all.merge(match scope {
            Some(scope) => routes.route_layer(from_fn_with_state((api.clone(), scope), guard)),
            None => routes,
        })
    });
    let worth_it = SizeAbove::new(COMPRESS_ABOVE_BYTES).and(NotForContentType::SSE);
    guarded
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        // Bodies are read against the bounds of `Config`, which name themselves when they are met.
        .layer(DefaultBodyLimit::disable())
        .layer(CompressionLayer::new().compress_when(worth_it))
        .layer(from_fn_with_state(api.clone(), metrics::count))
        .with_state(api)
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::NoRoute(uri.path().to_owned())
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::WrongMethod { path: uri.path().to_owned(), method: method.to_string() }
}
