//! Certificates in DER. Written here because a subject may have many organizations, one a group of the user, and
//! `rcgen` knows one of each attribute.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SigningKey};
use types::Time;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, DERWriterSeq, Tag};

use super::Usage;

const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
const ED25519: &[u64] = &[1, 3, 101, 112];
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_IDENTIFIER: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

const UTC_TIME: u64 = 23;
const GENERALIZED_TIME: u64 = 24;
/// The first year that two digits can't tell.
const FOUR_DIGITS: i16 = 2050;

/// Whom a certificate is for.
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

/// What a server is known by.
pub enum ServerName {
    /// A DNS name, in ASCII.
    Dns(String),
    /// The 4 or 16 bytes of an IP address.
    Address(Vec<u8>),
}

/// What is signed.
pub struct Contents<'a> {
    /// Positive and without leading zeros.
    pub serial: [u8; 16],
    /// A name in DER.
    pub issuer: &'a [u8],
    pub issuer_key_id: &'a [u8],
    pub from: Time,
    pub until: Time,
    pub subject: Subject,
    /// A SubjectPublicKeyInfo in DER.
    pub key: &'a [u8],
    /// Empty if it isn't a server's.
    pub names: Vec<ServerName>,
    pub usages: &'a [Usage],
}

impl Contents<'_> {
    /// The certificate, in PEM.
    ///
    /// # Errors
    /// If the key is none that an authority here has, or can't sign.
    pub fn sign(&self, key: &KeyPair) -> Result<String, rcgen::Error> {
        let algorithm = algorithm(key)?;
        let contents = yasna::construct_der(|writer| self.write(writer, algorithm));
        let signature = key.sign(&contents)?;
        let certificate = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&contents);
                write_algorithm(writer.next(), algorithm);
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem(&certificate))
    }

    fn write(&self, writer: DERWriter, algorithm: &[u64]) {
        writer.write_sequence(|writer| {
            writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
            writer.next().write_bigint_bytes(&self.serial, true);
            write_algorithm(writer.next(), algorithm);
            writer.next().write_der(self.issuer);
            writer.next().write_sequence(|writer| {
                write_time(writer.next(), self.from);
                write_time(writer.next(), self.until);
            });
            self.subject.write(writer.next());
            writer.next().write_der(self.key);
            writer.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|writer| self.write_extensions(writer));
            });
        });
    }

    fn write_extensions(&self, writer: &mut DERWriterSeq) {
        // An empty sequence says: not an authority.
        write_extension(writer, BASIC_CONSTRAINTS, true, |writer| writer.write_sequence(|_| ()));
        if !self.issuer_key_id.is_empty() {
            write_extension(writer, AUTHORITY_KEY_IDENTIFIER, false, |writer| {
                writer.write_sequence(|writer| {
                    let id = writer.next();
                    id.write_tagged_implicit(Tag::context(0), |id| id.write_bytes(self.issuer_key_id));
                });
            });
        }
        if let Some((bits, length)) = key_usage(self.usages) {
            write_extension(writer, KEY_USAGE, true, |writer| writer.write_bitvec_bytes(&[bits], length));
        }
        let purposes: Vec<&[u64]> = self.usages.iter().filter_map(|usage| purpose(*usage)).collect();
        if !purposes.is_empty() {
            write_extension(writer, EXTENDED_KEY_USAGE, false, |writer| {
                writer.write_sequence(|writer| {
                    purposes.iter().for_each(|purpose| write_id(writer.next(), purpose));
                });
            });
        }
        if !self.names.is_empty() {
            write_extension(writer, SUBJECT_ALTERNATIVE_NAME, false, |writer| {
                writer.write_sequence(|writer| self.names.iter().for_each(|name| name.write(writer.next())));
            });
        }
    }
}

impl Subject {
    fn write(&self, writer: DERWriter) {
        writer.write_sequence(|writer| {
            for organization in &self.organizations {
                write_attribute(writer.next(), ORGANIZATION, organization);
            }
            write_attribute(writer.next(), COMMON_NAME, &self.common_name);
        });
    }
}

impl ServerName {
    fn write(&self, writer: DERWriter) {
        let (tag, bytes) = match self {
            Self::Dns(name) => (2, name.as_bytes()),
            Self::Address(octets) => (7, octets.as_slice()),
        };
        writer.write_tagged_implicit(Tag::context(tag), |writer| writer.write_bytes(bytes));
    }
}

fn algorithm(key: &KeyPair) -> Result<&'static [u64], rcgen::Error> {
    let algorithm = rcgen::PublicKeyData::algorithm(key);
    if algorithm == &PKCS_ECDSA_P256_SHA256 {
        Ok(ECDSA_WITH_SHA256)
    } else if algorithm == &PKCS_ED25519 {
        Ok(ED25519)
    } else {
        Err(rcgen::Error::UnsupportedSignatureAlgorithm)
    }
}

fn write_algorithm(writer: DERWriter, algorithm: &[u64]) {
    writer.write_sequence(|writer| write_id(writer.next(), algorithm));
}

fn write_id(writer: DERWriter, id: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(id));
}

fn write_attribute(writer: DERWriter, id: &[u64], text: &str) {
    writer.write_set(|writer| {
        writer.next().write_sequence(|writer| {
            write_id(writer.next(), id);
            writer.next().write_utf8_string(text);
        });
    });
}

fn write_time(writer: DERWriter, time: Time) {
    let utc = time.0.to_zoned(jiff::tz::TimeZone::UTC);
    let (tag, format) = if utc.year() < FOUR_DIGITS {
        (UTC_TIME, "%y%m%d%H%M%SZ")
    } else {
        (GENERALIZED_TIME, "%Y%m%d%H%M%SZ")
    };
    let text = utc.strftime(format).to_string();
    let tag = Tag { tag_class: yasna::TagClass::Universal, tag_number: tag };
    writer.write_tagged_implicit(tag, |writer| writer.write_bytes(text.as_bytes()));
}

fn write_extension(writer: &mut DERWriterSeq, id: &[u64], critical: bool, write: impl FnOnce(DERWriter)) {
    writer.next().write_sequence(|writer| {
        write_id(writer.next(), id);
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(&yasna::construct_der(write));
    });
}

/// The bits of a key usage, and how many of them count; none if there are none.
fn key_usage(usages: &[Usage]) -> Option<(u8, usize)> {
    let signs = usages.contains(&Usage::DigitalSignature);
    let enciphers = usages.contains(&Usage::KeyEncipherment);
    match (signs, enciphers) {
        (false, false) => None,
        (true, false) => Some((0b1000_0000, 1)),
        (_, true) => Some((if signs { 0b1010_0000 } else { 0b0010_0000 }, 3)),
    }
}

fn purpose(usage: Usage) -> Option<&'static [u64]> {
    match usage {
        Usage::ClientAuth => Some(CLIENT_AUTH),
        Usage::ServerAuth => Some(SERVER_AUTH),
        Usage::DigitalSignature | Usage::KeyEncipherment => None,
    }
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem += &String::from_utf8_lossy(line);
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}
