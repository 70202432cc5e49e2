//! The engine that is always there: `rten`, pure Rust, on any CPU.
//!
//! It computes in f32, i32, i8 and u8. Wider ONNX types are converted at the border: INT64 and BOOL to i32 (a
//! value outside i32's range is refused, not wrapped), FP64 and FP16 to f32.

mod mended;
mod refused;

use std::borrow::Cow;
use std::cell::RefCell;
use std::path::{Component, Path};
use std::sync::{Arc, OnceLock};

use half::f16;
use rten::{
    DataType, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView, ValueType, ValueView,
};
use rten_tensor::Layout;

use crate::engine::chain;
use crate::format::FormatError;
use crate::onnx::nodes::read_nodes;
use crate::{
    Datatype, Element, Engine, EngineError, EngineInfo, InvalidInput, LoadError, LoadOptions, LoadedModel,
    Signature, Tensor, TensorSpec, read_signature,
};

const NAME: &str = "rten";
const VERSION: &str = "0.27";

thread_local! {
    /// The rten pool that this thread lives in, so that a run on it needs no hand-over to another thread.
    static POOL: RefCell<Option<Arc<ThreadPool>>> = const { RefCell::new(None) };
}

pub(super) struct Rten {
    threads: usize,
    /// For callers that are not inference threads.
    shared: Arc<OnceLock<Arc<ThreadPool>>>,
}

impl Rten {
    pub fn new(threads: usize) -> Rten {
        Rten { threads, shared: Arc::default() }
    }
}

impl Engine for Rten {
    fn info(&self) -> EngineInfo {
        EngineInfo { name: NAME, version: VERSION.into(), path: None }
    }

    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let signature =
            read_signature(path).map_err(|source| LoadError::Format { path: path.into(), source })?;
        let damaged = |source| LoadError::Format { path: path.into(), source };
        let refused = |reason: String| LoadError::Engine { engine: NAME, reason };
        let nodes = read_nodes(path).map_err(damaged)?;
        if let Some(reason) = refused::reason(&nodes) {
            return Err(refused(reason));
        }
        let model = if mended::is_needed(&nodes) {
            let content = std::fs::read(path).map_err(|error| damaged(FormatError::Io(error)))?;
            let mended = mended::mend(&content).map_err(damaged)?;
            drop(content);
            load_mended(path, mended).map_err(refused)?
        } else {
            load(path).map_err(refused)?
        };
        let node = |spec: &TensorSpec, what: &str| {
            let (name, datatype) = (&spec.name, spec.datatype);
            if !handles(datatype) {
                return Err(refused(format!("{what} `{name}` is {datatype}, which rten lacks")));
            }
            let id = model.find_node(name).ok_or_else(|| refused(format!("{what} `{name}` is missing")))?;
            Ok((name.clone(), datatype, id))
        };
        let inputs = signature.inputs.iter().map(|spec| node(spec, "input")).collect::<Result<_, _>>()?;
        let outputs = signature.outputs.iter().map(|spec| node(spec, "output")).collect::<Result<_, _>>()?;
        let own_pool = options.threads != 0 && options.threads != self.threads;
        let (threads, shared) = if own_pool {
            (options.threads, Arc::default())
        } else {
            (self.threads, Arc::clone(&self.shared))
        };
        Ok(Arc::new(RtenModel { model, signature, inputs, outputs, threads, shared, own_pool }))
    }

    fn enter(&self, body: Box<dyn FnOnce() + Send + '_>) {
        let pool = Arc::new(ThreadPool::with_num_threads(self.threads));
        let inside = Arc::clone(&pool);
        pool.run(move || {
            POOL.set(Some(inside));
            body();
            POOL.take();
        });
    }
}

/// A model that is not in its file as it is now, with the files of its weights.
fn load_mended(path: &Path, model: mended::Model) -> Result<Model, String> {
    let mut options = ModelOptions::with_all_ops();
    for file in model.files {
        let is_inside = Path::new(&file).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_inside || file.is_empty() {
            return Err(format!("its weights are in `{file}`, which is not in the model's folder"));
        }
        let at = path.with_file_name(&file);
        let weights = std::fs::read(&at).map_err(|error| format!("can't read {}: {error}", at.display()))?;
        options.external_data(&file, weights);
    }
    options.load(model.bytes).map_err(|error| chain(&error))
}

/// rten tells formats apart by the end of the name. An artifact in a store has no such name, and nothing beside it.
fn load(path: &Path) -> Result<Model, String> {
    if path.extension().is_some_and(|end| end == "onnx") {
        return Model::load_file(path).map_err(|error| chain(&error));
    }
    let content = std::fs::read(path).map_err(|error| chain(&error))?;
    Model::load(content).map_err(|error| chain(&error))
}

/// The types that [`hold`] and [`give`] convert.
fn handles(datatype: Datatype) -> bool {
    use Datatype::{Bool, Fp16, Fp32, Fp64, Int8, Int32, Int64, Uint8};
    matches!(datatype, Bool | Fp16 | Fp32 | Fp64 | Int8 | Int32 | Int64 | Uint8)
}

struct RtenModel {
    model: Model,
    signature: Signature,
    inputs: Vec<(String, Datatype, NodeId)>,
    outputs: Vec<(String, Datatype, NodeId)>,
    threads: usize,
    shared: Arc<OnceLock<Arc<ThreadPool>>>,
    /// Whether `shared` is this model's alone, because it wants another number of threads than the site's.
    own_pool: bool,
}

impl RtenModel {
    fn pool(&self) -> Arc<ThreadPool> {
        let shared = || self.shared.get_or_init(|| Arc::new(ThreadPool::with_num_threads(self.threads)));
        let here = if self.own_pool { None } else { POOL.with_borrow(Clone::clone) };
        here.unwrap_or_else(|| Arc::clone(shared()))
    }
}

impl LoadedModel for RtenModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn narrows(&self) -> Option<String> {
        let mut specs = self.signature.inputs.iter().chain(&self.signature.outputs);
        let wide = specs.find(|spec| matches!(spec.datatype, Datatype::Int64 | Datatype::Fp64))?;
        Some(format!("computes {} in 32 bits", wide.datatype))
    }

    fn instances(&self) -> usize {
        usize::MAX
    }

    /// A run outside of an inference thread goes over to a thread of rten's own.
    fn runs_on_caller(&self) -> bool {
        false
    }

    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        let held = inputs.iter().map(hold).collect::<Result<Vec<Held>, _>>()?;
        let mut values = Vec::with_capacity(inputs.len());
        for (tensor, held) in inputs.iter().zip(&held) {
            let id = find(&self.inputs, tensor.name())?.1;
            values.push((id, ValueOrView::View(held.view(tensor.shape())?)));
        }
        let wanted = outputs.iter().map(|name| find(&self.outputs, name)).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<NodeId> = wanted.iter().map(|&(_, id)| id).collect();
        let mut options = RunOptions::default();
        options.thread_pool = Some(self.pool());
        let results = self.model.run(values, &ids, Some(options)).map_err(EngineError::failed)?;
        let declared = outputs.iter().zip(wanted);
        declared.zip(results).map(|((name, (datatype, _)), value)| give(name, datatype, value)).collect()
    }
}

fn find(nodes: &[(String, Datatype, NodeId)], name: &str) -> Result<(Datatype, NodeId), EngineError> {
    let node = nodes.iter().find(|(known, _, _)| known == name);
    node.map(|&(_, datatype, id)| (datatype, id))
        .ok_or_else(|| EngineError::Failed(format!("`{name}` is not in the model")))
}

/// An input in the form that rten computes with, kept alive while views point into it.
enum Held<'a> {
    F32(Cow<'a, [f32]>),
    I32(Cow<'a, [i32]>),
    I8(Cow<'a, [i8]>),
    U8(Cow<'a, [u8]>),
}

fn hold(tensor: &Tensor) -> Result<Held<'_>, EngineError> {
    Ok(match tensor.datatype() {
        Datatype::Fp32 => Held::F32(elements(tensor)?),
        Datatype::Int32 => Held::I32(elements(tensor)?),
        Datatype::Int8 => Held::I8(elements(tensor)?),
        Datatype::Uint8 => Held::U8(elements(tensor)?),
        Datatype::Bool => {
            Held::I32(elements::<bool>(tensor)?.iter().map(|&element| i32::from(element)).collect())
        }
        Datatype::Int64 => {
            let narrowed = elements::<i64>(tensor)?
                .iter()
                .map(|&element| i32::try_from(element).map_err(|_| out_of_range(tensor, element)))
                .collect::<Result<_, _>>()?;
            Held::I32(narrowed)
        }
        #[expect(clippy::cast_possible_truncation, reason = "rten has no f64; documented at the top")]
        Datatype::Fp64 => Held::F32(elements::<f64>(tensor)?.iter().map(|&element| element as f32).collect()),
        Datatype::Fp16 => {
            Held::F32(elements::<f16>(tensor)?.iter().map(|element| element.to_f32()).collect())
        }
        other => return Err(EngineError::Failed(format!("rten takes no {other}"))),
    })
}

fn elements<T: Element>(tensor: &Tensor) -> Result<Cow<'_, [T]>, EngineError> {
    tensor.elements().map_err(|error| EngineError::Input(error.into()))
}

fn out_of_range(tensor: &Tensor, element: i64) -> InvalidInput {
    InvalidInput::Value {
        input: tensor.name().into(),
        problem: format!(
            "holds {element}, but rten computes INT64 in 32 bits; send smaller values or use engine `onnxruntime`"
        ),
    }
}

impl Held<'_> {
    fn view(&self, shape: &[usize]) -> Result<ValueView<'_>, EngineError> {
        match self {
            Held::F32(data) => ValueView::from_shape(shape, data).map_err(EngineError::failed),
            Held::I32(data) => ValueView::from_shape(shape, data).map_err(EngineError::failed),
            Held::I8(data) => ValueView::from_shape(shape, data).map_err(EngineError::failed),
            Held::U8(data) => ValueView::from_shape(shape, data).map_err(EngineError::failed),
        }
    }
}

/// An output in the type that the model declares.
fn give(name: &str, declared: Datatype, value: Value) -> Result<Tensor, EngineError> {
    let given = value.dtype();
    let shape = value.shape().to_vec();
    let tensor = match (value, declared) {
        (Value::FloatTensor(t), Datatype::Fp32) => Tensor::from_vec(name, shape, t.into_data()),
        (Value::FloatTensor(t), Datatype::Fp64) => {
            Tensor::from_vec(name, shape, t.into_data().into_iter().map(f64::from).collect())
        }
        (Value::FloatTensor(t), Datatype::Fp16) => {
            Tensor::from_vec(name, shape, t.into_data().into_iter().map(f16::from_f32).collect())
        }
        (Value::Int32Tensor(t), Datatype::Int32) => Tensor::from_vec(name, shape, t.into_data()),
        (Value::Int32Tensor(t), Datatype::Int64) => {
            Tensor::from_vec(name, shape, t.into_data().into_iter().map(i64::from).collect())
        }
        (Value::Int32Tensor(t), Datatype::Bool) => {
            Tensor::from_vec(name, shape, t.into_data().into_iter().map(|element| element != 0).collect())
        }
        (Value::Int8Tensor(t), Datatype::Int8) => Tensor::from_vec(name, shape, t.into_data()),
        (Value::UInt8Tensor(t), Datatype::Uint8) => Tensor::from_vec(name, shape, t.into_data()),
        _ => return Err(EngineError::Output { output: name.into(), given: kind(given) }),
    };
    tensor.map_err(EngineError::failed)
}

fn kind(given: ValueType) -> String {
    match given {
        ValueType::Tensor(DataType::Int32) => "32-bit integers".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_that_is_shown_is_the_one_that_is_built() {
        let manifest = include_str!("../../../../Cargo.toml");
        assert!(manifest.contains(&format!("rten = {{ version = \"{}\"", super::VERSION)));
    }
}
