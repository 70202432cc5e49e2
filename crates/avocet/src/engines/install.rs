//! `engines install`: an engine's shared library out of its Python wheel, which is pinned by its digest.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use artifacts::zip::Zip;
use clap::{Args, ValueEnum};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use reqwest::Url;
use serde_json::json;
use types::DigestWriter;

use crate::cli::Format;
use crate::output::print_value;

#[derive(Args)]
pub struct InstallOptions {
    /// Which engine
    #[arg(value_enum)]
    pub engine: Installable,
    /// Where the library goes; by default where Avocet looks for this user
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
    /// The wheel, already on this machine: nothing is downloaded
    #[arg(long, value_name = "FILE")]
    pub wheel: Option<PathBuf>,
    /// The package index to download from
    #[arg(long, env = "AVOCET_PYPI", default_value = "https://pypi.org/simple", value_name = "URL")]
    pub index: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Installable {
    /// ONNX Runtime 1.31.1: 20 MB to download, 25 MB on the disk
    Onnxruntime,
    /// TensorFlow 2.21.0: 250 MB to download, 850 MB on the disk
    Tensorflow,
}

/// A wheel of a known content.
#[derive(Debug, PartialEq, Eq)]
struct Wheel {
    project: &'static str,
    file: &'static str,
    sha256: &'static str,
    /// Folder and beginning of the names of the libraries in it.
    libraries: &'static [&'static str],
}

const ONNXRUNTIME: &[&str] = &["onnxruntime/capi/libonnxruntime.so"];
const TENSORFLOW: &[&str] = &["tensorflow/libtensorflow_cc.so", "tensorflow/libtensorflow_framework.so"];

/// Any Python's wheel has the same library.
fn wheel(engine: Installable, platform: &str) -> Option<Wheel> {
    Some(match (engine, platform) {
        (Installable::Onnxruntime, "linux-x86_64") => Wheel {
            project: "onnxruntime",
            file: "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
            sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
            libraries: ONNXRUNTIME,
        },
        (Installable::Onnxruntime, "linux-aarch64") => Wheel {
            project: "onnxruntime",
            file: "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_aarch64.whl",
            sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
            libraries: ONNXRUNTIME,
        },
        (Installable::Tensorflow, "linux-x86_64") => Wheel {
            project: "tensorflow-cpu",
            file: "tensorflow_cpu-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl",
            sha256: "dcc8afd32930e42d5296b6ee19078b773706830af4ea97fbe503b9f5e0f820cb",
            libraries: TENSORFLOW,
        },
        (Installable::Tensorflow, "linux-aarch64") => Wheel {
            project: "tensorflow",
            file: "tensorflow-2.21.0-cp312-cp312-manylinux_2_27_aarch64.whl",
            sha256: "b07d15737406533898e36c7ef7944b1be18e9028dc521b9229952c537bbc5552",
            libraries: TENSORFLOW,
        },
        _ => return None,
    })
}

pub async fn install(options: &InstallOptions) -> anyhow::Result<()> {
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let wheel = wheel(options.engine, &platform).with_context(|| {
        format!("there is no pinned library for {platform}; install one and name its file")
    })?;
    let to = match &options.to {
        Some(folder) => folder.clone(),
        None => inference::user_folder().context("there is no home folder; name a folder with --to")?,
    };
    fs::create_dir_all(&to).with_context(|| format!("can't create {}", to.display()))?;
    let scratch = tempfile::tempdir_in(&to).with_context(|| format!("can't write to {}", to.display()))?;
    let file = match &options.wheel {
        Some(file) => file.clone(),
        None => download(&wheel, &options.index, scratch.path()).await?,
    };
    check(&file, wheel.sha256)?;
    let libraries = unpack(&file, &wheel, scratch.path(), &to)?;
    match options.output {
        Format::Json | Format::Yaml => {
            print_value(&json!({"wheel": wheel.file, "libraries": libraries}), options.output)?;
        }
        _ => libraries.iter().for_each(|library| println!("{}", library.display())),
    }
    Ok(())
}

/// Brings the wheel into a folder.
async fn download(wheel: &Wheel, index: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let page = format!("{}/{}/", index.trim_end_matches('/'), wheel.project);
    let page: Url = page.parse().with_context(|| format!("`{page}` is no URL"))?;
    let http = reqwest::Client::builder().tls_backend_preconfigured(daemon::tls::client_of_all()?).build()?;
    let get = async |url: Url| {
        let answer = http.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status);
        answer.with_context(|| format!("can't get {url}; on a machine without a network, use --wheel"))
    };
    let listed = get(page.clone()).await?.text().await?;
    let link = link(&listed, wheel.file).with_context(|| format!("{page} doesn't list {}", wheel.file))?;
    let mut answer = get(page.join(link)?).await?;
    let path = folder.join("wheel");
    let mut file = File::create(&path)?;
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}")?;
    let progress = ProgressBar::new(answer.content_length().unwrap_or(0)).with_style(style);
    progress.set_message(wheel.project);
    while let Some(piece) = answer.chunk().await? {
        file.write_all(&piece)?;
        progress.inc(piece.len() as u64);
    }
    progress.finish_and_clear();
    eprintln!("downloaded {} ({})", wheel.file, HumanBytes(progress.position()));
    Ok(path)
}

/// The quoted address that ends in a file's name, on an index's page in HTML or JSON.
fn link<'a>(page: &'a str, file: &str) -> Option<&'a str> {
    page.match_indices(file).find_map(|(at, _)| {
        let before = page.get(..at)?.rsplit(['"', '\'']).next()?;
        before.ends_with('/').then(|| page.get(at - before.len()..at + file.len()))?
    })
}

fn check(file: &Path, sha256: &str) -> anyhow::Result<()> {
    let mut hasher = DigestWriter::default();
    let opened = File::open(file).with_context(|| format!("can't read {}", file.display()));
    std::io::copy(&mut opened?, &mut hasher)?;
    let found = hasher.digest().hex();
    ensure!(found == sha256, "{} has the digest {found}, not the pinned {sha256}", file.display());
    Ok(())
}

/// Puts the wheel's libraries into a folder, each complete or not at all.
fn unpack(file: &Path, wheel: &Wheel, scratch: &Path, to: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut zip = Zip::open(file).with_context(|| format!("{} is no wheel", file.display()))?;
    let wanted = |name: &str| wheel.libraries.iter().any(|library| name.starts_with(library));
    let entries: Vec<_> = zip.entries().iter().filter(|entry| wanted(&entry.name)).cloned().collect();
    let mut placed = Vec::new();
    for entry in entries {
        let name = Path::new(&entry.name).file_name().context("an entry without a name")?;
        let whole = scratch.join(name);
        zip.copy(&entry, &mut File::create(&whole)?)
            .with_context(|| format!("can't unpack {}", entry.name))?;
        let target = to.join(name);
        fs::rename(&whole, &target).with_context(|| format!("can't write {}", target.display()))?;
        placed.push(target);
    }
    if placed.len() < wheel.libraries.len() {
        bail!("{} does not hold {}", file.display(), wheel.libraries.join(" and "));
    }
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_file_is_found_in_both_kinds_of_pages() {
        let html = r#"<a href="../../packages/ab/x-1.whl#sha256=00">x-1.whl</a>"#;
        assert_eq!(link(html, "x-1.whl"), Some("../../packages/ab/x-1.whl"));
        let json = r#"{"files":[{"filename":"x-1.whl","url":"https://files.example/ab/x-1.whl"}]}"#;
        assert_eq!(link(json, "x-1.whl"), Some("https://files.example/ab/x-1.whl"));
        assert_eq!(link(json, "y-1.whl"), None);
    }

    #[test]
    fn every_engine_is_pinned_for_both_platforms_and_for_no_other() {
        for engine in [Installable::Onnxruntime, Installable::Tensorflow] {
            for platform in ["x86_64", "aarch64"] {
                let wheel = wheel(engine, &format!("linux-{platform}")).unwrap();
                assert!(wheel.file.ends_with(&format!("{platform}.whl")) && wheel.sha256.len() == 64);
            }
            assert_eq!(wheel(engine, "macos-aarch64"), None);
        }
    }

    #[test]
    fn a_wheel_of_another_content_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = check(file.path(), "00").unwrap_err().to_string();
        assert!(error.contains("e3b0c44298fc1c14") && error.contains("not the pinned 00"), "{error}");
    }
}
