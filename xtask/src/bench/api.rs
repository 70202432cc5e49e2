//! What many watchers and a long list cost a hub, with etcd beside it for the watches.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Options;
use super::load::{self, Server, Watchers};
use super::memory::{cpu_seconds, resident_bytes};
use super::samples::{median, milliseconds, quantile};
use super::servers::{self, API, Running};
use super::store::runtime;
use crate::demo::aligned;
use crate::process::Step;
use crate::workspace::Workspace;

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
    let counts: Vec<usize> =
        [1000, options.watchers].into_iter().filter(|count| *count <= options.watchers).collect();
    let mut rows = vec![
        ["ONE CHANGE TO ALL WATCHERS", "WATCHERS", "MEDIAN ms", "P99 ms", "SERVER CPU ms", "KB/WATCHER"]
            .map(str::to_owned),
    ];
    for count in &counts {
        let hub = servers::hub(workspace, &folder.join(format!("hub-{count}")))?;
        let create = hub.server.request(
            "POST",
            &format!("{API}/namespaces/default/functions"),
            &servers::manifest("watched", 0),
        );
        runtime()?.block_on(async { hub.server.connect().await?.expect(&create).await })?;
        let watch = format!("{API}/functions?watch=true&allowWatchBookmarks=true");
        let way = Fanout {
            name: "hub",
            watch: hub.server.request("GET", &watch, ""),
            change: |server, round| servers::patch(server, "watched", round),
            words: servers::marker,
        };
        rows.push(fan_out(&hub, *count, &way, options)?);
    }
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
                watcher has a connection of its own, plain HTTP; etcd through its own HTTP/JSON gateway. SERVER CPU: \
                what the server alone worked for one change. KB/WATCHER: \
                growth of the server's resident memory. Clients (one thread) and servers share the machine's cores.\n\n";
    Ok(aligned(&rows) + note + &long_list(workspace, folder, options)?)
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
    let mut seconds = Vec::new();
    let mut bytes = 0;
    for _ in 0..options.rounds.max(1) {
        let closing =
            Server { headers: format!("{}Connection: close\r\n", hub.server.headers), ..hub.server.clone() };
        let request = closing.request("GET", &format!("{API}/functions"), "");
        let began = Instant::now();
        bytes = runtime()?.block_on(async { closing.connect().await?.drain(&request).await })?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    std::thread::sleep(SETTLE);
    let after = resident_bytes(hub.pid())?;
    step.done("");
    let megabytes = f64::from(u32::try_from(bytes / 1000)?) / 1e3;
    let count = f64::from(u32::try_from(options.listed)?);
    Ok(format!(
        "A list of {} objects: {megabytes:.1} MB in {:.2} s ({:.0} MB/s). The hub's memory: {:.0} MB empty, {:.0} MB with \
         the objects ({:.1} KB each), {:.0} MB after the lists. Created at {:.0} objects/s by {FILLERS} clients.\n",
        options.listed,
        median(&seconds),
        megabytes / median(&seconds),
        empty / 1e6,
        filled / 1e6,
        (filled - empty) / 1e3 / count,
        after / 1e6,
        count / filling,
    ))
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
