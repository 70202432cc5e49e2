//! Many HTTP clients in one thread: just enough of HTTP/1.1 to write and to watch.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::counted::{Counted, Sent};

/// How long an answer may take: longer than anybody lets it wait.
const TIMEOUT: Duration = Duration::from_secs(180);
/// How many clients connect at once.
const CONNECTING: usize = 200;

/// A server and what each request to it carries.
#[derive(Clone, Default)]
pub struct Server {
    /// `host:port`.
    pub host: String,
    /// How to encrypt; without it plain HTTP.
    pub tls: Option<TlsConnector>,
    /// Each line ends with CR LF.
    pub headers: String,
    /// From which address of this machine connections come: each has some 28,000 ports for one server.
    pub from: Option<Ipv4Addr>,
    /// How much was sent to it.
    pub sent: Sent,
}

/// A request, whole.
#[derive(Clone)]
pub struct Request(Vec<u8>);

impl Server {
    pub fn request(&self, method: &str, path: &str, body: &str) -> Request {
        let (host, headers, length) = (&self.host, &self.headers, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n");
        Request(format!("{head}{headers}\r\n{body}").into_bytes())
    }

    pub async fn connect(&self) -> anyhow::Result<Client> {
        Ok(Client { stream: self.stream().await?, read: Vec::new() })
    }

    /// A connection that nothing was said on yet.
    pub async fn stream(&self) -> anyhow::Result<Stream> {
        let stream = self.open().await.with_context(|| format!("can't reach {}", self.host))?;
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?.ip();
        let stream = Counted { stream, sent: self.sent.clone() };
        Ok(match &self.tls {
            None => Either::Left(stream),
            Some(tls) => Either::Right(Box::new(tls.connect(peer.into(), stream).await?)),
        })
    }

    async fn open(&self) -> anyhow::Result<TcpStream> {
        let Some(from) = self.from else { return Ok(TcpStream::connect(&self.host).await?) };
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        Ok(socket.connect(self.host.parse()?).await?)
    }
}

/// A connection, encrypted or not.
pub type Stream = Either<Counted, Box<TlsStream<Counted>>>;

/// A connection that is kept.
pub struct Client {
    stream: Stream,
    read: Vec<u8>,
}

impl Client {
    /// Sends a request and reads the answer, whose length must be stated; answers status and body.
    pub async fn send(&mut self, request: &Request) -> anyhow::Result<(u16, Vec<u8>)> {
        self.stream.write_all(&request.0).await?;
        self.stream.flush().await?;
        let (status, head) = self.head().await?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.context("the answer states no length")?.trim().parse()?;
        while self.read.len() < length {
            self.more().await?;
        }
        Ok((status, self.read.drain(..length).collect()))
    }

    /// Sends a request that must be answered with a status in the two hundreds.
    pub async fn expect(&mut self, request: &Request) -> anyhow::Result<Vec<u8>> {
        let (status, body) = self.send(request).await?;
        ensure!((200..300).contains(&status), "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// Sends a request whose answer has no end yet.
    pub async fn begin(&mut self, request: &Request) -> anyhow::Result<()> {
        self.stream.write_all(&request.0).await?;
        self.stream.flush().await?;
        let (status, _) = self.head().await?;
        ensure!(status == 200, "a watch was answered with {status}");
        Ok(())
    }

    async fn head(&mut self) -> anyhow::Result<(u16, String)> {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head =
                    String::from_utf8_lossy(&self.read).get(..end).unwrap_or_default().to_ascii_lowercase();
                self.read.drain(..end + 4);
                let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
                return Ok((status.context("not HTTP")?, head));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        let read = tokio::time::timeout(TIMEOUT, self.stream.read_buf(&mut self.read)).await??;
        if read == 0 {
            bail!("the connection was closed");
        }
        Ok(())
    }

    /// Reads until these words came.
    async fn until(&mut self, words: &[u8]) -> anyhow::Result<()> {
        loop {
            if let Some(at) = self.read.windows(words.len()).position(|window| window == words) {
                self.read.drain(..at + words.len());
                return Ok(());
            }
            let rest = self.read.len().saturating_sub(words.len());
            self.read.drain(..rest);
            self.more().await?;
        }
    }
}

/// Clients that write one after the other, each on a connection of its own.
pub async fn write(
    server: &Server,
    writers: usize,
    time: Duration,
    request: Arc<impl Fn(usize, usize) -> Request + Send + Sync + 'static>,
) -> anyhow::Result<(f64, Vec<Duration>)> {
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for writer in 0..writers {
        let (mut client, request) = (server.connect().await?, request.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < time {
                let request = request(writer, latencies.len());
                let sent = Instant::now();
                client.expect(&request).await?;
                latencies.push(sent.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done??);
    }
    let count = f64::from(u32::try_from(latencies.len())?);
    Ok((count / began.elapsed().as_secs_f64(), latencies))
}

/// Watchers on connections of their own. They report when they have read the words of a round.
pub struct Watchers {
    tasks: JoinSet<anyhow::Result<()>>,
    arrivals: mpsc::UnboundedReceiver<Instant>,
    count: usize,
}

impl Watchers {
    /// Begins `count` watches. `words` are what tells the change of a round; of round 0 nothing is awaited.
    pub async fn begin(
        server: &Server,
        request: &Request,
        count: usize,
        words: fn(usize) -> String,
    ) -> anyhow::Result<Self> {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let (mut tasks, mut ready) = (JoinSet::new(), JoinSet::new());
        for _ in 0..count {
            let (server, request) = (server.clone(), request.clone());
            ready.spawn(async move {
                let mut client = server.connect().await?;
                client.begin(&request).await?;
                anyhow::Ok(client)
            });
            if ready.len() >= CONNECTING {
                Self::follow(&mut tasks, ready.join_next().await, &arrived, words)?;
            }
        }
        while let Some(client) = ready.join_next().await {
            Self::follow(&mut tasks, Some(client), &arrived, words)?;
        }
        Ok(Self { tasks, arrivals, count })
    }

    fn follow(
        tasks: &mut JoinSet<anyhow::Result<()>>,
        client: Option<Result<anyhow::Result<Client>, tokio::task::JoinError>>,
        arrived: &mpsc::UnboundedSender<Instant>,
        words: fn(usize) -> String,
    ) -> anyhow::Result<()> {
        let mut client = client.context("no client")???;
        let arrived = arrived.clone();
        tasks.spawn(async move {
            for round in 1.. {
                client.until(words(round).as_bytes()).await?;
                arrived.send(Instant::now())?;
            }
            Ok(())
        });
        Ok(())
    }

    /// Sends a change; answers how long each watcher waited for it from just before it was sent.
    pub async fn round(&mut self, writer: &mut Client, change: &Request) -> anyhow::Result<Vec<Duration>> {
        let began = Instant::now();
        writer.expect(change).await?;
        let mut latencies = Vec::new();
        while latencies.len() < self.count {
            tokio::select! {
                arrived = tokio::time::timeout(TIMEOUT, self.arrivals.recv()) => {
                    latencies.push(arrived?.context("no watchers")?.duration_since(began));
                }
                Some(failed) = self.tasks.join_next() => failed??,
            }
        }
        Ok(latencies)
    }
}
