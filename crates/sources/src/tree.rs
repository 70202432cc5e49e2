//! The files of a commit or a folder, with bounds on all that is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::Error;
use crate::git::Objects;

/// How much is taken of a repository.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes that a fetched repository may have.
    pub repository_bytes: u64,
    /// Files that a commit may have.
    pub files: usize,
    /// Bytes of one file that is read.
    pub file_bytes: u64,
    /// Bytes of all files that are read.
    pub read_bytes: u64,
    /// Manifests that are made.
    pub manifests: usize,
    /// Bytes of memory that git, helm, and what they start may have, each; files that they map don't count.
    pub memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            repository_bytes: 512 << 20,
            files: 100_000,
            file_bytes: 3 << 20,
            read_bytes: 32 << 20,
            manifests: 2000,
            memory_bytes: 1 << 30,
        }
    }
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    File,
    /// A symbolic link: it is never followed.
    Link,
}

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub mode: Mode,
    pub hash: String,
    pub bytes: u64,
}

/// The files of a commit or a folder. Paths have `/` between their parts, and none is `.` or `..`.
#[derive(Debug)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
    folders: BTreeSet<String>,
    contents: Contents,
    limits: Limits,
    read: u64,
}

#[derive(Debug)]
enum Contents {
    Commit(Box<Objects>),
    Memory(BTreeMap<String, Vec<u8>>),
}

pub(crate) fn too_many(most: usize) -> Error {
    Error::TooLarge(format!("the repository has more than {most} files; keep manifests in a smaller one"))
}

impl Tree {
    pub(crate) fn of_commit(entries: BTreeMap<String, Entry>, objects: Objects, limits: Limits) -> Self {
        Self::new(entries, Contents::Commit(Box::new(objects)), limits)
    }

    /// Files by path.
    pub fn of_files(files: BTreeMap<String, Vec<u8>>) -> Self {
        let entry =
            |content: &Vec<u8>| Entry { mode: Mode::File, hash: String::new(), bytes: content.len() as u64 };
        let entries = files.iter().map(|(path, content)| (path.clone(), entry(content))).collect();
        Self::new(entries, Contents::Memory(files), Limits::default())
    }

    /// The files below a folder of this machine, read now. Links and what begins with a dot are left out.
    ///
    /// # Errors
    /// If it can't be read, or is too much.
    pub fn of_folder(folder: &Path) -> Result<Self, Error> {
        let (mut files, mut left) = (BTreeMap::new(), vec![(folder.to_owned(), String::new())]);
        let mut bytes = 0;
        while let Some((folder, prefix)) = left.pop() {
            let listed = std::fs::read_dir(&folder).map_err(Error::io("read a folder"))?;
            for entry in listed.flatten() {
                let (name, Ok(kind)) = (entry.file_name(), entry.file_type()) else { continue };
                let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
                let path = format!("{prefix}{name}");
                if kind.is_dir() {
                    left.push((entry.path(), format!("{path}/")));
                } else if kind.is_file() {
                    let content = std::fs::read(entry.path()).map_err(Error::io("read a file"))?;
                    bytes += content.len() as u64;
                    files.insert(path, content);
                }
                let limits = Limits::default();
                if bytes > limits.read_bytes || files.len() > limits.files {
                    let mib = limits.read_bytes >> 20;
                    return Err(Error::TooLarge(format!(
                        "the folder has more than {mib} MiB or too many files"
                    )));
                }
            }
        }
        Ok(Self::of_files(files))
    }

    fn new(entries: BTreeMap<String, Entry>, contents: Contents, limits: Limits) -> Self {
        let mut folders = BTreeSet::from([String::new()]);
        for path in entries.keys() {
            folders.extend(path.match_indices('/').filter_map(|(at, _)| path.get(..at).map(str::to_owned)));
        }
        Self { entries, folders, contents, limits, read: 0 }
    }

    /// How many bytes were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// The bounds that hold.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether there is such a folder; the empty path is the root.
    pub fn has_folder(&self, path: &str) -> bool {
        self.folders.contains(path)
    }

    /// Whether there is such a file.
    pub fn has_file(&self, path: &str) -> bool {
        self.entries.get(path).is_some_and(|entry| entry.mode == Mode::File)
    }

    /// The paths of all files below a folder, in order.
    pub fn files_below<'a>(&'a self, folder: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let after = self.entries.range(prefix.clone()..);
        let below = after.take_while(move |(path, _)| path.starts_with(&prefix));
        below.filter(|(_, entry)| entry.mode == Mode::File).map(|(path, _)| path.as_str())
    }

    /// The content of a file.
    ///
    /// # Errors
    /// If there is none, it is a link, or it is too large.
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>, Error> {
        let Some(entry) = self.entries.get(path) else {
            return Err(Error::invalid(path, "is not in the repository"));
        };
        if entry.mode == Mode::Link {
            return Err(Error::invalid(
                path,
                "is a symbolic link, which is not followed; put the file itself there",
            ));
        }
        if entry.bytes > self.limits.file_bytes {
            let problem = format!("has {} bytes; {} is the most", entry.bytes, self.limits.file_bytes);
            return Err(Error::TooLarge(format!("{path} {problem}")));
        }
        self.read += entry.bytes;
        if self.read > self.limits.read_bytes {
            let mib = self.limits.read_bytes >> 20;
            return Err(Error::TooLarge(format!(
                "the files that are read have more than {mib} MiB together"
            )));
        }
        match &mut self.contents {
            Contents::Commit(objects) => objects.read(&entry.hash, entry.bytes),
            Contents::Memory(files) => Ok(files.get(path).cloned().unwrap_or_default()),
        }
    }

    /// The text of a file.
    ///
    /// # Errors
    /// Those of [`Tree::read`], and if it is no UTF-8.
    pub fn read_text(&mut self, path: &str) -> Result<String, Error> {
        String::from_utf8(self.read(path)?).map_err(|_| Error::invalid(path, "is no text in UTF-8"))
    }
}

/// A path in a folder, without `.` and `..`; `None` if it leads out of the repository.
pub fn resolve(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if path.starts_with('/') {
        return None;
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> Tree {
        Tree::of_files(paths.iter().map(|path| ((*path).to_owned(), b"x".to_vec())).collect())
    }

    #[test]
    fn files_are_listed_by_folder_not_by_prefix() {
        let tree = tree(&["a/x", "a/b/y", "a-b/z", "top"]);
        assert_eq!(tree.files_below("a").collect::<Vec<_>>(), ["a/b/y", "a/x"]);
        assert_eq!(tree.files_below("").count(), 4);
        assert!(tree.has_folder("a/b") && !tree.has_folder("a/x") && !tree.has_file("a"));
    }

    #[test]
    fn no_path_leads_out_of_the_repository() {
        assert_eq!(resolve("a/b", "../c/./d"), Some("a/c/d".into()));
        assert_eq!(resolve("a", ".."), Some(String::new()));
        for path in ["../..", "/etc", "x/../../../y"] {
            assert_eq!(resolve("a", path), None, "{path}");
        }
    }

    #[test]
    fn what_is_too_large_or_a_link_is_not_read() {
        let mut small = tree(&["a", "b"]);
        small.limits.read_bytes = 1;
        assert!(small.read("a").is_ok());
        assert!(matches!(small.read("b"), Err(Error::TooLarge(_))));
        let mut linked = tree(&["a"]);
        linked.entries.get_mut("a").unwrap().mode = Mode::Link;
        assert!(linked.read("a").unwrap_err().to_string().contains("symbolic link"));
        assert_eq!(linked.files_below("").count(), 0);
    }
}
