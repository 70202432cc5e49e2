//! Serves ONNX files on a port, for trying a client by hand:
//!
//!     cargo run -p avocet-serving --example serve -- 127.0.0.1:8000 iris=iris.onnx faces=faces.onnx

use avocet_serving::{ServerState, router};
use inference::{EngineOptions, Engines, LoadRequest, Options, Repository};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("name an address")?;
    let repository = Repository::new(Engines::discover(&EngineOptions::default()), Options::default())?;
    for argument in arguments {
        let (name, path) = argument.split_once('=').ok_or("name models as name=file.onnx")?;
        let status = repository.load(LoadRequest::new(name, "1", path))?;
        println!("{name} on {}: {}", status.engine.unwrap_or("none"), status.why);
    }
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, router(ServerState::new(repository))).await?;
    Ok(())
}
