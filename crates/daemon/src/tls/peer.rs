//! What a client's certificate says of the client.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use types::{Digest, Time};

use super::authority::hex;
use super::signing::EARLIER;

/// A client's certificate, already verified: whom it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's common name (CN).
    pub common_name: String,
    /// The subject's organizations (O).
    pub organizations: Vec<String>,
    /// What the whole certificate hashes to.
    pub digest: Digest,
    /// What its public key hashes to: certificates that follow one another for one key have the same.
    pub key: Digest,
    /// What it calls the key of its authority, in hex; empty if it doesn't.
    pub authority: String,
    /// Since when it is good, in seconds since 1970.
    begins: i64,
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
            key: Digest::of(certificate.public_key().raw),
            authority: authority(&certificate),
            begins: certificate.validity().not_before.timestamp() + EARLIER,
            ends: certificate.validity().not_after.timestamp(),
        })
    }

    /// The first certificate in a text of PEM; none if it can't be read or names nobody.
    pub fn of_pem(text: &str) -> Option<Self> {
        Self::read(&CertificateDer::from_pem_slice(text.as_bytes()).ok()?)
    }

    /// Whether it is time for the next one: from two thirds of its life on, for some a little earlier, so that those
    /// who began together don't come together.
    pub fn is_to_be_renewed(&self, now: Time) -> bool {
        let spread =
            self.digest.hex().get(..2).and_then(|hex| i64::from_str_radix(hex, 16).ok()).unwrap_or(0);
        let life = self.ends - self.begins;
        let rest = life / 3 + life / 15 * spread / 255;
        self.ends - now.0.as_second() <= rest
    }

    /// Whether it is still good: connections may live longer than certificates.
    pub fn is_good(&self, now: Time) -> bool {
        now.0.as_second() <= self.ends
    }
}

fn authority(certificate: &X509Certificate<'_>) -> String {
    let id = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(issuer) => issuer.key_identifier.as_ref(),
        _ => None,
    });
    id.map(|id| hex(id.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_renewed_in_the_last_third_of_its_life_or_a_little_earlier() {
        let at = |second| Time(jiff::Timestamp::from_second(second).unwrap());
        for text in ["a", "b", "c", "d", "e", "f"] {
            let certificate = ClientCertificate {
                common_name: "site:plant".to_owned(),
                organizations: vec![],
                digest: Digest::of(text.as_bytes()),
                key: Digest::of(b"key"),
                authority: String::new(),
                begins: 1_000_000,
                ends: 1_000_000 + 3000,
            };
            assert!(!certificate.is_to_be_renewed(at(1_000_000 + 1799)));
            assert!(certificate.is_to_be_renewed(at(1_000_000 + 2000)));
            assert!(certificate.is_to_be_renewed(at(1_000_000 + 9000)));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(ClientCertificate::read(&bytes), None);
        }
    }
}
