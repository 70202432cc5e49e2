//! `apply`, `push` and `delete`.

use std::path::Path;

use anyhow::{Context, bail};
use api::Client;
use artifacts::signature::SigningKey;
use artifacts::signature::cosign::{self, Proof};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;
use types::{Artifact, Digest, DigestWriter};

use crate::artifact;
use crate::cli::{ApplyOptions, ClientOptions, DeleteOptions, Format, PushOptions};
use crate::config::hub_client;
use crate::manifest::{self, Manifest};
use crate::oci::{self, SCHEME};
use crate::output::{print_done, print_value, split_name};

pub async fn apply(options: &ClientOptions, wanted: ApplyOptions) -> anyhow::Result<()> {
    let mut manifests = manifest::read_all(&wanted.files)?;
    check_all(&manifests)?;
    let mut report = Report::new(wanted.output);
    if wanted.dry_run {
        let valid = |manifest: &Manifest| {
            let namespace = manifest.namespace(&options.namespace);
            report.done((&manifest.label(), &namespace), "is valid (dry run)");
        };
        manifests.iter().for_each(valid);
        return report.end("applied");
    }
    let client = hub_client(options)?;
    let key = wanted.sign_key.as_deref().map(artifact::signing_key).transpose()?;
    for manifest in &mut manifests {
        upload_artifacts(options, &client, key.as_ref(), manifest).await?;
    }
    for manifest in &manifests {
        let namespace = manifest.namespace(&options.namespace);
        let label = manifest.label();
        match client.apply(manifest.info, &namespace, &manifest.value).await {
            Ok(applied) => report.done((&label, &namespace), applied.word()),
            Err(error) => report.failed((&label, &namespace), &error.to_string()),
        }
    }
    report.end("applied")
}

/// What came of each object, told at once as a sentence or at the end as a value.
struct Report {
    format: Format,
    items: Vec<Value>,
    failed: usize,
}

impl Report {
    fn new(format: Format) -> Report {
        Report { format, items: Vec::new(), failed: 0 }
    }

    /// `object` is its kind and name, and its namespace.
    fn done(&mut self, (object, namespace): (&str, &str), result: &str) {
        match self.format {
            Format::Table | Format::Wide => println!("{object} {result}"),
            Format::Name => println!("{object}"),
            Format::Json | Format::Yaml => {}
        }
        self.items.push(json!({"object": object, "namespace": namespace, "result": result}));
    }

    fn failed(&mut self, (object, namespace): (&str, &str), error: &str) {
        self.failed += 1;
        eprintln!("error: {object}: {error}");
        let result = "failed";
        self.items.push(json!({"object": object, "namespace": namespace, "result": result, "error": error}));
    }

    /// Fails if something did.
    fn end(self, word: &str) -> anyhow::Result<()> {
        if matches!(self.format, Format::Json | Format::Yaml) {
            print_value(&json!({ "items": self.items }), self.format)?;
        }
        if self.failed > 0 {
            bail!("{} of {} could not be {word}", self.failed, self.items.len());
        }
        Ok(())
    }
}

/// All manifests are checked before anything is changed, with a stand-in for artifacts that are yet to be uploaded.
fn check_all(manifests: &[Manifest]) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for manifest in manifests {
        let mut value = manifest.value.clone();
        for (pointer, path) in manifest.local_artifacts() {
            if !path.starts_with(SCHEME) && !manifest.folder.join(&path).exists() {
                problems.push(format!("{}: `{pointer}/path` = {path:?} does not exist", manifest.label()));
            }
            set(&mut value, &pointer, json!({"digest": Digest::of(b""), "size": 0}));
        }
        let info = manifest.info;
        let unknown = schema::schema_of(info).map(|schema| schema.prune(&mut value)).unwrap_or_default();
        problems.extend(unknown.iter().map(|field| format!("{}: unknown field {field:?}", manifest.label())));
        if let Err(violations) = schema::complete(info, value, None) {
            problems.extend(violations.iter().map(|violation| format!("{}: {violation}", manifest.label())));
        }
    }
    if !problems.is_empty() {
        bail!("nothing was applied:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

fn set(value: &mut Value, pointer: &str, new: Value) {
    if let Some(place) = value.pointer_mut(pointer) {
        *place = new;
    }
}

async fn upload_artifacts(
    options: &ClientOptions,
    client: &Client,
    key: Option<&SigningKey>,
    manifest: &mut Manifest,
) -> anyhow::Result<()> {
    for (pointer, path) in manifest.local_artifacts() {
        let mut signatures = Vec::new();
        let (digest, size, source) = if path.starts_with(SCHEME) {
            let taken = oci::take(options, &path).await?;
            let (digest, size) = upload(client, &taken.path(), false).await?;
            for proof in &taken.proofs {
                signatures.push(upload_proof(client, proof).await?);
            }
            (digest, size, Some(taken.source))
        } else {
            let is_bundle = manifest.info.kind == "Function";
            let (digest, size) = upload(client, &manifest.folder.join(path), is_bundle).await?;
            (digest, size, None)
        };
        signatures.extend(key.map(|key| key.sign(&digest)).transpose()?);
        let artifact = Artifact { digest: Some(digest), size, signatures, source, path: None };
        set(&mut manifest.value, &pointer, json!(artifact));
    }
    Ok(())
}

/// Uploads what proves a signature of cosign's; answers how an artifact names it.
async fn upload_proof(client: &Client, proof: &Proof) -> anyhow::Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), serde_json::to_vec(proof)?)?;
    let (digest, size) = upload(client, file.path(), false).await?;
    Ok(cosign::entry(&digest, size))
}

/// Uploads a file, or a bundle made of a file or folder, unless the hub has it.
async fn upload(client: &Client, path: &Path, as_bundle: bool) -> anyhow::Result<(Digest, u64)> {
    let shown = path.display();
    let mut packed = tempfile::NamedTempFile::new()?;
    let source = if as_bundle || path.is_dir() {
        artifacts::bundle::pack(path, &mut packed).with_context(|| format!("can't pack {shown}"))?;
        packed.path()
    } else {
        path
    };
    let (digest, size) = hash(source).with_context(|| format!("can't read {shown}"))?;
    let url = format!("/avocet/v1/blobs/{digest}");
    match client.send(client.request(Method::HEAD, &url)).await {
        Ok(_) => return Ok((digest, size)),
        Err(error) if error.code() == Some(404) => {}
        Err(error) => return Err(error.into()),
    }
    let style = ProgressStyle::with_template("pushing {msg} {wide_bar} {bytes}/{total_bytes}")?;
    let progress = ProgressBar::new(size).with_style(style).with_message(shown.to_string());
    let file = progress.wrap_async_read(tokio::fs::File::open(source).await?);
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, 256 << 10));
    client.send(client.request(Method::PUT, &url).body(body)).await?;
    progress.finish_and_clear();
    eprintln!("pushed {shown} ({})", HumanBytes(size));
    Ok((digest, size))
}

/// The digest and size of a file.
pub fn hash(path: &Path) -> std::io::Result<(Digest, u64)> {
    let mut hasher = DigestWriter::default();
    let size = std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok((hasher.digest(), size))
}

pub async fn push(options: &ClientOptions, wanted: &PushOptions) -> anyhow::Result<()> {
    let client = hub_client(options)?;
    let (digest, size) = upload(&client, &wanted.path, wanted.bundle).await?;
    let done = json!({"digest": digest.to_string(), "size": size});
    print_done(&done, &format!("{digest} {size}"), &digest.to_string(), wanted.output)
}

pub async fn delete(options: &ClientOptions, wanted: DeleteOptions) -> anyhow::Result<()> {
    let client = hub_client(options)?;
    let mut targets = Vec::new();
    for what in &wanted.what {
        let (info, name) = split_name(what)?;
        let namespace = if info.namespaced { options.namespace.clone() } else { String::new() };
        targets.push((info, namespace, name));
    }
    if !wanted.files.is_empty() {
        for manifest in manifest::read_all(&wanted.files)? {
            targets.push((manifest.info, manifest.namespace(&options.namespace), manifest.name().to_owned()));
        }
    }
    let mut report = Report::new(wanted.output);
    for (info, namespace, name) in targets {
        let object = format!("{}/{name}", info.singular);
        match client.delete(info, &namespace, &name).await {
            Ok(()) => report.done((&object, &namespace), "deleted"),
            Err(error) => report.failed((&object, &namespace), &error.to_string()),
        }
    }
    report.end("deleted")
}
