//! Signing what others ask for: certificates for keys that the authority never sees.

use std::time::Duration;

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use types::Time;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

use super::Authority;
use super::authority::random_serial;
use super::encoding::{Contents, ServerName, Subject};

/// How long a request may be, in bytes of PEM.
const LONGEST_REQUEST: usize = 64 << 10;
/// How many names a certificate may be for.
const MOST_NAMES: usize = 100;
/// How long a common name or organization may be, in bytes.
const LONGEST_NAME: usize = 256;
/// Certificates are good from a little earlier, in seconds: no clock that is late, and no hub whose own clock is set
/// back an hour, takes them for those of tomorrow.
pub const EARLIER: i64 = 2 * 3600;

/// What a certificate may be used for, as Kubernetes words it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    DigitalSignature,
    KeyEncipherment,
    ClientAuth,
    ServerAuth,
}

impl Usage {
    /// The usage of that name: `client auth`, for example. Usages that are never signed have none.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "digital signature" => Some(Self::DigitalSignature),
            "key encipherment" => Some(Self::KeyEncipherment),
            "client auth" => Some(Self::ClientAuth),
            "server auth" => Some(Self::ServerAuth),
            _ => None,
        }
    }
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It is not a PKCS #10 request in PEM.
    #[error("the request can't be read: {0}; send one `CERTIFICATE REQUEST` block of PEM")]
    Unreadable(String),
    /// Whoever sent it does not have the key, or the key or signature is weak.
    #[error(
        "the request's signature is wrong or weak: {0}; sign it with the key it is for, RSA of 2048 bits or more, P-256, P-384 or Ed25519"
    )]
    Signature(String),
    /// It asks for more than it gets.
    #[error("the request asks to become an authority, which nobody may")]
    Authority,
    /// The subject names nobody, or badly.
    #[error("the request's subject can't be signed: {0}")]
    Subject(String),
    /// The names of a server are missing or bad.
    #[error("the request's subject alternative names can't be signed: {0}")]
    Names(String),
    /// It should be good for no time, or from the end of the authority on.
    #[error("a certificate can't be good for {0:?} from now on: the authority's own ends earlier")]
    Lifetime(Duration),
    /// Signing itself failed.
    #[error("can't sign")]
    Failed(#[source] std::io::Error),
}

impl Authority {
    /// Signs a certificate for the key in a request (PKCS #10, PEM): answers it in PEM. Of what the request asks
    /// for, only the subject's CN and O are taken over, and for servers the names. It is good from now on for `ttl`,
    /// but never longer than the authority.
    ///
    /// # Errors
    /// If the request is damaged, not signed with its own key, weak, or asks for more than anybody gets.
    pub fn sign(
        &self,
        request: &str,
        ttl: Duration,
        usages: &[Usage],
        now: Time,
    ) -> Result<String, RequestError> {
        let der = decode(request)?;
        let request = read(&der)?;
        let key = verified_key(&request)?;
        let names = names(&request)?;
        let is_server = usages.contains(&Usage::ServerAuth);
        if is_server && names.is_empty() {
            return Err(RequestError::Names("there are none; a server needs one".to_owned()));
        }
        let (from, until) = self.lifetime(ttl, now)?;
        let contents = Contents {
            serial: random_serial().map_err(RequestError::Failed)?,
            issuer: &self.name,
            issuer_key_id: &self.key_id,
            from,
            until,
            subject: subject(&request)?,
            key,
            names: if is_server { names } else { vec![] },
            usages,
        };
        contents.sign(self.issuer.key()).map_err(|error| RequestError::Failed(super::failed(error)))
    }

    /// From when to when a certificate that is signed now is good.
    fn lifetime(&self, ttl: Duration, now: Time) -> Result<(Time, Time), RequestError> {
        let at = |second| jiff::Timestamp::from_second(second).map(Time);
        let now = now.0.as_second();
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let until = now.saturating_add(seconds).min(self.ends);
        match (at(now - EARLIER), at(until)) {
            (Ok(from), Ok(end)) if until > now => Ok((from, end)),
            _ => Err(RequestError::Lifetime(ttl)),
        }
    }
}

/// Whom a request (PKCS #10, PEM) wants a certificate for: CN, and each O.
///
/// # Errors
/// If the request is damaged or its subject can't be signed.
pub fn applicant(request: &str) -> Result<(String, Vec<String>), RequestError> {
    let der = decode(request)?;
    let Subject { common_name, organizations } = subject(&read(&der)?)?;
    Ok((common_name, organizations))
}

pub fn decode(request: &str) -> Result<CertificateSigningRequestDer<'static>, RequestError> {
    if request.len() > LONGEST_REQUEST {
        return Err(RequestError::Unreadable(format!("it is longer than {LONGEST_REQUEST} bytes")));
    }
    CertificateSigningRequestDer::from_pem_slice(request.as_bytes())
        .map_err(|error| RequestError::Unreadable(error.to_string()))
}

pub fn read<'a>(der: &'a CertificateSigningRequestDer) -> Result<X509CertificationRequest<'a>, RequestError> {
    let (rest, request) = X509CertificationRequest::from_der(der)
        .map_err(|error| RequestError::Unreadable(error.to_string()))?;
    if rest.is_empty() {
        Ok(request)
    } else {
        Err(RequestError::Unreadable("something follows it".to_owned()))
    }
}

/// The key of a request that was signed with it, in DER.
pub fn verified_key<'a>(request: &X509CertificationRequest<'a>) -> Result<&'a [u8], RequestError> {
    let signed_with = &request.signature_algorithm.algorithm;
    if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(signed_with) {
        return Err(RequestError::Signature("SHA-1 is no proof any more".to_owned()));
    }
    // This refuses RSA keys of less than 2048 bits, too.
    request.verify_signature().map_err(|error| RequestError::Signature(error.to_string()))?;
    Ok(request.certification_request_info.subject_pki.raw)
}

fn subject(request: &X509CertificationRequest) -> Result<Subject, RequestError> {
    let asked = &request.certification_request_info.subject;
    let text = |attribute: &AttributeTypeAndValue| match attribute.as_str() {
        Ok(text) if text.is_empty() || text.len() > LONGEST_NAME || text.contains(char::is_control) => {
            Err(RequestError::Subject(format!("{text:?} is no name of 1 to {LONGEST_NAME} characters")))
        }
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(RequestError::Subject("a name is no text".to_owned())),
    };
    let mut names = asked.iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(RequestError::Subject("write one CN".to_owned()));
    };
    let organizations: Vec<String> = asked.iter_organization().map(text).collect::<Result<_, _>>()?;
    if organizations.len() > MOST_NAMES {
        return Err(RequestError::Subject(format!(
            "it has {} organizations; {MOST_NAMES} at most",
            organizations.len()
        )));
    }
    Ok(Subject { common_name: text(name)?, organizations })
}

/// The names that are asked for; those that no server is known by are refused.
fn names(request: &X509CertificationRequest) -> Result<Vec<ServerName>, RequestError> {
    let mut names = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                return Err(RequestError::Authority);
            }
            ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => {
                return Err(RequestError::Authority);
            }
            ParsedExtension::SubjectAlternativeName(alternatives) => {
                for name in &alternatives.general_names {
                    names.push(server_name(name)?);
                }
            }
            _ => {}
        }
    }
    if names.len() > MOST_NAMES {
        return Err(RequestError::Names(format!("there are {}; {MOST_NAMES} at most", names.len())));
    }
    Ok(names)
}

fn server_name(name: &GeneralName) -> Result<ServerName, RequestError> {
    let bad = || RequestError::Names(format!("{name} is neither a DNS name nor an IP address"));
    match name {
        GeneralName::DNSName(name) if is_dns_pattern(name) => Ok(ServerName::Dns((*name).to_owned())),
        GeneralName::IPAddress(octets) if matches!(octets.len(), 4 | 16) => {
            Ok(ServerName::Address(octets.to_vec()))
        }
        _ => Err(bad()),
    }
}

/// Whether it is a DNS name, or one with `*` as its first label.
fn is_dns_pattern(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= 253 && name.split('.').all(|label| types::names::is_dns_label(&label.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::ClientCertificate;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};
    use rustls::pki_types::CertificateDer;
    use x509_parser::prelude::X509Certificate;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const CLIENT: &[Usage] = &[Usage::DigitalSignature, Usage::ClientAuth];

    fn authority() -> Authority {
        Authority::open(tempfile::tempdir().unwrap().path()).unwrap()
    }

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn request(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn a_client_gets_its_name_and_all_of_its_organizations_and_nothing_else() {
        let (authority, now) = (authority(), crate::now());
        let request = include_str!("samples/two-organizations.csr");
        let signed = der(&authority.sign(request, DAY, CLIENT, now).unwrap());
        let client = ClientCertificate::read(&signed).unwrap();
        assert_eq!((client.common_name.as_str(), client.organizations.len()), ("anna", 2));
        assert_eq!(client.organizations, ["app1", "app2"]);
        let (_, parsed) = X509Certificate::from_der(&signed).unwrap();
        let ca = der(authority.certificate());
        let (_, ca) = X509Certificate::from_der(&ca).unwrap();
        parsed.verify_signature(Some(ca.public_key())).unwrap();
        assert_eq!(parsed.issuer(), ca.subject());
        assert_eq!(parsed.subject().iter_locality().count(), 0);
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(parsed.key_usage().unwrap().unwrap().value.digital_signature());
        assert!(parsed.subject_alternative_name().unwrap().is_none());
        assert_eq!(parsed.validity().not_after.timestamp(), now.0.as_second() + 24 * 3600);
        assert!(client.is_good(now));
        assert!(!client.is_good(Time(now.0.checked_add(DAY + Duration::from_secs(1)).unwrap())));
    }

    #[test]
    fn a_server_gets_the_names_that_it_asks_for() {
        let usages = [Usage::ServerAuth, Usage::KeyEncipherment];
        let signed = authority().sign(
            &request(&["hub.example", "*.hub.example", "10.0.0.7"]),
            DAY,
            &usages,
            crate::now(),
        );
        let signed = der(&signed.unwrap());
        let (_, parsed) = X509Certificate::from_der(&signed).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
        let expected = [
            GeneralName::DNSName("hub.example"),
            GeneralName::DNSName("*.hub.example"),
            GeneralName::IPAddress(&[10, 0, 0, 7]),
        ];
        assert_eq!(names, expected);
        let nameless = authority().sign(&request(&[]), DAY, &usages, crate::now());
        assert!(matches!(nameless, Err(RequestError::Names(_))));
    }

    #[test]
    fn no_name_of_another_sort_is_signed() {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::Rfc822Name("anna@example.org".try_into().unwrap())];
        let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let refused = authority().sign(&request, DAY, &[Usage::ServerAuth], crate::now());
        assert!(matches!(refused, Err(RequestError::Names(_))), "{refused:?}");
    }

    #[test]
    fn each_certificate_has_a_number_of_its_own() {
        let (authority, now) = (authority(), crate::now());
        let request = include_str!("samples/rsa-2048.csr");
        let [one, two] = [0, 1].map(|_| der(&authority.sign(request, DAY, CLIENT, now).unwrap()));
        let serial = |der: &CertificateDer| X509Certificate::from_der(der).unwrap().1.serial.clone();
        assert_ne!(serial(&one), serial(&two));
    }

    #[test]
    fn no_certificate_outlives_the_authority() {
        let (authority, now) = (authority(), crate::now());
        let request = include_str!("samples/two-organizations.csr");
        let signed = der(&authority.sign(request, Duration::MAX, CLIENT, now).unwrap());
        let (_, parsed) = X509Certificate::from_der(&signed).unwrap();
        assert_eq!(parsed.validity().not_after.timestamp(), authority.ends);
        let refused = authority.sign(request, Duration::ZERO, CLIENT, now);
        assert!(matches!(refused, Err(RequestError::Lifetime(_))));
    }

    #[test]
    fn weak_keys_weak_signatures_and_authorities_are_refused() {
        let sign = |request: &str| authority().sign(request, DAY, CLIENT, crate::now()).unwrap_err();
        assert!(matches!(sign(include_str!("samples/rsa-1024.csr")), RequestError::Signature(_)));
        assert!(matches!(sign(include_str!("samples/sha1.csr")), RequestError::Signature(_)));
        assert!(matches!(sign(include_str!("samples/authority.csr")), RequestError::Authority));
        assert!(matches!(sign(include_str!("samples/nobody.csr")), RequestError::Subject(_)));
        assert!(matches!(sign("no request"), RequestError::Unreadable(_)));
        assert!(matches!(sign(&"x".repeat(LONGEST_REQUEST + 1)), RequestError::Unreadable(_)));
    }

    fn as_pem(der: &[u8]) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    }

    static SHARED: std::sync::LazyLock<Authority> = std::sync::LazyLock::new(authority);

    proptest! {
        #[test]
        fn a_request_changed_anywhere_gets_nothing_new(at in 0_usize..10_000, flip in 1_u8..) {
            let good = include_bytes!("samples/two-organizations.csr");
            let good = CertificateSigningRequestDer::from_pem_slice(good).unwrap();
            let mut bytes = good.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            // A signature has more than one form, but what it signs has not.
            if let Ok(signed) = SHARED.sign(&as_pem(&bytes), DAY, CLIENT, crate::now()) {
                let contents = |der| {
                    let (_, request) = X509CertificationRequest::from_der(der).unwrap();
                    request.certification_request_info.raw.to_vec()
                };
                prop_assert_eq!(contents(&bytes), contents(&good));
                prop_assert_eq!(ClientCertificate::read(&der(&signed)).unwrap().common_name, "anna");
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(SHARED.sign(&as_pem(&bytes), DAY, CLIENT, crate::now()).is_err());
        }
    }
}
