//! `CertificateSigningRequest`: those of sites for themselves are approved, approved ones are signed, old ones go.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use store::Object;
use types::core::{CertificateCondition, CertificateSigningRequestSpec};
use types::{Resource, Time};

use crate::write::Write;

/// Signs certificates for people and programs, after somebody approved.
const CLIENTS: &str = "kubernetes.io/kube-apiserver-client";
/// Signs certificates for sites, at once if a site asks for itself.
const SITES: &str = "avocet.dev/site";
/// The group of sites.
const SITES_GROUP: &str = "avocet:sites";
/// Who is in this group may do everything; no certificate says so.
const MASTERS_GROUP: &str = "system:masters";

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// For how long a certificate is good, in seconds: at least, and at most.
const SHORTEST: i64 = 600;
const LONGEST: i64 = 365 * DAY;

/// Whom a request wants a certificate for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicant {
    /// The common name: the user.
    pub name: String,
    /// The organizations: the groups.
    pub groups: Vec<String>,
}

/// An authority that signs.
pub trait Signer: Send + Sync + 'static {
    /// Whom a request (PKCS #10, PEM) wants a certificate for.
    ///
    /// # Errors
    /// If it is no request, in words for whoever sent it.
    fn applicant(&self, request: &str) -> Result<Applicant, String>;

    /// Signs a certificate for the key in a request; answers it in PEM.
    ///
    /// # Errors
    /// If it is not to be signed, in words for whoever sent it.
    fn sign(&self, request: &str, ttl: Duration, usages: &[String]) -> Result<String, String>;
}

type Request = Resource<CertificateSigningRequestSpec>;

/// What is to be done about a request now.
pub(crate) fn reconcile(object: &Object, signer: &dyn Signer, now: Time) -> Option<Write> {
    let old: Request = object.resource().ok()?;
    if old.is_deleting() || !matches!(old.spec.signer_name.as_str(), CLIENTS | SITES) {
        return None;
    }
    if old.status.certificate.is_empty() && is(&old, "Approved") && !is(&old, "Denied") && !is(&old, "Failed")
    {
        let mut new = old.clone();
        match sign(&old, signer) {
            Ok(certificate) => new.status.certificate = STANDARD.encode(certificate),
            Err(message) => decide(&mut new, "Failed", "SignerValidationFailure", message, now),
        }
        return Some(Write::status(&new));
    }
    // A site asks for itself; whatever else is asked for, somebody decides by hand.
    let is_pending = old.status.conditions.is_empty() && old.status.certificate.is_empty();
    if !is_pending || old.spec.signer_name != SITES || !old.spec.username.starts_with("site:") {
        return None;
    }
    let mut new = old.clone();
    match applicant(&old, signer).and_then(|(_, applicant)| check_site(&applicant, &old.spec.username)) {
        Ok(()) => {
            let message = "a site asks for itself".to_owned();
            decide(&mut new, "Approved", "SiteAsksForItself", message, now);
        }
        Err(message) => decide(&mut new, "Denied", "SiteAsksForAnother", message, now),
    }
    Some(Write::status(&new))
}

/// Whether a request is so old that it goes: decided ones after an hour, others after a day.
pub(crate) fn is_old(object: &Object, now: Time) -> bool {
    let Ok(request) = object.resource::<CertificateSigningRequestSpec>() else { return false };
    let decided = request.status.conditions.iter().filter_map(|condition| {
        condition.last_update_time.or(condition.last_transition_time).or(request.metadata.creation_timestamp)
    });
    let (since, limit) = match decided.max() {
        Some(decided) => (Some(decided), HOUR),
        None => (request.metadata.creation_timestamp, DAY),
    };
    since.is_some_and(|since| now.0.duration_since(since.0).as_secs() > limit)
}

fn is(request: &Request, condition: &str) -> bool {
    request.status.conditions.iter().any(|held| held.kind == condition)
}

fn decide(request: &mut Request, kind: &str, reason: &str, message: String, now: Time) {
    request.status.conditions.push(CertificateCondition {
        kind: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message,
        last_update_time: Some(now),
        last_transition_time: Some(now),
    });
}

fn sign(request: &Request, signer: &dyn Signer) -> Result<String, String> {
    let spec = &request.spec;
    let usages = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = spec.usages.iter().find(|usage| !usages.contains(&usage.as_str())) {
        return Err(format!("usage {other:?} is not signed; ask for {}", usages.join(", ")));
    }
    if !spec.usages.iter().any(|usage| usage == "client auth") {
        return Err("usage \"client auth\" is missing; a certificate for clients needs it".to_owned());
    }
    let (text, applicant) = applicant(request, signer)?;
    if applicant.name.is_empty() {
        return Err("the request's subject has no common name; it is who the certificate is for".to_owned());
    }
    if applicant.groups.iter().any(|group| group == MASTERS_GROUP) {
        return Err(format!("no certificate is signed for the group {MASTERS_GROUP}; ask without it"));
    }
    let default = if spec.signer_name == SITES {
        let site = if spec.username.starts_with("site:") { &spec.username } else { &applicant.name };
        check_site(&applicant, site)?;
        DAY
    } else {
        90 * DAY
    };
    let seconds = spec.expiration_seconds.unwrap_or(default).clamp(SHORTEST, LONGEST);
    signer.sign(&text, Duration::from_secs(seconds.unsigned_abs()), &spec.usages)
}

/// The request in PEM, and whom it is for.
fn applicant(request: &Request, signer: &dyn Signer) -> Result<(String, Applicant), String> {
    let text = STANDARD.decode(&request.spec.request).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or("the request is not PEM in Base64")?;
    let applicant = signer.applicant(&text)?;
    Ok((text, applicant))
}

/// Whether a request is for that site and nobody else.
fn check_site(applicant: &Applicant, site: &str) -> Result<(), String> {
    if applicant.name == site
        && site.len() > "site:".len()
        && site.starts_with("site:")
        && applicant.groups == [SITES_GROUP]
    {
        return Ok(());
    }
    Err(format!(
        "the request is for CN={:?}, O={:?}; a site gets a certificate for CN=site:NAME, O={SITES_GROUP} alone",
        applicant.name, applicant.groups
    ))
}
