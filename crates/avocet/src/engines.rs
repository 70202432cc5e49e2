//! `engines`: what runs models on this machine.

mod install;

use inference::{EngineOptions, Engines};
use serde_json::json;

pub use install::InstallOptions;

use crate::cli::{EnginesCommand, EnginesOptions, Format};
use crate::output::{print_table, print_value};

pub async fn engines(wanted: &EnginesOptions) -> anyhow::Result<()> {
    if let Some(EnginesCommand::Install(options)) = &wanted.command {
        return install::install(options).await;
    }
    let options = EngineOptions {
        onnxruntime: wanted.onnxruntime.clone(),
        tensorflow: wanted.tensorflow.clone(),
        ..EngineOptions::default()
    };
    let engines = Engines::discover(&options);
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
