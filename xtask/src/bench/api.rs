//! What many watchers and a long list cost a hub, with etcd beside it for the watches.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Options;
use super::load::{self, Server, Watchers};
use super::memory::{cpu_seconds, forget_peak, peak_bytes, resident_bytes};
use super::samples::{median, milliseconds, quantile};
use super::servers::{self, API, Running};
use super::store::runtime;
use crate::demo::aligned;
use crate::process::Step;
use crate::workspace::Workspace;

/// Watchers over TLS, at most: most of the time goes into shaking hands.
const ENCRYPTED: usize = 1000;
const OVER_TLS: &str = "hub, TLS";
/// How many objects a page of the long list has, as kubectl asks for them.
const PAGE: usize = 500;
/// Where in a list its own metadata is.
const HEAD: usize = 512;
/// Clients that fill the hub for the long list.
const FILLERS: usize = 64;
/// How long memory gets to settle.
const SETTLE: Duration = Duration::from_secs(2);

/// How a server is watched and changed.
struct Fanout {
    name: &'static str,
    watch: load::Request,
    change: fn(&Server, usize) -> load::Request,
    words: fn(usize) -> String,
}

pub fn measure(workspace: &Workspace, folder: &Path, options: &Options) -> anyhow::Result<String> {
    servers::raise_file_limit()?;
    let mut counts = vec![options.watchers.min(1000), options.watchers];
    counts.dedup();
    let mut rows = vec![
        ["ONE CHANGE TO ALL WATCHERS", "WATCHERS", "MEDIAN ms", "P99 ms", "SERVER CPU ms", "KB/WATCHER"]
            .map(str::to_owned),
    ];
    for count in &counts {
        rows.push(watch_hub(workspace, &folder.join(format!("hub-{count}")), *count, "hub", options)?);
    }
    let encrypted = options.watchers.min(ENCRYPTED);
    rows.push(watch_hub(workspace, &folder.join("hub-tls"), encrypted, OVER_TLS, options)?);
    for count in &counts {
        let Some(etcd) = servers::etcd(&folder.join(format!("etcd-{count}")))? else { break };
        let body = format!(r#"{{"create_request":{{"key":"{}"}}}}"#, STANDARD.encode("watched"));
        let way = Fanout {
            name: "etcd",
            watch: etcd.server.request("POST", "/v3/watch", &body),
            change: |server, round| {
                server.request("POST", "/v3/kv/put", &servers::etcd_put("watched", round))
            },
            words: servers::encoded_marker,
        };
        rows.push(fan_out(&etcd, *count, &way, options)?);
    }
    let note = "From just before a change of 1 KB is sent (it is made durable on the way) until a watcher has read it; each \
                watcher has a connection of its own, plain HTTP unless it says TLS; etcd through its own HTTP/JSON gateway. SERVER CPU: \
                what the server alone worked for one change. KB/WATCHER: \
                growth of the server's resident memory. Clients (one thread) and servers share the machine's cores.\n\n";
    Ok(aligned(&rows) + note + &long_list(workspace, folder, options)?)
}

fn watch_hub(
    workspace: &Workspace,
    folder: &Path,
    count: usize,
    name: &'static str,
    options: &Options,
) -> anyhow::Result<[String; 6]> {
    let mut hub = servers::hub(workspace, folder)?;
    if name == OVER_TLS {
        hub.server = servers::encrypted(&hub, folder)?;
    }
    let functions = format!("{API}/namespaces/default/functions");
    let create = hub.server.request("POST", &functions, &servers::manifest("watched", 0));
    runtime()?.block_on(async { hub.server.connect().await?.expect(&create).await })?;
    let watch = format!("{API}/functions?watch=true&allowWatchBookmarks=true");
    let way = Fanout {
        name,
        watch: hub.server.request("GET", &watch, ""),
        change: |server, round| servers::patch(server, "watched", round),
        words: servers::marker,
    };
    fan_out(&hub, count, &way, options)
}

fn fan_out(running: &Running, count: usize, way: &Fanout, options: &Options) -> anyhow::Result<[String; 6]> {
    let step = Step::begin(&format!("{count} watchers of {}", way.name));
    let measured = runtime()?.block_on(async {
        let server = &running.server;
        let mut writer = server.connect().await?;
        let before = resident_bytes(running.pid())?;
        let mut watchers = Watchers::begin(server, &way.watch, count, way.words).await?;
        tokio::time::sleep(SETTLE).await;
        let grown = resident_bytes(running.pid())? - before;
        let (mut medians, mut p99s, mut used) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=options.rounds.max(1) * 2 {
            let busy = cpu_seconds(running.pid())?;
            let latencies = watchers.round(&mut writer, &(way.change)(server, round)).await?;
            let latencies: Vec<f64> = latencies.into_iter().map(milliseconds).collect();
            medians.push(median(&latencies));
            p99s.push(quantile(&latencies, 0.99));
            used.push((cpu_seconds(running.pid())? - busy) * 1e3);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        anyhow::Ok((median(&medians), median(&p99s), median(&used), grown))
    });
    let (middle, p99, used, grown) = measured.with_context(|| format!("{count} watchers of {}", way.name))?;
    step.done("");
    Ok([
        way.name.to_owned(),
        count.to_string(),
        format!("{middle:.1}"),
        format!("{p99:.1}"),
        format!("{used:.0}"),
        format!("{:.1}", grown / 1e3 / f64::from(u32::try_from(count)?)),
    ])
}

fn long_list(workspace: &Workspace, folder: &Path, options: &Options) -> anyhow::Result<String> {
    let hub = servers::hub(workspace, &folder.join("list"))?;
    let step = Step::begin(&format!("a hub with {} objects", options.listed));
    let empty = resident_bytes(hub.pid())?;
    let began = Instant::now();
    runtime()?.block_on(fill(&hub.server, options.listed))?;
    let filling = began.elapsed().as_secs_f64();
    std::thread::sleep(SETTLE);
    let filled = resident_bytes(hub.pid())?;
    step.done("");
    let mut rows = vec![
        ["A LIST", "OBJECTS", "REQUESTS", "MB", "SECONDS", "MB/s", "SERVER CPU s", "PEAK MB MORE"]
            .map(str::to_owned),
    ];
    for page in [None, Some(PAGE)] {
        let step = Step::begin("lists of them all");
        rows.push(lists(&hub, page, options)?);
        step.done("");
    }
    std::thread::sleep(SETTLE);
    let after = resident_bytes(hub.pid())?;
    let count = f64::from(u32::try_from(options.listed)?);
    Ok(aligned(&rows)
        + &format!(
            "PEAK MB MORE: how far the hub's memory rose above what the objects take. Its memory: {:.0} MB empty, {:.0} \
             MB with the objects ({:.1} KB each), {:.0} MB after the lists. Created at {:.0} objects/s by {FILLERS} \
             clients.\n",
            empty / 1e6,
            filled / 1e6,
            (filled - empty) / 1e3 / count,
            after / 1e6,
            count / filling,
        ))
}

/// Lists all objects, whole or in pages; each value is the median over rounds.
fn lists(hub: &Running, page: Option<usize>, options: &Options) -> anyhow::Result<[String; 8]> {
    let before = resident_bytes(hub.pid())?;
    forget_peak(hub.pid())?;
    let (mut seconds, mut used, mut last) = (Vec::new(), Vec::new(), Listed::default());
    for _ in 0..options.rounds.max(1) {
        let (began, busy) = (Instant::now(), cpu_seconds(hub.pid())?);
        last = runtime()?.block_on(list(&hub.server, page))?;
        seconds.push(began.elapsed().as_secs_f64());
        used.push(cpu_seconds(hub.pid())? - busy);
    }
    let more = peak_bytes(hub.pid())? - before;
    let megabytes = f64::from(u32::try_from(last.bytes / 1000)?) / 1e3;
    Ok([
        page.map_or("whole".to_owned(), |page| format!("pages of {page}")),
        options.listed.to_string(),
        last.requests.to_string(),
        format!("{megabytes:.1}"),
        format!("{:.2}", median(&seconds)),
        format!("{:.0}", megabytes / median(&seconds)),
        format!("{:.2}", median(&used)),
        format!("{:.0}", more / 1e6),
    ])
}

/// What a list came to.
#[derive(Default)]
struct Listed {
    requests: usize,
    bytes: usize,
}

async fn list(server: &Server, page: Option<usize>) -> anyhow::Result<Listed> {
    let mut client = server.connect().await?;
    let (mut listed, mut next) = (Listed::default(), String::new());
    loop {
        let limit = page.map_or(String::new(), |page| format!("limit={page}"));
        let path = format!("{API}/functions?{limit}&continue={next}");
        let text = client.expect(&server.request("GET", &path, "")).await?;
        listed.requests += 1;
        listed.bytes += text.len();
        // The list's own metadata comes before its items.
        let head = text.get(..HEAD).unwrap_or(&text);
        let head = String::from_utf8_lossy(head);
        let token = head.split_once(r#""continue":""#).and_then(|(_, rest)| rest.split_once('"'));
        match token {
            Some((token, _)) => token.clone_into(&mut next),
            None => return Ok(listed),
        }
    }
}

async fn fill(server: &Server, count: usize) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for filler in 0..FILLERS {
        let server = server.clone();
        tasks.spawn(async move {
            let mut client = server.connect().await?;
            for index in (filler..count).step_by(FILLERS) {
                let body = servers::manifest(&format!("f{index}"), 0);
                client
                    .expect(&server.request("POST", &format!("{API}/namespaces/default/functions"), &body))
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
