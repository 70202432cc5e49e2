//! A client whose clock may be late: machines without a battery begin in 1970 until somebody tells them the time, which may
//! be nobody but the server that they are to know.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{failed, provider};

/// Knows servers as usual, but takes a certificate that is not good yet as proof that its own clock is late: the authority
/// signs none ahead. One that has ended by that clock has ended for certain, and is refused.
#[derive(Debug)]
pub(super) struct Late(Arc<WebPkiServerVerifier>);

impl Late {
    /// For servers of these authorities.
    pub fn trusting(roots: RootCertStore) -> io::Result<Arc<Self>> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Ok(Arc::new(Self(verifier.map_err(failed)?)))
    }
}

impl ServerCertVerifier for Late {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        status: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = |time| self.0.verify_server_cert(certificate, intermediates, name, status, time);
        match at(now) {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                at(not_before)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
