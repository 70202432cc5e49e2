//! A server that is known by its very certificate, which somebody both sides trust passes on.

use std::io;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::{HTTP_1, failed, provider};

/// The name that such a certificate is for, wherever its server is.
pub const PINNED_NAME: &str = "pinned.avocet.internal";

/// What a server needs, with a key that never leaves this process, and its certificate in PEM. Clients trust it, and
/// nothing else, when that is what they are given as authority; see [`client`](super::client).
///
/// # Errors
/// If this machine has no randomness.
pub fn pinned_server() -> io::Result<(Arc<ServerConfig>, String)> {
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new([PINNED_NAME.to_owned()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, PINNED_NAME);
    let certificate = params.self_signed(&key).map_err(failed)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .map_err(failed)?;
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    Ok((Arc::new(config), certificate.pem()))
}
