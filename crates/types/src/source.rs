//! `Source`: a Git repository whose manifests are kept applied.

mod status;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{FieldError, Kind, Resource, Span};
pub use status::{AppliedObject, FailedObject, SourceDrift, SourceStatus};

/// A Git repository whose manifests are kept applied, with the rights of a service account in its namespace.
pub type Source = Resource<SourceSpec>;

/// What is followed, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceSpec {
    /// The repository, and what of it.
    pub git: GitSource,
    /// The site that fetches the repository, where only it reaches it; absent for the hub. Its operator must allow the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub site: Option<String>,
    /// How often the repository is looked at, and what was applied is compared with what is there; from 5s to 24h.
    #[serde(default = "minute")]
    pub interval: Span,
    /// How long fetching may take; from 1s to 1h.
    #[serde(default = "minute")]
    pub timeout: Span,
    /// Look at nothing and change nothing until this is false again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Whether what is no longer in the repository is deleted. Only what the Source created ever is.
    #[serde(default = "yes")]
    pub prune: bool,
    /// The service account in the Source's namespace with whose rights manifests are applied.
    #[serde(default = "default_account")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: String,
    /// The namespace of all manifests, whatever they say; absent for what they say, or else that of the Source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub target_namespace: Option<String>,
    /// Take over fields of objects that others made, although they state them otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// What is done about objects that others changed.
    #[serde(default)]
    pub drift: DriftPolicy,
    /// What becomes of the objects when the Source is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Who must have signed a commit; absent where signatures are not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verification>,
    /// Lets the forge tell of new commits at `/avocet/v1/namespaces/NAMESPACE/sources/NAME/webhook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// How a chart is rendered, where the path is one of Helm's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helm: Option<HelmOptions>,
}

fn minute() -> Span {
    Span::minutes(1)
}

fn yes() -> bool {
    true
}

fn default_account() -> String {
    "default".to_owned()
}

/// A folder of a Git repository.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitSource {
    /// The repository: `https://HOST/PATH`, `ssh://USER@HOST/PATH` or `USER@HOST:PATH`. No passwords in here.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// What is followed; absent for the branch that the repository names itself.
    #[serde(default, rename = "ref", skip_serializing_if = "GitReference::is_empty")]
    pub reference: GitReference,
    /// The folder with the manifests; empty for all of the repository.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub path: String,
    /// A Secret in the Source's namespace: `username` and `password`, or `bearerToken`, or `identity` (a private key for
    /// SSH) with `known_hosts`; and `ca.crt` for a server that the hub's machine doesn't trust by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
}

/// What is followed: at most one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.branch), has(self.tag), has(self.semver), has(self.commit)].filter(one, one).size() <= 1",
    "message": "at most one of branch, tag, semver and commit can be followed",
}]))]
pub struct GitReference {
    /// A branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub branch: Option<String>,
    /// A tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub tag: Option<String>,
    /// The tag with the highest version in a range, such as `>=1.2, <2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub semver: Option<String>,
    /// One commit, by its whole hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = "^([0-9a-f]{40}|[0-9a-f]{64})$"))]
    pub commit: Option<String>,
}

impl GitReference {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A Secret in the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What is done about objects that others changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftPolicy {
    /// They are made as the repository says, at each interval.
    #[default]
    Correct,
    /// The status lists them; they stay as they are until the next commit.
    Warn,
}

/// What becomes of the objects when the Source is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// What the Source created is deleted with it.
    #[default]
    Prune,
    /// All stays.
    Leave,
}

/// Who must have signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verification {
    /// What must be signed.
    #[serde(default)]
    pub mode: VerificationMode,
    /// A Secret in the Source's namespace: `allowed_signers` in the form of ssh-keygen, or OpenPGP public keys under keys
    /// that end in `.asc`, or both.
    pub secret_ref: SecretReference,
}

/// What must be signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerificationMode {
    /// The commit.
    #[default]
    Commit,
    /// The tag that is followed.
    Tag,
}

/// Lets a forge tell of new commits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// A Secret in the Source's namespace whose `token` the forge knows: it signs with it (`X-Hub-Signature-256`), or
    /// shows it (`X-Gitlab-Token`).
    pub secret_ref: SecretReference,
}

/// How a chart of Helm is rendered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HelmOptions {
    /// The release's name; empty for the name of the Source.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 53))]
    pub release_name: String,
    /// Values that replace those of the chart.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub values: Map<String, Value>,
    /// Files of the chart with more values, in order; `values` come after them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)))]
    pub value_files: Vec<String>,
}

impl Kind for SourceSpec {
    const KIND: &'static str = "Source";
    const PLURAL: &'static str = "sources";
    type Status = SourceStatus;

    fn check(&self, errors: &mut Vec<FieldError>) {
        let mut wrong = |field: &str, value: &str, problem: Option<String>| {
            if let Some(problem) = problem {
                errors.push(FieldError::new(field, format!("{value:?}"), problem));
            }
        };
        let git = &self.git;
        wrong("spec.git.url", &git.url, url_problem(&git.url));
        wrong("spec.git.path", &git.path, path_problem(&git.path));
        let reference = &git.reference;
        for (field, name) in [("branch", &reference.branch), ("tag", &reference.tag)] {
            if let Some(name) = name {
                wrong(&format!("spec.git.ref.{field}"), name, reference_problem(name));
            }
        }
        if let Some(commit) = reference.commit.as_deref().filter(|commit| !is_hash(commit)) {
            let problem = "is no commit: write its whole hash, 40 or 64 of 0-9 and a-f";
            wrong("spec.git.ref.commit", commit, Some(problem.to_owned()));
        }
        let given = [&reference.branch, &reference.tag, &reference.semver, &reference.commit];
        if given.into_iter().flatten().count() > 1 {
            let problem = "names too much: at most one of branch, tag, semver and commit can be followed";
            errors.push(FieldError::new("spec.git.ref", "", problem));
        }
        for (field, span, range) in
            [("interval", &self.interval, 5..=86_400), ("timeout", &self.timeout, 1..=3600)]
        {
            if !range.contains(&span.duration().as_secs()) {
                let problem =
                    format!("is out of range: write from {}s to {}h", range.start(), range.end() / 3600);
                errors.push(FieldError::new(
                    format!("spec.{field}"),
                    format!("{:?}", span.to_string()),
                    problem,
                ));
            }
        }
        let verifies_tags = self.verify.as_ref().is_some_and(|verify| verify.mode == VerificationMode::Tag);
        if verifies_tags && reference.tag.is_none() && reference.semver.is_none() {
            let problem = "needs a tag that is followed: state spec.git.ref.tag or spec.git.ref.semver, or write Commit";
            errors.push(FieldError::new("spec.verify.mode", "\"Tag\"", problem));
        }
        for (index, file) in self.helm.iter().flat_map(|helm| helm.value_files.iter().enumerate()) {
            if let Some(problem) = path_problem(file) {
                errors.push(FieldError::new(
                    format!("spec.helm.valueFiles[{index}]"),
                    format!("{file:?}"),
                    problem,
                ));
            }
        }
    }
}

fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

const SCHEMES: [&str; 4] = ["https", "ssh", "http", "file"];

fn url_problem(url: &str) -> Option<String> {
    let is_plain = !url.is_empty() && url.chars().all(|c| c.is_ascii_graphic()) && !url.starts_with('-');
    let unfit =
        "is no address of a Git repository: write https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH";
    if !is_plain || url.contains("::") && !url.contains('[') {
        return Some(unfit.to_owned());
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        let (place, path) = url.split_once(':').unwrap_or((url, ""));
        let is_host =
            place.split_once('@').is_some_and(|(user, host)| is_safe_word(user) && is_safe_word(host));
        return (!is_host || path.is_empty()).then(|| unfit.to_owned());
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if !SCHEMES.contains(&scheme) || host.starts_with('-') || (host.is_empty() && scheme != "file") {
        return Some(unfit.to_owned());
    }
    let user = authority.rsplit_once('@').map(|(user, _)| user).unwrap_or_default();
    if user.starts_with('-') {
        return Some(unfit.to_owned());
    }
    if user.contains(':') || (!user.is_empty() && scheme.starts_with("http")) {
        return Some(
            "has a user or a password in it: put them into a Secret that spec.git.secretRef names".to_owned(),
        );
    }
    None
}

fn is_safe_word(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

fn path_problem(path: &str) -> Option<String> {
    let is_inside = !path.starts_with('/')
        && !path.contains(['\0', '\n', '\\'])
        && path.split('/').all(|part| part != "..");
    (!is_inside).then(|| "leads out of the repository: write a path below its root, without `..`".to_owned())
}

/// What is wrong with the name of a branch or tag, by the rules of `git check-ref-format`.
fn reference_problem(name: &str) -> Option<String> {
    let is_name = !name.is_empty()
        && name != "@"
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(|c: char| c.is_ascii_control() || " ~^:?*[\\\u{7f}".contains(c))
        && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"));
    (!is_name).then(|| "is no name that Git has for a branch or tag".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_git_could_take_for_something_else_are_refused() {
        for url in [
            "https://git.example.com/team/deploy.git",
            "ssh://git@git.example.com:2222/team/deploy.git",
            "git@git.example.com:team/deploy.git",
            "file:///srv/git/deploy.git",
            "https://[2001:db8::1]/x.git",
        ] {
            assert_eq!(url_problem(url), None, "{url}");
        }
        for url in [
            "",
            "--upload-pack=touch /tmp/x",
            "-oProxyCommand=x",
            "ssh://-oProxyCommand=x/y",
            "ssh://-oProxyCommand=x@host/y",
            "-x@host:path",
            "git@-host:path",
            "ext::sh -c x",
            "ext::x",
            "ftp://host/x",
            "https://user:word@host/x",
            "https://token@host/x",
            "https:///x",
            "https://host/a b",
            "/srv/git/x",
            "x",
        ] {
            assert!(url_problem(url).is_some(), "{url}");
        }
    }

    #[test]
    fn names_and_paths_stay_what_they_look_like() {
        for name in ["main", "release/1.2", "v1.2.3", "feature/a-b_c#1"] {
            assert_eq!(reference_problem(name), None, "{name}");
        }
        for name in ["", "-x", "a..b", "a b", "a:b", "a/.b", "a.lock", "@", "a@{1}", "a//b", "x.", "a\n"] {
            assert!(reference_problem(name).is_some(), "{name}");
        }
        for path in ["", "deploy/edge", "./deploy"] {
            assert_eq!(path_problem(path), None, "{path}");
        }
        for path in ["/etc", "..", "a/../../b", "a\\b"] {
            assert!(path_problem(path).is_some(), "{path}");
        }
    }

    #[test]
    fn what_is_not_said_has_safe_defaults() {
        let spec: SourceSpec =
            serde_json::from_value(serde_json::json!({"git": {"url": "https://git.example.com/x"}})).unwrap();
        assert_eq!(spec.interval.duration().as_secs(), 60);
        assert_eq!(spec.service_account_name, "default");
        assert!(spec.prune && !spec.force && !spec.suspend);
        let mut errors = Vec::new();
        spec.check(&mut errors);
        assert_eq!(errors, []);
    }
}
