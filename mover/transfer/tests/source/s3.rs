//! An S3 server on loopback.

use std::sync::Arc;

use foretide_transfer::Bucket;
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
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
    builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
    let service = builder.build();
    runtime.spawn(async move {
        let _folder = folder;
        let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let connection = http.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
            tokio::spawn(connection);
        }
    });
    let endpoint = format!("http://{address}");
    let options = [
        ("aws_endpoint", endpoint.as_str()),
        ("aws_allow_http", "true"),
        ("aws_region", "us-east-1"),
        ("aws_access_key_id", KEY),
        ("aws_secret_access_key", SECRET),
    ];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (store, root) = Bucket::connect(&format!("s3://{BUCKET}/{PREFIX}"), &options.into()).unwrap();
    assert_eq!(root.as_ref(), PREFIX);
    (runtime, store)
}
