//! Files of XGBoost and LightGBM, told by their first bytes.

use super::Format;

pub(super) fn starting(head: &[u8]) -> Option<Format> {
    if head.starts_with(b"tree\n") || head.starts_with(b"tree\r\n") {
        return Some(Format::Lightgbm);
    }
    // No protobuf message begins with a brace: it would be the start of a group.
    match head.trim_ascii_start() {
        [b'{', b'i' | b'U' | b'I' | b'l' | b'L' | b'$' | b'#', ..] => Some(Format::XgboostUbj),
        [b'{', rest @ ..] if rest.trim_ascii_start().first().is_none_or(|&byte| byte == b'"') => {
            Some(Format::XgboostJson)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (head, format) in [
            (&b"tree\nversion=v4"[..], Some(Format::Lightgbm)),
            (b"{\"learner\":{", Some(Format::XgboostJson)),
            (b" {\n  \"version\": [3, 2, 0]", Some(Format::XgboostJson)),
            (b"{L\0\0\0\0\0\0\0\x07learner", Some(Format::XgboostUbj)),
            (b"{i\x07learner", Some(Format::XgboostUbj)),
            (b"\x08\x0a\x12\x08skl2onnx", None),
            (b"", None),
            (b"tree", None),
        ] {
            assert_eq!(starting(head), format, "{head:?}");
        }
    }
}
