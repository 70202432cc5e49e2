//! The hub's side.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::frame::{self, Frame, Kind, put, put_fields};
use crate::{CHUNK, FIELDS, FRAME, LARGEST, LARGEST_COMMON, LARGEST_HEAD, Patience, STREAMS, broken};

/// Why a request is not one that can be answered.
#[derive(Debug)]
pub enum Refusal {
    /// It can't be read.
    Unreadable(io::Error),
    /// [`STREAMS`] others are open.
    TooMany,
}

/// Serves a connection until it ends; after the shutdown only what is open in it. Each request, or why it is none, becomes
/// what `answer` makes of it.
///
/// # Errors
/// If the connection breaks, says nothing for too long, or says what can't be meant.
pub fn serve<C, A, F, B>(
    connection: C,
    patience: Patience,
    answer: A,
    mut shutdown: impl Future<Output = ()> + Unpin,
) -> impl Future<Output = io::Result<()>>
where
    C: AsyncRead + AsyncWrite + Send + 'static,
    A: Fn(Result<Request<Bytes>, Refusal>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Display + Send> + Send + Unpin + 'static,
{
    let (reader, writer) = split(connection);
    let mut streams = Streams {
        writer: Arc::new(Mutex::new(Some(writer))),
        answer,
        common: Bytes::new(),
        open: HashMap::new(),
        answers: JoinSet::new(),
    };
    // Not an `async fn`, which has room for what it is given twice.
    async move {
        tokio::select! {
            read = streams.read(reader, patience) => return read,
            () = &mut shutdown => {}
        }
        streams.say(Kind::GoingAway).await?;
        while streams.answers.join_next().await.is_some() {}
        let Some(mut writer) = streams.writer.lock().await.take() else { return Ok(()) };
        timeout(FRAME, writer.shutdown()).await?
    }
}

/// What is said of a request that panicked.
const FAILED: &str = "this request failed at the hub; its log says more";

/// Whoever writes has it for a whole number of frames, so that they don't mix; it is gone where one was written in part.
type Writer<C> = Arc<Mutex<Option<WriteHalf<C>>>>;

struct Streams<C, A> {
    writer: Writer<C>,
    answer: A,
    /// The fields that all requests have, as they came.
    common: Bytes,
    /// What is being answered. Dropped, it says that nobody waits any more.
    open: HashMap<u32, oneshot::Sender<Infallible>>,
    /// As many, and those that are cancelled and not at their end yet.
    answers: JoinSet<io::Result<u32>>,
}

impl<C, A, F, B> Streams<C, A>
where
    C: AsyncRead + AsyncWrite + Send + 'static,
    A: Fn(Result<Request<Bytes>, Refusal>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Display + Send> + Send + Unpin + 'static,
{
    /// Reads frames until there are no more.
    async fn read(&mut self, mut reader: ReadHalf<C>, patience: Patience) -> io::Result<()> {
        let mut is_asked = false;
        loop {
            // Who asks and doesn't read the answers is not read from either.
            let has_room = self.answers.len() < 2 * STREAMS;
            let first = tokio::select! {
                biased;
                Some(ended) = self.answers.join_next() => {
                    self.open.remove(&ended.map_err(io::Error::other)??);
                    continue;
                }
                first = timeout(patience.left(is_asked), frame::begin(&mut reader)), if has_room => first,
            };
            let Ok(first) = first else {
                if is_asked {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                is_asked = true;
                self.say(Kind::Ping).await?;
                continue;
            };
            let Some(first) = first? else { return Ok(()) };
            is_asked = false;
            // Boxed, so that a connection at rest has no space for it.
            let frame = Box::pin(frame::finish(first, &mut reader, LARGEST)).await?;
            match frame.kind {
                Some(Kind::Fields) => {
                    if frame.payload.len() > LARGEST_COMMON {
                        let most = LARGEST_COMMON;
                        return Err(broken(format!("fields of all requests of more than {most} bytes")));
                    }
                    fields(&frame.payload)?;
                    self.common = frame.payload;
                }
                Some(Kind::Request) => self.answer(&frame)?,
                Some(Kind::Cancel) => drop(self.open.remove(&frame.stream)),
                Some(Kind::Ping) => self.say(Kind::Pong).await?,
                _ => {}
            }
        }
    }

    async fn say(&self, kind: Kind) -> io::Result<()> {
        let mut out = Vec::new();
        put(&mut out, kind, 0, |_| ());
        write(&self.writer, &mut out).await
    }

    fn answer(&mut self, frame: &Frame) -> io::Result<()> {
        let stream = frame.stream;
        if stream == 0 || self.open.contains_key(&stream) {
            return Err(broken(format!("a request as stream {stream}, which is 0 or open")));
        }
        let asked = match self.open.len() {
            STREAMS.. => Err(Refusal::TooMany),
            _ => request(frame, &self.common).map_err(Refusal::Unreadable),
        };
        // Boxed, so that an answer without end has no space for what found it. One that panics takes no others with it.
        let answer = Box::pin(AssertUnwindSafe((self.answer)(asked)).catch_unwind());
        let (held, cancelled) = oneshot::channel();
        self.open.insert(stream, held);
        let writer = self.writer.clone();
        let told = async move { tell(stream, answer, cancelled, &writer).await.map(|()| stream) };
        // Boxed, since what a task has in itself is rounded up by far.
        self.answers.spawn(Box::pin(told));
        Ok(())
    }
}

/// Writes an answer as it comes, until it ends or nobody waits for it any more. One that has no end waits nearly always, and
/// has no space for anything else meanwhile.
async fn tell<C, B>(
    stream: u32,
    answer: Pin<Box<impl Future<Output = std::thread::Result<Response<B>>>>>,
    mut cancelled: oneshot::Receiver<Infallible>,
    writer: &Writer<C>,
) -> io::Result<()>
where
    C: AsyncWrite,
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    let mut out = Vec::new();
    let answer = tokio::select! {
        answer = answer => answer.map(|answer| begin(stream, answer, &mut out)),
        _ = &mut cancelled => return Ok(()),
    };
    let Ok(mut body) = answer else {
        end(stream, Some(FAILED), &mut out);
        return write(writer, &mut out).await;
    };
    loop {
        // What is there goes with what was there before; only then it is waited for more.
        let next = match next_data(&mut body).now_or_never() {
            Some(next) => next,
            None => {
                write(writer, &mut out).await?;
                tokio::select! {
                    next = next_data(&mut body) => next,
                    _ = &mut cancelled => return Ok(()),
                }
            }
        };
        let mut rest = match next {
            Some(Ok(data)) => data,
            ended => {
                end(stream, ended.and_then(Result::err), &mut out);
                return write(writer, &mut out).await;
            }
        };
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK));
            put(&mut out, Kind::Data, stream, |out| out.extend_from_slice(&chunk));
            if out.len() >= CHUNK {
                write(writer, &mut out).await?;
                if cancelled.try_recv() == Err(TryRecvError::Closed) {
                    return Ok(());
                }
            }
        }
    }
}

fn begin<B>(stream: u32, answer: Response<B>, out: &mut Vec<u8>) -> B {
    put(out, Kind::Head, stream, |out| {
        out.extend_from_slice(format!("HTTP/1.1 {} \r\n", answer.status().as_str()).as_bytes());
        put_fields(out, answer.headers());
    });
    answer.into_body()
}

fn end<E: Display>(stream: u32, broken_by: Option<E>, out: &mut Vec<u8>) {
    match broken_by {
        None => put(out, Kind::End, stream, |_| ()),
        Some(error) => {
            let why = error.to_string();
            put(out, Kind::Broken, stream, |out| out.extend_from_slice(why.as_bytes()));
        }
    }
}

/// The next data of a body, or why there is no more; nothing here has trailers.
async fn next_data<B: Body<Data = Bytes, Error: Display> + Unpin>(
    body: &mut B,
) -> Option<Result<Bytes, String>> {
    loop {
        let frame = AssertUnwindSafe(std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)));
        match frame.catch_unwind().await {
            Ok(None) => return None,
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Ok(Some(Err(error))) => return Some(Err(error.to_string())),
            Err(_) => return Some(Err(FAILED.to_owned())),
        }
    }
}

/// Writes what is there to be written. After one that does not get through in time nothing is written any more.
fn write<'a, C: AsyncWrite>(
    writer: &'a Writer<C>,
    frames: &mut Vec<u8>,
) -> Pin<Box<impl Future<Output = io::Result<()>> + 'a>> {
    let frames = std::mem::take(frames);
    Box::pin(async move {
        if frames.is_empty() {
            return Ok(());
        }
        let mut place = writer.lock().await;
        let mut writer = place.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let written = timeout(FRAME, async {
            writer.write_all(&frames).await?;
            writer.flush().await
        });
        written.await.unwrap_or_else(|_| Err(broken("a client that does not read what it asked for")))?;
        *place = Some(writer);
        Ok(())
    })
}

fn request(frame: &Frame, common: &[u8]) -> io::Result<Request<Bytes>> {
    let mut space = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut space);
    let httparse::Status::Complete(length) = parsed.parse(&frame.payload).map_err(broken)? else {
        return Err(broken("the head of the request has no end"));
    };
    if length > LARGEST_HEAD {
        return Err(broken(format!("the head of the request has more than {LARGEST_HEAD} bytes")));
    }
    let path = parsed.path.unwrap_or_default();
    if !path.starts_with('/') {
        return Err(broken(format!("`{path}` is no path of a request")));
    }
    let mut request = Request::new(frame.payload.slice(length..));
    *request.method_mut() =
        Method::from_bytes(parsed.method.unwrap_or_default().as_bytes()).map_err(broken)?;
    *request.uri_mut() = Uri::try_from(path).map_err(broken)?;
    *request.headers_mut() = fields(common)?;
    frame::add_fields(request.headers_mut(), parsed.headers)?;
    if !request.body().is_empty() {
        let length = HeaderValue::from(request.body().len());
        request.headers_mut().insert(CONTENT_LENGTH, length);
    }
    Ok(request)
}

fn fields(common: &[u8]) -> io::Result<HeaderMap> {
    let mut fields = HeaderMap::new();
    if common.is_empty() {
        return Ok(fields);
    }
    let mut space = [httparse::EMPTY_HEADER; FIELDS];
    let parsed = httparse::parse_headers(common, &mut space).map_err(broken)?;
    let httparse::Status::Complete((_, found)) = parsed else {
        return Err(broken("the fields of all requests have no end"));
    };
    frame::add_fields(&mut fields, found)?;
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::Multiplexed;

    const SHORT: Duration = Duration::from_millis(20);
    const SOON: Patience = Patience { asks_after: SHORT, waits: SHORT };
    const LONG: Patience = Patience { asks_after: Duration::from_secs(60), waits: Duration::from_secs(60) };

    async fn echo(asked: Result<Request<Bytes>, Refusal>) -> Response<Full<Bytes>> {
        let asked = asked.unwrap();
        let mut answer = Response::new(Full::new(asked.body().clone()));
        answer.headers_mut().clone_from(asked.headers());
        answer
    }

    fn request(body: &[u8]) -> Request<Bytes> {
        Request::builder().uri("/a?b=c").body(Bytes::copy_from_slice(body)).unwrap()
    }

    async fn served(far: DuplexStream, patience: Patience) -> io::Result<()> {
        serve(far, patience, echo, std::future::pending()).await
    }

    #[tokio::test]
    async fn what_is_asked_is_answered_with_the_fields_of_all_and_its_own() {
        let (near, far) = duplex(100);
        let client = async move {
            let common = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("here"))]);
            let connection = Multiplexed::begin(near, &common, LONG);
            for length in [0, 1, 100_000, 500_000] {
                let answer = connection.send(&request(&vec![7; length])).await.unwrap();
                assert_eq!(answer.headers()[http::header::HOST], "here");
                let body: Vec<Bytes> = futures::TryStreamExt::try_collect(answer.into_body()).await.unwrap();
                assert_eq!(body.concat(), vec![7; length]);
            }
            let too_large = connection.send(&request(&vec![7; LARGEST])).await.err().unwrap();
            assert!(too_large.to_string().contains("1048576 are the most"), "{too_large}");
        };
        let (ended, ()) = tokio::join!(served(far, LONG), client);
        ended.unwrap();
    }

    #[tokio::test]
    async fn who_asks_and_does_not_read_is_not_read_from() {
        let (mut near, far) = duplex(64);
        let asking = async move {
            let mut frames = Vec::new();
            for stream in 1..=10_000 {
                put(&mut frames, Kind::Request, stream, |out| {
                    out.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n")
                });
            }
            let sent = timeout(20 * SHORT, near.write_all(&frames)).await;
            assert!(sent.is_err(), "all that was asked was read");
            near
        };
        tokio::select! {
            ended = served(far, LONG) => panic!("{ended:?}"),
            _ = asking => {}
        }
    }

    #[tokio::test]
    async fn as_many_as_may_be_open_are_asked_at_once_and_the_others_wait() {
        let (near, far) = duplex(1000);
        let client = async move {
            let connection = Multiplexed::begin(near, &HeaderMap::new(), LONG);
            let asked =
                (0..500).map(|_| async { connection.send(&request(b"a")).await.unwrap().status().as_u16() });
            assert_eq!(futures::future::join_all(asked).await, [200; 500]);
        };
        let (ended, ()) = tokio::join!(served(far, LONG), client);
        ended.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_panics_takes_no_other_with_it() {
        let (near, far) = duplex(1000);
        let answer = |asked: Result<Request<Bytes>, Refusal>| async move {
            let body = asked.unwrap().into_body();
            assert!(body != "panic");
            let later = futures::stream::once(async move {
                assert!(body != "panic later");
                Ok::<_, Infallible>(http_body::Frame::data(body))
            });
            Response::new(http_body_util::StreamBody::new(later.boxed()))
        };
        let client = async move {
            let connection = Multiplexed::begin(near, &HeaderMap::new(), LONG);
            let failed = connection.send(&request(b"panic")).await.err().unwrap();
            assert!(failed.to_string().contains("failed at the hub"), "{failed}");
            let mut later = connection.send(&request(b"panic later")).await.unwrap().into_body();
            let failed = later.next().await.unwrap().unwrap_err();
            assert!(failed.to_string().contains("failed at the hub"), "{failed}");
            assert_eq!(connection.send(&request(b"")).await.unwrap().status(), 200);
        };
        let (ended, ()) = tokio::join!(serve(far, LONG, answer, std::future::pending()), client);
        ended.unwrap();
    }

    #[tokio::test]
    async fn both_sides_ask_who_says_nothing_and_go_on_with_who_answers() {
        let (near, far) = duplex(100);
        let connection = Multiplexed::begin(near, &HeaderMap::new(), SOON);
        let quiet = tokio::time::timeout(10 * SHORT, served(far, SOON)).await;
        assert!(quiet.is_err(), "each heard the other");
        drop(connection);
    }

    #[tokio::test]
    async fn who_says_nothing_when_asked_is_given_up() {
        let (near, mut far) = duplex(1000);
        let connection = Multiplexed::begin(near, &HeaderMap::new(), SOON);
        let broken = connection.send(&request(b"")).await.err().unwrap();
        assert_eq!(broken.to_string(), "the connection broke");
        assert!(!connection.is_open());
        drop(connection);
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent[sent.len() - 8..], [8, 0, 0, 0, 0, 0, 0, 0], "it was asked");

        let (mut near, far) = duplex(1000);
        assert_eq!(served(far, SOON).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        sent.clear();
        near.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, [8, 0, 0, 0, 0, 0, 0, 0]);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_sent_does_no_harm(
            frames in proptest::collection::vec(
                (0..12_u8, 0..4_u32, proptest::prelude::any::<Vec<u8>>(), proptest::bool::ANY), 0..12
            ),
            cut in 0..200_usize,
        ) {
            let mut sent = Vec::new();
            for (kind, stream, noise, is_http) in frames {
                let payload = match is_http {
                    true => [b"GET /a HTTP/1.1\r\na: b\r\n\r\n", &*noise].concat(),
                    false => noise,
                };
                put(&mut sent, Kind::Ping, stream, |out| out.extend_from_slice(&payload));
                let head = sent.len() - payload.len() - 8;
                sent[head] = kind;
            }
            crate::fuzzing::frames(&sent);
            sent.truncate(cut);
            crate::fuzzing::frames(&sent);
        }
    }
}
