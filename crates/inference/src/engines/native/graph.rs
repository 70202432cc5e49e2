//! A graph made into steps that run one after the other.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;

use super::array::{Array, Data};
use super::node::{Arguments, Kernel};
use super::onnx::{self, Graph, Node};
use super::{Fault, Refused, operators};
use crate::onnx::{Type, spec};
use crate::{Datatype, EngineError, LoadedModel, Signature, Tensor, TensorSpec};

/// Most elements that all steps of one run may make together.
const MAX_ELEMENTS: usize = 512 << 20;

/// A loaded graph.
pub(super) struct Model {
    signature: Signature,
    /// Where each input and output is kept.
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    /// Weights in their places; `None` where a run puts something.
    weights: Vec<Option<Array>>,
    steps: Vec<Step>,
    /// The classes that an output's columns stand for.
    labels: Vec<Option<Vec<String>>>,
}

struct Step {
    what: String,
    kernel: Kernel,
    inputs: Vec<Option<usize>>,
    outputs: Vec<Option<usize>>,
    /// What nobody needs after this step.
    done: Vec<usize>,
}

pub(super) fn load(path: &Path) -> Result<Model, Refused> {
    let mut classical = false;
    onnx::operators(path, |domain, operator| {
        classical |= domain == operators::CLASSICAL;
        match operators::builder(domain, operator) {
            Some(_) => Ok(()),
            None => Err(Refused::new(format!("it has no operator {operator}"))),
        }
    })?;
    if !classical {
        return Err(Refused::new(format!("the graph has no operator of {}", operators::CLASSICAL)));
    }
    let model = Compiler::default().compile(onnx::read(path)?)?;
    model.try_once()?;
    Ok(model)
}

#[derive(Default)]
struct Compiler {
    places: HashMap<String, usize>,
    weights: Vec<Option<Array>>,
    labels: HashMap<String, Vec<String>>,
}

impl Compiler {
    fn compile(mut self, graph: Graph) -> Result<Model, Refused> {
        for (name, array) in graph.weights {
            self.place(name, Some(array))?;
        }
        let mut signature = Signature::default();
        let mut inputs = Vec::new();
        for (name, declared) in graph.inputs {
            if self.places.contains_key(&name) {
                continue;
            }
            inputs.push(self.place(name.clone(), None)?);
            let refused = |kind| Refused::new(format!("input `{name}` is {kind}"));
            signature.inputs.push(spec(name.clone(), declared).map_err(refused)?);
        }
        let mut steps = Vec::with_capacity(graph.nodes.len());
        for mut node in graph.nodes {
            node.opset = graph.opset;
            let first = node.inputs.first();
            node.double = first
                .and_then(|name| signature.input(name))
                .is_some_and(|spec| spec.datatype == Datatype::Fp64);
            steps.push(self.step(&node)?);
        }
        let (mut outputs, mut labels) = (Vec::new(), Vec::new());
        for (name, declared) in graph.outputs {
            let Some(spec) = self.output(&name, declared) else { continue };
            let place = self.places.get(&name).copied();
            outputs.push(place.ok_or_else(|| Refused::new(format!("output `{name}` is never made")))?);
            labels.push(self.labels.get(&name).cloned());
            signature.outputs.push(spec);
        }
        if outputs.is_empty() {
            return Err(Refused::new("it has no output that is a tensor"));
        }
        mark_done(&mut steps, &outputs);
        Ok(Model { signature, inputs, outputs, weights: self.weights, steps, labels })
    }

    fn place(&mut self, name: String, weight: Option<Array>) -> Result<usize, Refused> {
        let place = self.weights.len();
        if self.places.insert(name.clone(), place).is_some() {
            return Err(Refused::new(format!("`{name}` is made twice")));
        }
        self.weights.push(weight);
        Ok(place)
    }

    fn step(&mut self, node: &Node) -> Result<Step, Refused> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            let place = self.places.get(name).copied();
            if place.is_none() && !name.is_empty() {
                return Err(node.refuse(format!("its input `{name}` is made later or never")));
            }
            inputs.push(place.filter(|_| !name.is_empty()));
        }
        let build = operators::builder(&node.domain, &node.operator);
        let kernel = build.ok_or_else(|| node.refuse("is not done here"))?(node)?;
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for name in &node.outputs {
            outputs.push(if name.is_empty() { None } else { Some(self.place(name.clone(), None)?) });
        }
        if let Some((index, labels)) = operators::labels(node)
            && let Some(name) = node.outputs.get(index)
        {
            self.labels.insert(name.clone(), labels);
        }
        let what =
            format!("operator {} to `{}`", node.operator, node.outputs.first().map_or("", String::as_str));
        Ok(Step { what, kernel, inputs, outputs, done: Vec::new() })
    }

    /// How an output is declared: a list of maps with known labels as the table behind it.
    fn output(&self, name: &str, declared: Type) -> Option<TensorSpec> {
        match (declared, self.labels.get(name)) {
            (Type::Other(_), Some(labels)) => {
                let shape = Some(vec![-1, i64::try_from(labels.len()).unwrap_or(-1)]);
                Some(TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape })
            }
            (declared, _) => spec(name.into(), declared).ok(),
        }
    }
}

/// Finds after which step each value may go.
fn mark_done(steps: &mut [Step], outputs: &[usize]) {
    let mut needed: std::collections::HashSet<usize> = outputs.iter().copied().collect();
    for step in steps.iter_mut().rev() {
        let touched = step.inputs.iter().chain(&step.outputs).flatten();
        step.done = touched.copied().filter(|&place| needed.insert(place)).collect();
    }
}

impl Model {
    /// A run on one row of zeros finds what can't be told from the nodes alone.
    fn try_once(&self) -> Result<(), Refused> {
        let zeros = |spec: &TensorSpec| {
            let shape = spec.shape.clone().unwrap_or_default();
            let shape: Vec<usize> = shape.iter().map(|&size| usize::try_from(size).unwrap_or(1)).collect();
            let count = super::array::room(&shape)?;
            let data = match spec.datatype {
                Datatype::Fp32 => Data::F32(vec![0.0; count]),
                Datatype::Fp64 => Data::F64(vec![0.0; count]),
                Datatype::Int32 => Data::I32(vec![0; count]),
                Datatype::Int64 => Data::I64(vec![0; count]),
                Datatype::Bool => Data::Bool(vec![false; count]),
                Datatype::Bytes => Data::Text(vec![Bytes::new(); count]),
                other => return Err(Fault::unsupported(format!("{other} as an input"))),
            };
            Array::new(shape, data)
        };
        let inputs = self.signature.inputs.iter().map(zeros).collect::<Result<Vec<_>, _>>()?;
        let values = match self.compute(inputs) {
            Ok(values) => values,
            Err(Fault::Input(_)) => return Ok(()),
            Err(fault) => return Err(fault.into()),
        };
        for (spec, &place) in self.signature.outputs.iter().zip(&self.outputs) {
            let given = self.value(&values, place)?.datatype();
            if given != spec.datatype {
                let (name, declared) = (&spec.name, spec.datatype);
                return Err(Refused::new(format!("output `{name}` is {given} but declared as {declared}")));
            }
        }
        Ok(())
    }

    fn compute(&self, inputs: Vec<Array>) -> Result<Vec<Option<Array>>, Fault> {
        let mut values: Vec<Option<Array>> = Vec::new();
        values.resize_with(self.weights.len(), || None);
        for (&place, array) in self.inputs.iter().zip(inputs) {
            put(&mut values, place, array);
        }
        let mut made = 0_usize;
        for step in &self.steps {
            let argument = |place: &Option<usize>| place.map(|place| self.value(&values, place)).transpose();
            let arguments = Arguments(step.inputs.iter().map(argument).collect::<Result<_, _>>()?);
            let results = (step.kernel)(&arguments).map_err(|fault| match fault {
                Fault::Input(problem) => Fault::Input(format!("{problem} ({})", step.what)),
                Fault::Unsupported(what) => Fault::Unsupported(format!("{}: {what}", step.what)),
            })?;
            for (place, array) in step.outputs.iter().zip(results) {
                made = made.saturating_add(array.count());
                if let Some(place) = *place {
                    put(&mut values, place, array);
                }
            }
            if made > MAX_ELEMENTS {
                return Err(Fault::input(format!(
                    "makes the model compute more than {MAX_ELEMENTS} values; send fewer rows"
                )));
            }
            for &place in &step.done {
                if let Some(value) = values.get_mut(place) {
                    *value = None;
                }
            }
        }
        Ok(values)
    }

    fn value<'a>(&'a self, values: &'a [Option<Array>], place: usize) -> Result<&'a Array, Fault> {
        let of = |list: &'a [Option<Array>]| list.get(place).and_then(Option::as_ref);
        of(values).or_else(|| of(&self.weights)).ok_or_else(|| Fault::unsupported("a value is missing"))
    }

    fn give(&self, values: &mut [Option<Array>], name: &str) -> Result<Tensor, EngineError> {
        let missing = || EngineError::Output { output: name.into(), given: "nothing".into() };
        let at = self.signature.outputs.iter().position(|spec| spec.name == name).ok_or_else(missing)?;
        let (Some(spec), Some(&place)) = (self.signature.outputs.get(at), self.outputs.get(at)) else {
            return Err(missing());
        };
        let array = self.value(values, place).map_err(|_| missing())?.clone();
        if array.datatype() != spec.datatype {
            return Err(EngineError::Output { output: name.into(), given: array.datatype().to_string() });
        }
        array.into_tensor(name).map_err(EngineError::failed)
    }
}

fn put(values: &mut [Option<Array>], place: usize, array: Array) {
    if let Some(value) = values.get_mut(place) {
        *value = Some(array);
    }
}

impl LoadedModel for Model {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instances(&self) -> usize {
        usize::MAX
    }

    fn labels(&self, output: &str) -> Option<&[String]> {
        let at = self.signature.outputs.iter().position(|spec| spec.name == output)?;
        self.labels.get(at)?.as_deref()
    }

    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        let first = self.signature.inputs.first().map_or("", |spec| spec.name.as_str());
        let mut arrays = Vec::with_capacity(inputs.len());
        for spec in &self.signature.inputs {
            let tensor = inputs.iter().find(|tensor| tensor.name() == spec.name);
            let tensor =
                tensor.ok_or_else(|| EngineError::Failed(format!("input `{}` is missing", spec.name)))?;
            arrays.push(Array::from_tensor(tensor).map_err(|fault| fault.into_error(&spec.name))?);
        }
        let mut values = self.compute(arrays).map_err(|fault| fault.into_error(first))?;
        outputs.iter().map(|name| self.give(&mut values, name)).collect()
    }
}
