//! Frames on the wire.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::{FRAME, broken};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Fields = 1,
    Request = 2,
    Cancel = 3,
    Head = 4,
    Data = 5,
    End = 6,
    Broken = 7,
    Ping = 8,
    Pong = 9,
    GoingAway = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Fields,
        Self::Request,
        Self::Cancel,
        Self::Head,
        Self::Data,
        Self::End,
        Self::Broken,
        Self::Ping,
        Self::Pong,
        Self::GoingAway,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

#[derive(Debug, PartialEq)]
pub(crate) struct Frame {
    /// `None` for one of later versions.
    pub(crate) kind: Option<Kind>,
    pub(crate) stream: u32,
    pub(crate) payload: Bytes,
}

/// Kind, length in three bytes, and stream in four, big-endian.
const HEAD: usize = 8;

/// Adds a frame to what is to be written. Its payload is what the closure adds.
pub(crate) fn put(out: &mut Vec<u8>, kind: Kind, stream: u32, payload: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&[kind as u8, 0, 0, 0]);
    out.extend_from_slice(&stream.to_be_bytes());
    payload(out);
    // No caller has more than fits: requests and chunks have limits of their own.
    let length = u32::try_from(out.len() - begin - HEAD).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(begin + 1..begin + 4) {
        place.copy_from_slice(&length[1..]);
    }
}

/// The first byte of the next frame, or `None` at the end. Cancel safe: waiting for it takes no buffer.
pub(crate) async fn begin(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<u8>> {
    let mut first = [0];
    Ok((reader.read(&mut first).await? > 0).then_some(first[0]))
}

/// The rest of a frame, which is not larger than that.
pub(crate) async fn finish(
    first: u8,
    reader: &mut (impl AsyncRead + Unpin),
    largest: usize,
) -> io::Result<Frame> {
    let read = async {
        let mut head = [0; HEAD - 1];
        reader.read_exact(&mut head).await?;
        let [a, b, c, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > largest {
            return Err(broken(format!("a frame of {length} bytes, where {largest} are the most")));
        }
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes(stream);
        Ok(Frame { kind: Kind::of(first), stream, payload: payload.into() })
    };
    timeout(FRAME, read).await.map_err(|_| broken("a frame that did not end in time"))?
}

/// Adds fields as HTTP/1.1 writes them, with the empty line that ends them.
pub(crate) fn put_fields(out: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// What a parser found, as it is used here.
pub(crate) fn add_fields(into: &mut HeaderMap, found: &[httparse::Header<'_>]) -> io::Result<()> {
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(broken)?;
        into.append(name, HeaderValue::from_bytes(field.value).map_err(broken)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut bytes: &[u8], largest: usize) -> io::Result<Option<Frame>> {
        match begin(&mut bytes).await? {
            None => Ok(None),
            Some(first) => finish(first, &mut bytes, largest).await.map(Some),
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        for kind in Kind::ALL {
            for length in [0, 1, 300, 70_000] {
                let mut out = b"before".to_vec();
                put(&mut out, kind, 0xdead_beef, |out| out.resize(out.len() + length, 7));
                let frame = read(&out[6..], 70_000).await.unwrap().unwrap();
                let payload = vec![7; length].into();
                assert_eq!(frame, Frame { kind: Some(kind), stream: 0xdead_beef, payload });
            }
        }
        assert_eq!(read(b"", 10).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_too_long_or_cut_off_is_an_error_and_what_is_new_is_not() {
        let mut out = Vec::new();
        put(&mut out, Kind::Data, 1, |out| out.extend_from_slice(b"abc"));
        assert!(read(&out, 2).await.unwrap_err().to_string().contains("3 bytes, where 2"));
        for end in 1..out.len() {
            assert_eq!(read(&out[..end], 3).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        out[0] = 99;
        assert_eq!(read(&out, 3).await.unwrap().unwrap().kind, None);
    }
}
