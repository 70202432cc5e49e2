//! `CertificateSigningRequest`: somebody asks for a client certificate.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FieldError, Kind, Time, names};

/// What is asked for. Nothing of it can be changed later; who asked is set by the server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateSigningRequestSpec {
    /// A PKCS#10 request in PEM, in Base64.
    pub request: String,
    /// Who shall sign: kubernetes.io/kube-apiserver-client, or avocet.dev/site for sites.
    pub signer_name: String,
    /// For how many seconds the certificate should be good; at least 600.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_seconds: Option<i64>,
    /// What the key shall be used for, for example `client auth`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub usages: Vec<String>,
    /// Who asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// UID of who asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups of who asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// More about who asked.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What was decided about a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateCondition {
    /// `Approved`, `Denied` or `Failed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Always True.
    pub status: String,
    /// Why, for programs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it was looked at last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    /// When it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateSigningRequestStatus {
    /// What was decided.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<CertificateCondition>,
    /// The certificate in PEM, in Base64, once it was signed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub certificate: String,
}

impl Kind for CertificateSigningRequestSpec {
    const GROUP: &'static str = "certificates.k8s.io";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "CertificateSigningRequest";
    const PLURAL: &'static str = "certificatesigningrequests";
    const NAMESPACED: bool = false;
    type Status = CertificateSigningRequestStatus;

    fn check(&self, errors: &mut Vec<FieldError>) {
        let request = STANDARD.decode(&self.request).unwrap_or_default();
        if !request.trim_ascii_start().starts_with(PEM) {
            let shown = format!("{} characters", self.request.len());
            let remedy = "is no request: write a PKCS#10 request in PEM (`CERTIFICATE REQUEST`), in Base64";
            errors.push(FieldError::new("spec.request", shown, remedy));
        }
        let is_signer = self.signer_name.split_once('/').is_some_and(|(domain, name)| {
            domain.contains('.')
                && names::is_dns_subdomain(domain)
                && !name.is_empty()
                && self.signer_name.len() <= 571
        });
        if !is_signer {
            let remedy = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(FieldError::new("spec.signerName", format!("{:?}", self.signer_name), remedy));
        }
        if self.usages.is_empty() {
            errors.push(FieldError::new("spec.usages", "[]", "usages is required"));
        }
        if let Some(seconds) = self.expiration_seconds.filter(|seconds| *seconds < 600) {
            let remedy = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::new("spec.expirationSeconds", seconds, remedy));
        }
    }
}

/// How requests begin.
const PEM: &[u8] = b"-----BEGIN CERTIFICATE REQUEST-----";
