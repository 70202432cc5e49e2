//! The demo's page: original, blurred and result side by side, all in one file.

use std::path::Path;

use anyhow::Context;
use base64::Engine as _;

use super::outcome::Photo;
use super::table::{Verdict, cell};

const HEAD: &str = include_str!("report_head.html");

/// The page. `private` says whether the originals stayed at the edge.
pub fn page(photos: &[Photo], verdicts: Option<&[Verdict]>, private: &str) -> anyhow::Result<String> {
    let mut page = HEAD.to_owned();
    page += &format!("<p class=\"private\">{}</p>\n", escape(private));
    for (index, photo) in photos.iter().enumerate() {
        page += &section(photo, verdicts.and_then(|verdicts| verdicts.get(index)))?;
    }
    page += "</main>\n";
    Ok(page)
}

fn section(photo: &Photo, verdict: Option<&Verdict>) -> anyhow::Result<String> {
    let verdict = match verdict {
        None => String::new(),
        Some(Verdict { difference: None }) => "<span class=\"ok\">as expected</span>".to_owned(),
        Some(Verdict { difference: Some(difference) }) => {
            format!("<span class=\"bad\">differs: {}</span>", escape(difference))
        }
    };
    let mut section = format!("<section><h2>{} {verdict}</h2>\n", escape(&photo.name));
    if let Some(step) = photo.failure() {
        section += &format!(
            "<p class=\"failure\">{} at {}: {}</p>\n",
            escape(&step.reason),
            escape(&step.site),
            escape(&step.message)
        );
    }
    section += "<div class=\"row\">\n";
    let (edge, cloud) = (cell(photo.anonymise.as_ref()), cell(photo.detect.as_ref()));
    let figures = [
        ("original", "stays at the edge", Some(&photo.path)),
        ("blurred", edge.as_str(), photo.blurred.as_ref()),
        ("result", cloud.as_str(), photo.result.as_ref()),
    ];
    for (what, note, path) in figures {
        section += &figure(what, note, path.map(|path| path.as_path()))?;
    }
    section += "</div>\n<ul>\n";
    for face in photo.faces.iter().flatten() {
        let class = if face.mask { "mask" } else { "bare" };
        section += &format!("<li class=\"{class}\">{} {:.0}%</li>\n", face.class(), face.probability * 100.0);
    }
    if photo.faces.as_ref().is_some_and(Vec::is_empty) {
        section += "<li>no face found</li>\n";
    }
    section += "</ul></section>\n";
    Ok(section)
}

fn figure(what: &str, note: &str, path: Option<&Path>) -> anyhow::Result<String> {
    let picture = match path.map(data_uri).transpose()?.flatten() {
        Some(uri) => format!("<img alt=\"{what}\" src=\"{uri}\">"),
        None => "<div class=\"none\">no picture</div>".to_owned(),
    };
    Ok(format!("<figure>{picture}<figcaption><b>{what}</b> {}</figcaption></figure>\n", escape(note)))
}

/// A picture inside the page; nothing for what browsers would not show.
fn data_uri(path: &Path) -> anyhow::Result<Option<String>> {
    let content = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
    let kinds: [(&[u8], &str); 4] = [
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\x89PNG", "image/png"),
        (b"RIFF", "image/webp"),
        (b"GIF8", "image/gif"),
    ];
    let kind = kinds.iter().find(|(beginning, _)| content.starts_with(beginning));
    let encode = |content| base64::engine::general_purpose::STANDARD.encode(content);
    Ok(kind.map(|(_, kind)| format!("data:{kind};base64,{}", encode(&content))))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
