//! Telling somebody that a job is done: where to, and how they know who it is from.

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use sha2::Sha256;

/// Where results may be sent, as the operator allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<Url>);

/// Not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no origin; write https://HOST or https://HOST:PORT, without a path")]
pub struct InvalidOrigin(String);

/// Why a callback is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the header Avocet-Callback is no URL: {0}")]
    Url(String),
    #[error("the header Avocet-Callback has a name or password in its URL; results are signed instead")]
    Password,
    #[error(
        "results may not be sent to {0} from here; the operator can allow it with --callback-origin {0}, and GET \
         /v2/jobs/ID always has them"
    )]
    NotAllowed(String),
}

impl Origins {
    /// These and no others.
    ///
    /// # Errors
    /// When one is no origin.
    pub fn new(origins: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Origins, InvalidOrigin> {
        let parse = |text: &str| {
            let url = Url::parse(text).ok().filter(|url| {
                let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
                plain && matches!(url.scheme(), "http" | "https") && url.username().is_empty()
            });
            url.filter(Url::has_host).ok_or_else(|| InvalidOrigin(text.chars().take(128).collect()))
        };
        origins.into_iter().map(|origin| parse(origin.as_ref())).collect::<Result<_, _>>().map(Origins)
    }

    /// The URL, if results may be sent there.
    pub(super) fn check(&self, text: &str) -> Result<Url, Refused> {
        let url = Url::parse(text).map_err(|error| Refused::Url(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Password);
        }
        let origin = url.origin();
        if self.0.iter().any(|allowed| allowed.origin() == origin) {
            return Ok(url);
        }
        Err(Refused::NotAllowed(origin.ascii_serialization().chars().take(256).collect()))
    }
}

/// `sha256=` and the HMAC of `TIMESTAMP.BODY` in hex.
pub(super) fn signature(secret: &str, timestamp: &str, body: &[u8]) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    let code = mac.finalize().into_bytes();
    Some(format!("sha256={}", code.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_origin_that_is_allowed_gets_results() {
        let origins = Origins::new(["https://hooks.example.com", "http://10.0.0.5:8080"]).unwrap();
        for good in
            ["https://hooks.example.com/a?b=c", "https://hooks.example.com:443/", "http://10.0.0.5:8080/x"]
        {
            assert!(origins.check(good).is_ok(), "{good}");
        }
        for bad in [
            "http://hooks.example.com/",
            "https://hooks.example.com:8443/",
            "https://hooks.example.com.evil.org/",
            "https://evil.org/?https://hooks.example.com",
            "https://hooks.example.com@evil.org/",
            "https://me:secret@hooks.example.com/",
            "http://10.0.0.5/",
            "http://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
            "data:text/plain,x",
            "hooks.example.com",
        ] {
            assert!(origins.check(bad).is_err(), "{bad}");
        }
        assert!(Origins::default().check("https://hooks.example.com/").is_err());
    }

    #[test]
    fn an_origin_has_no_path() {
        for bad in ["https://a.example/hook", "ftp://a.example", "a.example", "https://u@a.example", "*"] {
            assert!(Origins::new([bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn signatures_are_hmac_sha256_of_time_and_body() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac key
        let expected = "sha256=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(signature("key", "1700000000", b"{}").unwrap(), expected);
    }
}
