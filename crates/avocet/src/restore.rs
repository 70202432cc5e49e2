//! `restore`: a hub's data folder from a backup.
//!
//! Everything is unpacked beside the hub's folder, checked, made durable, and then moved in place with renames. What
//! was there before is moved aside, so there is a way back.
//!
//! Versions after a restore begin at the time of the restore in microseconds (or go on, if they are beyond that). A
//! client may have seen versions that were made after the backup; none of them must be made again for another
//! change, also if the same backup is restored twice, and no hub makes a million changes a second. So whatever such
//! a client watched from is too old, and it lists again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;
use serde_json::json;
use types::{DigestWriter, Time};

use crate::backup::{CONTENTS, Contents, DATABASE, FORMAT, KUBECONFIG, Member, UPLINK, UPLINK_DATABASE};
use crate::cli::{Format, RestoreOptions};
use crate::output::print_value;
use crate::{config, lock};

/// How large the list of what is in a backup may be, in bytes.
const LARGEST_LIST: u64 = 256 << 20;

pub fn restore(options: &RestoreOptions) -> anyhow::Result<()> {
    let file = File::open(&options.file).with_context(|| format!("can't read {}", options.file.display()))?;
    let data = config::data_folder(options.data.as_deref())?;
    make_folder(&data)?;
    let _lock = lock::lock_hub(&data)?;
    let hub = data.join("hub");
    ensure!(
        options.force || !hub.exists(),
        "there is a hub in {} already; name another folder with --data, or replace it with --force, which keeps its \
         state aside",
        data.display()
    );
    let staging = data.join("restoring");
    remove_folder(&staging)?;
    let restored = unpack(file, &staging).and_then(|contents| {
        let version = prepare(&staging, &hub)?;
        Ok((contents, version))
    });
    let (contents, version) = match restored {
        Ok(restored) => restored,
        Err(error) => {
            remove_folder(&staging)?;
            return Err(
                error.context(format!("{} can't be restored; nothing was changed", options.file.display()))
            );
        }
    };
    let replaced = move_in_place(&staging, &data)?;
    tell(options, &data, &contents, version, replaced.as_deref())
}

fn tell(
    options: &RestoreOptions,
    data: &Path,
    contents: &Contents,
    version: u64,
    replaced: Option<&Path>,
) -> anyhow::Result<()> {
    let files = contents.members.len();
    if matches!(options.output, Format::Json | Format::Yaml) {
        let restored = json!({
            "data": data, "files": files, "created": contents.created, "avocet": contents.avocet,
            "artifacts": contents.artifacts, "resourceVersion": version.to_string(), "replaced": replaced,
        });
        return print_value(&restored, options.output);
    }
    println!("restored {files} files of {} to {}", contents.created, data.display());
    if let Some(replaced) = replaced {
        println!("what was there before is in {}", replaced.display());
    }
    if !contents.artifacts {
        println!("the backup holds no artifacts; apply or push them again");
    }
    Ok(())
}

/// Unpacks all members and compares them with the list at the end.
fn unpack(file: File, staging: &Path) -> anyhow::Result<Contents> {
    make_folder(staging)?;
    let progress = ProgressBar::new_spinner();
    let mut archive = tar::Archive::new(file);
    let mut found = BTreeMap::new();
    let mut contents: Option<Contents> = None;
    for entry in archive.entries().context("it is not a backup")? {
        let mut entry = entry.context("it is not a backup, or damaged")?;
        let path =
            String::from_utf8(entry.path_bytes().into_owned()).context("a member has no readable name")?;
        progress.set_message(path.clone());
        progress.tick();
        if path == CONTENTS {
            let mut list = Vec::new();
            entry.take(LARGEST_LIST).read_to_end(&mut list).context("its list can't be read")?;
            contents = Some(serde_json::from_slice(&list).context("its list can't be read")?);
            continue;
        }
        ensure!(
            entry.header().entry_type().is_file() && is_ours(&path),
            "it holds {path:?}, which no backup has"
        );
        let member =
            write_member(&mut entry, &path, staging).with_context(|| format!("can't unpack {path}"))?;
        ensure!(found.insert(path.clone(), member).is_none(), "it holds {path} twice");
    }
    progress.finish_and_clear();
    let contents = contents.context("it is not whole: the list of what it holds is missing at its end")?;
    check(&contents, found)?;
    Ok(contents)
}

fn check(contents: &Contents, mut found: BTreeMap<String, Member>) -> anyhow::Result<()> {
    ensure!(
        contents.format <= FORMAT,
        "it is of format {}, and this Avocet ({}) reads formats up to {FORMAT}; use Avocet {} or newer",
        contents.format,
        env!("CARGO_PKG_VERSION"),
        contents.avocet
    );
    for member in &contents.members {
        match found.remove(&member.path) {
            None => bail!("{} is missing in it", member.path),
            Some(unpacked) => ensure!(unpacked == *member, "{} is damaged in it", member.path),
        }
    }
    if let Some(path) = found.keys().next() {
        bail!("it holds {path}, which is not in its list");
    }
    ensure!(contents.members.iter().any(|member| member.path == DATABASE), "it holds no database");
    Ok(())
}

fn is_ours(path: &str) -> bool {
    let is_below = |folder: &str| {
        let rest = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
        rest.is_some_and(|rest| Path::new(rest).components().all(|part| matches!(part, Component::Normal(_))))
    };
    path == KUBECONFIG || is_below("hub") || is_below(UPLINK)
}

fn write_member(content: &mut impl Read, path: &str, staging: &Path) -> anyhow::Result<Member> {
    let target = staging.join(path);
    make_folder(target.parent().context("it has no folder")?)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
    let mut digest = DigestWriter::default();
    let mut size = 0;
    let mut chunk = vec![0; 256 << 10];
    loop {
        let read = content.read(&mut chunk)?;
        let Some(filled) = chunk.get(..read).filter(|filled| !filled.is_empty()) else { break };
        file.write_all(filled)?;
        digest.write_all(filled)?;
        size += read as u64;
    }
    file.sync_all()?;
    Ok(Member { path: path.to_owned(), size, digest: digest.digest() })
}

/// Checks the database and lets it go on from a version that nobody has seen; answers that version.
fn prepare(staging: &Path, replaced: &Path) -> anyhow::Result<u64> {
    let database = staging.join(DATABASE);
    store::backup::check_database(&database)?;
    if staging.join(UPLINK_DATABASE).exists() {
        store::backup::check_database(&staging.join(UPLINK_DATABASE))?;
    }
    let now = u64::try_from(daemon::now().0.as_microsecond()).unwrap_or(0);
    // A clock that was set back must not make the versions of the hub that is replaced again.
    let copy = staging.join("replaced.db");
    let before = match store::backup::copy_database(&replaced.join("hub.db"), &copy, |_, _| {}) {
        Ok(()) => store::backup::prepare_restored(&copy, 0).map_or(0, |version| version + 1),
        Err(_) => 0,
    };
    let _ = fs::remove_file(&copy);
    let version = store::backup::prepare_restored(&database, now.max(before))?;
    sync_all(staging)?;
    Ok(version)
}

/// Makes the names in a folder and in all below durable.
fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        }
    }
    daemon::sync_folder(folder)
}

/// Moves what was unpacked in place, and what was there aside; answers where that is now.
fn move_in_place(staging: &Path, data: &Path) -> anyhow::Result<Option<PathBuf>> {
    // The hub comes last: with it, all is there. Where the backup knows no hub above, what is known of one stays.
    let moved = [KUBECONFIG, UPLINK, "hub"].into_iter().filter(|name| staging.join(name).exists());
    let moved: Vec<&str> = moved.collect();
    let mut replaced = None;
    if moved.iter().any(|name| data.join(name).exists()) {
        let aside = data.join(format!("replaced-{}", name_of(daemon::now())));
        make_folder(&aside)?;
        for name in moved.iter().rev() {
            move_if_there(&data.join(name), &aside.join(name))?;
        }
        daemon::sync_folder(&aside)?;
        replaced = Some(aside);
    }
    for name in &moved {
        move_if_there(&staging.join(name), &data.join(name))?;
    }
    daemon::sync_folder(data)?;
    remove_folder(staging)?;
    Ok(replaced)
}

/// A moment as a part of a file's name.
fn name_of(time: Time) -> String {
    time.0.strftime("%Y%m%d-%H%M%S-%6f").to_string()
}

fn move_if_there(from: &Path, to: &Path) -> anyhow::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => moved.with_context(|| format!("can't move {} to {}", from.display(), to.display())),
    }
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("can't make {}", folder.display()))
}

fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("can't remove {}", folder.display())),
    }
}
