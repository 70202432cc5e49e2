//! `cp` and `ls`: the buckets of sites, over S3.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use reqwest::StatusCode;
use rusty_s3::actions::{CreateBucket, ListObjectsV2};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use crate::cli::{ClientOptions, CopyOptions, Format, ListOptions};
use crate::config::sites;
use crate::output::{print_table, print_value};

const SIGNED_FOR: Duration = Duration::from_secs(3600);

/// `SITE:BUCKET/KEY`; a file name has no colon before its first slash.
struct Place {
    site: String,
    bucket: String,
    key: String,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (site, path) = text.split_once(':')?;
        if site.is_empty() || site.contains(['/', '.']) {
            return None;
        }
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        Some(Self { site: site.to_owned(), bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

/// A bucket of a site, with the keys to it.
struct Remote {
    bucket: Bucket,
    credentials: Credentials,
    http: reqwest::Client,
}

impl Remote {
    async fn open(options: &ClientOptions, place: &Place) -> anyhow::Result<Self> {
        let site = sites(options, Some(&place.site)).await?;
        let site = site.first().with_context(|| format!("there is no site `{}`", place.site))?;
        let keys = site.object_keys().await?;
        let endpoint = keys.endpoint.parse().with_context(|| format!("`{}` is no URL", keys.endpoint))?;
        let bucket = Bucket::new(endpoint, UrlStyle::Path, place.bucket.clone(), "us-east-1")
            .with_context(|| format!("`{}` is no bucket", place.bucket))?;
        let credentials = Credentials::new(keys.access_key, keys.secret_key);
        Ok(Self { bucket, credentials, http: api::client::http(None)? })
    }

    async fn create(&self) -> anyhow::Result<()> {
        let url = CreateBucket::new(&self.bucket, &self.credentials).sign(SIGNED_FOR);
        let answer = self.http.put(url).send().await?;
        if answer.status() == StatusCode::CONFLICT { Ok(()) } else { accept(answer).await.map(drop) }
    }

    async fn put(&self, path: &Path, key: &str) -> anyhow::Result<()> {
        let file =
            tokio::fs::File::open(path).await.with_context(|| format!("can't read {}", path.display()))?;
        let size = file.metadata().await?.len();
        let url = self.bucket.put_object(Some(&self.credentials), key).sign(SIGNED_FOR);
        let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, 256 << 10));
        let mut request = self.http.put(url).header("content-length", size).body(body);
        if let Some(kind) = media_type(path) {
            request = request.header("content-type", kind);
        }
        accept(request.send().await?).await.map(drop)
    }

    async fn get(&self, key: &str, path: &Path) -> anyhow::Result<()> {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(SIGNED_FOR);
        let answer = accept(self.http.get(url).send().await?).await?;
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        // Beside the target first: a broken download leaves no half file under its name.
        let mut partial = path.as_os_str().to_owned();
        partial.push(".part");
        let partial = PathBuf::from(partial);
        let mut file = tokio::fs::File::create(&partial).await?;
        let mut body = answer.bytes_stream();
        while let Some(chunk) = body.next().await {
            file.write_all(&chunk?).await?;
        }
        file.flush().await?;
        tokio::fs::rename(&partial, path).await?;
        Ok(())
    }

    async fn list(&self, prefix: &str) -> anyhow::Result<Vec<(String, u64, String)>> {
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut list = self.bucket.list_objects_v2(Some(&self.credentials));
            list.with_prefix(prefix);
            if let Some(token) = &token {
                list.with_continuation_token(token.as_str());
            }
            let text = accept(self.http.get(list.sign(SIGNED_FOR)).send().await?).await?.text().await?;
            let page = ListObjectsV2::parse_response(&text).context("the list of objects can't be read")?;
            found.extend(page.contents.into_iter().map(|object| {
                (object.key, object.size.unwrap_or(0), object.last_modified.unwrap_or_default())
            }));
            match page.next_continuation_token {
                Some(next) => token = Some(next),
                None => return Ok(found),
            }
        }
    }
}

/// Browsers need to know what to show.
fn media_type(path: &Path) -> Option<&'static str> {
    let end = path.extension()?.to_str()?.to_lowercase();
    Some(match end.as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "json" => "application/json",
        "csv" => "text/csv",
        "txt" => "text/plain",
        _ => return None,
    })
}

async fn accept(answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = answer.text().await.unwrap_or_default();
    let message = body.split_once("<Message>").and_then(|(_, rest)| rest.split_once("</Message>"));
    bail!("the site answered {status}: {}", message.map_or(body.as_str(), |(message, _)| message))
}

pub async fn copy(options: &ClientOptions, wanted: CopyOptions) -> anyhow::Result<()> {
    let Some((target, sources)) = wanted.paths.split_last() else { bail!("say from where and to where") };
    match Place::parse(target) {
        Some(place) => upload(options, sources, &place).await,
        None => download(options, sources, Path::new(target)).await,
    }
}

async fn upload(options: &ClientOptions, sources: &[String], place: &Place) -> anyhow::Result<()> {
    if place.bucket.is_empty() {
        bail!("the target names no bucket; write SITE:BUCKET/KEY");
    }
    let is_folder = place.key.is_empty() || place.key.ends_with('/');
    if sources.len() > 1 && !is_folder {
        bail!("{} files can't all become `{}`; end it with a slash", sources.len(), place.key);
    }
    let remote = Remote::open(options, place).await?;
    remote.create().await?;
    for source in sources {
        if Place::parse(source).is_some() {
            bail!("`{source}` is at a site, too; copy by way of this machine, in two steps");
        }
        let path = Path::new(source);
        let name = path.file_name().with_context(|| format!("{source} names no file"))?.to_string_lossy();
        let key = if is_folder { format!("{}{name}", place.key) } else { place.key.clone() };
        remote.put(path, &key).await.with_context(|| format!("can't copy {source}"))?;
        println!("{source} -> {}:{}/{key}", place.site, place.bucket);
    }
    Ok(())
}

async fn download(options: &ClientOptions, sources: &[String], target: &Path) -> anyhow::Result<()> {
    for source in sources {
        let Some(place) = Place::parse(source) else {
            bail!("neither `{source}` nor the target is at a site; write SITE:BUCKET/KEY for one of them");
        };
        let remote = Remote::open(options, &place).await?;
        let is_folder = place.key.is_empty() || place.key.ends_with('/');
        let keys = if is_folder {
            remote.list(&place.key).await?.into_iter().map(|(key, ..)| key).collect()
        } else {
            vec![place.key.clone()]
        };
        if keys.is_empty() {
            bail!("there is nothing in {source}");
        }
        for key in keys {
            let path = local_path(target, &place.key, &key, is_folder || sources.len() > 1)?;
            remote
                .get(&key, &path)
                .await
                .with_context(|| format!("can't copy {}:{}/{key}", place.site, place.bucket))?;
            println!("{}:{}/{key} -> {}", place.site, place.bucket, path.display());
        }
    }
    Ok(())
}

/// Where an object goes: below the target if that is a folder, never outside of it.
fn local_path(target: &Path, prefix: &str, key: &str, into_folder: bool) -> anyhow::Result<PathBuf> {
    if !into_folder && !target.is_dir() {
        return Ok(target.to_owned());
    }
    let name = if into_folder { key.strip_prefix(prefix).unwrap_or(key) } else { key };
    let name = if into_folder && prefix != key { name } else { key.rsplit('/').next().unwrap_or(key) };
    let inside = Path::new(name);
    if !inside.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        bail!(
            "the key `{key}` can't be a file below {}; copy it alone to a name of your choice",
            target.display()
        );
    }
    Ok(target.join(inside))
}

pub async fn list(options: &ClientOptions, wanted: ListOptions) -> anyhow::Result<()> {
    let place = Place::parse(&wanted.place)
        .with_context(|| format!("`{}` is not SITE:BUCKET/PREFIX", wanted.place))?;
    let objects = Remote::open(options, &place).await?.list(&place.key).await?;
    match wanted.output {
        Format::Json | Format::Yaml => {
            let objects: Vec<_> = objects
                .iter()
                .map(|(key, size, time)| serde_json::json!({"key": key, "size": size, "lastModified": time}))
                .collect();
            print_value(&serde_json::json!(objects), wanted.output)
        }
        Format::Name => {
            objects.iter().for_each(|(key, ..)| println!("{key}"));
            Ok(())
        }
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> =
                objects.into_iter().map(|(key, size, time)| vec![key, size.to_string(), time]).collect();
            print_table(&["KEY", "BYTES", "MODIFIED"].map(str::to_owned), &rows, true);
            Ok(())
        }
    }
}
