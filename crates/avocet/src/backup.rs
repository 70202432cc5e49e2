//! `backup`: all that a hub keeps, in one tar file.
//!
//! Databases are copied first, each as it is at one moment: that of the uplink before the hub's, so that no site is in it
//! that the other doesn't know, and that a restored hub would take away above. Every other file is either never written again or replaced
//! as a whole, so it can be read while the hub runs; one that goes away meanwhile is one that the hub had done with.
//! What each member hashes to comes last: a file that broke off has no list, and is not restored.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use indicatif::{HumanBytes, ProgressBar};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tar::{Builder, Header};
use types::{Digest, DigestWriter, Time};

use crate::cli::{BackupOptions, Format};
use crate::config;
use crate::output::print_value;

/// The newest format of backups that this version writes and reads.
pub const FORMAT: u32 = 2;
/// The format of backups without an uplink, which older versions read.
const WITHOUT_UPLINK: u32 = 1;
/// The member that lists the others; the last one.
pub const CONTENTS: &str = "backup.json";
pub const DATABASE: &str = "hub/hub.db";
pub const KUBECONFIG: &str = "kubeconfig";
/// As what a hub is known to the hub above.
pub const UPLINK: &str = "uplink";
pub const UPLINK_DATABASE: &str = "uplink/uplink.db";

/// What is in a backup.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    pub format: u32,
    /// The version of Avocet that wrote it.
    pub avocet: String,
    pub created: Time,
    pub artifacts: bool,
    pub members: Vec<Member>,
}

/// A file in a backup.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    pub path: String,
    /// In bytes.
    pub size: u64,
    pub digest: Digest,
}

pub fn backup(options: &BackupOptions) -> anyhow::Result<()> {
    let data = config::data_folder(options.data.as_deref())?;
    let database = data.join(DATABASE);
    ensure!(
        database.is_file(),
        "there is no hub in {}: {} is missing; name its folder with --data",
        data.display(),
        database.display()
    );
    let file = std::path::absolute(&options.file)?;
    let folder = file.parent().context("the backup needs a name")?;
    // Beside the target, for its room and its rename; only its owner can look into it.
    let beside = tempfile::Builder::new().prefix(".avocet-backup-").tempdir_in(folder);
    let beside = beside.with_context(|| format!("can't write to {}", folder.display()))?;
    let tar = beside.path().join("backup.tar");
    let contents =
        write(&data, &tar, options).with_context(|| format!("can't back up {}", data.display()))?;
    let size = fs::metadata(&tar)?.len();
    fs::rename(&tar, &file).with_context(|| format!("can't write {}", file.display()))?;
    daemon::sync_folder(folder)?;
    let files = contents.members.len();
    match options.output {
        Format::Json | Format::Yaml => print_value(
            &json!({
                "file": file, "bytes": size, "files": files, "created": contents.created,
                "avocet": contents.avocet, "artifacts": contents.artifacts,
            }),
            options.output,
        ),
        _ => {
            println!(
                "backed up {} to {} ({files} files, {})",
                data.display(),
                file.display(),
                HumanBytes(size)
            );
            Ok(())
        }
    }
}

fn write(data: &Path, path: &Path, options: &BackupOptions) -> anyhow::Result<Contents> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut backup =
        Backup { tar: Builder::new(file), members: Vec::new(), progress: ProgressBar::new_spinner() };
    let copy = path.with_file_name("copy.db");
    for database in [UPLINK_DATABASE, DATABASE] {
        if database == DATABASE || data.join(database).is_file() {
            backup.add_database(database, &data.join(database), &copy)?;
        }
    }
    for (name, path) in other_files(data, !options.without_artifacts)? {
        backup.add(&name, &path)?;
    }
    backup.finish(!options.without_artifacts)
}

struct Backup {
    tar: Builder<File>,
    members: Vec<Member>,
    progress: ProgressBar,
}

impl Backup {
    /// Adds a database that may be in use, by way of a copy.
    fn add_database(&mut self, name: &str, path: &Path, copy: &Path) -> anyhow::Result<()> {
        store::backup::copy_database(path, copy, |done, all| {
            self.progress.set_message(format!("{name}: {done} of {all} pages"));
            self.progress.tick();
        })?;
        self.add(name, copy)?;
        fs::remove_file(copy)?;
        Ok(())
    }

    fn add(&mut self, name: &str, path: &Path) -> anyhow::Result<()> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.with_context(|| format!("can't read {}", path.display()))?,
        };
        self.progress.set_message(name.to_owned());
        self.progress.tick();
        let size = file.metadata()?.len();
        let mut content = Hashing { inner: file.take(size), digest: DigestWriter::default() };
        self.tar.append_data(&mut header(size), name, &mut content)?;
        let digest = content.digest.digest();
        let is_whole = content.inner.limit() == 0;
        ensure!(is_whole, "{} became shorter while it was read; try again", path.display());
        self.members.push(Member { path: name.to_owned(), size, digest });
        Ok(())
    }

    fn finish(mut self, artifacts: bool) -> anyhow::Result<Contents> {
        let has_uplink = self.members.iter().any(|member| member.path.starts_with(UPLINK));
        let contents = Contents {
            format: if has_uplink { FORMAT } else { WITHOUT_UPLINK },
            avocet: env!("CARGO_PKG_VERSION").to_owned(),
            created: daemon::now(),
            artifacts,
            members: self.members,
        };
        let list = serde_json::to_vec_pretty(&contents)?;
        self.tar.append_data(&mut header(list.len() as u64), CONTENTS, &*list)?;
        self.tar.into_inner()?.sync_all()?;
        self.progress.finish_and_clear();
        Ok(contents)
    }
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header
}

/// What a hub keeps besides its databases, with their names in the backup.
fn other_files(data: &Path, artifacts: bool) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut found = vec![(KUBECONFIG.to_owned(), data.join(KUBECONFIG))];
    let mut folders = vec!["hub", "hub/mailbox/blobs", UPLINK];
    if artifacts {
        folders.push("hub/artifacts/blobs");
    }
    for folder in folders {
        let entries = match fs::read_dir(data.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("can't read {}", data.join(folder).display()))?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Databases with their logs and copies, and what is being written.
            let is_database = name.starts_with("hub.db") || name.starts_with("uplink.db");
            let is_skipped = is_database || name.ends_with(".new");
            if !is_skipped && entry.file_type()?.is_file() {
                found.push((format!("{folder}/{name}"), entry.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A reader that knows what was read.
struct Hashing<R> {
    inner: R,
    digest: DigestWriter,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digest.write_all(buffer.get(..read).unwrap_or_default())?;
        Ok(read)
    }
}
