//! Where the API listens: TCP, and TLS on top of it where the configuration says so.
//!
//! Greetings go on beside each other, each within its time, so that who connects and says nothing holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::middleware::{Next, from_fn};
use axum::serve::{IncomingStream, Listener};
use foretide_api::Connection;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Greetings at the same time; who comes then waits at the door.
const GREETED_AT_ONCE: usize = 256;
/// Longest greeting.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves until `stopped` becomes true, then ends what is under way.
pub fn serve(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    app: Router,
    stopped: watch::Receiver<bool>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let until = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let Some(tls) = tls else {
        return Ok(tokio::spawn(axum::serve(listener, app).with_graceful_shutdown(until(stopped)).into_future()));
    };
    let app = app.layer(from_fn(connected)).into_make_service_with_connect_info::<Shown>();
    let listener = TlsListener::start(listener, tls)?;
    Ok(tokio::spawn(axum::serve(listener, app).with_graceful_shutdown(until(stopped)).into_future()))
}

/// What a caller showed when it connected, in the words of the API.
async fn connected(
    ConnectInfo(shown): ConnectInfo<Shown>,
    mut request: Request,
    next: Next,
) -> axum::response::Response {
    request.extensions_mut().insert(shown.0);
    next.run(request).await
}

/// What was shown at a connection's greeting.
#[derive(Clone, Copy, Debug)]
struct Shown(Connection);

impl Connected<IncomingStream<'_, TlsListener>> for Shown {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let certificate = stream.io().get_ref().1.peer_certificates().and_then(|all| all.first());
        Self(Connection { is_agents: certificate.is_some_and(foretide_transfer::is_of_agent) })
    }
}

/// Connections whose greeting is done.
struct TlsListener {
    address: SocketAddr,
    greeted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    /// Ends with this.
    _greeting: JoinSet<()>,
}

impl TlsListener {
    fn start(listener: TcpListener, config: ServerConfig) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (ready, greeted) = mpsc::channel(GREETED_AT_ONCE);
        let mut greeting = JoinSet::new();
        greeting.spawn(greet(listener, TlsAcceptor::from(Arc::new(config)), ready));
        Ok(Self { address, greeted, _greeting: greeting })
    }
}

async fn greet(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(GREETED_AT_ONCE));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let (stream, from) = Listener::accept(&mut listener).await;
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(ready.send((stream, from)).await),
                Ok(Err(error)) => tracing::debug!(%error, %from, "no TLS"),
                Err(_) => tracing::debug!(%from, "connected and said nothing"),
            }
            drop(place);
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.greeted.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
