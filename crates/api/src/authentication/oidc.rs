//! Tokens of an OpenID Connect issuer: people who are known to somebody else.

use reqwest::Url;
use types::Time;

use super::User;
use super::issuer_keys::IssuerKeys;
use super::jwt::{Claims, Refusal, Unverified};
use super::user::is_reserved;

/// By how many seconds an issuer's clock may differ from ours.
const LEEWAY: i64 = 10;

/// Whose tokens are taken, and whom they name: with the meanings that kube-apiserver's options have.
#[derive(Debug, Clone, Default)]
pub struct OidcOptions {
    /// The issuer: https, or http on this machine.
    pub issuer_url: String,
    /// The audience that tokens must be for.
    pub client_id: String,
    /// The claim that is the user's name; empty for `sub`.
    pub username_claim: String,
    /// What is put before it; none for `ISSUER#` (for `email`: nothing), `-` for nothing.
    pub username_prefix: Option<String>,
    /// The claim that lists the user's groups; empty for none.
    pub groups_claim: String,
    /// What is put before each.
    pub groups_prefix: String,
    /// Certificates (PEM) to know the issuer by; none for those that the machine trusts.
    pub authority: Option<String>,
}

/// Why an issuer can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// Its address.
    #[error("the issuer {0:?} is not an https address without query and fragment")]
    Issuer(String),
    /// No audience is named.
    #[error("the client id, which is the audience that tokens must be for, is missing")]
    ClientId,
    /// TLS can't be set up.
    #[error("the certificates to know the issuer by can't be used: {0}")]
    Authority(String),
}

/// Checks tokens of one issuer.
pub struct Oidc {
    options: OidcOptions,
    username_prefix: String,
    keys: IssuerKeys,
}

impl Oidc {
    /// For one issuer, which is not asked for anything yet.
    ///
    /// # Errors
    /// If the options make no sense.
    pub fn new(mut options: OidcOptions) -> Result<Self, OidcError> {
        if !is_issuer(&options.issuer_url) {
            return Err(OidcError::Issuer(options.issuer_url));
        }
        if options.client_id.is_empty() {
            return Err(OidcError::ClientId);
        }
        if options.username_claim.is_empty() {
            options.username_claim = "sub".to_owned();
        }
        let username_prefix = match options.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if options.username_claim == "email" => String::new(),
            None => format!("{}#", options.issuer_url),
        };
        let keys = IssuerKeys::new(&options.issuer_url, options.authority.as_deref())?;
        Ok(Self { options, username_prefix, keys })
    }

    /// Who shows a token; none for what is not a token of this issuer.
    ///
    /// # Errors
    /// If it claims to be, and is not good.
    pub async fn verify(&self, token: &str, now: Time) -> Result<Option<User>, Refusal> {
        let Ok(token) = Unverified::read(token) else { return Ok(None) };
        if token.issuer() != Some(&self.options.issuer_url) {
            return Ok(None);
        }
        let keys = self.keys.for_token(token.key_id.as_deref(), now).await;
        let claims = token.verify(keys.iter())?;
        claims.check_time(now, LEEWAY)?;
        claims.check_audience(&[&self.options.client_id])?;
        self.user(&claims).map(Some)
    }

    fn user(&self, claims: &Claims) -> Result<User, Refusal> {
        let claim = &self.options.username_claim;
        let wrong = |name: &str| Refusal::Claim(name.to_owned());
        let name = claims.text(claim).filter(|name| !name.is_empty()).ok_or_else(|| wrong(claim))?;
        let verified = claims.value("email_verified");
        if claim == "email" && verified.is_some_and(|verified| verified != true) {
            return Err(wrong("email_verified"));
        }
        let name = format!("{}{name}", self.username_prefix);
        // Without a prefix an issuer could name anybody: the hub's own users are not its to name.
        if is_reserved(&name) {
            return Err(wrong(claim));
        }
        let groups = match self.options.groups_claim.as_str() {
            "" => vec![],
            claim => claims.texts(claim)?,
        };
        let groups = groups.iter().map(|group| format!("{}{group}", self.options.groups_prefix));
        let user = User::new(name, groups.filter(|group| !is_reserved(group)));
        let id = claims.text("jti").map(|id| format!("JTI={id}"));
        Ok(match id {
            Some(id) => user.with_credential(id),
            None => user,
        })
    }
}

fn is_issuer(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    is_safe(&url) && url.query().is_none() && url.fragment().is_none() && url.username().is_empty()
}

/// Whether nobody in between can change what comes from there.
pub(super) fn is_safe(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme() == "https" && !host.is_empty() || url.scheme() == "http" && is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_reached_over_https_or_is_on_this_machine() {
        for good in
            ["https://login.example", "https://login.example/tenant", "http://127.0.0.1:9", "http://[::1]:9"]
        {
            assert!(is_issuer(good), "{good}");
        }
        for bad in [
            "http://login.example",
            "login.example",
            "",
            "https://",
            "ftp://localhost",
            "https://a?b",
            "https://a#b",
            "https://me@a",
        ] {
            assert!(!is_issuer(bad), "{bad}");
        }
    }
}
