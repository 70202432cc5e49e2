//! Forms of browsers, curl and `requests` (`multipart/form-data`) that carry one file.

use memchr::memmem;

use crate::error::ApiError;

/// Most parts of a form.
const MAX_PARTS: usize = 64;
/// Most bytes of a part's headers.
const MAX_HEADERS: usize = 16 << 10;
/// Most bytes of what stands between parts, by RFC 2046.
const MAX_BOUNDARY: usize = 70;

/// A file in a form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct File<'a> {
    /// Its own content type, if it has one.
    pub kind: Option<&'a str>,
    pub data: &'a [u8],
}

pub(crate) fn is_form(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("multipart/form-data")
}

/// What stands between a form's parts.
///
/// # Errors
/// When the content type doesn't say.
pub(crate) fn boundary(content_type: &str) -> Result<&str, ApiError> {
    let boundary =
        parameter(content_type, "boundary").filter(|text| (1..=MAX_BOUNDARY).contains(&text.len()));
    boundary.ok_or_else(|| bad("its Content-Type has no `boundary` of 1 to 70 characters"))
}

/// The form's only file: a part with a file name, or its only part.
///
/// # Errors
/// When it is no form, or has no file or several.
pub(crate) fn only_file<'a>(body: &'a [u8], boundary: &str) -> Result<File<'a>, ApiError> {
    let parts = parts(body, boundary)?;
    let mut files = parts.iter().filter(|part| part.has_file_name);
    match (files.next(), files.next(), parts.as_slice()) {
        (Some(part), None, _) | (None, None, [part]) => Ok(File { kind: part.kind, data: part.data }),
        (None, ..) => Err(bad("it has no file; add one, as curl does with -F file=@NAME")),
        (Some(_), Some(_), _) => Err(bad("it has several files; send one in each request")),
    }
}

struct Part<'a> {
    has_file_name: bool,
    kind: Option<&'a str>,
    data: &'a [u8],
}

fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, ApiError> {
    let line = format!("--{boundary}");
    let mut rest = match body.strip_prefix(line.as_bytes()) {
        Some(rest) => rest,
        // Text before the first part is to be passed over.
        None => cut(body, format!("\r\n{line}").as_bytes())?.1,
    };
    let delimiter = format!("\r\n{line}");
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        if parts.len() == MAX_PARTS {
            return Err(bad("it has over 64 parts"));
        }
        // The line may end in spaces.
        let (_, begun) = cut(rest, b"\r\n")?;
        let (data, next) = cut(begun, delimiter.as_bytes())?;
        parts.push(part(data)?);
        rest = next;
    }
    Ok(parts)
}

fn part(content: &[u8]) -> Result<Part<'_>, ApiError> {
    let (headers, data) = match content.strip_prefix(b"\r\n") {
        Some(data) => (<&[u8]>::default(), data),
        None => cut(content, b"\r\n\r\n")?,
    };
    if headers.len() > MAX_HEADERS {
        return Err(bad("the headers of a part are over 16 KiB"));
    }
    let (mut has_file_name, mut kind) = (false, None);
    for header in headers.split(|&byte| byte == b'\n') {
        let Some((name, value)) = std::str::from_utf8(header).ok().and_then(|line| line.split_once(':'))
        else {
            continue;
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "content-disposition" => {
                has_file_name =
                    parameter(value, "filename").or_else(|| parameter(value, "filename*")).is_some();
            }
            "content-type" => kind = Some(value.trim()),
            _ => {}
        }
    }
    Ok(Part { has_file_name, kind, data })
}

/// What is before the first `separator`, and what is behind it.
fn cut<'a>(bytes: &'a [u8], separator: &[u8]) -> Result<(&'a [u8], &'a [u8]), ApiError> {
    let at = memmem::find(bytes, separator).ok_or_else(|| bad("it breaks off; send it whole"))?;
    let (before, rest) = bytes.split_at(at);
    Ok((before, rest.get(separator.len()..).unwrap_or_default()))
}

/// A parameter of a header's value, without its quotes.
fn parameter<'a>(value: &'a str, wanted: &str) -> Option<&'a str> {
    let mut parameters = value.split(';').skip(1).filter_map(|pair| pair.split_once('='));
    let (_, text) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
    Some(text.trim().trim_matches('"'))
}

fn bad(problem: &str) -> ApiError {
    ApiError::BadRequest(format!("the form can't be read: {problem}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhi\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a;b.csv\"\r\n\
        Content-Type: text/csv\r\n\r\n1,2\r\n--x\r\n\r\n--b--\r\n";

    fn message(body: &str) -> String {
        only_file(body.as_bytes(), "b").unwrap_err().to_string()
    }

    #[test]
    fn the_file_is_found_among_the_fields() {
        let file = only_file(FORM.as_bytes(), "b").unwrap();
        assert_eq!(file, File { kind: Some("text/csv"), data: b"1,2\r\n--x\r\n" });
        let late = format!("before\r\n{FORM}after");
        assert_eq!(only_file(late.as_bytes(), "b").unwrap(), file);
    }

    #[test]
    fn a_lone_part_needs_no_file_name_and_no_headers() {
        let named = "--b \r\ncontent-disposition: form-data; name=x\r\n\r\n\r\n--b--";
        assert_eq!(only_file(named.as_bytes(), "b").unwrap(), File { kind: None, data: b"" });
        let bare = "--b\r\n\r\n7\r\n--b--";
        assert_eq!(only_file(bare.as_bytes(), "b").unwrap().data, b"7");
    }

    #[test]
    fn what_is_no_form_with_one_file_is_named() {
        assert!(message("").contains("breaks off"));
        assert!(message("--b\r\n\r\n7").contains("breaks off"));
        assert!(message("--b--").contains("no file"));
        assert!(message("--b\r\n\r\n1\r\n--b\r\n\r\n2\r\n--b--").contains("no file"));
        let file = "\r\nContent-Disposition: form-data; filename=a\r\n\r\n1\r\n--b";
        assert!(message(&format!("--b{file}{file}--")).contains("several files"));
        assert!(message(&format!("--b{}--", "\r\n\r\n1\r\n--b".repeat(65))).contains("over 64 parts"));
        let wide = format!("--b\r\nX: {}\r\n\r\n1\r\n--b--", "y".repeat(17 << 10));
        assert!(message(&wide).contains("over 16 KiB"));
    }

    #[test]
    fn the_boundary_may_be_quoted_and_must_be_there() {
        assert_eq!(boundary("multipart/form-data; boundary=\"a b\"").unwrap(), "a b");
        assert_eq!(boundary("Multipart/Form-Data; charset=x; Boundary=ab").unwrap(), "ab");
        for none in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary"]
        {
            assert!(boundary(none).is_err(), "{none}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_form_never_panics(at in 0..FORM.len(), byte: u8, end in 0..FORM.len()) {
            let mut body = FORM.as_bytes().to_vec();
            body[at] = byte;
            let _ = only_file(&body, "b");
            let _ = only_file(&body[..end], "b");
        }
    }
}
