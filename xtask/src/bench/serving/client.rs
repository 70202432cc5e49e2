//! Clients that ask one request after the other.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::peer::{Peer, Request};
use crate::bench::samples::microseconds;
use crate::http::Connection;
use crate::process;

/// Asks for some time; answers the microseconds of each request. All must succeed.
pub fn load(peer: &Peer, request: &Request<'_>, clients: usize, time: Duration) -> anyhow::Result<Vec<f64>> {
    let began = Instant::now();
    let client = || -> anyhow::Result<Vec<f64>> {
        let mut connection = Connection::open(&peer.url)?;
        let mut taken = Vec::new();
        while began.elapsed() < time {
            let asked = Instant::now();
            let (status, body) = connection.send("POST", request.path, request.headers, request.body)?;
            ensure!(status == 200, "{}: {status} {}", peer.name, String::from_utf8_lossy(&body));
            taken.push(microseconds(asked.elapsed()));
        }
        Ok(taken)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let mut all = Vec::new();
        for thread in threads {
            let taken = thread.join().map_err(|_| anyhow::anyhow!("a client of the benchmark panicked"))?;
            all.extend(taken?);
        }
        Ok(all)
    })
}

/// The same over gRPC, by `h2load`: one call after the other on each connection.
pub fn load_grpc(
    url: &str,
    message: &Path,
    clients: usize,
    time: Duration,
    folder: &Path,
) -> anyhow::Result<Vec<f64>> {
    let log = folder.join("h2load.tsv");
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    let mut command = Command::new("h2load");
    command.args(["-t", "1", "-m", "1", "-c", &clients.to_string(), "-D", &time.as_secs().to_string()]);
    command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]).arg(message);
    command.arg("--log-file").arg(&log).arg(format!("{url}/inference.GRPCInferenceService/ModelInfer"));
    process::output(&mut command)?;
    let lines = std::fs::read_to_string(&log).with_context(|| format!("can't read {}", log.display()))?;
    lines
        .lines()
        .map(|line| {
            let taken = line.split('\t').nth(2).and_then(|taken| taken.parse::<u32>().ok());
            taken.map(f64::from).with_context(|| format!("h2load wrote {line:?}"))
        })
        .collect()
}

/// A request for a model over gRPC with one tensor, framed: `ModelInferRequest` of the Open Inference Protocol.
pub fn grpc_message(model: &str, tensor: &str, shape: &[u8], values: &[f32]) -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let mut field = vec![number << 3 | 2];
        field.extend(u8::try_from(content.len()).into_iter().filter(|length| *length < 128));
        field.extend_from_slice(content);
        field
    };
    let input = [field(1, tensor.as_bytes()), field(2, b"FP32"), field(3, shape)].concat();
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let message = [field(1, model.as_bytes()), field(5, &input), field(7, &raw)].concat();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat()
}
