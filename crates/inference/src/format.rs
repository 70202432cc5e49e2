//! Which format a model file has, told by its first bytes: an artifact in a store has no name to go by.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Formats that some engine reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// ONNX, or something unknown: its reader says what is wrong with it.
    Onnx,
    XgboostJson,
    XgboostUbj,
    Lightgbm,
}

impl Format {
    /// Reads the beginning of a file.
    pub fn of(path: &Path) -> io::Result<Format> {
        let mut start = Vec::new();
        File::open(path)?.take(64).read_to_end(&mut start)?;
        Ok(Format::starting(&start))
    }

    fn starting(start: &[u8]) -> Format {
        if start.starts_with(b"tree\n") || start.starts_with(b"tree\r\n") {
            return Format::Lightgbm;
        }
        // No protobuf message begins with a brace: it would be the start of a group.
        match start.trim_ascii_start() {
            [b'{', b'i' | b'U' | b'I' | b'l' | b'L' | b'$' | b'#', ..] => Format::XgboostUbj,
            [b'{', rest @ ..] if rest.trim_ascii_start().first().is_none_or(|&byte| byte == b'"') => {
                Format::XgboostJson
            }
            _ => Format::Onnx,
        }
    }

    /// Whether only the native engine reads it.
    pub fn is_native(self) -> bool {
        self != Format::Onnx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (start, format) in [
            (&b"tree\nversion=v4"[..], Format::Lightgbm),
            (b"{\"learner\":{", Format::XgboostJson),
            (b" {\n  \"version\": [3, 2, 0]", Format::XgboostJson),
            (b"{L\0\0\0\0\0\0\0\x07learner", Format::XgboostUbj),
            (b"{i\x07learner", Format::XgboostUbj),
            (b"\x08\x0a\x12\x08skl2onnx", Format::Onnx),
            (b"", Format::Onnx),
            (b"tree", Format::Onnx),
        ] {
            assert_eq!(Format::starting(start), format, "{start:?}");
        }
    }
}
