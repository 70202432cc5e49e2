//! What git sees while it works for one source: an environment of its own, and secrets that are gone afterwards.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::Options;
use crate::Error;

/// What is shown to a server; empty for nothing.
#[derive(Default, Clone)]
pub struct Credential {
    user: Option<(String, String)>,
    bearer: Option<String>,
    identity: Option<Vec<u8>>,
    known_hosts: Option<Vec<u8>>,
    authority: Option<Vec<u8>>,
}

impl Credential {
    /// What the data of a Secret says.
    ///
    /// # Errors
    /// [`Error::Secret`] for what is missing or no text.
    pub fn of(secret: &BTreeMap<String, Vec<u8>>) -> Result<Self, Error> {
        let text = |key: &str| -> Result<Option<String>, Error> {
            let Some(bytes) = secret.get(key) else { return Ok(None) };
            let text =
                String::from_utf8(bytes.clone()).ok().map(|text| text.trim_end_matches('\n').to_owned());
            let text = text.filter(|text| !text.contains(['\n', '\r', '\0']));
            text.map(Some)
                .ok_or_else(|| Error::Secret(format!("`{key}` of the Secret is not one line of text")))
        };
        let user = match (text("username")?, text("password")?) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            // Forges take a token as the password of any user.
            (None, Some(password)) => Some(("git".to_owned(), password)),
            (Some(_), None) => {
                return Err(Error::Secret("the Secret has a `username` but no `password`".into()));
            }
        };
        let found = Self {
            user,
            bearer: text("bearerToken")?,
            identity: secret.get("identity").cloned(),
            known_hosts: secret.get("known_hosts").cloned(),
            authority: secret.get("ca.crt").or_else(|| secret.get("caFile")).cloned(),
        };
        if found.identity.is_some() && found.known_hosts.is_none() {
            let problem = "the Secret has an `identity` but no `known_hosts`: without it anybody could answer for the \
                           server; `ssh-keyscan HOST` prints it";
            return Err(Error::Secret(problem.into()));
        }
        Ok(found)
    }
}

/// Whether the operator allows an address.
pub fn check_allowed(options: &Options, url: &str) -> Result<(), Error> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("ssh", url));
    if !options.protocols.iter().any(|known| known == scheme) {
        let allowed = options.protocols.join(", ");
        return Err(Error::Forbidden(format!(
            "{scheme} is not spoken here, only {allowed}; its operator allows others with --source-protocol (of a site: --fetch-protocol)"
        )));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_known = options.hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
    if options.hosts.is_empty() || is_known || scheme == "file" {
        return Ok(());
    }
    Err(Error::Forbidden(format!(
        "{host} is not asked from here; its operator allows others with --source-host (of a site: --fetch-host)"
    )))
}

/// Variables of the hub's own that git may know: how to reach the network.
const PASSED: [&str; 11] = [
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The environment of git for one source. What is secret lies in files that only the hub's user reads, or in the
/// environment: never in arguments, which all users of a machine see.
pub struct Session {
    folder: TempDir,
    environment: Vec<(OsString, OsString)>,
    secrets: Vec<String>,
    memory_bytes: u64,
}

impl Session {
    pub fn open(caches: &Path, options: &Options, url: &str, credential: &Credential) -> Result<Self, Error> {
        let make = DirBuilder::new().recursive(true).mode(0o700).create(caches);
        make.map_err(Error::io("make the folder of sources"))?;
        let folder = tempfile::Builder::new().prefix("session-").tempdir_in(caches);
        let folder = folder.map_err(Error::io("make a folder for git"))?;
        let mut settings: Vec<(String, String)> = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.symlinks", "false"),
            ("credential.helper", ""),
            ("fetch.recurseSubmodules", "false"),
            ("fetch.unpackLimit", "1"),
            ("gc.auto", "0"),
            ("gpg.x509.program", "/bin/false"),
            ("maintenance.auto", "false"),
            // Where a redirect leads was allowed by nobody, and the header would go along.
            ("http.followRedirects", "false"),
            ("safe.directory", "*"),
            ("transfer.bundleURI", "false"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let mut secrets = Vec::new();
        let mut variables: Vec<(String, String)> = Vec::new();
        if let Some(header) = header(credential, &mut secrets).filter(|_| url.starts_with("http")) {
            // Only for this server.
            settings.push((format!("http.{}.extraHeader", origin(url)), header));
        }
        if let Some(authority) = &credential.authority {
            let file = write_private(folder.path(), "ca.crt", authority)?;
            settings.push(("http.sslCAInfo".into(), file.display().to_string()));
        }
        variables.push(("GIT_SSH_COMMAND".into(), ssh_command(folder.path(), credential)?));
        variables.push(("GIT_CONFIG_COUNT".into(), settings.len().to_string()));
        for (index, (name, value)) in settings.into_iter().enumerate() {
            variables.push((format!("GIT_CONFIG_KEY_{index}"), name));
            variables.push((format!("GIT_CONFIG_VALUE_{index}"), value));
        }
        variables.push(("GIT_ALLOW_PROTOCOL".into(), options.protocols.join(":")));
        let fixed = [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "/bin/false"),
            ("SSH_ASKPASS", "/bin/false"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_SSH_VARIANT", "ssh"),
            ("LC_ALL", "C"),
        ];
        variables.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut environment: Vec<(OsString, OsString)> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let passed = PASSED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
        environment.extend(passed);
        for home in ["HOME", "XDG_CONFIG_HOME", "TMPDIR", "GNUPGHOME"] {
            environment.push((home.into(), folder.path().into()));
        }
        environment.push(("GIT_CEILING_DIRECTORIES".into(), caches.into()));
        Ok(Self { folder, environment, secrets, memory_bytes: options.limits.memory_bytes })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How much memory each program may have.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub fn environment(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.environment.iter().map(|(name, value)| (name, value))
    }

    /// The same text without what is secret.
    pub fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

/// The header that a server is shown. What is secret of it is noted.
fn header(credential: &Credential, secrets: &mut Vec<String>) -> Option<String> {
    if let Some(token) = &credential.bearer {
        secrets.push(token.clone());
        return Some(format!("Authorization: Bearer {token}"));
    }
    let (user, password) = credential.user.as_ref()?;
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    secrets.extend([password.clone(), encoded.clone()].into_iter().filter(|secret| !secret.is_empty()));
    Some(format!("Authorization: Basic {encoded}"))
}

/// `https://host:port/` of an address.
fn origin(url: &str) -> String {
    let end = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
    format!("{}/", url.get(..end).unwrap_or(url))
}

/// ssh that asks nobody and believes only the hosts that the Secret knows.
fn ssh_command(folder: &Path, credential: &Credential) -> Result<String, Error> {
    let known = write_private(folder, "known_hosts", credential.known_hosts.as_deref().unwrap_or_default())?;
    let mut words = vec![
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=/dev/null"
            .to_owned(),
        "-o IdentityAgent=none -o IdentitiesOnly=yes -o PermitLocalCommand=no -o ForwardAgent=no".to_owned(),
        format!("-o UserKnownHostsFile={}", quoted(&known)),
    ];
    match &credential.identity {
        Some(identity) => {
            // A key without a last newline is no key for ssh.
            let mut key = identity.clone();
            key.push(b'\n');
            words.push(format!("-i {}", quoted(&write_private(folder, "identity", &key)?)));
        }
        // Else it would show the keys of the user that runs the hub.
        None => words.push("-o IdentityFile=none".to_owned()),
    }
    Ok(words.join(" "))
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// A file that only its owner reads.
pub fn write_private(folder: &Path, name: &str, content: &[u8]) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    let write = || {
        std::fs::write(&path, b"")?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        std::fs::write(&path, content)
    };
    write().map_err(Error::io("write a file for git"))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(protocols: &[&str], hosts: &[&str]) -> Options {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let folder = PathBuf::from("/nonexistent");
        Options { folder, protocols: owned(protocols), hosts: owned(hosts), limits: crate::Limits::default() }
    }

    #[test]
    fn only_what_the_operator_allows_is_asked() {
        let usual = options(&["https", "ssh"], &[]);
        for url in ["https://a.example/x", "ssh://git@a.example/x", "git@a.example:x"] {
            assert!(check_allowed(&usual, url).is_ok(), "{url}");
        }
        for url in ["http://a.example/x", "file:///srv/x"] {
            assert!(check_allowed(&usual, url).is_err(), "{url}");
        }
        let strict = options(&["https", "ssh"], &["a.example", "2001:db8::1"]);
        for url in ["https://a.example:8443/x", "git@A.example:x", "https://[2001:db8::1]:1/x"] {
            assert!(check_allowed(&strict, url).is_ok(), "{url}");
        }
        for url in ["https://b.example/a.example", "git@b.example:x", "https://a.example.b.example/x"] {
            assert!(check_allowed(&strict, url).is_err(), "{url}");
        }
    }

    #[test]
    fn secrets_say_what_they_lack() {
        let secret = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
            Credential::of(&pairs.collect()).map(drop)
        };
        assert!(secret(&[("username", "a"), ("password", "b")]).is_ok());
        assert!(secret(&[("username", "a")]).unwrap_err().to_string().contains("no `password`"));
        assert!(secret(&[("identity", "key")]).unwrap_err().to_string().contains("known_hosts"));
        assert!(secret(&[("password", "a\nX-Other: b")]).unwrap_err().to_string().contains("one line"));
    }

    #[test]
    fn a_header_goes_to_its_own_server_alone() {
        assert_eq!(origin("https://a.example:8443/team/x.git"), "https://a.example:8443/");
        assert_eq!(origin("https://a.example"), "https://a.example/");
    }
}
