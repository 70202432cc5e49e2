//! What became of each photo: its way through the two components.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::sites::{Sites, items, text};

const POLL: Duration = Duration::from_millis(250);
/// How often progress is told where there is no terminal.
const TELL: Duration = Duration::from_secs(5);

/// One invocation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    pub site: String,
    pub state: String,
    pub reason: String,
    pub message: String,
    pub milliseconds: u64,
}

impl Step {
    fn from(invocation: &Value) -> Self {
        let field = |name: &str| text(invocation, &format!("/{name}")).to_owned();
        Self {
            site: field("site"),
            state: field("state"),
            reason: field("reason"),
            message: field("message"),
            milliseconds: invocation.get("durationMilliseconds").and_then(Value::as_u64).unwrap_or(0),
        }
    }

    pub fn failed(&self) -> bool {
        self.state == "Failed"
    }

    pub fn succeeded(&self) -> bool {
        self.state == "Succeeded"
    }
}

/// A face, as the mask detector reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    pub mask: bool,
    pub probability: f64,
}

impl Face {
    pub fn class(&self) -> &'static str {
        if self.mask { "mask" } else { "no mask" }
    }
}

/// A photo and what became of it.
#[derive(Debug, Default)]
pub struct Photo {
    pub name: String,
    pub path: PathBuf,
    pub anonymise: Option<Step>,
    pub detect: Option<Step>,
    /// From left to right; absent until the result is there.
    pub faces: Option<Vec<Face>>,
    pub blurred: Option<PathBuf>,
    pub result: Option<PathBuf>,
}

impl Photo {
    /// The name that its outputs bear, without an ending.
    pub fn stem(&self) -> &str {
        Path::new(&self.name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(&self.name)
    }

    /// The step that failed.
    pub fn failure(&self) -> Option<&Step> {
        [&self.anonymise, &self.detect].into_iter().flatten().find(|step| step.failed())
    }

    pub fn has_ended(&self) -> bool {
        self.failure().is_some() || self.detect.as_ref().is_some_and(Step::succeeded)
    }

    /// How far it is, for people.
    pub fn state(&self) -> String {
        let told = |what: &str, step: &Option<Step>| match step {
            None => format!("{what} has not begun"),
            Some(step) if step.message.is_empty() => format!("{what} is {} at {}", step.state, step.site),
            Some(step) => format!("{what} is {} at {}: {}", step.state, step.site, step.message),
        };
        match &self.anonymise {
            Some(step) if step.succeeded() => told("mask-detector", &self.detect),
            step => told("anonymise", step),
        }
    }
}

/// The photos of a folder, by name.
pub fn photos(folder: &Path) -> anyhow::Result<Vec<Photo>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    let mut photos = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.is_file() && !name.starts_with('.') {
            photos.push(Photo { name: name.to_owned(), path: path.clone(), ..Photo::default() });
        }
    }
    photos.sort_by(|a, b| a.name.cmp(&b.name));
    if photos.is_empty() {
        bail!("there is no photo in {}", folder.display());
    }
    let twins = photos.iter().zip(photos.iter().skip(1)).find(|(a, b)| a.stem() == b.stem());
    if let Some((a, b)) = twins {
        bail!("{} and {} would both become {}.jpg; rename one", a.name, b.name, a.stem());
    }
    Ok(photos)
}

/// Follows the photos until each has come to its end; answers whether all have, within the limit.
pub fn wait(sites: &mut Sites, photos: &mut [Photo], limit: Duration) -> anyhow::Result<bool> {
    let (started, mut told) = (Instant::now(), Instant::now());
    let bar = std::io::stderr().is_terminal().then(|| progress_bar(photos.len()));
    loop {
        sites.check()?;
        update(photos, &sites.ask(&["get", "invocations"])?);
        let ended = photos.iter().filter(|photo| photo.has_ended()).count();
        let blurred =
            photos.iter().filter_map(|photo| photo.anonymise.as_ref()).filter(|step| step.succeeded());
        let message =
            format!("{} blurred at the edge, {ended} of {} at their end", blurred.count(), photos.len());
        match &bar {
            Some(bar) => {
                bar.set_position(ended.try_into().unwrap_or(u64::MAX));
                bar.set_message(message.clone());
            }
            None if told.elapsed() > TELL => {
                println!("  … {message}");
                told = Instant::now();
            }
            None => {}
        }
        let all = ended == photos.len();
        if all || started.elapsed() > limit {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            println!(
                "  {} {message} ({:.1} s)",
                if all { "✓" } else { "✗" },
                started.elapsed().as_secs_f64()
            );
            return Ok(all);
        }
        std::thread::sleep(POLL);
    }
}

fn progress_bar(count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count.try_into().unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("  {wide_bar} {pos}/{len}  {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Takes over what the sites say of their invocations.
fn update(photos: &mut [Photo], invocations: &Value) {
    // By component and key; the last one told is the newest.
    let mut steps: BTreeMap<(&str, &str), Step> = BTreeMap::new();
    for invocation in items(invocations) {
        let of = (text(invocation, "/component"), text(invocation, "/key"));
        steps.insert(of, Step::from(invocation));
    }
    for photo in photos {
        let (input, blurred) = (format!("in/{}", photo.name), format!("anonymised/{}.jpg", photo.stem()));
        photo.anonymise = steps.get(&("anonymise", input.as_str())).cloned();
        photo.detect = steps.get(&("mask-detector", blurred.as_str())).cloned();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn invocation(component: &str, key: &str, state: &str) -> Value {
        json!({"component": component, "key": key, "state": state, "site": "edge", "durationMilliseconds": 7})
    }

    #[test]
    fn photo_ends_with_the_second_step_or_with_a_failure() {
        let mut photos =
            ["a.png", "b.jpg", "c.jpg"].map(|name| Photo { name: name.into(), ..Photo::default() });
        update(
            &mut photos,
            &json!({"items": [
                invocation("anonymise", "in/a.png", "Succeeded"),
                invocation("mask-detector", "anonymised/a.jpg", "Succeeded"),
                invocation("anonymise", "in/b.jpg", "Failed"),
                invocation("anonymise", "in/c.jpg", "Succeeded"),
            ]}),
        );
        assert_eq!(photos.each_ref().map(Photo::has_ended), [true, true, false]);
        assert_eq!(photos[2].state(), "mask-detector has not begun");
        assert_eq!(photos[1].failure().unwrap().milliseconds, 7);
    }
}
