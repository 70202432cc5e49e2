//! The agent's side.

use std::collections::HashMap;
use std::error::Error;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::frame::{self, Frame, Kind, put, put_fields};
use crate::{CHUNK, FIELDS, LARGEST, Patience, STREAMS, broken};

/// How much of an answer is kept that nobody has read yet, in bytes; an answer of which there is more breaks.
const UNREAD: usize = 16 << 20;
/// How long it is listened after the other side stopped to do so.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A connection. Cheap to clone: clones share it, and it is open as long as one of them or of its answers lives.
#[derive(Clone)]
pub struct Multiplexed {
    shared: Arc<Shared>,
    _tasks: Arc<JoinSet<()>>,
}

struct Shared {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    /// For as many requests as may be open.
    places: Arc<Semaphore>,
    streams: Mutex<Streams>,
}

struct Streams {
    /// What the next one is called; `None` once nothing new can be asked on this connection.
    next: Option<u32>,
    open: HashMap<u32, Told>,
    /// Why nothing comes any more.
    broken_by: Option<Arc<io::Error>>,
}

/// The connection ended before the answer did.
#[derive(Debug)]
struct Broken(Option<Arc<io::Error>>);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection broke")
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_deref().map(|error| error as _)
    }
}

/// Who hears of what comes on a stream, and how many bytes they have not read yet.
struct Told {
    events: mpsc::UnboundedSender<Event>,
    unread: Arc<AtomicUsize>,
}

enum Event {
    Head(Box<Response<()>>),
    Data(Bytes),
    End,
    Broken(String),
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, kind: Kind, stream: u32) {
        let mut out = Vec::new();
        put(&mut out, kind, stream, |_| ());
        // Where the connection broke, all that waits for it hears so.
        let _ = self.outgoing.send(out);
    }

    /// Nothing more will come.
    fn end(&self, why: io::Result<()>) {
        let mut streams = self.streams();
        streams.next = None;
        streams.broken_by = why.err().map(Arc::new);
        streams.open.clear();
        self.places.close();
    }

    fn ended(&self) -> io::Error {
        io::Error::new(io::ErrorKind::NotConnected, Broken(self.streams().broken_by.clone()))
    }
}

impl Multiplexed {
    /// Begins on a connection on which this was agreed; all requests will have these fields.
    pub fn begin<C>(connection: C, common: &HeaderMap, patience: Patience) -> Self
    where
        C: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = split(connection);
        let (outgoing, written) = mpsc::unbounded_channel();
        let streams = Mutex::new(Streams { next: Some(1), open: HashMap::new(), broken_by: None });
        // The other side may not have heard yet that some have ended.
        let places = Arc::new(Semaphore::new(STREAMS - 4));
        let shared = Arc::new(Shared { outgoing, places, streams });
        let mut fields = Vec::new();
        put(&mut fields, Kind::Fields, 0, |out| put_fields(out, common));
        let _ = shared.outgoing.send(fields);
        let mut tasks = JoinSet::new();
        let reading = shared.clone();
        tasks.spawn(async move {
            let mut reads = pin!(read(&reading, reader, patience));
            let ended = tokio::select! {
                ended = &mut reads => ended,
                // Where nothing can be written any more, what was said last may still be there to be read.
                failed = write(written, writer) => timeout(LAST_WORDS, reads).await.unwrap_or(failed),
            };
            reading.end(ended);
        });
        Self { shared, _tasks: Arc::new(tasks) }
    }

    /// Whether new requests can be made.
    pub fn is_open(&self) -> bool {
        self.shared.streams().next.is_some()
    }

    /// Asks, as soon as not too much else is open, and waits for the head of the answer.
    ///
    /// # Errors
    /// If the request is too large, or the connection breaks. [`io::ErrorKind::NotConnected`] if it had ended before.
    pub async fn send(&self, request: &Request<Bytes>) -> io::Result<Response<Answer>> {
        let place = self.shared.places.clone().acquire_owned().await.map_err(|_| self.shared.ended())?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let mut out = Vec::new();
        let mut answer = {
            let mut streams = self.shared.streams();
            let Some(stream) = streams.next else {
                drop(streams);
                return Err(self.shared.ended());
            };
            put(&mut out, Kind::Request, stream, |out| {
                out.extend_from_slice(format!("{} {path} HTTP/1.1\r\n", request.method()).as_bytes());
                put_fields(out, request.headers());
                out.extend_from_slice(request.body());
            });
            if out.len() > LARGEST {
                return Err(broken(format!(
                    "a request of {} bytes, where {LARGEST} are the most",
                    out.len()
                )));
            }
            let (told, events) = mpsc::unbounded_channel();
            let unread = Arc::<AtomicUsize>::default();
            streams.next = stream.checked_add(1);
            streams.open.insert(stream, Told { events: told, unread: unread.clone() });
            // Within the lock, so that streams begin in order.
            let _ = self.shared.outgoing.send(out);
            Answer { events, unread, stream, connection: self.clone(), has_ended: false, _place: place }
        };
        match answer.events.recv().await {
            Some(Event::Head(head)) => Ok(head.map(|()| answer)),
            Some(Event::Broken(why)) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, why)),
            Some(_) => Err(broken("an answer without a head")),
            None => Err(answer.broke_off()),
        }
    }
}

/// The body of an answer, as it comes. Dropped before its end, it lets the other side stop.
pub struct Answer {
    events: mpsc::UnboundedReceiver<Event>,
    unread: Arc<AtomicUsize>,
    stream: u32,
    connection: Multiplexed,
    has_ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Answer {
    fn broke_off(&mut self) -> io::Error {
        self.has_ended = true;
        let why = self.connection.shared.streams().broken_by.clone();
        io::Error::new(io::ErrorKind::UnexpectedEof, Broken(why))
    }
}

impl Stream for Answer {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.events.poll_recv(cx));
        self.has_ended = !matches!(event, Some(Event::Data(_)));
        Poll::Ready(match event {
            Some(Event::Data(data)) => {
                self.unread.fetch_sub(weight(&data), Ordering::Relaxed);
                Some(Ok(data))
            }
            Some(Event::End) => None,
            Some(Event::Broken(why)) => Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, why))),
            Some(Event::Head(_)) => Some(Err(broken("an answer with two heads"))),
            None => Some(Err(self.broke_off())),
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let shared = &self.connection.shared;
        let was_open = shared.streams().open.remove(&self.stream).is_some();
        if was_open {
            shared.say(Kind::Cancel, self.stream);
        }
    }
}

async fn write<C: AsyncWrite>(
    mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
    mut writer: WriteHalf<C>,
) -> io::Result<()> {
    while let Some(mut frames) = outgoing.recv().await {
        while frames.len() < CHUNK
            && let Ok(more) = outgoing.try_recv()
        {
            frames.extend_from_slice(&more);
        }
        writer.write_all(&frames).await?;
        writer.flush().await?;
    }
    Ok(())
}

async fn read<C: AsyncRead>(shared: &Shared, mut reader: ReadHalf<C>, patience: Patience) -> io::Result<()> {
    let mut is_asked = false;
    loop {
        let Ok(first) = timeout(patience.left(is_asked), frame::begin(&mut reader)).await else {
            if is_asked {
                return Err(io::ErrorKind::TimedOut.into());
            }
            is_asked = true;
            shared.say(Kind::Ping, 0);
            continue;
        };
        let Some(first) = first? else { return Ok(()) };
        is_asked = false;
        let Frame { kind, stream, payload } = frame::finish(first, &mut reader, LARGEST).await?;
        let event = match kind {
            Some(Kind::Ping) => {
                shared.say(Kind::Pong, 0);
                continue;
            }
            Some(Kind::GoingAway) => {
                shared.streams().next = None;
                shared.places.close();
                continue;
            }
            Some(Kind::Head) => match head(&payload) {
                Ok(head) => Event::Head(Box::new(head)),
                Err(error) => {
                    shared.say(Kind::Cancel, stream);
                    Event::Broken(error.to_string())
                }
            },
            Some(Kind::Data) => Event::Data(payload),
            Some(Kind::End) => Event::End,
            Some(Kind::Broken) => Event::Broken(String::from_utf8_lossy(&payload).into_owned()),
            _ => continue,
        };
        let mut streams = shared.streams();
        // Of those that nobody waits for any more, some may still come.
        let Some(told) = streams.open.get(&stream) else { continue };
        let is_last = matches!(event, Event::End | Event::Broken(_));
        let size = if let Event::Data(data) = &event { weight(data) } else { 0 };
        let is_too_much = told.unread.fetch_add(size, Ordering::Relaxed) + size > UNREAD;
        let event = match is_too_much {
            true => Event::Broken(format!("nobody read {UNREAD} bytes of the answer")),
            false => event,
        };
        // Who is gone takes itself off the list.
        let _ = told.events.send(event);
        if is_last || is_too_much {
            streams.open.remove(&stream);
        }
        drop(streams);
        if is_too_much && !is_last {
            shared.say(Kind::Cancel, stream);
        }
    }
}

/// How much keeping it takes, about, in bytes.
fn weight(data: &Bytes) -> usize {
    data.len() + 128
}

fn head(payload: &[u8]) -> io::Result<Response<()>> {
    let mut space = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Response::new(&mut space);
    let httparse::Status::Complete(_) = parsed.parse(payload).map_err(broken)? else {
        return Err(broken("the head of an answer has no end"));
    };
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(parsed.code.unwrap_or(0)).map_err(broken)?;
    frame::add_fields(head.headers_mut(), parsed.headers)?;
    Ok(head)
}
