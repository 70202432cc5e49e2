//! The S3 front: what boto3, the aws cli, dvc and mc speak.
//!
//! Requests are signed with SigV4 (headers or presigned URL) by one key pair; nobody else gets in. Addresses are
//! path-style. Not kept: ACLs, tags, versions, `Cache-Control` and the other `Content-*` headers. Asked for
//! encryption, the front declines.

mod body;
mod conditions;
mod errors;
mod lists;
mod operations;
mod serve;

use std::fmt;
use std::sync::Arc;

use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};

use crate::info::invalid;
use crate::{Error, Objects};

pub use operations::S3Front;
pub use serve::serve;

/// The key pair that requests are signed with.
#[derive(Clone)]
pub struct Credentials {
    access_key: String,
    secret_key: String,
}

impl Credentials {
    /// An access key of 3 to 128 and a secret key of 8 to 128 visible ASCII characters.
    ///
    /// # Errors
    /// `Invalid`, which does not repeat the secret.
    pub fn new(access_key: &str, secret_key: &str) -> Result<Self, Error> {
        let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        // A slash or comma would end the access key within the `Authorization` header.
        if !(3..=128).contains(&access_key.len())
            || !visible(access_key)
            || access_key.contains(['/', ',', '='])
        {
            let problem =
                "is no access key; write 3 to 128 visible ASCII characters without '/', ',' and '='";
            return Err(invalid("access_key", access_key, problem));
        }
        if !(8..=128).contains(&secret_key.len()) || !visible(secret_key) {
            return Err(invalid(
                "secret_key",
                "",
                "is no secret key; write 8 to 128 visible ASCII characters",
            ));
        }
        Ok(Self { access_key: access_key.to_owned(), secret_key: secret_key.to_owned() })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl S3Auth for Credentials {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if daemon::same_secret(access_key, &self.access_key) {
            return Ok(self.secret_key.as_str().into());
        }
        Err(s3_error!(
            InvalidAccessKeyId,
            "this access key is not known here; check the client's credentials"
        ))
    }
}

/// Bytes of an XML body: lists of 1000 keys to delete or 10,000 parts to complete fit.
const LARGEST_XML: usize = 4 << 20;
/// Bytes of all fields of a form. Forms are read before their signature is checked, and are not supported.
const LARGEST_FORM: usize = 16 << 10;

/// The front as a service for hyper (or tower).
pub fn service(objects: Objects, credentials: Credentials) -> S3Service {
    let mut config = S3Config::default();
    config.xml_max_body_size = LARGEST_XML;
    config.post_object_max_file_size = 0;
    config.form_max_field_size = LARGEST_FORM;
    config.form_max_fields_size = LARGEST_FORM;
    config.form_max_parts = 16;
    let mut builder = S3ServiceBuilder::new(S3Front::new(objects));
    builder.set_auth(credentials);
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_are_too_weak_are_refused_and_never_shown() {
        assert!(Credentials::new("", "").is_err() && Credentials::new("a/b", "0123456789").is_err());
        let error = Credentials::new("avocet", "short").unwrap_err().to_string();
        assert!(error.contains("secret_key") && !error.contains("short"), "{error}");
        let debug = format!("{:?}", Credentials::new("avocet", "0123456789").unwrap());
        assert!(debug.contains("avocet") && !debug.contains("0123"), "{debug}");
    }
}
