//! Plain content as an input and readings as outputs, for every front and for ensembles: the input `picture` or `table`
//! (BYTES, one element) in the place of the model's own, and outputs such as `classes.labels` and `boxes.places`.

use types::EnsembleStep;

use super::Served;
use super::infer::{Answer, Model, Request};
use super::reading::aside;
use crate::steps::{Frame, Plain, StepError};
use crate::{Datatype, Error, InvalidInput, Signature, Tensor, TensorSpec};

const PICTURE: &str = "picture";
const TABLE: &str = "table";

/// What a request wants beside the model's own outputs.
struct Wanted {
    /// In the order asked for.
    outputs: Vec<String>,
    /// Of those, whether any is a reading's.
    reading: bool,
}

impl Served {
    /// The name under which it takes plain content.
    fn content_name(&self) -> Option<&'static str> {
        self.input_steps.as_ref().map(|steps| if steps.takes_pictures() { PICTURE } else { TABLE })
    }

    fn takes_content(&self, input: &str) -> bool {
        self.content_name() == Some(input) && self.model.signature().input(input).is_none()
    }

    fn is_reading(&self, output: &str) -> bool {
        let plain = output.starts_with("classes.") || output.starts_with("boxes.");
        plain && self.output_steps.is_some() && self.model.signature().output(output).is_none()
    }

    /// What a step of an ensemble may take and give: plain content and readings, too.
    pub fn signature_for(&self, step: &EnsembleStep) -> Signature {
        let mut signature = self.model.signature().clone();
        if let Some(name) = step.inputs.keys().find(|input| self.takes_content(input)) {
            let content = TensorSpec { name: name.clone(), datatype: Datatype::Bytes, shape: Some(vec![1]) };
            signature.inputs = vec![content];
        }
        let readings = self.output_steps.iter().flat_map(|steps| steps.specs());
        let new: Vec<_> = readings.filter(|spec| signature.output(&spec.name).is_none()).collect();
        signature.outputs.extend(new);
        signature
    }
}

impl Model {
    /// Whether a request is one of tensors alone.
    pub(super) fn is_of_tensors(&self, request: &Request) -> bool {
        let served = self.served();
        (served.input_steps.is_none() && served.output_steps.is_none())
            || !(request.inputs.iter().any(|input| served.takes_content(input.name()))
                || request.outputs.iter().any(|output| served.is_reading(output)))
    }

    /// Answers a request with plain content or for a reading.
    pub(super) async fn answer_plain(&self, mut request: Request) -> Result<Answer, Error> {
        let frame = self.read_content(&mut request).await?;
        let wanted = self.ask_for_needs(&mut request);
        let mut answer = self.answer_tensors(request).await?;
        if wanted.reading {
            let (model, outputs) = (self.clone(), std::mem::take(&mut answer.outputs));
            let read = move || {
                let steps = model.output_steps().ok_or_else(|| gone("postprocessing"))?;
                let reading = steps.read(&outputs, frame.as_ref())?;
                let tensors = steps.tensors(&reading)?;
                Ok::<_, StepError>(outputs.into_iter().chain(tensors).collect::<Vec<Tensor>>())
            };
            let all = aside(self.name(), read).await?;
            let named = |name: &String| all.iter().find(|tensor| tensor.name() == name).cloned();
            // A reading has the tensors that its specification lists; a stranger's name was refused.
            answer.outputs = wanted.outputs.iter().filter_map(named).collect();
        }
        Ok(answer)
    }

    /// Puts the model's own inputs in the place of plain content.
    async fn read_content(&self, request: &mut Request) -> Result<Option<Frame>, Error> {
        let content = request.inputs.iter().find(|input| self.served().takes_content(input.name()));
        let Some(content) = content else {
            return Ok(self.input_steps().and_then(|steps| steps.frame(&request.inputs)));
        };
        let invalid = |problem: &str| {
            let source = InvalidInput::Value { input: content.name().into(), problem: problem.into() };
            Error::Invalid { model: self.name().into(), source }
        };
        if request.inputs.len() > 1 {
            return Err(invalid("stands for all of the model's inputs; send it alone"));
        }
        if content.datatype() != Datatype::Bytes || content.count() != 1 {
            return Err(invalid("has to be one element of datatype BYTES: the content of one file"));
        }
        let bytes = content.strings().next().map(|bytes| content.data().slice_ref(bytes)).unwrap_or_default();
        let Some(steps) = self.input_steps() else { return Ok(None) };
        let plain = if steps.takes_pictures() { Plain::Picture(bytes) } else { Plain::Table(bytes) };
        let (inputs, frame) = self.read(steps, plain).await?;
        request.inputs = inputs;
        Ok(frame)
    }

    /// Asks for the outputs that a reading is made of, in its place.
    fn ask_for_needs(&self, request: &mut Request) -> Wanted {
        let outputs = request.outputs.clone();
        let known: Vec<TensorSpec> = self.output_steps().map(|steps| steps.specs()).unwrap_or_default();
        let is_known = |output: &String| {
            self.served().is_reading(output) && known.iter().any(|spec| spec.name == *output)
        };
        let reading = outputs.iter().any(is_known);
        if reading {
            request.outputs.retain(|output| !is_known(output));
            let needs = self.output_steps().map(|steps| steps.needs()).unwrap_or_default();
            let missing = needs.iter().filter(|name| !request.outputs.contains(name));
            let missing: Vec<String> = missing.cloned().collect();
            request.outputs.extend(missing);
        }
        Wanted { outputs, reading }
    }
}

fn gone(field: &str) -> StepError {
    StepError::Declaration { field: field.into(), problem: "is gone".into() }
}
