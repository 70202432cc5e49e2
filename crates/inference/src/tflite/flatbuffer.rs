//! Reading FlatBuffers that may be damaged: each access is checked, what is not there is nothing.

/// A table in a buffer.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn offset(bytes: &[u8], at: usize) -> Option<usize> {
    let distance = u32::from_le_bytes(number(bytes, at)?);
    at.checked_add(usize::try_from(distance).ok()?)
}

impl<'a> Table<'a> {
    pub fn root(bytes: &'a [u8]) -> Option<Table<'a>> {
        Some(Table { bytes, at: offset(bytes, 0)? })
    }

    /// Where a field is, if the table has it.
    fn field(self, index: usize) -> Option<usize> {
        let back = i32::from_le_bytes(number(self.bytes, self.at)?);
        let vtable = i64::try_from(self.at).ok()?.checked_sub(i64::from(back))?;
        let vtable = usize::try_from(vtable).ok()?;
        let size = usize::from(u16::from_le_bytes(number(self.bytes, vtable)?));
        let slot = 4 + 2 * index;
        if slot + 2 > size {
            return None;
        }
        match u16::from_le_bytes(number(self.bytes, vtable + slot)?) {
            0 => None,
            distance => self.at.checked_add(usize::from(distance)),
        }
    }

    pub fn i8(self, index: usize) -> Option<i8> {
        Some(i8::from_le_bytes(number(self.bytes, self.field(index)?)?))
    }

    pub fn i32(self, index: usize) -> Option<i32> {
        Some(i32::from_le_bytes(number(self.bytes, self.field(index)?)?))
    }

    pub fn f32(self, index: usize) -> Option<f32> {
        Some(f32::from_le_bytes(number(self.bytes, self.field(index)?)?))
    }

    pub fn table(self, index: usize) -> Option<Table<'a>> {
        Some(Table { bytes: self.bytes, at: offset(self.bytes, self.field(index)?)? })
    }

    /// The bytes of a vector of elements of that size.
    fn vector(self, index: usize, size: usize) -> Option<(usize, &'a [u8])> {
        let at = offset(self.bytes, self.field(index)?)?;
        let length = usize::try_from(u32::from_le_bytes(number(self.bytes, at)?)).ok()?;
        let start = at + 4;
        Some((start, self.bytes.get(start..start.checked_add(length.checked_mul(size)?)?)?))
    }

    pub fn bytes(self, index: usize) -> Option<&'a [u8]> {
        Some(self.vector(index, 1)?.1)
    }

    pub fn text(self, index: usize) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(index)?).ok()
    }

    pub fn i32s(self, index: usize) -> Vec<i32> {
        let (_, bytes) = self.vector(index, 4).unwrap_or_default();
        bytes.chunks_exact(4).filter_map(|four| Some(i32::from_le_bytes(four.try_into().ok()?))).collect()
    }

    pub fn i64s(self, index: usize) -> Vec<i64> {
        let (_, bytes) = self.vector(index, 8).unwrap_or_default();
        bytes.chunks_exact(8).filter_map(|eight| Some(i64::from_le_bytes(eight.try_into().ok()?))).collect()
    }

    pub fn f32s(self, index: usize) -> Vec<f32> {
        self.i32s(index).into_iter().map(|bits| f32::from_bits(bits.cast_unsigned())).collect()
    }

    pub fn tables(self, index: usize) -> Vec<Table<'a>> {
        let (start, bytes) = self.vector(index, 4).unwrap_or_default();
        let places = (start..start + bytes.len()).step_by(4);
        places.filter_map(|at| Some(Table { bytes: self.bytes, at: offset(self.bytes, at)? })).collect()
    }
}
