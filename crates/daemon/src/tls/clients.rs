//! Whose certificates a server takes from clients, where its own authorities may change while it runs.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::{Authorities, Stage, failed, provider, roots};

type Verifier = Arc<dyn ClientCertVerifier>;

/// Takes clients that show nothing, and those whose certificate one of these authorities (in PEM) signed.
pub(super) fn verifier(authorities: &str) -> io::Result<Verifier> {
    let roots = Arc::new(roots(authorities)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).allow_unauthenticated();
    verifier.build().map_err(failed)
}

/// The same for authorities as they are when a client comes.
#[derive(Debug)]
pub(super) struct Clients {
    authorities: Arc<Authorities>,
    given: String,
    /// What clients are told whom they may be signed by: all of a hub's own authorities have one name.
    first: Verifier,
    built: RwLock<(Arc<Stage>, Verifier)>,
}

impl Clients {
    pub(super) fn trusting(authorities: Arc<Authorities>, given: &str) -> io::Result<Arc<Self>> {
        let stage = authorities.stage();
        let first = verifier(&(stage.trusted() + given))?;
        let built = RwLock::new((stage, first.clone()));
        Ok(Arc::new(Self { authorities, given: given.to_owned(), first, built }))
    }

    fn now(&self) -> Result<Verifier, Error> {
        let stage = self.authorities.stage();
        {
            let built = self.built.read().unwrap_or_else(PoisonError::into_inner);
            if Arc::ptr_eq(&built.0, &stage) {
                return Ok(built.1.clone());
            }
        }
        let new =
            verifier(&(stage.trusted() + &self.given)).map_err(|error| Error::General(error.to_string()))?;
        *self.built.write().unwrap_or_else(PoisonError::into_inner) = (stage, new.clone());
        Ok(new)
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.first.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.now()?.verify_client_cert(certificate, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.first.supported_verify_schemes()
    }
}
