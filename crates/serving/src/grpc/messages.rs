//! A call's messages on their way: counted with all that fronts hold, unpacked, and not waited for for ever.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::BoxError;
use bytes::{BufMut, Bytes, BytesMut};
use futures::task::AtomicWaker;
use hyper::body::{Body, Frame};
use tonic::Status;

use crate::bodies::{Held, Refused, Wait};
use crate::compression::{self, Encoding, Room};
use crate::error::ApiError;

/// Bytes before each message: whether it is packed, and its length.
const PREFIX: usize = 5;

/// The body of a call.
pub(super) struct Messages<B> {
    body: B,
    held: Arc<Held>,
    wait: Wait,
    place: Place,
    /// The length of the first message.
    first: Option<usize>,
    /// Where messages may be packed.
    unpacker: Option<Unpacker>,
    /// In a call of many messages.
    stream: Option<Arc<Stream>>,
    /// What was read and is not passed on.
    ahead: VecDeque<Result<Frame<Bytes>, BoxError>>,
}

/// Where in a message the next byte is.
#[derive(Default)]
struct Place {
    /// Bytes of the prefix that came.
    begun: usize,
    is_packed: bool,
    length: u32,
    /// Bytes of the message that came.
    come: usize,
}

struct Unpacker {
    encoding: Encoding,
    room: Room,
    /// The message that is not there as a whole.
    gathered: BytesMut,
}

/// What the messages of a call hold that are not answered. While that is more than the largest message, no other one is
/// read.
pub(super) struct Stream {
    held: Arc<Held>,
    most: u64,
    /// Of those that nobody took yet.
    sizes: Mutex<VecDeque<usize>>,
    reader: AtomicWaker,
}

/// What one of them holds.
pub(super) struct Part {
    stream: Arc<Stream>,
    bytes: usize,
}

impl Stream {
    pub fn new(held: Arc<Held>, largest: usize) -> Arc<Stream> {
        let (sizes, reader) = (Mutex::default(), AtomicWaker::new());
        Arc::new(Stream { held, most: largest as u64, sizes, reader })
    }

    /// Of the message that was decoded last: called once for each.
    pub fn part(self: &Arc<Stream>) -> Part {
        let bytes = self.sizes().pop_front().unwrap_or_default();
        Part { stream: Arc::clone(self), bytes }
    }

    fn sizes(&self) -> MutexGuard<'_, VecDeque<usize>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        self.held.bytes() > self.most
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.stream.held.give(self.bytes);
        self.stream.reader.wake();
    }
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    /// `packed` is how messages are packed that say they are; they come out unpacked.
    pub fn new(body: B, packed: Option<Encoding>, room: Room, stream: Option<Arc<Stream>>) -> Messages<B> {
        let (held, wait) = (Arc::clone(&room.held), Wait::begin(&room.held));
        let unpacker = packed.map(|encoding| Unpacker { encoding, room, gathered: BytesMut::new() });
        let (place, ahead) = (Place::default(), VecDeque::new());
        Messages { body, held, wait, place, first: None, unpacker, stream, ahead }
    }

    /// The length of the first message, once it is known; `None` where none comes.
    pub async fn first_length(&mut self) -> Option<usize> {
        poll_fn(|context| {
            while self.first.is_none() {
                let Some(frame) = ready!(self.next(context)) else { break };
                let failed = frame.is_err();
                self.ahead.push_back(frame);
                if failed {
                    break;
                }
            }
            Poll::Ready(self.first)
        })
        .await
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(stream) = self.stream.as_ref().filter(|_| self.place.begun == 0) {
                stream.reader.register(context.waker());
                if stream.is_full() {
                    return Poll::Pending;
                }
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                // Between two messages a client may rest for as long as it likes.
                if self.stream.is_none() || self.place.begun > 0 {
                    ready!(self.wait.poll(context));
                    return Poll::Ready(Some(Err(refused(self.held.refuse(Refused::Slow)))));
                }
                return Poll::Pending;
            };
            let Some(frame) = frame else { return Poll::Ready(None) };
            let data = match frame.map(Frame::into_data) {
                Ok(Ok(data)) => data,
                Ok(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            };
            self.wait.came(data.len());
            if let Err(error) = self.take(&data) {
                return Poll::Ready(Some(Err(refused(error))));
            }
            if self.unpacker.is_none() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if let Some(unpacked) = self.ahead.pop_front() {
                return Poll::Ready(Some(unpacked));
            }
        }
    }

    /// Counts what came; what is unpacked of it is to be passed on in its place.
    fn take(&mut self, mut data: &[u8]) -> Result<(), ApiError> {
        self.held.take(data.len())?;
        while let Some((byte, behind)) = data.split_first() {
            if self.place.begun < PREFIX {
                data = behind;
                self.begin_message(*byte)?;
            } else {
                let (piece, behind) = data.split_at(data.len().min(self.place.left()));
                data = behind;
                self.place.come += piece.len();
                if let Some(unpacker) = &mut self.unpacker {
                    unpacker.gathered.extend_from_slice(piece);
                }
            }
            if self.place.is_whole() {
                self.end_message()?;
            }
        }
        Ok(())
    }

    fn begin_message(&mut self, byte: u8) -> Result<(), ApiError> {
        if self.place.begun == 0 && self.stream.is_some() {
            self.wait = Wait::begin(&self.held);
        }
        self.place.prefix(byte);
        if self.place.begun < PREFIX {
            return Ok(());
        }
        let length = self.place.left();
        self.first.get_or_insert(length);
        match &self.unpacker {
            Some(Unpacker { room: Room { limit, .. }, .. }) if length > *limit => {
                Err(ApiError::BodyTooLarge { limit: *limit })
            }
            _ => Ok(()),
        }
    }

    fn end_message(&mut self) -> Result<(), ApiError> {
        let Place { is_packed, come, .. } = std::mem::take(&mut self.place);
        let mut size = come;
        if let Some(Unpacker { encoding, room, gathered }) = &mut self.unpacker {
            let packed = std::mem::take(gathered).freeze();
            let message = compression::unpack(is_packed.then_some(*encoding), packed, room)?;
            if is_packed {
                self.held.give(come);
                size = message.len();
            }
            let mut prefix = BytesMut::with_capacity(PREFIX);
            prefix.put_u8(0);
            prefix.put_u32(u32::try_from(size).map_err(|_| ApiError::BodyTooLarge { limit: room.limit })?);
            self.ahead.extend([prefix.freeze(), message].map(|data| Ok(Frame::data(data))));
        }
        if let Some(stream) = &self.stream {
            stream.sizes().push_back(PREFIX + size);
        }
        Ok(())
    }
}

impl Place {
    fn prefix(&mut self, byte: u8) {
        match self.begun {
            0 => self.is_packed = byte != 0,
            _ => self.length = (self.length << 8) | u32::from(byte),
        }
        self.begun += 1;
    }

    /// Bytes of the message that are yet to come.
    fn left(&self) -> usize {
        (self.length as usize).saturating_sub(self.come)
    }

    fn is_whole(&self) -> bool {
        self.begun == PREFIX && self.left() == 0
    }
}

fn refused(why: impl Into<ApiError>) -> BoxError {
    Status::from(why.into()).into()
}

impl<B> Body for Messages<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match this.ahead.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => this.next(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.body.is_end_stream()
    }
}
