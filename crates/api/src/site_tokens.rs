//! Tokens for one site alone.
//!
//! People who administer a hub also look at its sites: at their invocations, logs and objects. Their admin token
//! must not travel there, for a site could use it against the hub. Instead the hub signs a token that is good at
//! one site for an hour; the site asks the hub whether it is (`TokenReview`), and the hub takes it for nothing else.

use std::io;
use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use types::Time;

/// For how long a token is good, in seconds.
pub const SECONDS: i64 = 3600;

/// Signs and checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct SiteTokens {
    key: Arc<[u8]>,
}

impl SiteTokens {
    /// With the key in that file, or a new one.
    ///
    /// # Errors
    /// If the file can't be read or written.
    pub fn open(file: &Path) -> io::Result<Self> {
        let key = match std::fs::read(file) {
            Ok(key) if key.len() >= 32 => key,
            Ok(_) => return Err(io::Error::other(format!("{} is damaged; remove it", file.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = daemon::random_hex(32)?.into_bytes();
                daemon::write_private(file, &key)?;
                key
            }
            Err(error) => return Err(error),
        };
        Ok(Self { key: key.into() })
    }

    /// A token for a site: `site.expiry.signature`.
    ///
    /// # Errors
    /// Never with a key of usable length.
    pub fn sign(&self, site: &str, now: Time) -> io::Result<String> {
        let expiry = now.0.as_second() + SECONDS;
        let signature: String = self
            .mac(site, expiry)?
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(format!("{site}.{expiry}.{signature}"))
    }

    /// Whether a token is good at that site now.
    pub fn is_good(&self, token: &str, site: &str, now: Time) -> bool {
        let mut parts = token.split('.');
        let (Some(named), Some(expiry), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let Ok(expiry) = expiry.parse::<i64>() else { return false };
        let signature: Option<Vec<u8>> = (0..signature.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(signature.get(at..at + 2)?, 16).ok())
            .collect();
        let (Some(signature), Ok(mac)) = (signature, self.mac(named, expiry)) else { return false };
        // `verify_slice` takes the same time whatever is wrong.
        named == site && now.0.as_second() < expiry && mac.verify_slice(&signature).is_ok()
    }

    /// Proves later that the hub itself said this. A text with a `/` is never taken for a token.
    ///
    /// # Errors
    /// Never with a key of usable length.
    pub(crate) fn seal(&self, text: &str) -> io::Result<String> {
        let mac = self.mac_of(text)?.finalize().into_bytes();
        Ok(mac.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether a text was sealed so.
    pub(crate) fn is_sealed(&self, text: &str, seal: &str) -> bool {
        self.seal(text).is_ok_and(|expected| daemon::same_secret(&expected, seal))
    }

    fn mac(&self, site: &str, expiry: i64) -> io::Result<Hmac<Sha256>> {
        self.mac_of(&format!("{site}.{expiry}"))
    }

    fn mac_of(&self, text: &str) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(io::Error::other)?;
        mac.update(text.as_bytes());
        Ok(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens() -> SiteTokens {
        SiteTokens { key: Arc::from(*b"0123456789abcdef0123456789abcdef") }
    }

    fn at(second: i64) -> Time {
        Time(second_to_timestamp(second))
    }

    fn second_to_timestamp(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn promise_7_a_token_is_good_at_its_site_for_its_hour_and_nowhere_else() {
        let token = tokens().sign("edge", at(1000)).unwrap();
        assert!(tokens().is_good(&token, "edge", at(1000 + SECONDS - 1)));
        assert!(!tokens().is_good(&token, "edge", at(1000 + SECONDS)));
        assert!(!tokens().is_good(&token, "cloud", at(1000)));
        assert!(!tokens().is_good(&token.replace("edge", "cloud"), "cloud", at(1000)));
        let other = SiteTokens { key: Arc::from(*b"f123456789abcdef0123456789abcdef") };
        assert!(!other.is_good(&token, "edge", at(1000)));
    }

    proptest! {
        #[test]
        fn no_text_is_a_token_or_makes_it_panic(text in ".{0,120}") {
            prop_assert!(!tokens().is_good(&text, "edge", at(0)));
        }
    }
}
