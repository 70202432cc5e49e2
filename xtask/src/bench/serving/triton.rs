//! Triton's own server, out of the wheel of PyTriton. It brings the Python backend and the cache of answers; the backend
//! of ONNX Runtime is in no package, so the models run there as they would with PyTriton.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::peer::Peer;
use super::requests::Load;
use crate::bench::servers::free_port;
use crate::setup::Triton;

/// Starts it with a model, and the same model with a cache; answers also the port of gRPC.
///
/// # Errors
/// When it does not run here: it needs a system with glibc 2.35 or newer, and the shared library of Python.
pub fn start(triton: &Triton, load: &Load, script: &Path, folder: &Path) -> anyhow::Result<(Peer, u16)> {
    let home = triton.packages.join("pytriton/tritonserver");
    let (backends, stub) = (home.join("backends"), "triton_python_backend_stub");
    // Where the backend looks for it.
    let there = backends.join("python").join(stub);
    let given = home.join("python_backend_stubs").join(&triton.python).join(stub);
    ensure!(given.exists(), "its wheel has no part for Python {}", triton.python);
    std::fs::copy(&given, &there)?;
    let server = home.join("bin/tritonserver");
    for program in [&server, &there] {
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755))?;
    }
    let models = folder.join("triton").join(&load.name);
    for (suffix, cache) in [("", "false"), ("_cached", "true")] {
        let model = models.join(format!("{}{suffix}", load.name));
        std::fs::create_dir_all(model.join("1"))?;
        std::fs::copy(script, model.join("1/model.py"))?;
        let file = load.file.canonicalize()?;
        let config = format!(
            "backend: \"python\"\n\
             parameters {{ key: \"file\" value {{ string_value: \"{}\" }} }}\n\
             instance_group {{ kind: KIND_CPU count: 1 }}\n\
             response_cache {{ enable: {cache} }}\n",
            file.display()
        );
        std::fs::write(model.join("config.pbtxt"), config)?;
    }
    let (port, grpc) = (free_port()?, free_port()?);
    let with =
        |flag: &str, path: &Path| -> OsString { [flag.as_ref(), path.as_os_str()].into_iter().collect() };
    let mut command = Command::new(&server);
    command
        .arg(with("--model-repository=", &models))
        .arg(with("--backend-directory=", &backends))
        .arg(with("--cache-directory=", &home.join("caches")))
        .args(["--cache-config=local,size=67108864", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1"])
        .arg(format!("--http-port={port}"))
        .arg(format!("--grpc-port={grpc}"))
        .arg("--allow-metrics=false")
        .env("LD_LIBRARY_PATH", triton.packages.join("nvidia_pytriton.libs"))
        .env("PACKAGES", &triton.packages);
    let peer = Peer::start("Triton", port, command, &load.json(&load.path), folder);
    Ok((peer.context("Triton's server does not run here")?, grpc))
}
