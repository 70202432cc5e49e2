//! Just enough protobuf to read what models declare: fields are visited, weights skipped with seeks.

use std::io::{self, BufRead, Seek};

use crate::format::{Format, FormatError};

/// Longest name that we read; far above what exporters write.
const MAX_NAME: u64 = 64 << 10;

/// The value of a protobuf field, as far as ONNX signatures use them.
pub(crate) enum Value {
    Varint(u64),
    /// A length-delimited value that ends at this position.
    Message(u64),
    Other,
}

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
            Value::Varint(_) | Value::Other => Ok(()),
        })
    }

    pub fn fields(
        &mut self,
        end: u64,
        mut visit: impl FnMut(&mut Self, u64, Value) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        while self.position < end {
            let key = self.varint()?;
            let (value, after) = match key & 7 {
                0 => (Value::Varint(self.varint()?), self.position),
                1 => (Value::Other, self.position.saturating_add(8)),
                2 => {
                    let length = self.varint()?;
                    let after = self.position.saturating_add(length);
                    (Value::Message(after), after)
                }
                5 => (Value::Other, self.position.saturating_add(4)),
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

    fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            let format = self.format;
            self.source.read_exact(&mut byte).map_err(|error| truncated(format, error))?;
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
        let length = end.saturating_sub(self.position);
        if length > MAX_NAME {
            return Err(self.damaged("a name is too long"));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        let format = self.format;
        self.source.read_exact(&mut bytes).map_err(|error| truncated(format, error))?;
        self.position = end;
        String::from_utf8(bytes).map_err(|_| self.damaged("a name is not UTF-8"))
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
