//! Client certificates: the common name is the user, the organizations are the groups.

use daemon::tls::ClientCertificate;
use types::Time;

use super::User;

/// The user whom a certificate names, while it is good.
pub fn user(certificate: &ClientCertificate, now: Time) -> Option<User> {
    if !certificate.is_good(now) {
        return None;
    }
    let user = User::new(&certificate.common_name, certificate.organizations.iter().cloned());
    Some(user.with_credential(format!("X509SHA256={}", certificate.digest.hex())))
}
