//! Printing: tables, JSON, YAML, names.

use anyhow::{Context, bail};
use serde_json::Value;
use types::KindInfo;

use crate::cli::Format;

/// The kind and name in `KIND/NAME`.
pub fn split_name(what: &str) -> anyhow::Result<(&'static KindInfo, String)> {
    let (kind, name) = what.split_once('/').with_context(|| format!("`{what}` is not KIND/NAME"))?;
    Ok((find_kind(kind)?, name.to_owned()))
}

/// The kind that a word means.
pub fn find_kind(word: &str) -> anyhow::Result<&'static KindInfo> {
    match types::kind_named(word) {
        Some(info) => Ok(info),
        None => {
            let known: Vec<&str> = types::kinds().map(|info| info.plural).collect();
            bail!("`{word}` is not known here; there are {} and invocations", known.join(", "))
        }
    }
}

/// Rows under a heading, in columns as wide as they need.
pub fn print_table(heading: &[String], rows: &[Vec<String>], with_heading: bool) {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .chain([&heading.to_vec()].into_iter().filter(|_| with_heading))
            .map(|row| row.get(column).map_or(0, |cell| cell.chars().count()))
            .collect::<Vec<_>>();
        cells.into_iter().max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", padded.collect::<Vec<_>>().join("   ").trim_end());
    };
    if with_heading {
        line(heading);
    }
    rows.iter().for_each(|row| line(row));
}

/// A value as JSON or YAML.
pub fn print_value(value: &Value, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Yaml => print!("{}", serde_saphyr::to_string(value)?),
        _ => println!("{}", serde_json::to_string_pretty(value)?),
    }
    Ok(())
}

/// Says what was done: a sentence, or as a value; `name` prints what it was done to.
pub fn print_done(done: &Value, sentence: &str, name: &str, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json | Format::Yaml => return print_value(done, format),
        Format::Name => println!("{name}"),
        Format::Table | Format::Wide => println!("{sentence}"),
    }
    Ok(())
}

/// Many values as YAML documents.
pub fn print_documents(values: impl Iterator<Item = Value>) -> anyhow::Result<()> {
    for value in values {
        print!("---\n{}", serde_saphyr::to_string(&value)?);
    }
    Ok(())
}

/// A cell of a server's table.
pub fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
