//! Threads that serve a port's connections, each with a runtime of its own.
//!
//! What a small request costs is mostly the threads that it wakes. On a runtime of many threads, whoever takes an event
//! wakes the next to wait for more; on a lane there is nobody to wake. So small requests are answered where they
//! arrive, and fronts send everything else to the runtime that all share.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use daemon::Shutdown;
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

/// Connections of a port at once.
pub(crate) const CONNECTIONS: usize = 1024;
/// Lanes: one for each core, within these bounds.
const LEAST: usize = 4;
const MOST: usize = 16;
/// How often a lane wakes for nothing. A timer that is to end before all others interrupts the wait for events; beside
/// this one, those of connections and bodies don't.
const PULSE: Duration = Duration::from_secs(5);
/// How long to wait where the machine has no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts so many connections at once, while more wait, and has `connect` serve them until the shutdown; then those
/// that are open end what they are at.
pub(crate) async fn serve<C, F>(
    front: &'static str,
    connections: usize,
    listener: TcpListener,
    shutdown: Shutdown,
    connect: impl Fn() -> C,
) where
    C: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let count = std::thread::available_parallelism().map_or(LEAST, usize::from).clamp(LEAST, MOST);
    let lanes: Vec<Lane> =
        (0..count).filter_map(|index| Lane::start(format!("{front}-{index}"), connect())).collect();
    if lanes.is_empty() {
        return tracing::error!(front, "the system gives no thread for connections");
    }
    let room = Arc::new(Semaphore::new(connections));
    loop {
        let accepted = tokio::select! {
            () = shutdown.wait() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                if let Some(lane) = lanes.iter().min_by_key(|lane| lane.open()) {
                    lane.take(accepted);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept connections");
                shutdown.sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    futures::future::join_all(lanes.into_iter().map(Lane::end)).await;
}

/// Serves a connection until it ends; after the shutdown only what is open in it.
pub(crate) async fn see_out<C>(connection: C, shutdown: Shutdown)
where
    C: GracefulConnection<Error: Display>,
{
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// A connection, and its part of the room for them.
struct Accepted {
    stream: std::net::TcpStream,
    place: OwnedSemaphorePermit,
}

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> std::io::Result<Accepted> {
    let place = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    let _ = stream.set_nodelay(true);
    Ok(Accepted { stream: stream.into_std()?, place })
}

struct Lane {
    accepted: mpsc::UnboundedSender<(Accepted, Arc<()>)>,
    /// Each open connection has one, too.
    open: Arc<()>,
    ended: oneshot::Receiver<()>,
}

impl Lane {
    fn start<C, F>(name: String, connect: C) -> Option<Lane>
    where
        C: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (accepted, connections) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let work = move || {
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(run(connections, connect)),
                Err(error) => tracing::error!(%error, "a thread for connections can't start"),
            }
            let _ = end.send(());
        };
        let started = std::thread::Builder::new().name(name).spawn(work);
        started.ok().map(|_| Lane { accepted, open: Arc::default(), ended })
    }

    fn open(&self) -> usize {
        Arc::strong_count(&self.open)
    }

    /// A lane whose thread is gone closes the connection.
    fn take(&self, accepted: Accepted) {
        let _ = self.accepted.send((accepted, self.open.clone()));
    }

    /// Resolves when the last of its connections has ended.
    async fn end(self) {
        drop(self.accepted);
        let _ = self.ended.await;
    }
}

async fn run<C, F>(mut accepted: mpsc::UnboundedReceiver<(Accepted, Arc<()>)>, connect: C)
where
    C: Fn(TcpStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut pulse = tokio::time::interval(PULSE);
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            _ = pulse.tick() => {}
            next = accepted.recv() => {
                let Some((Accepted { stream, place }, open)) = next else { break };
                let Ok(stream) = TcpStream::from_std(stream) else { continue };
                let connection = connect(stream);
                connections.spawn(async move {
                    connection.await;
                    drop((place, open));
                });
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use daemon::Tasks;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Greets, then waits until the other side has ended.
    async fn greet(mut stream: TcpStream) {
        let _ = stream.write_all(b"!").await;
        let _ = stream.read(&mut [0]).await;
    }

    #[tokio::test]
    async fn connections_beyond_the_room_for_them_wait_until_one_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tasks) = (listener.local_addr().unwrap(), Tasks::default());
        tasks.spawn("front", serve("test", 2, listener, tasks.shutdown(), || greet));
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut connection = TcpStream::connect(address).await.unwrap();
            assert_eq!(connection.read_u8().await.unwrap(), b'!');
            open.push(connection);
        }
        let mut third = TcpStream::connect(address).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), third.read_u8()).await;
        assert!(early.is_err(), "{early:?}");
        open.pop();
        assert_eq!(third.read_u8().await.unwrap(), b'!');
        drop((open, third));
        assert!(tasks.end(Duration::from_secs(20)).await);
        assert!(TcpStream::connect(address).await.is_err());
    }
}
