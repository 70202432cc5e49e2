//! How messages are read and written: as prost does it, but no small message may become a large value.
//!
//! An empty message costs two bytes on the wire and a hundred in memory, so that what may be repeated in a request for
//! inference is counted before it is decoded. Other requests hold nothing of the sort.

use std::any::TypeId;
use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::inference::ModelInferRequest;

/// Most inputs, outputs, raw contents, or parameters of one of them, in one request.
pub const MAX_ENTRIES: usize = 1024;
/// Most strings in the typed contents of one request; raw contents have no such limit.
pub const MAX_STRINGS: usize = 4 << 20;

/// Reads `T` and writes `U`.
#[derive(Debug)]
pub struct BoundedCodec<U, T>(PhantomData<(U, T)>);

impl<U, T> Default for BoundedCodec<U, T> {
    fn default() -> Self {
        BoundedCodec(PhantomData)
    }
}

/// See [`BoundedCodec`].
#[derive(Debug)]
pub struct Half<M>(PhantomData<M>);

impl<U, T> Codec for BoundedCodec<U, T>
where
    U: Message + Send + 'static,
    T: Message + Default + Send + 'static,
{
    type Encode = U;
    type Decode = T;
    type Encoder = Half<U>;
    type Decoder = Half<T>;

    fn encoder(&mut self) -> Self::Encoder {
        Half(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Half(PhantomData)
    }
}

impl<M: Message> Encoder for Half<M> {
    type Item = M;
    type Error = Status;

    fn encode(&mut self, message: M, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<M: Message + Default + 'static> Decoder for Half<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        if TypeId::of::<M>() == TypeId::of::<ModelInferRequest>() {
            check(buffer.chunk())?;
        }
        let decoded = M::decode(buffer).map_err(|error| unreadable(&error.to_string()))?;
        Ok(Some(decoded))
    }
}

fn unreadable(why: &str) -> Status {
    Status::invalid_argument(format!("the message can't be read: {why}; see the Open Inference Protocol v2"))
}

/// Refuses a [`ModelInferRequest`] with too many of anything.
///
/// # Errors
/// When it has, or is no protobuf.
pub fn check(message: &[u8]) -> Result<(), Status> {
    let mut strings = 0;
    let (mut inputs, mut outputs, mut raw, mut parameters) = (0, 0, 0, 0);
    walk(message, |field, inner| match field {
        4 => count(&mut parameters, "parameters"),
        5 => count(&mut inputs, "inputs").and_then(|()| check_input(inner, &mut strings)),
        6 => count(&mut outputs, "outputs").and_then(|()| check_parameters(inner, 2)),
        7 => count(&mut raw, "raw_input_contents"),
        _ => Ok(()),
    })
}

fn check_input(input: &[u8], strings: &mut usize) -> Result<(), Status> {
    check_parameters(input, 4)?;
    walk(input, |field, contents| {
        if field != 5 {
            return Ok(());
        }
        walk(contents, |field, _| {
            *strings += usize::from(field == 8);
            match *strings > MAX_STRINGS {
                true => Err(Status::resource_exhausted(format!(
                    "bytes_contents holds more than {MAX_STRINGS} strings; send raw_input_contents"
                ))),
                false => Ok(()),
            }
        })
    })
}

fn check_parameters(message: &[u8], place: u32) -> Result<(), Status> {
    let mut parameters = 0;
    walk(message, |field, _| if field == place { count(&mut parameters, "parameters") } else { Ok(()) })
}

fn count(counter: &mut usize, what: &str) -> Result<(), Status> {
    *counter += 1;
    if *counter > MAX_ENTRIES {
        return Err(Status::resource_exhausted(format!(
            "more than {MAX_ENTRIES} {what}; send fewer at once"
        )));
    }
    Ok(())
}

/// Calls `visit` with the number and content of each length-delimited field.
fn walk(mut message: &[u8], mut visit: impl FnMut(u32, &[u8]) -> Result<(), Status>) -> Result<(), Status> {
    let buffer = &mut message;
    while !buffer.is_empty() {
        let (field, kind) = decode_key(buffer).map_err(|error| unreadable(&error.to_string()))?;
        if kind != WireType::LengthDelimited {
            let context = prost::encoding::DecodeContext::default();
            skip_field(kind, field, buffer, context).map_err(|error| unreadable(&error.to_string()))?;
            continue;
        }
        let length = decode_varint(buffer).map_err(|error| unreadable(&error.to_string()))?;
        let content = usize::try_from(length).ok().and_then(|length| buffer.split_at_checked(length));
        let (content, rest) = content.ok_or_else(|| unreadable("a field is cut off"))?;
        *buffer = rest;
        visit(field, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;
    use tonic::Code;

    use super::*;
    use crate::inference::{InferInputTensor, InferTensorContents};

    #[test]
    fn many_empty_entries_are_refused_before_they_are_decoded() {
        for tag in [4_u8, 5, 6, 7] {
            let entries = |count| [tag << 3 | 2, 0].repeat(count);
            check(&entries(MAX_ENTRIES)).unwrap();
            assert_eq!(check(&entries(MAX_ENTRIES + 1)).unwrap_err().code(), Code::ResourceExhausted);
        }
        let contents = InferTensorContents { bytes_contents: vec![Bytes::new(); 9], ..Default::default() };
        let input = InferInputTensor { contents: Some(contents), ..Default::default() };
        let request = ModelInferRequest { inputs: vec![input; 3], ..Default::default() };
        check(&request.encode_to_vec()).unwrap();
        let mut input = vec![0x2a];
        let strings = [0x42, 0].repeat(MAX_STRINGS + 1);
        prost::encoding::encode_varint(strings.len() as u64, &mut input);
        input.extend(strings);
        let mut message = vec![0x2a];
        prost::encoding::encode_varint(input.len() as u64, &mut message);
        message.extend(input);
        assert_eq!(check(&message).unwrap_err().code(), Code::ResourceExhausted);
    }

    #[test]
    fn what_is_cut_off_is_the_clients_to_correct() {
        for damaged in [&[0x2a, 5, 1][..], &[0x2a], &[0xff; 12], &[0x07]] {
            assert_eq!(check(damaged).unwrap_err().code(), Code::InvalidArgument, "{damaged:?}");
        }
    }
}
