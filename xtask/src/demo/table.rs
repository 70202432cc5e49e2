//! The demo's table, and whether each photo is as expected.

use serde_json::Value;

use super::outcome::{Photo, Step};

/// Whether a photo is as expected.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    /// What differs; nothing if it is right.
    pub difference: Option<String>,
}

/// Compares with what is expected, by the photos' names; nothing without expectations.
pub fn verdicts(photos: &[Photo], expected: Option<&Value>) -> Option<Vec<Verdict>> {
    let expected = expected?;
    let verdict = |photo: &Photo| Verdict {
        difference: match expected.get(&photo.name) {
            Some(wanted) => difference(photo, wanted),
            None => Some("nothing is written down for it in expected.json".to_owned()),
        },
    };
    Some(photos.iter().map(verdict).collect())
}

fn difference(photo: &Photo, wanted: &Value) -> Option<String> {
    let wants_failure = wanted.get("error").and_then(Value::as_bool).unwrap_or(false);
    match (photo.failure(), &photo.faces) {
        (Some(_), _) if wants_failure => None,
        (Some(step), _) => Some(format!("failed at {}: {}", step.site, step.message)),
        (None, Some(_)) if wants_failure => Some("should have failed, and did not".to_owned()),
        (None, None) => Some(format!("has no result; {}", photo.state())),
        (None, Some(faces)) => {
            let found: Vec<&str> = faces.iter().map(|face| face.class()).collect();
            let list = wanted.get("classes").and_then(Value::as_array);
            let classes: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
            let count = wanted.get("faces").and_then(Value::as_u64).unwrap_or(classes.len() as u64);
            if found.len() as u64 != count {
                return Some(format!("{} faces found, {count} expected", found.len()));
            }
            (found != classes).then(|| format!("[{}], expected [{}]", found.join(", "), classes.join(", ")))
        }
    }
}

/// `site 123 ms`, or that it failed.
pub fn cell(step: Option<&Step>) -> String {
    match step {
        None => "–".to_owned(),
        Some(step) if step.failed() => format!("{} failed after {} ms", step.site, step.milliseconds),
        Some(step) => format!("{} {} ms", step.site, step.milliseconds),
    }
}

/// The faces in words: class and probability, from left to right.
pub fn classes(photo: &Photo) -> String {
    let Some(faces) = &photo.faces else { return "–".to_owned() };
    if faces.is_empty() {
        return "no face".to_owned();
    }
    let words = faces.iter().map(|face| format!("{} {:.0}%", face.class(), face.probability * 100.0));
    words.collect::<Vec<_>>().join(", ")
}

pub fn table(photos: &[Photo], verdicts: Option<&[Verdict]>) -> String {
    let mut rows =
        vec![["PHOTO", "FACES", "LEFT TO RIGHT", "ANONYMISE", "MASK-DETECTOR", ""].map(str::to_owned)];
    for (index, photo) in photos.iter().enumerate() {
        let verdict = verdicts.and_then(|verdicts| verdicts.get(index)).map(|verdict| {
            verdict.difference.as_ref().map_or("ok".to_owned(), |difference| format!("differs: {difference}"))
        });
        rows.push([
            photo.name.clone(),
            photo.faces.as_ref().map_or("–".to_owned(), |faces| faces.len().to_string()),
            classes(photo),
            cell(photo.anonymise.as_ref()),
            cell(photo.detect.as_ref()),
            verdict.unwrap_or_default(),
        ]);
    }
    let mut text = aligned(&rows);
    for photo in photos {
        if let Some(step) = photo.failure() {
            text += &format!("{}: {} at {}: {}\n", photo.name, step.reason, step.site, step.message);
        }
    }
    text
}

/// Columns as wide as they need to be.
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("   ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::outcome::Face;
    use super::*;

    fn photo(faces: Option<&[bool]>, failed: bool) -> Photo {
        let faces = faces.map(|masks| masks.iter().map(|&mask| Face { mask, probability: 0.9 }).collect());
        let step = Step {
            state: "Failed".into(),
            site: "edge".into(),
            message: "no image".into(),
            ..Step::default()
        };
        Photo { name: "a.jpg".into(), faces, anonymise: failed.then_some(step), ..Photo::default() }
    }

    #[test]
    fn differences_say_what_was_found_and_what_was_expected() {
        let pair = json!({"faces": 2, "classes": ["mask", "no mask"]});
        let error = json!({"error": true});
        let cases = [
            (photo(Some(&[true, false]), false), &pair, None),
            (photo(Some(&[false, true]), false), &pair, Some("[no mask, mask], expected [mask, no mask]")),
            (photo(Some(&[true]), false), &pair, Some("1 faces found, 2 expected")),
            (photo(None, true), &pair, Some("failed at edge: no image")),
            (photo(None, true), &error, None),
            (photo(Some(&[]), false), &error, Some("should have failed, and did not")),
        ];
        for (photo, expected, difference) in cases {
            assert_eq!(super::difference(&photo, expected).as_deref(), difference);
        }
    }

    #[test]
    fn photo_without_expectation_is_no_success() {
        let verdicts = verdicts(&[photo(Some(&[]), false)], Some(&json!({}))).unwrap();
        assert!(verdicts[0].difference.is_some());
    }
}
