//! What goes over the socket: lengths and numbers little-endian, no version, since both ends are one program.
//!
//! The reader trusts nobody: every length is bounded, and memory is reserved as bytes arrive.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use bytes::Bytes;

use crate::{Datatype, Signature, Tensor, TensorSpec};

/// Most bytes of one tensor and of a text.
const MAX_DATA: u64 = 2 << 30;
const MAX_TEXT: u64 = 1 << 20;
/// Most tensors in a frame.
pub(super) const MAX_ITEMS: u64 = 4096;
/// Most dimensions of a tensor.
const MAX_RANK: u64 = 32;
/// Most bytes of a greeting.
const MAX_HELLO: u64 = 16 << 20;
/// Most bytes of a reply.
const MAX_REPLY: u64 = 2 << 30;

/// What a worker says first.
#[derive(Debug, PartialEq)]
pub(super) struct Hello {
    pub engine: String,
    pub why: String,
    pub signature: Signature,
    /// The classes that an output's columns stand for, where the model's file names them.
    pub labels: BTreeMap<String, Vec<String>>,
}

/// What a worker answers.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    Outputs(Vec<Tensor>),
    Failed(String),
}

pub(super) fn write_hello(to: &mut impl Write, hello: Result<&Hello, &str>) -> io::Result<()> {
    match hello {
        Ok(Hello { engine, why, signature, labels }) => {
            to.write_all(&[1])?;
            write_text(to, engine)?;
            write_text(to, why)?;
            write_specs(to, &signature.inputs)?;
            write_specs(to, &signature.outputs)?;
            write_number(to, labels.len())?;
            for (output, labels) in labels {
                write_text(to, output)?;
                write_number(to, labels.len())?;
                labels.iter().try_for_each(|label| write_text(to, label))?;
            }
        }
        Err(reason) => {
            to.write_all(&[0])?;
            write_text(to, reason)?;
        }
    }
    to.flush()
}

/// The inner error is why the worker has no model.
pub(super) fn read_hello(from: &mut impl Read) -> io::Result<Result<Hello, String>> {
    bounded(from, MAX_HELLO, |from| read_hello_unbounded(from))
}

/// What is longer than that makes no sense.
fn bounded<R: Read, T>(
    from: &mut R,
    limit: u64,
    read: impl FnOnce(&mut io::Take<&mut R>) -> io::Result<T>,
) -> io::Result<T> {
    let mut from = from.take(limit);
    read(&mut from).map_err(|error| match from.limit() {
        0 => nonsense(format!("over {limit} bytes")),
        _ => error,
    })
}

fn read_hello_unbounded(from: &mut impl Read) -> io::Result<Result<Hello, String>> {
    if read_byte(from)? == 0 {
        return Ok(Err(read_text(from)?));
    }
    let (engine, why) = (read_text(from)?, read_text(from)?);
    let signature = Signature { inputs: read_specs(from)?, outputs: read_specs(from)? };
    let labels = (0..read_count(from, MAX_ITEMS)?).map(|_| {
        let output = read_text(from)?;
        let labels = (0..read_count(from, MAX_ITEMS)?).map(|_| read_text(from)).collect::<io::Result<_>>()?;
        Ok((output, labels))
    });
    let labels = labels.collect::<io::Result<_>>()?;
    Ok(Ok(Hello { engine, why, signature, labels }))
}

/// Whether an engine took a model, or why it didn't.
pub(super) fn write_verdict(to: &mut impl Write, verdict: Result<(), &str>) -> io::Result<()> {
    match verdict {
        Ok(()) => to.write_all(&[1])?,
        Err(reason) => {
            to.write_all(&[0])?;
            write_text(to, reason)?;
        }
    }
    to.flush()
}

pub(super) fn read_verdict(from: &mut impl Read) -> io::Result<Result<(), String>> {
    match read_byte(from)? {
        0 => read_text(from).map(Err),
        _ => Ok(Ok(())),
    }
}

pub(super) fn write_request(to: &mut impl Write, inputs: &[Tensor], outputs: &[&str]) -> io::Result<()> {
    write_tensors(to, inputs)?;
    write_number(to, outputs.len())?;
    outputs.iter().try_for_each(|name| write_text(to, name))
}

/// `None` when the other side is gone.
pub(super) fn read_request(from: &mut impl Read) -> io::Result<Option<(Vec<Tensor>, Vec<String>)>> {
    let inputs = match read_tensors(from) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        inputs => inputs?,
    };
    let outputs = (0..read_count(from, MAX_ITEMS)?).map(|_| read_text(from)).collect::<io::Result<_>>()?;
    Ok(Some((inputs, outputs)))
}

pub(super) fn write_reply(to: &mut impl Write, reply: Result<&[Tensor], &str>) -> io::Result<()> {
    match reply {
        Ok(outputs) => {
            to.write_all(&[1])?;
            write_tensors(to, outputs)?;
        }
        Err(reason) => {
            to.write_all(&[0])?;
            write_text(to, reason)?;
        }
    }
    to.flush()
}

/// `outputs` is how many were asked for.
pub(super) fn read_reply(from: &mut impl Read, outputs: usize) -> io::Result<Reply> {
    bounded(from, MAX_REPLY, |from| match read_byte(from)? {
        0 => read_text(from).map(Reply::Failed),
        _ => {
            let count = read_count(from, MAX_ITEMS)?;
            if count != outputs as u64 {
                return Err(nonsense(format!("{count} outputs")));
            }
            (0..count).map(|_| read_tensor(from)).collect::<io::Result<_>>().map(Reply::Outputs)
        }
    })
}

fn write_tensors(to: &mut impl Write, tensors: &[Tensor]) -> io::Result<()> {
    write_number(to, tensors.len())?;
    for tensor in tensors {
        write_text(to, tensor.name())?;
        write_text(to, tensor.datatype().name())?;
        write_number(to, tensor.shape().len())?;
        for &size in tensor.shape() {
            write_number(to, size)?;
        }
        write_number(to, tensor.data().len())?;
        to.write_all(tensor.data())?;
    }
    Ok(())
}

fn read_tensors(from: &mut impl Read) -> io::Result<Vec<Tensor>> {
    (0..read_count(from, MAX_ITEMS)?).map(|_| read_tensor(from)).collect()
}

fn read_tensor(from: &mut impl Read) -> io::Result<Tensor> {
    let name = read_text(from)?;
    let datatype: Datatype = read_text(from)?.parse().map_err(nonsense)?;
    let rank = read_count(from, MAX_RANK)?;
    let shape: Vec<usize> = (0..rank).map(|_| read_size(from)).collect::<io::Result<_>>()?;
    let data = read_bytes(from, MAX_DATA)?;
    Tensor::from_bytes(name, datatype, shape, Bytes::from(data)).map_err(nonsense)
}

fn write_specs(to: &mut impl Write, specs: &[TensorSpec]) -> io::Result<()> {
    write_number(to, specs.len())?;
    for spec in specs {
        write_text(to, &spec.name)?;
        write_text(to, spec.datatype.name())?;
        to.write_all(&[u8::from(spec.shape.is_some())])?;
        if let Some(shape) = &spec.shape {
            write_number(to, shape.len())?;
            shape.iter().try_for_each(|size| to.write_all(&size.to_le_bytes()))?;
        }
    }
    Ok(())
}

fn read_specs(from: &mut impl Read) -> io::Result<Vec<TensorSpec>> {
    let specs = (0..read_count(from, MAX_ITEMS)?).map(|_| {
        let name = read_text(from)?;
        let datatype = read_text(from)?.parse().map_err(nonsense)?;
        let shape = match read_byte(from)? {
            0 => None,
            _ => {
                let sizes =
                    (0..read_count(from, MAX_ITEMS)?).map(|_| Ok(i64::from_le_bytes(read_array(from)?)));
                Some(sizes.collect::<io::Result<_>>()?)
            }
        };
        Ok(TensorSpec { name, datatype, shape })
    });
    specs.collect()
}

fn write_text(to: &mut impl Write, text: &str) -> io::Result<()> {
    let end = text.floor_char_boundary(usize::try_from(MAX_TEXT).unwrap_or(usize::MAX));
    let text = text.get(..end).unwrap_or_default();
    write_number(to, text.len())?;
    to.write_all(text.as_bytes())
}

fn read_text(from: &mut impl Read) -> io::Result<String> {
    String::from_utf8(read_bytes(from, MAX_TEXT)?).map_err(nonsense)
}

fn read_bytes(from: &mut impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let length = u64::from_le_bytes(read_array(from)?);
    if length > limit {
        return Err(nonsense(format!("a length of {length}")));
    }
    let mut data = Vec::new();
    let read = from.take(length).read_to_end(&mut data)?;
    if read as u64 == length { Ok(data) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn write_number(to: &mut impl Write, number: usize) -> io::Result<()> {
    to.write_all(&(number as u64).to_le_bytes())
}

fn read_count(from: &mut impl Read, limit: u64) -> io::Result<u64> {
    let count = u64::from_le_bytes(read_array(from)?);
    if count > limit { Err(nonsense(format!("a count of {count}"))) } else { Ok(count) }
}

fn read_size(from: &mut impl Read) -> io::Result<usize> {
    usize::try_from(u64::from_le_bytes(read_array(from)?)).map_err(nonsense)
}

fn read_byte(from: &mut impl Read) -> io::Result<u8> {
    read_array(from).map(|[byte]| byte)
}

fn read_array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    from.read_exact(&mut array)?;
    Ok(array)
}

fn nonsense(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tensors() -> Vec<Tensor> {
        vec![
            Tensor::from_vec("x", [2, 2], vec![1.0_f32, f32::NAN, -0.0, 3.0]).unwrap(),
            Tensor::from_strings("words", [2], ["a", ""]).unwrap(),
            Tensor::from_vec("scalar", [], vec![true]).unwrap(),
        ]
    }

    fn request() -> Vec<u8> {
        let mut frame = Vec::new();
        write_request(&mut frame, &tensors(), &["y", "z"]).unwrap();
        frame
    }

    #[test]
    fn what_is_written_is_read() {
        let (inputs, outputs) = read_request(&mut request().as_slice()).unwrap().unwrap();
        let bytes = |tensors: &[Tensor]| tensors.iter().map(|t| t.data().clone()).collect::<Vec<_>>();
        assert_eq!(bytes(&inputs), bytes(&tensors()));
        assert_eq!(outputs, ["y", "z"]);
        let spec = |shape| TensorSpec { name: "x".into(), datatype: Datatype::Bf16, shape };
        let signature = Signature { inputs: vec![spec(None)], outputs: vec![spec(Some(vec![-1, 3]))] };
        let labels = [("y".to_owned(), vec!["ant".to_owned(), "bee".to_owned()])].into();
        let hello = Hello { engine: "rten".into(), why: "because".into(), signature, labels };
        let mut frame = Vec::new();
        write_hello(&mut frame, Ok(&hello)).unwrap();
        assert_eq!(read_hello(&mut frame.as_slice()).unwrap(), Ok(hello));
        let mut frame = Vec::new();
        write_reply(&mut frame, Err("no")).unwrap();
        assert_eq!(read_reply(&mut frame.as_slice(), 3).unwrap(), Reply::Failed("no".into()));
        let mut frame = Vec::new();
        write_verdict(&mut frame, Ok(())).unwrap();
        write_verdict(&mut frame, Err("no")).unwrap();
        let mut frame = frame.as_slice();
        assert_eq!(read_verdict(&mut frame).unwrap(), Ok(()));
        assert_eq!(read_verdict(&mut frame).unwrap(), Err("no".into()));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_answer_or_an_error(at in 0_usize..200, byte: u8, cut in 0_usize..300) {
            let mut frame = request();
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
            frame.truncate(cut);
            let _ = read_request(&mut frame.as_slice());
            let _ = read_reply(&mut frame.as_slice(), 3);
            let _ = read_hello(&mut frame.as_slice());
            let _ = read_verdict(&mut frame.as_slice());
        }
    }
}
