//! TensorFlow through its C API, where its library is found: SavedModels and frozen graphs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tensorflow::{DataType, Feed, Payload, Port, Session, Tensorflow as Library, Value};

use super::library::{Lazy, Places, Wanted};
use types::{DeclaredTensor, ModelSignature};

use crate::declared;
use crate::format::{read_graph_def, read_saved_model};
use crate::{
    Datatype, Engine, EngineError, EngineInfo, EngineOptions, Format, LoadError, LoadOptions, LoadedModel,
    Signature, Tensor, TensorSpec,
};

const NAME: &str = "tensorflow";
pub(super) const FORMATS: [Format; 2] = [Format::SavedModel, Format::FrozenGraph];

static WANTED: Wanted = Wanted {
    stems: &["tensorflow_cc", "tensorflow"],
    variables: &["AVOCET_TENSORFLOW"],
    home: "/opt/tensorflow/lib",
};

pub(super) struct Tensorflow {
    library: Lazy<Arc<Library>>,
    threads: u8,
}

impl Tensorflow {
    /// The engine and why it is available, or why not. The library is opened when a model needs it.
    pub fn find(options: &EngineOptions) -> Result<(Tensorflow, String), String> {
        let library =
            Lazy::new(Places::of_this_process(&WANTED, options.tensorflow.as_deref()).candidates()?);
        let reason = format!("found {}", library.first().unwrap_or(Path::new("")).display());
        let threads = u8::try_from(options.threads_per_run).unwrap_or(u8::MAX);
        Ok((Tensorflow { library, threads }, reason))
    }

    fn library(&self) -> Result<&Arc<Library>, String> {
        self.library.open(open)
    }
}

fn open(_: &[PathBuf], path: &Path) -> Result<Arc<Library>, String> {
    let opened = Library::open(path);
    opened.map_err(|error| format!("{error}; install TensorFlow 2 or set AVOCET_TENSORFLOW to its file"))
}

impl Engine for Tensorflow {
    fn info(&self) -> EngineInfo {
        let opened = self.library.opened();
        let path = opened.map(|library| library.path()).or(self.library.first());
        let version = opened.map(|library| library.version().to_owned()).unwrap_or_default();
        EngineInfo { name: NAME, version, path: path.map(Path::to_path_buf) }
    }

    fn takes(&self, format: Format) -> bool {
        FORMATS.contains(&format)
    }

    fn open(&self) -> Result<(), String> {
        self.library().map(drop)
    }

    fn defect(&self) -> Option<String> {
        self.library.defect()
    }

    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError> {
        self.load_declared(path, options, &ModelSignature::default())
    }

    fn load_declared(
        &self,
        path: &Path,
        options: &LoadOptions,
        declared: &ModelSignature,
    ) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let library =
            self.library().map_err(|reason| LoadError::EngineUnavailable { engine: NAME, reason })?;
        let threads = match options.threads {
            0 => self.threads,
            threads => u8::try_from(threads).unwrap_or(u8::MAX),
        };
        let model = if path.is_dir() {
            saved_model(library, path, threads)
        } else {
            frozen_graph(library, path, threads, declared)
        };
        Ok(Arc::new(model?))
    }
}

struct TfModel {
    session: Session,
    signature: Signature,
    /// In the signature's order.
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

fn refused(reason: String) -> LoadError {
    LoadError::Engine { engine: NAME, reason }
}

fn saved_model(library: &Arc<Library>, path: &Path, threads: u8) -> Result<TfModel, LoadError> {
    let declared =
        read_saved_model(path).map_err(|source| LoadError::Format { path: path.into(), source })?;
    let session = Session::saved_model(library, path, &declared.tags, threads).map_err(refused)?;
    let (mut signature, mut inputs, mut outputs) = (Signature::default(), Vec::new(), Vec::new());
    for input in declared.inputs {
        inputs.push(session.port(&input.tensor).map_err(refused)?);
        signature.inputs.push(input.spec);
    }
    for output in declared.outputs {
        outputs.push(session.port(&output.tensor).map_err(refused)?);
        signature.outputs.push(output.spec);
    }
    Ok(TfModel { session, signature, inputs, outputs })
}

/// A graph with the inputs and outputs that its owner declares, or else with its placeholders and ends.
fn frozen_graph(
    library: &Arc<Library>,
    path: &Path,
    threads: u8,
    declared: &ModelSignature,
) -> Result<TfModel, LoadError> {
    let format = |source| LoadError::Format { path: path.into(), source };
    let ends = read_graph_def(path).map_err(format)?;
    let content = std::fs::read(path).map_err(|error| format(crate::FormatError::Io(error)))?;
    let session = Session::graph(library, &content, threads).map_err(refused)?;
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for tensor in &declared.inputs {
        inputs.push(declared_port(&session, tensor, "input")?);
    }
    if inputs.is_empty() {
        for spec in ends.inputs {
            inputs.push((session.port(&spec.name).map_err(refused)?, spec));
        }
    }
    for tensor in &declared.outputs {
        outputs.push(declared_port(&session, tensor, "output")?);
    }
    if outputs.is_empty() {
        for name in ends.outputs {
            // A node without outputs, or with one that can't cross, is no answer.
            let Ok(port) = session.port(&name) else { continue };
            let (Some(kind), shape) = session.describe(port) else { continue };
            outputs.push((port, TensorSpec { name, datatype: datatype(kind), shape }));
        }
    }
    if outputs.is_empty() {
        return Err(refused(
            "the graph doesn't tell what it gives: every node is used by another one; name inputs and outputs in \
             the model's `signature`"
                .into(),
        ));
    }
    let (inputs, input_specs) = inputs.into_iter().unzip();
    let (outputs, output_specs) = outputs.into_iter().unzip();
    let signature = Signature { inputs: input_specs, outputs: output_specs };
    Ok(TfModel { session, signature, inputs, outputs })
}

/// Where a declared tensor is in the graph, and what is known of it by both.
fn declared_port(
    session: &Session,
    declared: &DeclaredTensor,
    side: &'static str,
) -> Result<(Port, TensorSpec), LoadError> {
    let name = declared.name.clone();
    let port = session.port(&name).map_err(refused)?;
    let (Some(kind), shape) = session.describe(port) else {
        return Err(refused(format!("{side} `{name}` is of a type that can't be served")));
    };
    let own = TensorSpec { name, datatype: datatype(kind), shape };
    let spec = declared::joined(side, &own, declared)?;
    Ok((port, spec))
}

impl LoadedModel for TfModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instances(&self) -> usize {
        usize::MAX
    }

    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        let find = |specs: &[TensorSpec], ports: &[Port], name: &str| {
            let index = specs.iter().position(|spec| spec.name == name);
            let port = index.and_then(|index| ports.get(index)).copied();
            port.ok_or_else(|| EngineError::Failed(format!("`{name}` is not in the model")))
        };
        let mut fed = Vec::with_capacity(inputs.len());
        for tensor in inputs {
            fed.push((find(&self.signature.inputs, &self.inputs, tensor.name())?, feed(tensor)));
        }
        let wanted = outputs
            .iter()
            .map(|name| find(&self.signature.outputs, &self.outputs, name))
            .collect::<Result<Vec<_>, _>>()?;
        let values = self.session.run(&fed, &wanted).map_err(EngineError::Failed)?;
        outputs.iter().zip(values).map(|(name, value)| self.give(name, value)).collect()
    }
}

impl TfModel {
    /// An output, which must be of the type that the model declares.
    fn give(&self, name: &str, value: Value) -> Result<Tensor, EngineError> {
        let given = datatype(value.kind);
        if self.signature.output(name).is_some_and(|spec| spec.datatype != given) {
            return Err(EngineError::Output { output: name.into(), given: given.to_string() });
        }
        let tensor = match value.data {
            Payload::Numbers(data) => Tensor::from_bytes(name, given, value.shape, data.into()),
            Payload::Strings(texts) => Tensor::from_strings(name, value.shape, texts),
        };
        tensor.map_err(EngineError::failed)
    }
}

fn feed(tensor: &Tensor) -> Feed<'_> {
    let data = match tensor.datatype() {
        Datatype::Bytes => Payload::Strings(tensor.strings().collect()),
        _ => Payload::Numbers(tensor.data().as_ref()),
    };
    Feed { kind: kind(tensor.datatype()), shape: tensor.shape(), data }
}

fn kind(datatype: Datatype) -> DataType {
    match datatype {
        Datatype::Bool => DataType::Bool,
        Datatype::Uint8 => DataType::Uint8,
        Datatype::Uint16 => DataType::Uint16,
        Datatype::Uint32 => DataType::Uint32,
        Datatype::Uint64 => DataType::Uint64,
        Datatype::Int8 => DataType::Int8,
        Datatype::Int16 => DataType::Int16,
        Datatype::Int32 => DataType::Int32,
        Datatype::Int64 => DataType::Int64,
        Datatype::Fp16 => DataType::Half,
        Datatype::Fp32 => DataType::Float,
        Datatype::Fp64 => DataType::Double,
        Datatype::Bf16 => DataType::Bfloat16,
        Datatype::Bytes => DataType::String,
    }
}

fn datatype(kind: DataType) -> Datatype {
    match kind {
        DataType::Bool => Datatype::Bool,
        DataType::Uint8 => Datatype::Uint8,
        DataType::Uint16 => Datatype::Uint16,
        DataType::Uint32 => Datatype::Uint32,
        DataType::Uint64 => Datatype::Uint64,
        DataType::Int8 => Datatype::Int8,
        DataType::Int16 => Datatype::Int16,
        DataType::Int32 => Datatype::Int32,
        DataType::Int64 => Datatype::Int64,
        DataType::Half => Datatype::Fp16,
        DataType::Float => Datatype::Fp32,
        DataType::Double => Datatype::Fp64,
        DataType::Bfloat16 => Datatype::Bf16,
        DataType::String => Datatype::Bytes,
    }
}
