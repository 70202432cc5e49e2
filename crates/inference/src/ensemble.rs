//! Several models as one: what its steps take from each other, checked against the models before it serves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use types::{Ensemble, EnsembleStep};

use crate::{EngineError, LoadedModel, Signature, Tensor, TensorSpec};

/// What is wrong with an ensemble; each message says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnsembleError {
    #[error("it has no {0}; an ensemble needs inputs, steps and outputs")]
    Empty(&'static str),
    #[error("it has {given} {what}; at most {limit} are possible")]
    TooMany { what: &'static str, given: usize, limit: usize },
    #[error("two steps are named `{step}`; name one of them otherwise")]
    SameStep { step: String },
    #[error("tensor `{tensor}` is given by {first} and by {second}; name one of them otherwise")]
    SameTensor { tensor: String, first: Giver, second: Giver },
    #[error(
        "step `{step}` takes tensor `{tensor}`, which is neither an input of the ensemble nor given by a step"
    )]
    UnknownTensor { step: String, tensor: String },
    #[error("step `{step}`: {problem}")]
    Member { step: String, problem: String },
    #[error("step `{step}`: model `{model}` has no {what} `{name}`; it has {known}")]
    UnknownName { step: String, model: String, what: &'static str, name: String, known: String },
    #[error("step `{step}`: input `{input}` of model `{model}` gets no tensor")]
    MissingInput { step: String, model: String, input: String },
    #[error("tensor `{tensor}`, given by {giver} as {given}, doesn't fit step `{step}`, which takes {taken}")]
    Mismatch { tensor: String, giver: Giver, given: String, step: String, taken: String },
    #[error("no step takes input `{input}` of the ensemble; leave it out, or map it")]
    UnusedInput { input: String },
    #[error("no step gives output `{output}` of the ensemble")]
    UnknownOutput { output: String },
    #[error("steps {0} wait for each other; an ensemble's steps can't go in a circle")]
    Circle(String),
    #[error("ensembles can't use each other in a circle: {0}")]
    Nested(String),
    #[error("an ensemble has no {0} of its own; set it on the models of its steps")]
    NotItsOwn(&'static str),
}

/// Where a tensor comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Giver {
    /// The request.
    Request,
    /// The step of this name.
    Step(String),
}

impl fmt::Display for Giver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Giver::Request => f.write_str("the request"),
            Giver::Step(step) => write!(f, "step `{step}`"),
        }
    }
}

/// Most inputs, outputs and steps of an ensemble, and most inputs or outputs of a step.
const MOST: usize = 64;

/// Where a step or the answer has a tensor from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// This one of the request's inputs, in the signature's order.
    Input(usize),
    /// This one of a step's outputs.
    Step { step: usize, output: usize },
}

/// A step, with names turned into places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedStep {
    pub name: String,
    pub model: String,
    pub version: Option<String>,
    /// The model's input and what it gets.
    pub inputs: Vec<(String, Source)>,
    /// The model's outputs that are asked for.
    pub outputs: Vec<String>,
}

/// An ensemble that fits together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub signature: Signature,
    pub steps: Vec<PlannedStep>,
    /// Where each output comes from, in the signature's order.
    pub outputs: Vec<Source>,
}

/// Checks what can be checked without the models, and gives their names.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check(ensemble: &Ensemble) -> Result<(), EnsembleError> {
    let Ensemble { inputs, steps, outputs } = ensemble;
    for (what, given) in [("inputs", inputs.len()), ("steps", steps.len()), ("outputs", outputs.len())] {
        bounded(what, given)?;
    }
    let mut names = BTreeSet::new();
    for EnsembleStep { name, inputs, outputs, .. } in steps {
        if !names.insert(name) {
            return Err(EnsembleError::SameStep { step: name.clone() });
        }
        bounded("inputs of a step", inputs.len())?;
        bounded("outputs of a step", outputs.len())?;
    }
    Ok(())
}

fn bounded(what: &'static str, given: usize) -> Result<(), EnsembleError> {
    match given {
        0 => Err(EnsembleError::Empty(what)),
        1..=MOST => Ok(()),
        given => Err(EnsembleError::TooMany { what, given, limit: MOST }),
    }
}

/// Puts steps together. `members` are their models' signatures, in the steps' order.
///
/// # Errors
/// The first thing that doesn't fit.
pub(crate) fn plan(ensemble: &Ensemble, members: &[&Signature]) -> Result<Plan, EnsembleError> {
    check(ensemble)?;
    let givers = givers(ensemble)?;
    let steps = ensemble.steps.iter().zip(members);
    let planned: Vec<PlannedStep> =
        steps.clone().map(|(step, member)| plan_step(step, member, &givers)).collect::<Result<_, _>>()?;
    refuse_circles(&planned)?;
    let mut inputs: Vec<Option<TensorSpec>> = vec![None; ensemble.inputs.len()];
    for ((step, member), planned) in steps.zip(&planned) {
        for (name, source) in &planned.inputs {
            let Some(taken) = member.input(name) else { continue };
            let tensor = step.inputs.get(name).cloned().unwrap_or_default();
            let given = match source {
                Source::Input(place) => inputs.get(*place).cloned().flatten(),
                Source::Step { step, output } => {
                    output_of(&planned_output(ensemble, *step, *output), members, *step)
                }
            };
            let joint = given.as_ref().map_or_else(|| Some(taken.clone()), |given| given.join(taken));
            let Some(joint) = joint else {
                let giver =
                    givers.get(tensor.as_str()).map_or(Giver::Request, |source| giver(ensemble, *source));
                let given = given.as_ref().unwrap_or(taken).shown();
                let (taken, step) = (taken.shown(), step.name.clone());
                return Err(EnsembleError::Mismatch { tensor, giver, given, step, taken });
            };
            if let Source::Input(place) = source
                && let Some(known) = inputs.get_mut(*place)
            {
                *known = Some(TensorSpec { name: tensor, ..joint });
            }
        }
    }
    let unused = inputs.iter().zip(&ensemble.inputs).find(|(spec, _)| spec.is_none());
    if let Some((_, input)) = unused {
        return Err(EnsembleError::UnusedInput { input: input.clone() });
    }
    let outputs = ensemble.outputs.iter().map(|name| {
        let unknown = || EnsembleError::UnknownOutput { output: name.clone() };
        let source = *givers.get(name.as_str()).ok_or_else(unknown)?;
        let Source::Step { step, output } = source else { return Err(unknown()) };
        let spec = output_of(&planned_output(ensemble, step, output), members, step).ok_or_else(unknown)?;
        Ok((source, TensorSpec { name: name.clone(), ..spec }))
    });
    let (sources, outputs) = outputs.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let inputs = inputs.into_iter().flatten().collect();
    Ok(Plan { signature: Signature { inputs, outputs }, steps: planned, outputs: sources })
}

/// Who gives each tensor.
fn givers(ensemble: &Ensemble) -> Result<BTreeMap<&str, Source>, EnsembleError> {
    let of_request = ensemble.inputs.iter().enumerate().map(|(place, name)| (name, Source::Input(place)));
    let of_steps = ensemble.steps.iter().enumerate().flat_map(|(step, declared)| {
        let given = declared.outputs.values().enumerate();
        given.map(move |(output, name)| (name, Source::Step { step, output }))
    });
    let mut givers = BTreeMap::new();
    for (name, source) in of_request.chain(of_steps) {
        if let Some(first) = givers.insert(name.as_str(), source) {
            let (first, second) = (giver(ensemble, first), giver(ensemble, source));
            return Err(EnsembleError::SameTensor { tensor: name.clone(), first, second });
        }
    }
    Ok(givers)
}

fn giver(ensemble: &Ensemble, source: Source) -> Giver {
    match source {
        Source::Input(_) => Giver::Request,
        Source::Step { step, .. } => {
            Giver::Step(ensemble.steps.get(step).map(|step| step.name.clone()).unwrap_or_default())
        }
    }
}

fn plan_step(
    step: &EnsembleStep,
    member: &Signature,
    givers: &BTreeMap<&str, Source>,
) -> Result<PlannedStep, EnsembleError> {
    let EnsembleStep { name, model, version, inputs, outputs } = step;
    let unknown = |what, wanted: &str, known: &[TensorSpec]| EnsembleError::UnknownName {
        step: name.clone(),
        model: model.clone(),
        what,
        name: wanted.to_owned(),
        known: listed(known.iter().map(|spec| spec.name.as_str())),
    };
    if let Some(stranger) = inputs.keys().find(|input| member.input(input).is_none()) {
        return Err(unknown("input", stranger, &member.inputs));
    }
    if let Some(stranger) = outputs.keys().find(|output| member.output(output).is_none()) {
        return Err(unknown("output", stranger, &member.outputs));
    }
    if let Some(missing) = member.inputs.iter().find(|spec| !inputs.contains_key(&spec.name)) {
        let (step, model, input) = (name.clone(), model.clone(), missing.name.clone());
        return Err(EnsembleError::MissingInput { step, model, input });
    }
    let inputs = inputs.iter().map(|(input, tensor)| match givers.get(tensor.as_str()) {
        Some(source) => Ok((input.clone(), *source)),
        None => Err(EnsembleError::UnknownTensor { step: name.clone(), tensor: tensor.clone() }),
    });
    Ok(PlannedStep {
        name: name.clone(),
        model: model.clone(),
        version: version.clone(),
        inputs: inputs.collect::<Result<_, _>>()?,
        outputs: outputs.keys().cloned().collect(),
    })
}

/// The name of a step's output in its model.
fn planned_output(ensemble: &Ensemble, step: usize, output: usize) -> String {
    let step = ensemble.steps.get(step);
    step.and_then(|step| step.outputs.keys().nth(output)).cloned().unwrap_or_default()
}

fn output_of(name: &str, members: &[&Signature], step: usize) -> Option<TensorSpec> {
    members.get(step)?.output(name).cloned()
}

fn refuse_circles(steps: &[PlannedStep]) -> Result<(), EnsembleError> {
    let mut done: BTreeSet<usize> = BTreeSet::new();
    loop {
        let ready = |step: &PlannedStep| {
            step.inputs.iter().all(|(_, source)| match source {
                Source::Input(_) => true,
                Source::Step { step, .. } => done.contains(step),
            })
        };
        let next: Vec<usize> =
            (0..steps.len()).filter(|at| !done.contains(at) && steps.get(*at).is_some_and(ready)).collect();
        if next.is_empty() {
            break;
        }
        done.extend(next);
    }
    let left = steps.iter().enumerate().filter(|(at, _)| !done.contains(at));
    let left: Vec<&str> = left.map(|(_, step)| step.name.as_str()).collect();
    if left.is_empty() { Ok(()) } else { Err(EnsembleError::Circle(listed(left.into_iter()))) }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { "none".into() } else { quoted.join(", ") }
}

impl Plan {
    /// The steps that these outputs need, in the signature's order of outputs.
    pub fn needed(&self, outputs: &[String]) -> BTreeSet<usize> {
        let named = self.signature.outputs.iter().zip(&self.outputs);
        let wanted = named.filter(|(spec, _)| outputs.contains(&spec.name)).map(|(_, source)| *source);
        let mut open: Vec<Source> = wanted.collect();
        let mut needed = BTreeSet::new();
        while let Some(source) = open.pop() {
            if let Source::Step { step, .. } = source
                && needed.insert(step)
            {
                let inputs = self.steps.get(step).map(|step| step.inputs.as_slice()).unwrap_or_default();
                open.extend(inputs.iter().map(|(_, source)| *source));
            }
        }
        needed
    }
}

/// Stands where a loaded model does: an ensemble has a signature and labels, and runs by its steps.
pub(crate) struct Facade {
    pub signature: Signature,
    /// By output.
    pub labels: BTreeMap<String, Vec<String>>,
    pub instances: usize,
}

impl LoadedModel for Facade {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn labels(&self, output: &str) -> Option<&[String]> {
        self.labels.get(output).map(Vec::as_slice)
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn run(&self, _: &[Tensor], _: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        Err(EngineError::Failed("an ensemble has no engine of its own".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Datatype;

    fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: Some(shape.to_vec()) }
    }

    fn member(input: &[i64], output: &[i64]) -> Signature {
        Signature {
            inputs: vec![spec("x", Datatype::Fp32, input)],
            outputs: vec![spec("y", Datatype::Fp32, output)],
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, tensor)| ((*name).to_owned(), (*tensor).to_owned())).collect()
    }

    fn step(name: &str, from: &str, to: &str) -> EnsembleStep {
        let (inputs, outputs) = (pairs(&[("x", from)]), pairs(&[("y", to)]));
        EnsembleStep { name: name.into(), model: format!("m-{name}"), version: None, inputs, outputs }
    }

    fn ensemble(steps: &[EnsembleStep], outputs: &[&str]) -> Ensemble {
        let outputs = outputs.iter().map(|output| (*output).to_owned()).collect();
        Ensemble { inputs: vec!["in".into()], steps: steps.to_vec(), outputs }
    }

    #[test]
    fn dimensions_that_one_side_leaves_open_are_those_of_the_other() {
        let steps = [step("a", "in", "mid"), step("b", "in", "end"), step("c", "mid", "out")];
        let (any, four) = (member(&[-1, -1], &[-1, 3]), member(&[-1, 4], &[1]));
        let planned = plan(&ensemble(&steps, &["out", "end"]), &[&any, &four, &any]).unwrap();
        assert_eq!(planned.signature.inputs, [spec("in", Datatype::Fp32, &[-1, 4])]);
        assert_eq!(
            planned.signature.outputs,
            [spec("out", Datatype::Fp32, &[-1, 3]), spec("end", Datatype::Fp32, &[1])]
        );
        assert_eq!(planned.needed(&["end".into()]), BTreeSet::from([1]));
        assert_eq!(planned.needed(&["out".into()]), BTreeSet::from([0, 2]));
    }

    #[test]
    fn what_does_not_fit_together_is_told_where() {
        let any = member(&[-1, 4], &[-1, 4]);
        let told =
            |ensemble: &Ensemble, members: &[&Signature]| plan(ensemble, members).unwrap_err().to_string();
        let one = |step: EnsembleStep, outputs: &[&str]| ensemble(&[step], outputs);
        let mut stranger = step("a", "in", "out");
        stranger.inputs = pairs(&[("z", "in")]);
        let mut missing = step("a", "in", "out");
        missing.outputs = pairs(&[("q", "out")]);
        for (ensemble, message) in [
            (one(step("a", "in", "out"), &["nope"]), "no step gives output `nope` of the ensemble"),
            (one(step("a", "in", "out"), &["in"]), "no step gives output `in` of the ensemble"),
            (
                one(step("a", "typo", "out"), &["out"]),
                "step `a` takes tensor `typo`, which is neither an input of the ensemble nor given by a step",
            ),
            (one(stranger, &["out"]), "step `a`: model `m-a` has no input `z`; it has `x`"),
            (one(missing, &["out"]), "step `a`: model `m-a` has no output `q`; it has `y`"),
            (
                one(step("a", "in", "in"), &["in"]),
                "tensor `in` is given by the request and by step `a`; name one of them otherwise",
            ),
        ] {
            assert_eq!(told(&ensemble, &[&any]), message);
        }
        let circle = ensemble(&[step("s", "in", "out"), step("a", "b", "a"), step("b", "a", "b")], &["out"]);
        assert_eq!(
            told(&circle, &[&any, &any, &any]),
            "steps `a`, `b` wait for each other; an ensemble's steps can't go in a circle"
        );
        let chain = ensemble(&[step("a", "in", "mid"), step("b", "mid", "out")], &["out"]);
        assert_eq!(
            told(&chain, &[&any, &member(&[-1, 3], &[1])]),
            "tensor `mid`, given by step `a` as FP32 [-1, 4], doesn't fit step `b`, which takes FP32 [-1, 3]"
        );
        let other = Signature { inputs: vec![spec("x", Datatype::Int64, &[-1, 4])], ..any.clone() };
        assert!(told(&chain, &[&any, &other]).contains("which takes INT64 [-1, 4]"));
        let same = ensemble(&[step("a", "in", "x"), step("a", "in", "out")], &["out"]);
        assert_eq!(told(&same, &[&any, &any]), "two steps are named `a`; name one of them otherwise");
        let both = ensemble(&[step("a", "in", "out"), step("b", "in", "c")], &["out"]);
        assert!(told(&both, &[&any, &member(&[2], &[2])]).contains("given by the request as FP32 [-1, 4]"));
        let mut unused = ensemble(&[step("a", "in", "out")], &["out"]);
        unused.inputs.push("idle".into());
        assert!(told(&unused, &[&any]).starts_with("no step takes input `idle`"));
        assert_eq!(
            told(&Ensemble { steps: vec![], ..unused }, &[]),
            "it has no steps; an ensemble needs inputs, steps and outputs"
        );
    }
}
