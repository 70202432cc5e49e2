//! Lists in pages: all pages of one list are of one moment, however much is written meanwhile.
//!
//! The list is kept (as pointers to objects that are shared with the store) until its last page was taken, or until
//! it is too old or one of too many; then the client is told to begin again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine as _};
use serde::{Deserialize, Serialize};
use store::Object;

use crate::{ApiError, body};

/// How many lists are kept at once: each costs 8 bytes an object, and what was deleted since.
const KEPT: usize = 64;
/// How long a client may take between two pages.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Lists whose pages are being taken. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pages(Arc<Mutex<VecDeque<Kept>>>);

struct Kept {
    id: String,
    /// What was asked, and by whom: a token is good for nothing else.
    question: String,
    objects: Vec<Arc<Object>>,
    version: u64,
    taken: Instant,
}

/// A page of a list.
pub struct Page {
    pub objects: Vec<Arc<Object>>,
    /// The version that the whole list is of.
    pub version: u64,
    /// What to send for the next page; empty on the last.
    pub next: String,
    /// How many objects come after this page.
    pub remaining: usize,
}

impl Pages {
    /// The first page of a list.
    pub fn begin(
        &self,
        question: &str,
        objects: Vec<Arc<Object>>,
        version: u64,
        limit: usize,
    ) -> Result<Page, ApiError> {
        if objects.len() <= limit {
            return Ok(Page { objects, version, next: String::new(), remaining: 0 });
        }
        let id = daemon::random_hex(8).map_err(|error| ApiError::internal(&error))?;
        let kept = Kept { id, question: question.to_owned(), objects, version, taken: Instant::now() };
        let page = kept.page(0, limit);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT {
            all.pop_front();
        }
        all.push_back(kept);
        Ok(page)
    }

    /// The page that a token stands for.
    ///
    /// # Errors
    /// 400 for what is no token of this question, 410 if the list is no longer kept.
    pub fn go_on(&self, question: &str, token: &str, limit: usize) -> Result<Page, ApiError> {
        let Place { id, offset } = Place::read(token).map_err(|problem| {
            ApiError::bad_request(format!("invalid continue token: continue key is not valid: {problem}"))
        })?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|kept| kept.taken.elapsed() < LONGEST_PAUSE);
        let found = all.iter_mut().find(|kept| kept.id == id);
        let kept = found.ok_or_else(|| {
            ApiError::gone(
                "The provided continue parameter is too old to display a consistent list result. You must start a new \
                 list without the continue parameter.",
            )
        })?;
        if kept.question != question {
            return Err(ApiError::bad_request(
                "invalid continue token: it belongs to another list; send what was sent with it before",
            ));
        }
        kept.taken = Instant::now();
        let page = kept.page(offset, limit);
        if page.next.is_empty() {
            all.retain(|kept| kept.id != id);
        }
        Ok(page)
    }
}

impl Kept {
    fn page(&self, offset: usize, limit: usize) -> Page {
        let objects: Vec<Arc<Object>> = self.objects.iter().skip(offset).take(limit).cloned().collect();
        let end = offset.saturating_add(objects.len());
        let remaining = self.objects.len().saturating_sub(end);
        let place = Place { id: self.id.clone(), offset: end };
        let next = if remaining == 0 { String::new() } else { place.token(self.version) };
        Page { objects, version: self.version, next, remaining }
    }
}

/// Where a list goes on.
struct Place {
    id: String,
    offset: usize,
}

/// A place as tokens say it, in the form of those of Kubernetes: Base64 of JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Token {
    v: String,
    rv: u64,
    start: String,
}

/// The version of the form of tokens.
const TOKEN_VERSION: &str = "meta.k8s.io/v1";
/// What follows the last quantum of a token is not looked at, as Go does.
const TOKEN_BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

impl Place {
    fn token(&self, version: u64) -> String {
        let start = format!("{}-{}", self.id, self.offset);
        let token = Token { v: TOKEN_VERSION.to_owned(), rv: version, start };
        // A struct of texts and numbers always is JSON.
        TOKEN_BASE64.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    /// Reads a token, or says what is wrong with it.
    fn read(token: &str) -> Result<Self, String> {
        let bytes = TOKEN_BASE64.decode(token).map_err(|error| {
            let place = match error {
                DecodeError::InvalidByte(place, _) | DecodeError::InvalidLastSymbol(place, _) => place,
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => token.len() - token.len() % 4,
            };
            format!("illegal base64 data at input byte {place}")
        })?;
        let Token { v, rv, start } =
            serde_json::from_slice(&bytes).map_err(|error| body::syntax_error(&bytes, &error))?;
        if v != TOKEN_VERSION {
            return Err(format!("server does not recognize this encoded version {v}"));
        }
        if rv == 0 {
            return Err(format!("incorrect encoded start resourceVersion (version {v})"));
        }
        let parts = start.split_once('-').and_then(|(id, offset)| Some((id, offset.parse().ok()?)));
        let (id, offset) = parts.ok_or_else(|| start.clone())?;
        Ok(Self { id: id.to_owned(), offset })
    }
}
