//! One port for TLS and, from this very machine only, plain HTTP: kubectl and other machines need the one,
//! browsers and curl on loopback are at ease with the other. The first byte tells which it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use daemon::tls::ClientCertificate;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::{debug, warn};

/// A connection, encrypted or not.
pub type Connection = Either<TlsStream<TcpStream>, TcpStream>;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The certificate that the client showed, if it showed one: it was signed by an authority that is trusted here.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// From where they came.
    pub address: SocketAddr,
}

impl Connected<IncomingStream<'_, SecureListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, SecureListener>) -> Self {
        let shown = match stream.io() {
            Either::Left(encrypted) => encrypted.get_ref().1.peer_certificates(),
            Either::Right(_) => None,
        };
        let certificate = shown.and_then(|chain| ClientCertificate::read(chain.first()?));
        Self { certificate: certificate.map(Arc::new), address: *stream.remote_addr() }
    }
}

/// How long a client may take until it has shaken hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many may shake hands at once; more wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// The first byte of a TLS connection: a handshake record.
const TLS: u8 = 0x16;

/// Accepts connections for [`axum::serve`].
pub struct SecureListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shaking: JoinSet<Option<(Connection, SocketAddr)>>,
    places: Arc<Semaphore>,
}

impl SecureListener {
    pub fn new(listener: TcpListener, config: Arc<ServerConfig>) -> Self {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        Self { listener, acceptor: TlsAcceptor::from(config), shaking: JoinSet::new(), places }
    }
}

impl Listener for SecureListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let has_place = self.places.available_permits() > 0;
            tokio::select! {
                Some(done) = self.shaking.join_next() => {
                    if let Ok(Some(accepted)) = done {
                        return accepted;
                    }
                }
                arrived = self.listener.accept(), if has_place => match arrived {
                    Ok((stream, peer)) => {
                        let (acceptor, places) = (self.acceptor.clone(), self.places.clone());
                        self.shaking.spawn(async move {
                            let _place = places.acquire().await.ok()?;
                            let shaken = tokio::time::timeout(HANDSHAKE, shake_hands(stream, peer, acceptor)).await;
                            match shaken {
                                Ok(Ok(connection)) => Some((connection, peer)),
                                Ok(Err(error)) => {
                                    debug!(%peer, %error, "connection refused");
                                    None
                                }
                                Err(_) => None,
                            }
                        });
                    }
                    Err(error) => {
                        // Out of files, most likely: wait for some to be closed.
                        warn!(%error, "can't accept connections");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

async fn shake_hands(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first == [TLS] {
        return acceptor.accept(stream).await.map(Either::Left);
    }
    if peer.ip().is_loopback() {
        return Ok(Either::Right(stream));
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "plain HTTP from another machine; use https"))
}
