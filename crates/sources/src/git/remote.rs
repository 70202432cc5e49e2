//! What a repository says that it has.

use semver::{Version, VersionReq};
use types::GitReference;

use super::command::Git;
use crate::Error;

/// What is followed, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// What a fetch asks for: the name of a reference, or a hash.
    pub wanted: String,
    /// The hash of the commit, or of the tag that names it.
    pub hash: String,
    /// For people: the branch's or tag's name.
    pub label: String,
    /// The tag's name, if it is one.
    pub tag: Option<String>,
}

/// Asks a repository for what is followed.
pub async fn find(git: &Git<'_>, url: &str, reference: &GitReference) -> Result<Followed, Error> {
    if let Some(commit) = &reference.commit {
        let label = commit.get(..12).unwrap_or(commit).to_owned();
        return Ok(Followed { wanted: commit.clone(), hash: commit.clone(), label, tag: None });
    }
    let action = format!("ask {url}");
    let none = |what: String| Error::NoReference { url: url.to_owned(), what };
    if let Some(range) = &reference.semver {
        let wanted = VersionReq::parse(range).map_err(|error| {
            Error::invalid("spec.git.ref.semver", format!("{range:?} is no range of versions: {error}"))
        })?;
        let listed = git.run(&action, &["ls-remote", "--quiet", "--tags", "--refs", "--", url]).await?;
        let found = newest_tag(&listed, &wanted);
        return found.ok_or_else(|| none(format!("tag with a version in {range}")));
    }
    let name = match (&reference.branch, &reference.tag) {
        (Some(branch), _) => format!("refs/heads/{branch}"),
        (None, Some(tag)) => format!("refs/tags/{tag}"),
        (None, None) => "HEAD".to_owned(),
    };
    let listed = git.run(&action, &["ls-remote", "--quiet", "--symref", "--", url, &name]).await?;
    let mut found = lines(&listed).filter(|(hash, listed)| *listed == name && is_hash(hash));
    let hash = found.next().map(|(hash, _)| hash.to_owned());
    let hash = hash.ok_or_else(|| match name.as_str() {
        "HEAD" => none("commit yet; push one, or name a branch in spec.git.ref".into()),
        name => none(name.replace("refs/heads/", "branch ").replace("refs/tags/", "tag ")),
    })?;
    let branch = lines(&listed).find_map(|(target, listed)| {
        target.strip_prefix("ref: refs/heads/").filter(|_| listed == "HEAD").map(str::to_owned)
    });
    let label = reference.branch.clone().or_else(|| reference.tag.clone()).or(branch);
    let label = label.unwrap_or_else(|| "HEAD".to_owned());
    Ok(Followed { wanted: name, hash, label, tag: reference.tag.clone() })
}

fn lines(listed: &str) -> impl Iterator<Item = (&str, &str)> {
    listed.lines().filter_map(|line| line.split_once('\t'))
}

fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The tag with the highest version in a range; a `v` before it is no part of the version.
fn newest_tag(listed: &str, wanted: &VersionReq) -> Option<Followed> {
    let tags = lines(listed).filter(|(hash, _)| is_hash(hash)).filter_map(|(hash, name)| {
        let tag = name.strip_prefix("refs/tags/")?;
        let version = Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()?;
        wanted.matches(&version).then_some((version, tag, hash))
    });
    let (_, tag, hash) = tags.max()?;
    Some(Followed {
        wanted: format!("refs/tags/{tag}"),
        hash: hash.to_owned(),
        label: tag.to_owned(),
        tag: Some(tag.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_tag_in_a_range_is_followed() {
        let hash = "a".repeat(40);
        let listed: String = ["v1.2.0", "1.10.0", "v2.0.0", "v1.11.0-rc.1", "latest", "v1.x"]
            .map(|tag| format!("{hash}\trefs/tags/{tag}\n"))
            .concat();
        let newest = |range: &str| newest_tag(&listed, &range.parse().unwrap()).map(|found| found.label);
        assert_eq!(newest(">=1.2, <2"), Some("1.10.0".into()));
        assert_eq!(newest("*"), Some("v2.0.0".into()));
        assert_eq!(newest("=1.11.0-rc.1"), Some("v1.11.0-rc.1".into()));
        assert_eq!(newest(">=3"), None);
    }
}
