//! Models and requests for them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::client::grpc_message;
use super::peer::Request;
use crate::workspace::Workspace;

const JSON: &str = "Content-Type: application/json\r\n";

/// A model and what it is asked.
pub struct Load {
    pub name: String,
    /// Its ONNX file.
    pub file: PathBuf,
    /// Where the Open Inference Protocol has it.
    pub path: String,
    /// The same model with a cache.
    pub cached_path: String,
    /// One request as JSON.
    pub body: Vec<u8>,
    /// One with more digits, of about 200 KB; empty if the tensor isn't large enough.
    pub long_body: Vec<u8>,
    /// One with binary tensors over gRPC, framed.
    pub grpc: Vec<u8>,
    binary: Vec<u8>,
    binary_headers: String,
}

pub struct Loads {
    /// The committed forest of scikit-learn: 100 trees, 4 numbers in, 3 probabilities out.
    pub iris: Load,
    /// Which way up a line of text is, in rapidocr: a picture of 3 × 48 × 192.
    pub ocr: Load,
    /// What kind of file it is, in magika: 2,048 bytes; works for about 5 ms.
    pub magika: Load,
}

pub fn loads(workspace: &Workspace, packages: &Path) -> anyhow::Result<Loads> {
    let iris = workspace.root.join("crates/inference/tests/data/classical/iris_forest.onnx");
    let values = [5.1, 3.5, 1.4, 0.2];
    let mut iris = Load::new("iris", iris, "X", &[1, 4], &values.map(|value| format!("{value}")), f32_bytes)?;
    iris.grpc = grpc_message("iris", "X", &[1, 4], &values);
    let ocr = packages.join("rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx");
    // A pattern that no compression of numbers gains from: tenths in the short form, of 110 KB.
    let pattern: Vec<u32> =
        (0..3 * 48 * 192_u32).map(|index| index.wrapping_mul(2_654_435_761) >> 16).collect();
    let short: Vec<String> = pattern.iter().map(|value| format!("0.{}", value % 10)).collect();
    let long: Vec<String> = pattern.iter().map(|value| format!("0.{:04}", value % 10_000)).collect();
    let mut ocr = Load::new("ocr", ocr, "x", &[1, 3, 48, 192], &short, f32_bytes)?;
    ocr.long_body = body("x", &[1, 3, 48, 192], "FP32", &long);
    let magika = packages.join("magika/models/standard_v3_3/model.onnx");
    let bytes: Vec<String> = pattern.iter().take(2048).map(|value| (value % 256).to_string()).collect();
    let magika = Load::new("magika", magika, "bytes", &[1, 2048], &bytes, i32_bytes)?;
    Ok(Loads { iris, ocr, magika })
}

/// A type of numbers, and their bytes.
type Encoded = (&'static str, Vec<u8>);

fn f32_bytes(values: &[String]) -> anyhow::Result<Encoded> {
    let parsed: Vec<f32> = values.iter().map(|value| value.parse()).collect::<Result<_, _>>()?;
    Ok(("FP32", parsed.into_iter().flat_map(f32::to_le_bytes).collect()))
}

fn i32_bytes(values: &[String]) -> anyhow::Result<Encoded> {
    let parsed: Vec<i32> = values.iter().map(|value| value.parse()).collect::<Result<_, _>>()?;
    Ok(("INT32", parsed.into_iter().flat_map(i32::to_le_bytes).collect()))
}

fn body(tensor: &str, shape: &[u32], datatype: &str, values: &[String]) -> Vec<u8> {
    let (shape, values) = (json!(shape), values.join(","));
    format!(
        r#"{{"inputs":[{{"name":"{tensor}","shape":{shape},"datatype":"{datatype}","data":[{values}]}}]}}"#
    )
    .into_bytes()
}

impl Load {
    fn new(
        name: &str,
        file: PathBuf,
        tensor: &str,
        shape: &[u32],
        values: &[String],
        encode: fn(&[String]) -> anyhow::Result<Encoded>,
    ) -> anyhow::Result<Self> {
        let (datatype, bytes) = encode(values)?;
        let header = json!({
            "parameters": {"binary_data_output": true},
            "inputs": [{
                "name": tensor, "shape": shape, "datatype": datatype,
                "parameters": {"binary_data_size": bytes.len()},
            }],
        });
        let header = serde_json::to_vec(&header)?;
        let binary_headers = format!(
            "Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {}\r\n",
            header.len()
        );
        Ok(Self {
            name: name.to_owned(),
            file,
            path: format!("/v2/models/{name}/infer"),
            cached_path: format!("/v2/models/{name}_cached/infer"),
            body: body(tensor, shape, datatype, values),
            long_body: vec![],
            grpc: vec![],
            binary: [header, bytes].concat(),
            binary_headers,
        })
    }

    pub fn json<'a>(&'a self, path: &'a str) -> Request<'a> {
        Request { path, headers: JSON, body: &self.body }
    }

    pub fn long_json<'a>(&'a self, path: &'a str) -> Request<'a> {
        Request { path, headers: JSON, body: &self.long_body }
    }

    pub fn binary(&self) -> Request<'_> {
        Request { path: &self.path, headers: &self.binary_headers, body: &self.binary }
    }
}

/// A repository in Triton's form with each model, and each with a cache; one thread a run.
pub fn write_repository(loads: &Loads, folder: &Path) -> anyhow::Result<()> {
    for load in [&loads.iris, &loads.ocr, &loads.magika] {
        for (suffix, cache) in [("", "false"), ("_cached", "true")] {
            let version = folder.join(format!("{}{suffix}", load.name)).join("1");
            std::fs::create_dir_all(&version)?;
            std::fs::copy(&load.file, version.join("model.onnx"))
                .with_context(|| format!("can't copy {}", load.file.display()))?;
            let settings = format!(
                "parameters {{ key: \"intra_op_thread_count\" value {{ string_value: \"1\" }} }}\n\
                 response_cache {{ enable: {cache} }}\n"
            );
            std::fs::write(version.with_file_name("config.pbtxt"), settings)?;
        }
    }
    Ok(())
}
