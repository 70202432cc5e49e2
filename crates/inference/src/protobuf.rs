//! Reads protobuf without a schema, field by field, and skips with seeks what nobody asks for; and writes it.

use std::io::{self, BufRead, Read, Seek};

use crate::format::{Format, FormatError};

/// Longest name that we read, far above what exporters write.
const MAX_NAME: u64 = 64 << 10;

/// The value of a protobuf field.
pub(crate) enum Value {
    Varint(u64),
    /// A length-delimited value that ends at this position.
    Message(u64),
    /// 32 bits that stand for themselves.
    Fixed32([u8; 4]),
    /// 64 bits that stand for themselves.
    Fixed64([u8; 8]),
}

/// The bytes of a message, written field by field.
#[derive(Default)]
pub(crate) struct Message(pub Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub fn bytes(mut self, field: u64, content: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(content.len() as u64);
        self.0.extend_from_slice(content);
        self
    }

    pub fn float(self, field: u64, value: f32) -> Self {
        self.fixed32(field, value.to_le_bytes())
    }

    pub fn fixed32(mut self, field: u64, value: [u8; 4]) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend_from_slice(&value);
        self
    }

    pub fn fixed64(mut self, field: u64, value: [u8; 8]) -> Self {
        self.varint(field << 3 | 1);
        self.0.extend_from_slice(&value);
        self
    }
}

/// A file and how much of it was read.
pub(crate) struct Reader<R> {
    source: R,
    position: u64,
    /// What errors call the file.
    format: Format,
}

impl<R: BufRead + Seek> Reader<R> {
    pub fn new(source: R, format: Format) -> Self {
        Reader { source, position: 0, format }
    }

    /// Calls `visit(field, end)` for each length-delimited field up to `end`; what it leaves unread is skipped.
    pub fn message(
        &mut self,
        end: u64,
        mut visit: impl FnMut(&mut Self, u64, u64) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        self.fields(end, |reader, field, value| match value {
            Value::Message(end) => visit(reader, field, end),
            _ => Ok(()),
        })
    }

    /// Calls `visit` for each field up to `end`.
    pub fn fields(
        &mut self,
        end: u64,
        mut visit: impl FnMut(&mut Self, u64, Value) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        while self.position < end {
            let key = self.varint()?;
            let (value, after) = match key & 7 {
                0 => (Value::Varint(self.varint()?), self.position),
                1 => (Value::Fixed64(self.array()?), self.position),
                2 => {
                    let length = self.varint()?;
                    let after = self.position.saturating_add(length);
                    (Value::Message(after), after)
                }
                5 => (Value::Fixed32(self.array()?), self.position),
                _ => return Err(self.damaged("unknown wire type")),
            };
            if after > end {
                return Err(self.damaged("a field runs past its end"));
            }
            visit(self, key >> 3, value)?;
            self.skip_to(after)?;
        }
        Ok(())
    }

    pub fn damaged(&self, problem: &str) -> FormatError {
        self.format.damaged(problem)
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many packed integers there are up to `end`.
    pub fn count_varints(&mut self, end: u64) -> Result<usize, FormatError> {
        let mut count = 0;
        while self.position < end {
            self.varint()?;
            count += 1;
        }
        Ok(count)
    }

    pub fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.source.read_exact(&mut byte).map_err(|error| truncated(self.format, error))?;
            self.position += 1;
            let [byte] = byte;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged("an integer is too long"))
    }

    pub fn string(&mut self, end: u64) -> Result<String, FormatError> {
        if end.saturating_sub(self.position) > MAX_NAME {
            return Err(self.damaged("a name is too long"));
        }
        String::from_utf8(self.bytes(end)?).map_err(|_| self.damaged("a name is not UTF-8"))
    }

    /// Everything up to `end`; memory grows with what is there, not with what is promised.
    pub fn bytes(&mut self, end: u64) -> Result<Vec<u8>, FormatError> {
        let mut bytes = Vec::new();
        let length = end.saturating_sub(self.position);
        self.source.by_ref().take(length).read_to_end(&mut bytes).map_err(FormatError::Io)?;
        if bytes.len() as u64 != length {
            return Err(self.damaged("it is cut off"));
        }
        self.position = end;
        Ok(bytes)
    }

    /// Integers in a row, up to `end`.
    pub fn varints(&mut self, end: u64, into: &mut Vec<i64>) -> Result<(), FormatError> {
        while self.position < end {
            into.push(self.varint()?.cast_signed());
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|error| truncated(self.format, error))?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn skip_to(&mut self, end: u64) -> Result<(), FormatError> {
        let distance = i64::try_from(end.saturating_sub(self.position))
            .map_err(|_| self.damaged("a field is too long"))?;
        if distance > 0 {
            self.source.seek_relative(distance).map_err(FormatError::Io)?;
            self.position = end;
        }
        Ok(())
    }
}

fn truncated(format: Format, error: io::Error) -> FormatError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => format.damaged("it is cut off"),
        _ => FormatError::Io(error),
    }
}
