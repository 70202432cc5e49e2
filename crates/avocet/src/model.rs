//! `model check`: what a model file is, and what each engine here makes of it; and [`top`].

mod samples;
mod top;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use inference::{Checked, CheckedEngine, TensorSpec};
use serde_json::{Value, json};
use types::DigestWriter;

use crate::cli::{ClientOptions, Format};
use crate::engines::Libraries;
use crate::oci::{self, PushModelOptions};
use crate::output::{print_table, print_value};
use top::TopOptions;

#[derive(Subcommand)]
pub enum ModelCommand {
    /// Say what a model takes and gives, which engines here serve it, and how fast
    Check(CheckOptions),
    /// Push a model to a registry, as a ModelPack or an image
    Push(PushModelOptions),
    /// Show what the models of all sites are doing, again and again
    Top(TopOptions),
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  avocet model check model.onnx\n  avocet model check saved_model/ -o json"
)]
pub struct CheckOptions {
    /// A model file, or the folder or archive of a SavedModel or of an ONNX file with its data
    #[arg(value_name = "FILE")]
    pub path: PathBuf,
    #[command(flatten)]
    pub libraries: Libraries,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

pub async fn model(client: &ClientOptions, command: &ModelCommand) -> anyhow::Result<()> {
    match command {
        ModelCommand::Check(options) => check(options),
        ModelCommand::Push(options) => oci::push_model(client, options).await,
        ModelCommand::Top(options) => top::top(client, options).await,
    }
}

fn check(options: &CheckOptions) -> anyhow::Result<()> {
    let checked = inference::check(&options.path, &options.libraries.options())
        .with_context(|| format!("{} can't be served", options.path.display()))?;
    let digest = digest(&options.path)?;
    match options.output {
        Format::Json | Format::Yaml => print_value(&value(&checked, digest.as_deref()), options.output),
        _ => {
            print(&checked, digest.as_deref());
            Ok(())
        }
    }
}

/// What an artifact of this file is named; a folder is packed first and has none yet.
fn digest(path: &Path) -> anyhow::Result<Option<String>> {
    if path.is_dir() {
        return Ok(None);
    }
    let mut hasher = DigestWriter::default();
    std::io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(Some(hasher.digest().to_string()))
}

fn value(checked: &Checked, digest: Option<&str>) -> Value {
    let specs = |specs: &[TensorSpec]| -> Vec<Value> {
        let spec = |spec: &TensorSpec| json!({"name": spec.name, "datatype": spec.datatype.to_string(), "shape": spec.shape});
        specs.iter().map(spec).collect()
    };
    let signature = checked.signature.clone().unwrap_or_default();
    json!({
        "format": checked.format.to_string(),
        "digest": digest,
        "inputs": specs(&signature.inputs),
        "outputs": specs(&signature.outputs),
        "operators": checked.operators,
        "unsupported": checked.unsupported,
        "engines": checked.engines.iter().map(engine_value).collect::<Vec<_>>(),
    })
}

fn engine_value(found: &CheckedEngine) -> Value {
    if let Some(refusal) = &found.refusal {
        return json!({"engine": found.engine, "serves": false, "reason": refusal});
    }
    let runs = found.runs.iter().map(
        |run| json!({"threads": run.threads, "p50Micros": micros(run.p50), "p99Micros": micros(run.p99)}),
    );
    json!({
        "engine": found.engine,
        "serves": true,
        "loadMillis": micros(found.load) / 1000,
        "memoryBytes": found.memory,
        "runs": runs.collect::<Vec<_>>(),
        "bestThreads": found.best().map(|best| best.threads),
        "reason": found.unmeasured,
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn print(checked: &Checked, digest: Option<&str>) {
    println!("format   {}", checked.format);
    println!("digest   {}", digest.unwrap_or("none: a folder is packed when it is pushed"));
    let signature = checked.signature.clone().unwrap_or_default();
    let sides = [("input", signature.inputs), ("output", signature.outputs)];
    for (side, spec) in sides.iter().flat_map(|(side, specs)| specs.iter().map(move |spec| (side, spec))) {
        println!("{side:8} {} {} {}", spec.name, spec.datatype, shape(spec));
    }
    if !checked.operators.is_empty() {
        let operators = checked.operators.iter().map(|(name, count)| format!("{name} {count}"));
        println!("operators {}", operators.collect::<Vec<_>>().join(", "));
    }
    if !checked.unsupported.is_empty() {
        println!("unsupported here: {}", checked.unsupported.join(", "));
    }
    println!();
    let heading = ["ENGINE", "LOAD", "MEMORY", "THREADS", "P50", "P99", "NOTE"].map(str::to_owned);
    let rows: Vec<Vec<String>> = checked.engines.iter().flat_map(rows).collect();
    print_table(&heading, &rows, true);
}

fn shape(spec: &TensorSpec) -> String {
    let size = |size: &i64| if *size < 0 { "?".to_owned() } else { size.to_string() };
    match &spec.shape {
        None => "of any shape".into(),
        Some(shape) => format!("[{}]", shape.iter().map(size).collect::<Vec<_>>().join(", ")),
    }
}

/// A row for each setting, or one that says why there is none.
fn rows(found: &CheckedEngine) -> Vec<Vec<String>> {
    let row = |cells: [String; 6]| {
        let name = [found.engine.to_owned()];
        name.into_iter().chain(cells).collect::<Vec<String>>()
    };
    let (none, empty) = (|| "-".to_owned(), String::new);
    if let Some(refusal) = &found.refusal {
        return vec![row([none(), none(), none(), none(), none(), refusal.clone()])];
    }
    let (load, memory) = (format!("{:.1?}", found.load), HumanBytes(found.memory).to_string());
    if let Some(reason) = &found.unmeasured {
        return vec![row([load, memory, none(), none(), none(), format!("not measured: {reason}")])];
    }
    let best = found.best();
    let measured = found.runs.iter().map(|run| {
        let note = if best == Some(*run) { "best".into() } else { empty() };
        let times = [run.threads.to_string(), format!("{:.1?}", run.p50), format!("{:.1?}", run.p99)];
        let [threads, p50, p99] = times;
        row([load.clone(), memory.clone(), threads, p50, p99, note])
    });
    measured.collect()
}
