//! `get`.

use anyhow::Context;
use api::client::path;
use futures::StreamExt;
use reqwest::Method;
use serde_json::Value;
use types::KindInfo;

use crate::cli::{ClientOptions, Format, GetOptions};
use crate::config::hub_client;
use crate::invocations;
use crate::output::{cell, find_kind, print_table, print_value};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const WATCH_SECONDS: u64 = 3600;

pub async fn get(options: &ClientOptions, wanted: GetOptions) -> anyhow::Result<()> {
    if matches!(wanted.kind.to_lowercase().as_str(), "invocation" | "invocations" | "inv") {
        return invocations::list(options, wanted.site.as_deref(), wanted.output).await;
    }
    let (kind, name) = match wanted.kind.split_once('/') {
        Some((kind, name)) => (kind.to_owned(), Some(name.to_owned())),
        None => (wanted.kind.clone(), wanted.name.clone()),
    };
    let info = find_kind(&kind)?;
    let client = hub_client(options)?;
    let namespace = if info.namespaced && !wanted.all_namespaces { options.namespace.as_str() } else { "" };
    let mut url = path(info.plural, namespace, name.as_deref().filter(|_| !wanted.watch).unwrap_or_default());
    let mut query: Vec<(&str, String)> = Vec::new();
    query.extend(wanted.selector.clone().map(|selector| ("labelSelector", selector)));
    if let Some(name) = name.as_ref().filter(|_| wanted.watch) {
        query.push(("fieldSelector", format!("metadata.name={name}")));
    }
    let as_table = matches!(wanted.output, Format::Table | Format::Wide);
    let accept = if as_table { TABLE } else { "application/json" };
    if !wanted.watch {
        let request = client.request(Method::GET, &url).query(&query).header("accept", accept);
        let answer: Value = client.json(request).await?;
        return print(info, &answer, wanted.output, true);
    }
    url += &format!("?watch=true&timeoutSeconds={WATCH_SECONDS}");
    let mut first = true;
    loop {
        let request = client.request(Method::GET, &url).query(&query).header("accept", accept);
        let mut changes = Box::pin(api::client::changes(client.send(request).await?));
        while let Some(change) = changes.next().await {
            let change = change.context("the watch broke off")?;
            print(info, &change.object, wanted.output, first)?;
            first = false;
        }
    }
}

fn print(info: &KindInfo, answer: &Value, format: Format, with_heading: bool) -> anyhow::Result<()> {
    match format {
        Format::Json | Format::Yaml => return print_value(answer, format),
        Format::Name => {
            let one = std::slice::from_ref(answer);
            let items = answer.get("items").and_then(Value::as_array).map_or(one, Vec::as_slice);
            for item in items {
                println!(
                    "{}/{}",
                    info.singular,
                    cell(item.pointer("/metadata/name").unwrap_or(&Value::Null))
                );
            }
            return Ok(());
        }
        Format::Table | Format::Wide => {}
    }
    let list =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    // In a watch only the first table has columns; ours are always the same.
    let shown = |index: usize| {
        info.columns.get(index).is_some_and(|column| column.priority == 0 || format == Format::Wide)
    };
    let heading: Vec<String> = info
        .columns
        .iter()
        .enumerate()
        .filter(|(index, _)| shown(*index))
        .map(|(_, column)| column.name.to_uppercase())
        .collect();
    let rows: Vec<Vec<String>> = list(answer, "rows")
        .iter()
        .map(|row| {
            let cells = list(row, "cells");
            cells
                .iter()
                .enumerate()
                .filter(|(index, _)| shown(*index))
                .map(|(_, value)| cell(value))
                .collect()
        })
        .collect();
    if rows.is_empty() {
        eprintln!("there are no {}", info.plural);
        return Ok(());
    }
    print_table(&heading, &rows, with_heading);
    Ok(())
}
