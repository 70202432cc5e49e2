//! Signatures of commits and tags, by git's own judgement.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use types::VerificationMode;

use super::command::Git;
use super::remote::Followed;
use super::session::{Session, write_private};
use crate::error::shorten;
use crate::{Error, program};

/// Whose signatures count.
#[derive(Debug, Clone, Default)]
pub struct Signers {
    ssh: Vec<u8>,
    openpgp: Vec<Vec<u8>>,
}

impl Signers {
    /// Those that the data of a Secret names.
    ///
    /// # Errors
    /// [`Error::Secret`] if it names nobody.
    pub fn of(secret: &BTreeMap<String, Vec<u8>>) -> Result<Self, Error> {
        let ssh = secret.get("allowed_signers").cloned().unwrap_or_default();
        let openpgp: Vec<Vec<u8>> =
            secret.iter().filter(|(key, _)| key.ends_with(".asc")).map(|(_, keys)| keys.clone()).collect();
        if ssh.is_empty() && openpgp.is_empty() {
            let problem = "the Secret names nobody who may sign: it needs `allowed_signers`, or OpenPGP keys under keys \
                           that end in `.asc`";
            return Err(Error::Secret(problem.into()));
        }
        Ok(Self { ssh, openpgp })
    }
}

/// Lets pass what one of the signers signed.
pub async fn verify(
    git: &Git<'_>,
    session: &Session,
    repository: &Path,
    followed: &Followed,
    commit: &str,
    mode: VerificationMode,
    signers: &Signers,
) -> Result<(), Error> {
    let folder = format!("--git-dir={}", repository.display());
    let allowed = write_private(session.folder(), "allowed_signers", &signers.ssh)?;
    let setting = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
    import(session, &signers.openpgp).await?;
    let (command, object, shown) = match mode {
        VerificationMode::Commit => ("verify-commit", commit, format!("commit {commit}")),
        VerificationMode::Tag => ("verify-tag", followed.hash.as_str(), format!("tag {}", followed.label)),
    };
    let said = git.ask(&[&folder, "-c", &setting, command, "--", object], &[]).await?;
    if !said.is_success {
        let told = String::from_utf8_lossy(&said.output);
        let because = match (said.complaint.trim(), told.trim()) {
            ("", "") => "it is not signed".to_owned(),
            (complaint, told) => shorten(&format!("{complaint}\n{told}")),
        };
        let problem = format!("{shown} is signed by nobody whom spec.verify trusts: {because}");
        return Err(Error::Unverified(problem));
    }
    if mode == VerificationMode::Tag {
        check_name(git, &folder, followed).await?;
    }
    Ok(())
}

/// A signature is about the name that it holds: another reference that leads to the same tag doesn't have it.
async fn check_name(git: &Git<'_>, folder: &str, followed: &Followed) -> Result<(), Error> {
    let content = git.run("read the tag", &[folder, "cat-file", "tag", &followed.hash]).await?;
    let signed = content.lines().find_map(|line| line.strip_prefix("tag ")).unwrap_or_default();
    if followed.tag.as_deref() == Some(signed) {
        return Ok(());
    }
    let name = &followed.label;
    Err(Error::Unverified(format!("tag {name} leads to what was signed as tag {signed}; tag it anew")))
}

/// Makes keys known to the gpg of a session, which knows no others.
async fn import(session: &Session, keys: &[Vec<u8>]) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    // Nothing that stays behind: looking at signatures needs no agent.
    write_private(session.folder(), "gpg.conf", b"batch\nno-tty\nno-autostart\n")?;
    for (index, key) in keys.iter().enumerate() {
        let file = write_private(session.folder(), &format!("signer-{index}.asc"), key)?;
        let mut command = Command::from(program::limited("gpg", session.memory_bytes()));
        command.args(["--quiet", "--import", "--"]).arg(file).env_clear().envs(session.environment());
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(Error::io("start gpg"))?;
        if program::is_missing(output.status) {
            return Err(Error::Missing { program: "gpg" });
        }
        if !output.status.success() {
            let message = shorten(&String::from_utf8_lossy(&output.stderr));
            return Err(Error::Secret(format!("an OpenPGP key of the Secret can't be read: {message}")));
        }
    }
    Ok(())
}
