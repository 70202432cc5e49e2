//! Boosted trees under the names that Triton's backend `fil` gives them: `input__0` in, `output__0` out, FP32 both.

use std::sync::Arc;

use crate::{Datatype, EngineError, LoadError, LoadedModel, Signature, Tensor, TensorSpec};

const INPUT: &str = "input__0";
const OUTPUT: &str = "output__0";
const ENGINE: &str = "native";

/// Which of the model's numbers the only output has; what predicts no classes gives its predictions in any case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fil {
    /// The number of the class, one for each row. Of two classes it is the second where its share is beyond this.
    Classes { threshold: f32 },
    /// The share of each class.
    Probabilities,
    /// The share of the second of two classes, one for each row; else that of each class.
    Scores,
}

impl Fil {
    /// The model behind those names.
    ///
    /// # Errors
    /// When it isn't one table of numbers in, and one of predictions or class shares out.
    pub(crate) fn of(self, model: Arc<dyn LoadedModel>) -> Result<Arc<dyn LoadedModel>, LoadError> {
        let Signature { inputs, outputs } = model.signature();
        let is_table = |spec: &&TensorSpec| {
            spec.datatype == Datatype::Fp32 && spec.shape.as_ref().is_some_and(|shape| shape.len() == 2)
        };
        let table = outputs.iter().find(is_table);
        let ([input], Some(table), true) =
            (inputs.as_slice(), table, inputs.iter().all(|input| is_table(&input)))
        else {
            let reason =
                "the backend `fil` takes one FP32 table and gives another one, as models of XGBoost and \
                          LightGBM do; name the model's own inputs and outputs instead"
                    .into();
            return Err(LoadError::Engine { engine: ENGINE, reason });
        };
        let width = table.shape.as_ref().and_then(|shape| shape.last()).copied().unwrap_or(-1);
        let classifies = outputs.len() > 1;
        let gives = if classifies { self } else { Fil::Probabilities };
        let columns = match gives {
            Fil::Classes { .. } => 1,
            Fil::Scores if width == 2 => 1,
            Fil::Probabilities | Fil::Scores => width,
        };
        let spec = |name: &str, shape| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape };
        let signature = Signature {
            inputs: vec![spec(INPUT, input.shape.clone())],
            outputs: vec![spec(OUTPUT, Some(vec![-1, columns]))],
        };
        let (input, table) = (input.name.clone(), table.name.clone());
        Ok(Arc::new(View { model, signature, input, table, gives }))
    }
}

struct View {
    model: Arc<dyn LoadedModel>,
    signature: Signature,
    /// The model's own names.
    input: String,
    table: String,
    gives: Fil,
}

impl LoadedModel for View {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn instances(&self) -> usize {
        self.model.instances()
    }

    fn runs_on_caller(&self) -> bool {
        self.model.runs_on_caller()
    }

    fn waits(&self) -> bool {
        self.model.waits()
    }

    fn outside_memory(&self) -> u64 {
        self.model.outside_memory()
    }

    fn run(&self, inputs: &[Tensor], outputs: &[&str]) -> Result<Vec<Tensor>, EngineError> {
        let renamed = |tensor: &Tensor, name: &str| {
            let (shape, data) = (tensor.shape().to_vec(), tensor.data().clone());
            Tensor::from_bytes(name, tensor.datatype(), shape, data).map_err(EngineError::failed)
        };
        let own: Vec<Tensor> =
            inputs.iter().map(|tensor| renamed(tensor, &self.input)).collect::<Result<_, _>>()?;
        let given = self.model.run(&own, &[&self.table])?;
        let missing = || EngineError::Output { output: self.table.clone(), given: "nothing".into() };
        let table = given.first().ok_or_else(missing)?;
        let width = table.shape().last().copied().unwrap_or(1).max(1);
        let given = match self.gives {
            Fil::Scores if width == 2 => column(table, |row| row.last().copied().unwrap_or(0.0))?,
            Fil::Classes { threshold } => column(table, |row| class(row, threshold))?,
            Fil::Probabilities | Fil::Scores => renamed(table, OUTPUT)?,
        };
        Ok(outputs.iter().map(|_| given.clone()).collect())
    }
}

/// One number for each row.
fn column(table: &Tensor, number: impl Fn(&[f32]) -> f32) -> Result<Tensor, EngineError> {
    let rows = table.elements::<f32>().map_err(EngineError::failed)?;
    let width = table.shape().last().copied().unwrap_or(1).max(1);
    let numbers: Vec<f32> = rows.chunks_exact(width).map(number).collect();
    Tensor::from_vec(OUTPUT, [numbers.len(), 1], numbers).map_err(EngineError::failed)
}

#[expect(clippy::cast_precision_loss, reason = "there are at most 65,536 classes")]
fn class(row: &[f32], threshold: f32) -> f32 {
    if let [_, second] = row {
        return f32::from(u8::from(*second > threshold));
    }
    let best = row.iter().enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or(0.0, |(class, _)| class as f32)
}
