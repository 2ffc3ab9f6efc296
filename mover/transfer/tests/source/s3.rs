//! An S3 server on loopback. Google's clients ask for objects in the same words (its XML interface is S3's), so it answers
//! them too, whoever they say they are.

use std::sync::Arc;

use foretide_transfer::Bucket;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use object_store::ObjectStore;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const BUCKET: &str = "data";
/// Below it lies the volume.
pub const PREFIX: &str = "volumes/one";
const KEY: &str = "key";
const SECRET: &str = "secret";

/// Starts it in this runtime; a client that is let in.
pub fn start(runtime: Runtime) -> (Runtime, Arc<dyn ObjectStore>) {
    let endpoint = serve(&runtime, Some(SimpleAuth::from_single(KEY, SECRET)));
    let options = [
        ("aws_endpoint", endpoint.as_str()),
        ("aws_allow_http", "true"),
        ("aws_region", "us-east-1"),
        ("aws_access_key_id", KEY),
        ("aws_secret_access_key", SECRET),
    ];
    let store = connected("s3", &options);
    (runtime, store)
}

/// Starts it for everybody; a client of Google's.
pub fn start_for_google(runtime: Runtime) -> (Runtime, Arc<dyn ObjectStore>) {
    let endpoint = serve(&runtime, None);
    let key = format!(
        r#"{{"gcs_base_url": "{endpoint}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#
    );
    let store = connected("gs", &[("google_service_account_key", key.as_str())]);
    (runtime, store)
}

fn connected(scheme: &str, options: &[(&str, &str)]) -> Arc<dyn ObjectStore> {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (store, root) = Bucket::connect(&format!("{scheme}://{BUCKET}/{PREFIX}"), &options).unwrap();
    assert_eq!(root.as_ref(), PREFIX);
    store
}

fn serve(runtime: &Runtime, auth: Option<SimpleAuth>) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
    let is_for_all = auth.is_none();
    if let Some(auth) = auth {
        builder.set_auth(auth);
    }
    let service = builder.build();
    runtime.spawn(async move {
        let _folder = folder;
        let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let service = service.clone();
            let answer = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                if is_for_all {
                    request.headers_mut().remove("authorization");
                }
                let service = service.clone();
                async move { service.call(request.map(s3s::Body::from)).await }
            });
            let connection = http.serve_connection(TokioIo::new(socket), answer).into_owned();
            tokio::spawn(connection);
        }
    });
    format!("http://{address}")
}
