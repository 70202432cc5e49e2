//! Digests as clients write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha512};
use types::{Digest, DigestWriter};

use crate::Error;

/// A content address that a client may use. Bytes are kept under their SHA-256 whichever it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContentDigest {
    /// `sha256:…`
    Sha256(Digest),
    /// `sha512:…`
    Sha512([u8; 64]),
}

impl ContentDigest {
    /// The digest of these bytes in the same algorithm.
    pub fn again(&self, bytes: &[u8]) -> Self {
        match self {
            Self::Sha256(_) => Self::Sha256(Digest::of(bytes)),
            Self::Sha512(_) => Self::Sha512(Sha512::digest(bytes).into()),
        }
    }
}

impl From<Digest> for ContentDigest {
    fn from(digest: Digest) -> Self {
        Self::Sha256(digest)
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Sha512(bytes) => {
                f.write_str("sha512:")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentDigest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::DigestFormat(text.chars().take(160).collect());
        let Some(hex) = text.strip_prefix("sha512:") else {
            return text.parse().map(Self::Sha256).map_err(|_| invalid());
        };
        if hex.len() != 128 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid());
        }
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self::Sha512(bytes))
    }
}

impl Serialize for ContentDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes the address that a client announced and the one that the bytes are kept under, in one pass.
pub(crate) struct Hasher {
    own: DigestWriter,
    sha512: Option<Sha512>,
}

impl Hasher {
    pub(crate) fn for_digest(announced: &ContentDigest) -> Self {
        let sha512 = matches!(announced, ContentDigest::Sha512(_)).then(Sha512::new);
        Self { own: DigestWriter::default(), sha512 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.own.update(bytes);
        if let Some(hasher) = &mut self.sha512 {
            hasher.update(bytes);
        }
    }

    /// The address of the bytes, and it in the algorithm of the one announced.
    pub(crate) fn finish(self) -> (Digest, ContentDigest) {
        let own = self.own.digest();
        let announced = self.sha512.map(|hasher| ContentDigest::Sha512(hasher.finalize().into()));
        (own, announced.unwrap_or(ContentDigest::Sha256(own)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_both_algorithms_read_back_as_they_were_written() {
        for digest in [ContentDigest::Sha256(Digest::of(b"a")), ContentDigest::Sha512([0; 64]).again(b"a")] {
            assert_eq!(digest.to_string().parse::<ContentDigest>().unwrap(), digest);
        }
        for bad in ["", "sha256:baddigest", "sha512:00", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha512:é"]
        {
            assert!(bad.parse::<ContentDigest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_pass_gives_both_addresses() {
        let mut hasher = Hasher::for_digest(&ContentDigest::Sha512([0; 64]));
        hasher.update(b"hel");
        hasher.update(b"lo");
        let (own, announced) = hasher.finish();
        assert_eq!(own, Digest::of(b"hello"));
        assert_eq!(announced, ContentDigest::Sha512([0; 64]).again(b"hello"));
    }
}
