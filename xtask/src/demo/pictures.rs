//! Fetches what the application made: blurred photos, results, and the faces they report.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::outcome::{Face, Photo, Step};
use super::read_json;
use crate::process;
use crate::sites::Sites;

/// Fetches the outputs of the photos that have some.
pub fn fetch(sites: &Sites, run: &Path, photos: &mut [Photo]) -> anyhow::Result<()> {
    let (blurred, results) = (run.join("blurred"), run.join("results"));
    let any = |step: fn(&Photo) -> Option<&Step>| photos.iter().filter_map(step).any(Step::succeeded);
    if any(|photo| photo.detect.as_ref()) {
        for (from, to) in [("cloud:photos/anonymised/", &blurred), ("cloud:photos/result/", &results)] {
            process::output(sites.avocet().args(["cp", from]).arg(to))?;
        }
    }
    for photo in photos {
        let picture = format!("{}.jpg", photo.stem());
        photo.blurred = Some(blurred.join(&picture)).filter(|path| path.is_file());
        photo.result = Some(results.join(&picture)).filter(|path| path.is_file());
        let report = results.join(format!("{}.json", photo.stem()));
        if report.is_file() {
            let faces = faces(&read_json(&report)?);
            photo.faces = Some(faces.with_context(|| format!("{} reports no faces", report.display()))?);
        }
    }
    Ok(())
}

/// The faces of a report, from left to right as the function wrote them.
fn faces(report: &Value) -> Option<Vec<Face>> {
    let face = |face: &Value| {
        Some(Face { mask: face.get("mask")?.as_bool()?, probability: face.get("probability")?.as_f64()? })
    };
    report.get("faces")?.as_array()?.iter().map(face).collect()
}
