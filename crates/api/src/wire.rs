//! The wire format of Protocol Buffers: numbered fields, one after the other.

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unexpected EOF")]
    BrokenOff,
    #[error("proto: integer overflow")]
    LongNumber,
    #[error("proto: illegal tag 0")]
    Tag,
    #[error("proto: wrong wireType")]
    WireType,
    #[error("a text is not UTF-8: {0}")]
    Text(#[from] std::str::Utf8Error),
}

/// The longest number, in bytes: 7 bits of it are in each.
const LONGEST_NUMBER: u32 = 10;

/// What a field holds, as far as its bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// A number, or whether something is so.
    Number(u64),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// Eight or four bytes, which nothing that is read here has.
    Fixed,
}

impl<'a> Content<'a> {
    /// # Errors
    /// If it is no number.
    pub fn number(self) -> Result<i64, Error> {
        match self {
            Self::Number(number) => Ok(number.cast_signed()),
            _ => Err(Error::WireType),
        }
    }

    /// # Errors
    /// If it is a number.
    pub fn bytes(self) -> Result<&'a [u8], Error> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Error::WireType),
        }
    }

    /// # Errors
    /// If it is no text.
    pub fn text(self) -> Result<&'a str, Error> {
        Ok(std::str::from_utf8(self.bytes()?)?)
    }
}

/// The fields of a message that were not read yet.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The next field's number and content; `None` at the end.
    ///
    /// # Errors
    /// If the message breaks off or is none.
    pub fn next(&mut self) -> Result<Option<(u64, Content<'a>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.number()?;
        let content = match tag & 7 {
            0 => Content::Number(self.number()?),
            1 => self.take(8).map(|_| Content::Fixed)?,
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| Error::BrokenOff)?;
                Content::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Content::Fixed)?,
            _ => return Err(Error::WireType),
        };
        match tag >> 3 {
            0 => Err(Error::Tag),
            number => Ok(Some((number, content))),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::BrokenOff)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, Error> {
        let mut number = 0;
        for place in 0..LONGEST_NUMBER {
            let (&byte, rest) = self.0.split_first().ok_or(Error::BrokenOff)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Error::LongNumber)
    }
}

/// Writes a field that is a text, bytes or a message.
pub fn write_bytes(message: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    write(message, number << 3 | 2);
    write(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

/// Writes a field that is a number, or whether something is so.
pub fn write_number(message: &mut Vec<u8>, number: u64, value: u64) {
    write(message, number << 3);
    write(message, value);
}

/// Writes a field that is a number with a fraction.
pub fn write_double(message: &mut Vec<u8>, number: u64, value: f64) {
    write(message, number << 3 | 1);
    message.extend_from_slice(&value.to_le_bytes());
}

fn write(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(low(number) | 0x80);
        number >>= 7;
    }
    message.push(low(number));
}

/// The lowest 7 bits.
fn low(number: u64) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low & 0x7f
}
