//! A client's own key: made where it is used, and never sent anywhere. What is sent is a request for a certificate,
//! which its signature proves to come from whoever has the key.

use std::error::Error;
use std::io;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use types::Digest;

use super::failed;
use super::signing::{RequestError, decode, read, verified_key};

/// A new P-256 key, as PKCS #8 in PEM.
///
/// # Errors
/// If the machine has no randomness.
pub fn new_key() -> io::Result<String> {
    Ok(KeyPair::generate().map_err(failed)?.serialize_pem())
}

/// The private key in a text of PEM, which may hold its certificate, too.
///
/// # Errors
/// If there is none.
pub fn key_of(text: &str) -> io::Result<String> {
    const END: &str = "-----END PRIVATE KEY-----";
    let begin = text.find("-----BEGIN PRIVATE KEY-----");
    let end = text.find(END).map(|end| end + END.len());
    let found = begin.zip(end).and_then(|(begin, end)| text.get(begin..end));
    found.map(str::to_owned).ok_or_else(|| io::Error::other("there is no `PRIVATE KEY` block of PEM"))
}

/// A request (PKCS #10, PEM) for a certificate for a key, in the name of a member of one organization.
///
/// # Errors
/// If the key is none, or the names can't be in a certificate.
pub fn request(key: &str, common_name: &str, organization: &str) -> io::Result<String> {
    let key = KeyPair::from_pem(key).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serialize_request(&key).map_err(failed)?.pem().map_err(failed)
}

/// What the key of a request hashes to. Whoever sent the request has that key: its signature is checked.
///
/// # Errors
/// If the request is damaged, weak, or not signed with its own key.
pub fn requested_key(request: &str) -> Result<Digest, RequestError> {
    let der = decode(request)?;
    Ok(Digest::of(verified_key(&read(&der)?)?))
}

/// Whether the other side broke a connection off because of the certificate that it was shown, or for lack of one.
pub fn is_refused(error: &(dyn Error + 'static)) -> bool {
    matches!(cause(error), Some(rustls::Error::AlertReceived(_)))
}

/// Whether a connection was broken off here because the other side's authority is not trusted.
pub fn is_unknown_authority(error: &(dyn Error + 'static)) -> bool {
    // Two authorities of the same name are told apart by their signatures alone.
    let unknown = [rustls::CertificateError::UnknownIssuer, rustls::CertificateError::BadSignature];
    matches!(cause(error), Some(rustls::Error::InvalidCertificate(problem)) if unknown.contains(problem))
}

/// What TLS itself says in an error of something above it.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = match inner {
            Some(inner) => inner.downcast_ref::<rustls::Error>(),
            None => error.downcast_ref::<rustls::Error>(),
        };
        if tls.is_some() {
            return tls;
        }
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::tls::{Authority, ClientCertificate, Usage, applicant};

    #[test]
    fn a_request_names_its_maker_and_its_key_is_that_of_the_certificate() {
        let key = new_key().unwrap();
        let asked = request(&key, "site:plant", "avocet:sites").unwrap();
        assert_eq!(applicant(&asked).unwrap(), ("site:plant".to_owned(), vec!["avocet:sites".to_owned()]));
        let authority = Authority::open(tempfile::tempdir().unwrap().path()).unwrap();
        let hour = Duration::from_secs(3600);
        let signed = authority.sign(&asked, hour, &[Usage::ClientAuth], crate::now()).unwrap();
        let signed = ClientCertificate::of_pem(&signed).unwrap();
        assert_eq!(signed.key, requested_key(&asked).unwrap());
        assert_eq!(key_of(&format!("{key}\n-----BEGIN CERTIFICATE-----")).unwrap(), key.trim_end());
        let again = request(&key, "site:plant", "avocet:sites").unwrap();
        assert_eq!(requested_key(&again).unwrap(), signed.key, "the key stays");
        let other = request(&new_key().unwrap(), "site:plant", "avocet:sites").unwrap();
        assert_ne!(requested_key(&other).unwrap(), signed.key);
    }

    #[test]
    fn the_key_of_another_is_claimed_by_nobody() {
        let (mine, yours) = (new_key().unwrap(), new_key().unwrap());
        let [mine, yours] = [mine, yours].map(|key| request(&key, "site:plant", "avocet:sites").unwrap());
        let der = |pem: &str| decode(pem).unwrap().to_vec();
        // My contents with your signature.
        let signature = der(&yours)[der(&yours).len() - 64..].to_vec();
        let mut forged = der(&mine);
        let start = forged.len() - 64;
        forged[start..].copy_from_slice(&signature);
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(forged);
        let pem = format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(requested_key(&pem).is_err());
    }

    #[test]
    fn only_an_alert_is_a_refusal() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired);
        assert!(is_refused(&alert));
        let wrapped =
            io::Error::other(rustls::Error::AlertReceived(rustls::AlertDescription::BadCertificate));
        assert!(is_refused(&io::Error::other(wrapped)));
        assert!(!is_refused(&io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert!(!is_refused(&rustls::Error::General("anything".to_owned())));
    }
}
