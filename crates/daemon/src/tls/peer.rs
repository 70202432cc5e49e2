//! What a client's certificate says of the client.

use x509_parser::prelude::{FromDer, X509Certificate};

use types::{Digest, Time};

/// A client's certificate, already verified: whom it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's common name (CN).
    pub common_name: String,
    /// The subject's organizations (O).
    pub organizations: Vec<String>,
    /// What the whole certificate hashes to.
    pub digest: Digest,
    /// Until when it is good, in seconds since 1970.
    ends: i64,
}

impl ClientCertificate {
    /// Reads a certificate in DER; none if it can't be read or names nobody.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let common_name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        if common_name.is_empty() {
            return None;
        }
        let organizations = subject.iter_organization().map(|name| name.as_str().map(str::to_owned));
        Some(Self {
            common_name,
            organizations: organizations.collect::<Result<_, _>>().ok()?,
            digest: Digest::of(der),
            ends: certificate.validity().not_after.timestamp(),
        })
    }

    /// Whether it is still good: connections may live longer than certificates.
    pub fn is_good(&self, now: Time) -> bool {
        now.0.as_second() <= self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(ClientCertificate::read(&bytes), None);
        }
    }
}
