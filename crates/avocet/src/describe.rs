//! `describe`: what a person wants to know of a resource at a glance.

use api::client::path;
use reqwest::Method;
use serde_json::{Value, json};
use types::{Application, Assignment, AssignmentSpec};

use crate::cli::{ClientOptions, Format, NamedOptions};
use crate::config::hub_client;
use crate::output::{cell, print_table, print_value, split_name};

pub async fn describe(options: &ClientOptions, wanted: NamedOptions) -> anyhow::Result<()> {
    let (info, name) = split_name(&wanted.what)?;
    let client = hub_client(options)?;
    let namespace = if info.namespaced { options.namespace.as_str() } else { "" };
    let object: Value =
        client.json(client.request(Method::GET, &path(info.plural, namespace, &name))).await?;
    match wanted.output {
        Format::Json | Format::Yaml => {
            let assignments = match serde_json::from_value::<Application>(object.clone()) {
                Ok(application) => Some(assignments(&client, &application).await?),
                Err(_) => None,
            };
            return print_value(&json!({"object": object, "assignments": assignments}), wanted.output);
        }
        Format::Name => {
            println!("{}/{name}", info.singular);
            return Ok(());
        }
        Format::Table | Format::Wide => {}
    }
    let field = |pointer: &str| object.pointer(pointer).map(cell).unwrap_or_default();
    println!("Name:        {name}");
    println!("Kind:        {}", info.kind);
    if info.namespaced {
        println!("Namespace:   {namespace}");
    }
    println!("Created:     {}", field("/metadata/creationTimestamp"));
    println!("Generation:  {}", field("/metadata/generation"));
    if let Some(labels) = object.pointer("/metadata/labels").and_then(Value::as_object) {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}={}", cell(value))).collect();
        println!("Labels:      {}", labels.join(", "));
    }
    let spec = object.get("spec").cloned().unwrap_or_default();
    println!("\nSpec:\n{}", indent(&serde_saphyr::to_string(&spec)?));
    let mut status = object.get("status").cloned().unwrap_or_default();
    let conditions =
        status.as_object_mut().and_then(|fields| fields.remove("conditions")).unwrap_or_default();
    println!("Status:\n{}", indent(&serde_saphyr::to_string(&status)?));
    println!("Conditions:");
    let rows: Vec<Vec<String>> = conditions
        .as_array()
        .into_iter()
        .flatten()
        .map(|condition| {
            let field = |name: &str| condition.get(name).map(cell).unwrap_or_default();
            ["type", "status", "lastTransitionTime", "reason", "message"].map(field).to_vec()
        })
        .collect();
    print_table(&["TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"].map(str::to_owned), &rows, true);
    if let Ok(application) = serde_json::from_value::<Application>(object) {
        describe_assignments(&client, &application).await?;
    }
    Ok(())
}

/// What an application makes sites do.
async fn assignments(client: &api::Client, application: &Application) -> anyhow::Result<Vec<Assignment>> {
    let (mut all, _) = client.list::<AssignmentSpec>("").await?;
    all.retain(|assignment| assignment.spec.application_uid == application.metadata.uid);
    Ok(all)
}

async fn describe_assignments(client: &api::Client, application: &Application) -> anyhow::Result<()> {
    let all = assignments(client, application).await?;
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|assignment| {
            let available = types::condition(&assignment.status.conditions, "Available");
            let counts = assignment.status.invocations;
            vec![
                assignment.spec.component.clone(),
                assignment.namespace().to_owned(),
                available.map_or_else(|| "Unknown".into(), |condition| format!("{:?}", condition.status)),
                format!("{}/{}/{}", counts.succeeded, counts.failed, counts.pending),
                counts.undelivered.to_string(),
                available.map(|condition| condition.message.clone()).unwrap_or_default(),
            ]
        })
        .collect();
    println!("\nAssignments:");
    let heading = ["COMPONENT", "SITE", "AVAILABLE", "SUCCEEDED/FAILED/PENDING", "UNDELIVERED", "MESSAGE"];
    print_table(&heading.map(str::to_owned), &rows, true);
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
