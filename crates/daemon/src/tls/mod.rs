//! TLS with an authority of one's own: a hub signs the certificate it shows, and whoever joins it or administers
//! it is given the authority's certificate by hand (in the join token, in the kubeconfig), so nobody in between
//! can pose as the hub. Clients may show certificates, too, which the same authority signed.

mod authorities;
mod authority;
mod clients;
mod encoding;
mod key;
mod late;
mod peer;
mod pinned;
mod serving;
mod signing;
mod stream;

use std::io;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

pub use authorities::{Authorities, RotationError, Stage};
pub use authority::{Authority, signing_key};
pub use key::{is_refused, is_unknown_authority, key_of, new_key, request, requested_key};
pub use peer::ClientCertificate;
pub use pinned::{PINNED_NAME, pinned_server};
pub use serving::{Served, Source, server, server_for_all, server_of};
pub use signing::{RequestError, Usage, applicant};
pub use stream::TlsStream;

/// How the protocols are called that clients and servers agree on (ALPN).
pub const HTTP_1: &[u8] = b"http/1.1";
/// The same, of HTTP/2.
pub const HTTP_2: &[u8] = b"h2";
/// The same, of what agents speak with hubs: many small requests on a connection that costs little while it rests.
pub const MULTIPLEXED: &[u8] = b"avocet/1";

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a client needs that trusts this authority (a certificate in PEM) and nobody else. Its clock may be late.
///
/// # Errors
/// If the text is no certificate.
pub fn client(authority: &str) -> io::Result<ClientConfig> {
    Ok(of_authority(authority)?.with_no_client_auth())
}

/// A client of servers of this authority.
fn of_authority(authority: &str) -> io::Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    Ok(config.dangerous().with_custom_certificate_verifier(late::Late::trusting(roots(authority)?)?))
}

/// The same for a client that shows a certificate of its own: its chain and its key, in PEM.
///
/// # Errors
/// If a text is no certificate or no key, or the key is another's.
pub fn client_with_certificate(authority: &str, chain: &str, key: &str) -> io::Result<ClientConfig> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| io::Error::other("the client's key is not a private key in PEM"))?;
    of_authority(authority)?.with_client_auth_cert(chain.map_err(failed)?, key).map_err(failed)
}

/// What a client needs that trusts nobody: for plain connections on this machine.
///
/// # Errors
/// Never on a machine where TLS works at all.
pub fn client_of_nobody() -> io::Result<ClientConfig> {
    trusting(RootCertStore::empty())
}

/// What a client needs that trusts whom the machine trusts.
///
/// # Errors
/// If the machine has no list of authorities.
pub fn client_of_all() -> io::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (known, _) = roots.add_parsable_certificates(found.certs);
    if known == 0 {
        return Err(io::Error::other("this machine has no list of authorities to trust; name one"));
    }
    trusting(roots)
}

/// The authorities in a text of PEM.
fn roots(authorities: &str) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(certificate.map_err(failed)?).map_err(failed)?;
    }
    Ok(roots)
}

fn trusting(roots: RootCertStore) -> io::Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
