//! `engines`: what runs models on this machine.

mod install;

use std::path::PathBuf;

use clap::Args;
use inference::{EngineOptions, Engines};
use serde_json::json;

pub use install::InstallOptions;

use crate::cli::{EnginesCommand, EnginesOptions, Format};
use crate::output::{print_table, print_value};

/// Where engines' libraries are, for commands that run models.
#[derive(Args, Clone)]
pub struct Libraries {
    /// ONNX Runtime's shared library, or its folder
    #[arg(long, env = "AVOCET_ONNXRUNTIME", value_name = "FILE")]
    pub onnxruntime: Option<PathBuf>,
    /// TensorFlow's shared library, or its folder
    #[arg(long, env = "AVOCET_TENSORFLOW", value_name = "FILE")]
    pub tensorflow: Option<PathBuf>,
}

impl Libraries {
    pub fn options(&self) -> EngineOptions {
        EngineOptions {
            onnxruntime: self.onnxruntime.clone(),
            tensorflow: self.tensorflow.clone(),
            ..EngineOptions::default()
        }
    }
}

pub async fn engines(wanted: &EnginesOptions) -> anyhow::Result<()> {
    if let Some(EnginesCommand::Install(options)) = &wanted.command {
        return install::install(options).await;
    }
    let engines = Engines::discover(&wanted.libraries.options());
    engines.open();
    let all = engines.list();
    match wanted.output {
        Format::Json | Format::Yaml => {
            let all: Vec<_> = all
                .iter()
                .map(|engine| {
                    json!({
                        "name": engine.name, "version": engine.version, "available": engine.available,
                        "preferred": engine.preferred, "reason": engine.reason, "path": engine.path,
                    })
                })
                .collect();
            print_value(&json!(all), wanted.output)
        }
        Format::Name => {
            all.iter().filter(|engine| engine.available).for_each(|engine| println!("{}", engine.name));
            Ok(())
        }
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = all
                .into_iter()
                .map(|engine| {
                    let used = match (engine.available, engine.preferred) {
                        (true, true) => "first choice",
                        (true, false) => "fallback",
                        (false, _) => "no",
                    };
                    vec![engine.name.to_owned(), engine.version, used.to_owned(), engine.reason]
                })
                .collect();
            print_table(&["ENGINE", "VERSION", "USED", "WHY"].map(str::to_owned), &rows, true);
            Ok(())
        }
    }
}
