//! The authority: a key that signs, and its certificate.

use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use types::{Digest, Time};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::failed;

/// An authority: a key that signs, and its certificate.
pub struct Authority {
    certificate: String,
    /// Its name in DER, as its certificate has it.
    pub(super) name: Vec<u8>,
    /// What its certificate calls its key.
    pub(super) key_id: Vec<u8>,
    /// Until when its certificate is good, in seconds since 1970.
    pub(super) ends: i64,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

const DAY: i64 = 24 * 3600;
/// Certificates are good from a day ago, so that a clock that is late still takes them.
const EARLIER: i64 = DAY;
/// For how many days the authority itself is good.
const AUTHORITY_DAYS: i64 = 3650;
/// For how many days a certificate that the hub shows is good.
const SERVER_DAYS: i64 = 398;

impl Authority {
    /// The authority kept in a folder (`ca.crt`, `ca.key`), or a new one.
    ///
    /// # Errors
    /// If its files can't be read or written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Self::open_as(folder, "ca")
    }

    /// The same with files of another name.
    pub(super) fn open_as(folder: &Path, name: &str) -> io::Result<Self> {
        let [certificate_file, key_file] = ["crt", "key"].map(|end| folder.join(format!("{name}.{end}")));
        let (certificate, key) = match std::fs::read_to_string(&certificate_file) {
            Ok(certificate) => {
                let key = KeyPair::from_pem(&std::fs::read_to_string(&key_file)?).map_err(failed)?;
                (certificate, key)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(failed)?;
                let certificate = authority_params().self_signed(&key).map_err(failed)?.pem();
                crate::write_private(&key_file, key.serialize_pem().as_bytes())?;
                crate::write_durably(&certificate_file, certificate.as_bytes())?;
                (certificate, key)
            }
            Err(error) => return Err(error),
        };
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(failed)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(failed)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(failed)?;
        let key_id = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Ok(Self {
            name: parsed.subject().as_raw().to_vec(),
            key_id: key_id.unwrap_or_default(),
            ends: parsed.validity().not_after.timestamp(),
            issuer,
            certificate,
        })
    }

    /// The authority's certificate, in PEM: what others need to know the hub by.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What its certificates call its key, in hex: tells it from other authorities of the same name.
    pub fn id(&self) -> String {
        hex(&self.key_id)
    }

    /// The SHA-256 of its certificate, in hex.
    pub fn fingerprint(&self) -> String {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        der.map(|der| Digest::of(&der).hex()).unwrap_or_default()
    }

    /// Until when its certificate is good.
    pub fn ends(&self) -> Option<Time> {
        jiff::Timestamp::from_second(self.ends).ok().map(Time)
    }

    /// A new certificate for a server that is known by these names and addresses, and its key.
    pub(super) fn issue(
        &self,
        names: &[String],
        now: Time,
    ) -> io::Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Avocet hub");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&random_serial()?));
        let now = now.0.as_second();
        set_validity(&mut params, now - EARLIER, now + SERVER_DAYS * DAY);
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Avocet hub authority");
    let now = jiff::Timestamp::now().as_second();
    set_validity(&mut params, now - EARLIER, now + AUTHORITY_DAYS * DAY);
    params
}

/// From when to when a certificate is good, in seconds since 1970.
fn set_validity(params: &mut CertificateParams, from: i64, until: i64) {
    let at = |second: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(second).unwrap_or(0));
    params.not_before = at(from).into();
    params.not_after = at(until).into();
}

/// A number that no other certificate of the authority has.
pub(super) fn random_serial() -> io::Result<[u8; 16]> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    // Serial numbers are positive and have no leading zeros.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes)
}

/// The P-256 key kept in a file (PEM, readable by its owner only), or a new one, as PKCS #8 in DER.
///
/// # Errors
/// If the file can't be read or written, or holds no key.
pub fn signing_key(file: &Path) -> io::Result<Vec<u8>> {
    let key = match std::fs::read_to_string(file) {
        Ok(text) => KeyPair::from_pem(&text).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(failed)?;
            crate::write_private(file, key.serialize_pem().as_bytes())?;
            key
        }
        Err(error) => return Err(error),
    };
    Ok(key.serialize_der())
}
