//! Invocations: `get invocations`, `logs`, `invoke`.

use agent::{Invocation, State};
use anyhow::{Context, bail};
use base64::Engine as _;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{ClientOptions, Format, InvokeOptions, LogsOptions};
use crate::config::{SiteClient, sites};
use crate::output::{print_done, print_table, print_value};

#[derive(Deserialize)]
struct List {
    items: Vec<Invocation>,
}

async fn of_site(site: &SiteClient) -> anyhow::Result<Vec<Invocation>> {
    let list: List = site
        .client
        .json(site.client.request(Method::GET, "/site/v1/invocations"))
        .await
        .with_context(|| format!("can't list the invocations of site `{}`", site.name))?;
    Ok(list.items)
}

pub async fn list(options: &ClientOptions, site: Option<&str>, format: Format) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for site in sites(options, site).await? {
        match of_site(&site).await {
            Ok(some) => all.extend(some),
            // One site that can't be reached must not hide the others.
            Err(error) => eprintln!("warning: {error:#}"),
        }
    }
    all.sort_by(|a, b| (a.created, &a.site, a.sequence).cmp(&(b.created, &b.site, b.sequence)));
    match format {
        Format::Json | Format::Yaml => print_value(&serde_json::json!({"items": all}), format),
        Format::Name => {
            all.iter().for_each(|invocation| println!("{}", invocation.id));
            Ok(())
        }
        Format::Table | Format::Wide => {
            let heading = ["INVOCATION", "SITE", "FUNCTION", "INPUT", "STATE", "MILLISECONDS", "MESSAGE"];
            let rows: Vec<Vec<String>> = all.iter().map(|invocation| row(invocation, format)).collect();
            print_table(&heading.map(str::to_owned), &rows, true);
            Ok(())
        }
    }
}

fn row(invocation: &Invocation, format: Format) -> Vec<String> {
    let id: String = invocation.id.chars().take(if format == Format::Wide { 40 } else { 12 }).collect();
    let message = if invocation.state == State::Failed {
        format!("{}: {}", invocation.reason, invocation.message)
    } else {
        invocation.message.clone()
    };
    let site = match &invocation.handover {
        Some(handover) => format!("{}, at {}", invocation.site, handover.site),
        None if !invocation.ran_at.is_empty() => format!("{}, at {}", invocation.site, invocation.ran_at),
        None => invocation.site.clone(),
    };
    vec![
        id,
        site,
        invocation.function.clone(),
        format!("{}/{}", invocation.bucket, invocation.key),
        format!("{:?}", invocation.state),
        invocation.duration_milliseconds.to_string(),
        message,
    ]
}

/// The one invocation whose id begins so, or the newest of `function/NAME`.
async fn find(
    options: &ClientOptions,
    what: &str,
    site: Option<&str>,
) -> anyhow::Result<(SiteClient, Invocation)> {
    let mut found = Vec::new();
    for site in sites(options, site).await? {
        let wanted = |invocation: &Invocation| match what.strip_prefix("function/") {
            Some(function) => invocation.function == function,
            None => invocation.id.starts_with(what),
        };
        let mut matching: Vec<Invocation> = of_site(&site).await?.into_iter().filter(wanted).collect();
        if what.starts_with("function/") {
            matching.truncate(1);
        }
        found.extend(matching.into_iter().map(|invocation| (site.name.clone(), invocation)));
    }
    found.sort_by_key(|(_, invocation)| std::cmp::Reverse((invocation.changed, invocation.sequence)));
    if found.len() > 1 && !what.starts_with("function/") {
        bail!("{} invocations begin with `{what}`; give more of the id", found.len());
    }
    let Some((name, invocation)) = found.into_iter().next() else {
        bail!("there is no invocation `{what}`; see `avocet get invocations`");
    };
    let site = sites(options, Some(&name)).await?.into_iter().next().context("the site is gone")?;
    Ok((site, invocation))
}

pub async fn logs(options: &ClientOptions, wanted: LogsOptions) -> anyhow::Result<()> {
    let (site, invocation) = find(options, &wanted.what, wanted.site.as_deref()).await?;
    let url = format!("/site/v1/invocations/{}/log", invocation.id);
    let log = site.client.send(site.client.request(Method::GET, &url)).await?.text().await?;
    print!("{log}");
    if invocation.state == State::Failed {
        eprintln!("failed: {}: {}", invocation.reason, invocation.message);
    }
    Ok(())
}

pub async fn invoke(options: &ClientOptions, wanted: InvokeOptions) -> anyhow::Result<()> {
    if let Some(id) = &wanted.replay {
        let (site, invocation) = find(options, id, wanted.site.as_deref()).await?;
        let url = format!("/site/v1/invocations/{}/replay", invocation.id);
        site.client.send(site.client.request(Method::POST, &url)).await?;
        let sentence = format!("invocation {} waits to run again on site {}", invocation.id, site.name);
        let done = json!({"invocation": invocation.id, "site": site.name, "state": "Pending"});
        return print_done(&done, &sentence, &invocation.id, wanted.format);
    }
    let (Some(function), Some(file)) = (&wanted.function, &wanted.file) else {
        bail!("name a function and a file, or an invocation to replay");
    };
    let body = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
    let filename = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut refusals = Vec::new();
    for site in sites(options, wanted.site.as_deref()).await? {
        let url = format!("/site/v1/functions/{function}/invoke");
        let request =
            site.client.request(Method::POST, &url).query(&[("filename", &filename)]).body(body.clone());
        match site.client.json::<Value>(request).await {
            Ok(answer) => return report(&answer, &wanted),
            Err(error) => refusals.push(error.to_string()),
        }
    }
    bail!("{}", refusals.join("; "))
}

fn report(answer: &Value, wanted: &InvokeOptions) -> anyhow::Result<()> {
    let text = |field: &str| answer.get(field).and_then(Value::as_str).unwrap_or_default();
    let is_value = matches!(wanted.format, Format::Json | Format::Yaml);
    if matches!(wanted.format, Format::Table | Format::Wide) {
        print!("{}", text("log"));
    }
    std::fs::create_dir_all(&wanted.output)?;
    let mut written = Vec::new();
    for output in answer.get("outputs").and_then(Value::as_array).into_iter().flatten() {
        let name = output.get("name").and_then(Value::as_str).unwrap_or_default();
        let content = output.get("content").and_then(Value::as_str).unwrap_or_default();
        let path = wanted.output.join(name);
        let parts = std::path::Path::new(name).components();
        if !parts.clone().all(|part| matches!(part, std::path::Component::Normal(_))) || parts.count() == 0 {
            bail!("the site sent an output named {name:?}, which is no relative path");
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, base64::engine::general_purpose::STANDARD.decode(content)?)?;
        match wanted.format {
            Format::Name => println!("{}", path.display()),
            _ => eprintln!("wrote {}", path.display()),
        }
        written.push(json!({"name": name, "path": path}));
    }
    if is_value {
        let mut shown = answer.clone();
        if let Some(fields) = shown.as_object_mut() {
            // Their content is in the files.
            fields.insert("outputs".into(), written.into());
        }
        print_value(&shown, wanted.format)?;
    }
    if text("state") != "Succeeded" {
        bail!("the function failed: {}: {}", text("reason"), text("message"));
    }
    Ok(())
}
