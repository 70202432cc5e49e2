//! From requests to answers: where each is read, computed and written.
//!
//! What is large, packed or a stream is so wherever there is room, so that it keeps nobody waiting who shares the
//! connection's thread.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use bytes::Bytes;
use futures::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::service::Service;
use hyper::{HeaderMap, Request, Response};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service as _;
use wire::inference::grpc_inference_service_server::GrpcInferenceServiceServer;

use super::messages::{Messages, Stream};
use super::service::Methods;
use crate::bodies::Bodies;
use crate::compression::{Encoding, Room};
use crate::infer::LARGE;
use crate::state::ServerState;

type Server = GrpcInferenceServiceServer<Methods>;

/// The service, for plain answers and for compressed ones.
#[derive(Clone)]
pub(super) struct Front {
    plain: Server,
    packing: Server,
    bodies: Bodies,
    limit: usize,
    everywhere: Handle,
}

impl Front {
    pub fn new(state: ServerState, everywhere: Handle) -> Front {
        let (limit, bodies) = (state.body_limit, state.bodies.clone());
        let plain = Server::new(Methods(state))
            .max_decoding_message_size(limit)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        let packing = (plain.clone())
            .send_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Deflate);
        Front { plain, packing, bodies, limit, everywhere }
    }

    async fn answer<B>(self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let Front { plain, packing, bodies, limit, everywhere } = self;
        let (mut parts, body) = request.into_parts();
        let mut server = if is_packed(&parts.headers) { packing } else { plain };
        let packed = take_encoding(&mut parts.headers);
        let held = bodies.begin();
        let is_stream = parts.uri.path().ends_with("/ModelStreamInfer");
        let stream = is_stream.then(|| Stream::new(Arc::clone(&held), limit));
        if let Some(stream) = &stream {
            parts.extensions.insert(Arc::clone(stream));
        }
        let room = Room { limit, held: Arc::clone(&held) };
        let mut messages = Messages::new(body, packed, room, stream);
        let is_heavy = is_stream || packed.is_some() || messages.first_length().await > Some(LARGE);
        let answer = server.call(Request::from_parts(parts, messages));
        let answer = answer.map(|Ok(answer)| name_size_truly(answer));
        let answer = match is_heavy {
            true if is_stream => pump(&everywhere, answer.await),
            true => elsewhere(&everywhere, answer.then(begin)).await,
            false => {
                let answer = answer.await;
                match answer.extensions().get::<Large>() {
                    Some(Large) => elsewhere(&everywhere, begin(answer)).await,
                    None => answer,
                }
            }
        };
        drop(held);
        answer
    }
}

/// Says that an answer takes long to write.
#[derive(Clone, Copy)]
pub(super) struct Large;

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(self.clone().answer(request).map(Ok))
    }
}

/// Has an answer computed wherever there is room; who gives it up ends that, too.
async fn elsewhere(
    everywhere: &Handle,
    answer: impl Future<Output = Response<Body>> + Send + 'static,
) -> Response<Body> {
    let ended = AbortOnDropHandle::new(everywhere.spawn(answer)).await;
    ended.unwrap_or_else(|error| Status::internal(format!("the request was cut off: {error}")).into_http())
}

/// Has the parts of an answer computed and written wherever there is room, one ahead of its reader.
fn pump(everywhere: &Handle, answer: Response<Body>) -> Response<Body> {
    if answer.body().is_end_stream() {
        return answer;
    }
    let (head, mut rest) = answer.into_parts();
    let (sender, parts) = channel(1);
    let pumping = everywhere.spawn(async move {
        while let Some(part) = rest.frame().await {
            if sender.send(part).await.is_err() {
                return;
            }
        }
    });
    let pumping = AbortOnDropHandle::new(pumping);
    Response::from_parts(head, Body::new(Pumped { parts, _pumping: pumping }))
}

/// An answer whose parts come from elsewhere.
struct Pumped {
    parts: Receiver<Result<Frame<Bytes>, Status>>,
    _pumping: AbortOnDropHandle<()>,
}

impl hyper::body::Body for Pumped {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.parts.poll_recv(context)
    }
}

/// Writes the first part of an answer, which is all of a message.
async fn begin(answer: Response<Body>) -> Response<Body> {
    if answer.body().is_end_stream() {
        return answer;
    }
    let (parts, mut rest) = answer.into_parts();
    let first = rest.frame().await;
    Response::from_parts(parts, Body::new(Begun { first, rest }))
}

/// An answer of which the first part is written.
struct Begun {
    first: Option<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl hyper::body::Body for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

/// Clients offer every encoding they know with every request, so only one that packs its own message wants it.
fn is_packed(headers: &HeaderMap) -> bool {
    headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity")
}

/// How messages are packed, where that is known here: the service gets them unpacked.
fn take_encoding(headers: &mut HeaderMap) -> Option<Encoding> {
    let encoding = match headers.get("grpc-encoding")?.as_bytes() {
        b"gzip" => Encoding::Gzip,
        b"deflate" => Encoding::Deflate,
        _ => return None,
    };
    headers.remove("grpc-encoding");
    Some(encoding)
}

/// A message over the limit is told as `OUT_OF_RANGE`; other servers and what clients know say `RESOURCE_EXHAUSTED`.
fn name_size_truly(mut answer: Response<Body>) -> Response<Body> {
    if let Some(status) = answer.headers_mut().get_mut("grpc-status")
        && status == "11"
    {
        *status = HeaderValue::from_static("8");
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};
    use std::time::Duration;

    use futures::{StreamExt, stream};
    use inference::{EngineOptions, Engines, Options, Repository};
    use prost::Message;
    use tonic::Code;
    use wire::inference::{ModelInferRequest, ModelStreamInferResponse};

    use super::*;

    fn state() -> ServerState {
        let engines = Engines::discover(&EngineOptions::default());
        let repository = Repository::new(engines, Options { workers: 1, ..Options::default() }).unwrap();
        repository.load(inference::LoadRequest::new("label", "1", "tests/data/label.onnx")).unwrap();
        ServerState::new(repository)
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[flag], length.to_be_bytes().as_slice(), message].concat()
    }

    fn request(
        method: &str,
        chunks: impl futures::Stream<Item = Vec<u8>> + Send + 'static,
    ) -> Request<axum::body::Body> {
        Request::post(format!("/inference.GRPCInferenceService/{method}"))
            .header("content-type", "application/grpc")
            .body(axum::body::Body::from_stream(chunks.map(Ok::<_, std::io::Error>)))
            .unwrap()
    }

    /// The status and the message of an answer.
    async fn read(answer: Response<Body>) -> (Code, Vec<u8>) {
        let status = Status::from_header_map(answer.headers());
        let body = answer.into_body().collect().await.unwrap();
        let status = status.or_else(|| Status::from_header_map(body.trailers()?));
        (status.unwrap().code(), body.to_bytes().into())
    }

    fn front(state: ServerState) -> Front {
        Front::new(state, Handle::current())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_come_to_its_end_is_given_up() {
        let whole = framed(0, &[]);
        for begun in [vec![], vec![0, 0], framed(0, b"abc")[..6].to_vec(), whole] {
            let chunks = stream::iter([begun.clone()]).chain(stream::pending());
            let answer = front(state()).answer(request("ServerMetadata", chunks)).await;
            assert_eq!(read(answer).await.0, Code::DeadlineExceeded, "{begun:?}");
        }
        let drop_by_drop = stream::unfold(framed(0, &[0; 64]).into_iter(), |mut bytes| async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            Some((vec![bytes.next()?], bytes))
        });
        let answer = front(state()).answer(request("ServerMetadata", drop_by_drop)).await;
        assert_eq!(read(answer).await.0, Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_of_a_stream_may_rest_between_two_messages_but_not_within_one() {
        let message =
            framed(0, &ModelInferRequest { model_name: "nope".into(), ..Default::default() }.encode_to_vec());
        let (first, rest) = (message.clone(), message[..7].to_vec());
        let chunks = stream::once(async move { first }).chain(stream::once(async {
            tokio::time::sleep(Duration::from_secs(7200)).await;
            rest
        }));
        let answer =
            front(state()).answer(request("ModelStreamInfer", chunks.chain(stream::pending()))).await;
        let begun = tokio::time::Instant::now();
        let mut body = answer.into_body();
        let answered = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let answered = ModelStreamInferResponse::decode(&answered[5..]).unwrap();
        assert!(answered.error_message.contains("nope"), "{answered:?}");
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::DeadlineExceeded);
        assert_eq!(begun.elapsed().as_secs() / 60, 120);
    }

    #[tokio::test]
    async fn what_comes_at_once_is_bounded_over_all_fronts() {
        let state = state().body_limit(1 << 20);
        let (front, other) = (front(state.clone()), state.bodies.begin());
        other.take(60 << 20).unwrap();
        let message = |size: usize| stream::iter([framed(0, &unknown_field(size))]);
        let (code, _) = read(front.clone().answer(request("ServerMetadata", message(1 << 19))).await).await;
        assert_eq!(code, Code::Ok);
        other.take(4 << 20).unwrap();
        let (code, _) = read(front.clone().answer(request("ServerMetadata", message(1 << 19))).await).await;
        assert_eq!(code, Code::ResourceExhausted);
        drop(other);
        let (code, _) = read(front.answer(request("ServerMetadata", message(1 << 19))).await).await;
        assert_eq!(code, Code::Ok);
        assert_eq!(state.bodies.begin().take(64 << 20), Ok(()), "what was answered holds nothing");
    }

    #[tokio::test]
    async fn what_is_packed_is_bounded_by_what_it_unpacks_to() {
        let state = state().body_limit(1 << 20);
        let (front, other) = (front(state.clone()), state.bodies.begin());
        let ask = |size: usize, encoding| {
            let message = Bytes::from(unknown_field(size));
            let (packed, _) = crate::compression::pack(Some(encoding), message);
            let mut request = request("ServerMetadata", stream::iter([framed(1, &packed)]));
            request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding.name()));
            let answer = front.clone().answer(request);
            async move { read(answer.await).await.0 }
        };
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            assert_eq!(ask(1 << 19, encoding).await, Code::Ok);
            assert_eq!(ask(2 << 20, encoding).await, Code::ResourceExhausted, "over the largest message");
        }
        other.take((64 << 20) - (1 << 18)).unwrap();
        assert_eq!(ask(1 << 19, Encoding::Gzip).await, Code::ResourceExhausted);
        assert_eq!(ask(1 << 17, Encoding::Gzip).await, Code::Ok);
    }

    #[tokio::test]
    async fn a_streams_messages_hold_nothing_once_they_are_answered() {
        let state = state().body_limit(1 << 20);
        let mut message =
            ModelInferRequest { model_name: "nope".into(), ..Default::default() }.encode_to_vec();
        message.extend(unknown_field(1 << 19));
        let (packed, _) = crate::compression::pack(Some(Encoding::Gzip), message.clone().into());
        for (encoding, framed) in [("identity", framed(0, &message)), ("gzip", framed(1, &packed))] {
            // 256 MiB where there is room for 64.
            let chunks = stream::iter(std::iter::repeat_n(framed, 512));
            let mut request = request("ModelStreamInfer", chunks);
            request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
            let (code, answers) = read(front(state.clone()).answer(request).await).await;
            assert_eq!(code, Code::Ok, "{encoding}");
            assert_eq!(answers.windows(4).filter(|window| window == b"nope").count(), 512);
            assert_eq!(state.bodies.begin().take(64 << 20), Ok(()));
        }
    }

    #[test]
    fn what_is_large_or_packed_leaves_the_connections_thread() {
        let here = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let everywhere =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (tell, told) = mpsc::channel::<ThreadId>();
        let state = state().ready_when(move || tell.send(thread::current().id()).is_ok());
        let front = Front::new(state, everywhere.handle().clone());
        let ran_here = |size: usize, encoding: &'static str| {
            let mut request = request("ServerReady", stream::iter([framed(0, &unknown_field(size))]));
            request.headers_mut().insert("grpc-encoding", HeaderValue::from_static(encoding));
            let answer = here.block_on(front.clone().answer(request));
            assert_eq!(here.block_on(read(answer)).0, Code::Ok);
            told.recv().unwrap() == thread::current().id()
        };
        assert!(ran_here(1 << 10, "identity"));
        assert!(!ran_here(512 << 10, "identity"));
        assert!(!ran_here(1 << 10, "gzip"));
    }

    #[test]
    fn large_answers_and_those_of_streams_are_written_off_the_connections_thread() {
        /// Says which thread asks it for its part.
        struct Asked(Option<Bytes>, mpsc::Sender<ThreadId>);

        impl hyper::body::Body for Asked {
            type Data = Bytes;
            type Error = Status;

            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
                let _ = self.1.send(thread::current().id());
                Poll::Ready(self.0.take().map(|part| Ok(Frame::data(part))))
            }
        }

        let here = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let everywhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (tell, told) = mpsc::channel();
        let answer = || Response::new(Body::new(Asked(Some(Bytes::from_static(b"part")), tell.clone())));
        let body = here.block_on(async {
            let answer = elsewhere(everywhere.handle(), begin(answer())).await;
            assert_ne!(told.recv().unwrap(), thread::current().id());
            answer.into_body().collect().await.unwrap().to_bytes()
        });
        assert_eq!(body, "part");
        while told.try_recv().is_ok() {}
        let body = here.block_on(async {
            pump(everywhere.handle(), answer()).into_body().collect().await.unwrap().to_bytes()
        });
        assert_eq!(body, "part");
        let asked: Vec<ThreadId> = told.try_iter().collect();
        assert!(asked.len() == 2 && !asked.contains(&thread::current().id()), "{asked:?}");
    }

    /// A message of about so many bytes that says nothing.
    fn unknown_field(size: usize) -> Vec<u8> {
        let mut message = vec![];
        prost::encoding::bytes::encode(15, &vec![0_u8; size], &mut message);
        message
    }
}
