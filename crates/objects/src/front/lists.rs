//! Lists of objects, as S3 shows them.

use std::time::SystemTime;

use s3s::dto::{
    CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output,
    Object, ObjectStorageClass, Timestamp,
};
use s3s::{S3Result, s3_error};
use types::Time;

use super::errors::s3_error;
use super::operations::etag;
use crate::blobs::hex;
use crate::{List, Objects, Page};

/// As S3: no more than this many, however many are asked for.
const LARGEST_PAGE: i32 = 1000;

pub(super) fn timestamp(time: Time) -> Timestamp {
    SystemTime::from(time.0).into()
}

pub(super) async fn version_2(objects: &Objects, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    let show = Show::new(input.encoding_type)?;
    let max_keys = page_size(input.max_keys)?;
    let after = match &input.continuation_token {
        Some(token) => from_token(token)?,
        None => input.start_after.clone().unwrap_or_default(),
    };
    let list = List {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().unwrap_or_default(),
        after,
        limit: usize::try_from(max_keys).unwrap_or(0),
    };
    let page = objects.list(&input.bucket, list).await.map_err(s3_error)?;
    let next = page.next.as_ref().map(|next| hex(next.as_bytes()));
    let (contents, common_prefixes) = show.page(page);
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(show.text(&input.prefix.unwrap_or_default())),
        max_keys: Some(max_keys),
        key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(next.is_some()),
        next_continuation_token: next,
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        delimiter: input.delimiter.map(|delimiter| show.text(&delimiter)),
        start_after: input.start_after.map(|after| show.text(&after)),
        encoding_type: show.encoding_type(),
        ..Default::default()
    })
}

pub(super) async fn version_1(objects: &Objects, input: ListObjectsInput) -> S3Result<ListObjectsOutput> {
    let show = Show::new(input.encoding_type)?;
    let max_keys = page_size(input.max_keys)?;
    let list = List {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().unwrap_or_default(),
        after: input.marker.clone().unwrap_or_default(),
        limit: usize::try_from(max_keys).unwrap_or(0),
    };
    let page = objects.list(&input.bucket, list).await.map_err(s3_error)?;
    let next = page.next.as_ref().map(|next| show.text(next));
    let (contents, common_prefixes) = show.page(page);
    Ok(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(show.text(&input.prefix.unwrap_or_default())),
        marker: Some(show.text(&input.marker.unwrap_or_default())),
        max_keys: Some(max_keys),
        is_truncated: Some(next.is_some()),
        next_marker: next,
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        delimiter: input.delimiter.map(|delimiter| show.text(&delimiter)),
        encoding_type: show.encoding_type(),
        ..Default::default()
    })
}

fn page_size(asked: Option<i32>) -> S3Result<i32> {
    match asked.unwrap_or(LARGEST_PAGE) {
        asked if asked < 0 => {
            Err(s3_error!(InvalidArgument, "`max-keys` = {asked}: is negative; write 0 to 1000"))
        }
        asked => Ok(asked.min(LARGEST_PAGE)),
    }
}

/// Tokens are hex so that any key passes through XML and URLs.
fn from_token(token: &str) -> S3Result<String> {
    let pair = |pair: &[u8]| {
        let hex = std::str::from_utf8(pair).ok().filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u8::from_str_radix(hex, 16).ok()
    };
    let bytes: Option<Vec<u8>> = token.as_bytes().chunks(2).map(pair).collect();
    let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is not one of ours; begin anew"))
}

/// How texts are shown.
struct Show {
    encoded: bool,
}

impl Show {
    fn new(encoding_type: Option<EncodingType>) -> S3Result<Self> {
        match encoding_type.as_ref().map(EncodingType::as_str) {
            None => Ok(Self { encoded: false }),
            Some(EncodingType::URL) => Ok(Self { encoded: true }),
            Some(other) => {
                Err(s3_error!(InvalidArgument, "`encoding-type` = {other:?}: is not known; write `url`"))
            }
        }
    }

    fn encoding_type(&self) -> Option<EncodingType> {
        self.encoded.then(|| EncodingType::from_static(EncodingType::URL))
    }

    fn text(&self, text: &str) -> String {
        if !self.encoded {
            return text.to_owned();
        }
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/');
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    }

    fn page(&self, page: Page) -> (Vec<Object>, Vec<CommonPrefix>) {
        let objects = page.objects.into_iter().map(|info| Object {
            key: Some(self.text(&info.key)),
            size: i64::try_from(info.size).ok(),
            last_modified: Some(timestamp(info.last_modified)),
            e_tag: Some(etag(info.etag)),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            ..Default::default()
        });
        let prefixes =
            page.common_prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(self.text(&prefix)) });
        (objects.collect(), prefixes.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_others_are_refused() {
        assert_eq!(from_token(&hex("a/é+ ".as_bytes())).unwrap(), "a/é+ ");
        for bad in ["x", "ff", "+1", "6é"] {
            assert!(from_token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn encoded_text_leaves_only_what_a_url_carries() {
        assert_eq!(Show { encoded: true }.text("a b+/é\n"), "a%20b%2B/%C3%A9%0A");
    }
}
