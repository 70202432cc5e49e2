//! Reads Universal Binary JSON as far as XGBoost writes it, into whatever serde can make.

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor, value};
use serde::forward_to_deserialize_any;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 32;

type Error = value::Error;

/// A cursor in a document. It hands out pieces of it and allocates nothing.
pub(super) struct Document<'a> {
    rest: &'a [u8],
    depth: usize,
    /// The type of the elements of the typed array that is being read.
    element: Option<u8>,
}

impl<'a> Document<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Document { rest: bytes, depth: 0, element: None }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| Error::custom("it is cut off"))?;
        self.rest = rest;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| Error::custom("it is cut off"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// The next type mark; marks of nothing are passed over.
    fn mark(&mut self) -> Result<u8, Error> {
        loop {
            match self.byte()? {
                b'N' => {}
                mark => return Ok(mark),
            }
        }
    }

    fn whole(&mut self, mark: u8) -> Result<Option<i64>, Error> {
        Ok(Some(match mark {
            b'i' => i8::from_be_bytes(self.array()?).into(),
            b'U' => self.byte()?.into(),
            b'I' => i16::from_be_bytes(self.array()?).into(),
            b'l' => i32::from_be_bytes(self.array()?).into(),
            b'L' => i64::from_be_bytes(self.array()?),
            _ => return Ok(None),
        }))
    }

    fn length(&mut self) -> Result<usize, Error> {
        let mark = self.byte()?;
        let length = self.whole(mark)?.and_then(|length| usize::try_from(length).ok());
        length.ok_or_else(|| Error::custom("a length is no length"))
    }

    fn text(&mut self) -> Result<&'a str, Error> {
        let length = self.length()?;
        let (text, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| Error::custom("it is cut off"))?;
        self.rest = rest;
        std::str::from_utf8(text).map_err(Error::custom)
    }

    /// What stands before the elements of an array or object: their type and number, where they are given.
    fn header(&mut self) -> Result<(Option<u8>, Option<usize>), Error> {
        let mut element = None;
        if self.rest.first() == Some(&b'$') {
            self.byte()?;
            element = Some(self.byte()?);
            if self.rest.first() != Some(&b'#') {
                return Err(Error::custom("a type without a number"));
            }
        }
        if self.rest.first() != Some(&b'#') {
            return Ok((None, None));
        }
        self.byte()?;
        Ok((element, Some(self.length()?)))
    }
}

/// The elements of one array or the pairs of one object.
struct Elements<'a, 'b> {
    document: &'b mut Document<'a>,
    element: Option<u8>,
    left: Option<usize>,
    end: u8,
}

impl Elements<'_, '_> {
    fn another(&mut self) -> Result<bool, Error> {
        if let Some(left) = &mut self.left {
            return Ok(left.checked_sub(1).map(|fewer| *left = fewer).is_some());
        }
        while self.document.rest.first() == Some(&b'N') {
            self.document.byte()?;
        }
        if self.document.rest.first() == Some(&self.end) {
            self.document.byte()?;
            self.left = Some(0);
            return Ok(false);
        }
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if !self.another()? {
            return Ok(None);
        }
        self.document.element = self.element;
        seed.deserialize(&mut *self.document).map(Some)
    }
}

impl<'de> MapAccess<'de> for Elements<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.another()? {
            return Ok(None);
        }
        let key = self.document.text()?;
        seed.deserialize(value::BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        self.document.element = self.element;
        seed.deserialize(&mut *self.document)
    }
}

impl<'de> serde::Deserializer<'de> for &mut Document<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mark = match self.element.take() {
            Some(mark) => mark,
            None => self.mark()?,
        };
        if let Some(whole) = self.whole(mark)? {
            return visitor.visit_i64(whole);
        }
        match mark {
            b'Z' => visitor.visit_unit(),
            b'T' => visitor.visit_bool(true),
            b'F' => visitor.visit_bool(false),
            b'd' => visitor.visit_f32(f32::from_be_bytes(self.array()?)),
            b'D' => visitor.visit_f64(f64::from_be_bytes(self.array()?)),
            b'C' => visitor.visit_u8(self.byte()?),
            b'S' | b'H' => visitor.visit_borrowed_str(self.text()?),
            b'[' | b'{' => {
                if self.depth >= MAX_DEPTH {
                    return Err(Error::custom("it is nested too deep"));
                }
                let (element, left) = self.header()?;
                // Elements without bytes would make a short file long.
                if matches!(element, Some(b'Z' | b'T' | b'F' | b'N')) {
                    return Err(Error::custom("a typed array whose elements have no bytes"));
                }
                self.depth += 1;
                let end = if mark == b'[' { b']' } else { b'}' };
                let mut elements = Elements { document: self, element, left, end };
                let value = if mark == b'[' {
                    visitor.visit_seq(&mut elements)
                } else {
                    visitor.visit_map(&mut elements)
                }?;
                if elements.another()? {
                    return Err(Error::custom("elements that nobody asked for"));
                }
                self.depth -= 1;
                Ok(value)
            }
            other => Err(Error::custom(format_args!("no type has the mark {other}"))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
