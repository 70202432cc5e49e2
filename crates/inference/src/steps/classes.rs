//! The likeliest classes of each sample.

use std::cmp::Ordering;

use types::{Activation, ClassesOutput};

use super::StepError;
use super::reading::Class;
use super::values::{find, floats, label};
use crate::{Signature, Tensor, TensorSpec};

/// Declared classes, fitted to a model's output.
#[derive(Clone, Debug)]
pub struct Classes {
    pub output: String,
    declared: ClassesOutput,
}

fn misfit(field: &str, problem: impl Into<String>) -> StepError {
    StepError::declaration(&format!("postprocessing.classes{field}"), problem)
}

impl Classes {
    pub fn compile(declared: &ClassesOutput, signature: &Signature) -> Result<Classes, StepError> {
        let names: Vec<String> = signature.outputs.iter().map(|spec| format!("`{}`", spec.name)).collect();
        let names = names.join(", ");
        let spec = match (&declared.output, signature.outputs.as_slice()) {
            (Some(name), _) => signature
                .output(name)
                .ok_or_else(|| misfit(".output", format!("is `{name}`; the model gives {names}")))?,
            (None, [only]) => only,
            (None, _) => return Err(misfit(".output", format!("is needed: the model gives {names}"))),
        };
        check_labels(declared, spec)?;
        Ok(Classes { output: spec.name.clone(), declared: declared.clone() })
    }

    /// Takes the names that the model has for its classes, if none are declared.
    pub fn name<'a>(&mut self, known: impl FnOnce(&str) -> Option<&'a [String]>) {
        if self.declared.labels.is_empty() {
            self.declared.labels = known(&self.output).unwrap_or_default().to_vec();
        }
    }

    pub fn labels(&self) -> Option<&[String]> {
        Some(self.declared.labels.as_slice()).filter(|labels| !labels.is_empty())
    }

    pub fn read(&self, outputs: &[Tensor]) -> Result<Vec<Vec<Class>>, StepError> {
        let tensor = find(outputs, &self.output)?;
        let classes = match tensor.shape() {
            &[classes] | &[_, classes] => classes,
            &[_, classes, ref ones @ ..] if ones.iter().all(|&one| one == 1) => classes,
            shape => {
                return Err(StepError::answer(
                    &self.output,
                    format!("has shape {shape:?}, not [samples, classes]"),
                ));
            }
        };
        let values = floats(tensor)?;
        Ok(values.chunks_exact(classes.max(1)).map(|sample| self.best(sample)).collect())
    }

    fn best(&self, values: &[f32]) -> Vec<Class> {
        let scores = activate(self.declared.activation, values);
        let is_wanted = |score: f32| score.is_finite() && f64::from(score) >= self.declared.score_threshold;
        let mut order: Vec<(usize, f32)> =
            scores.into_iter().enumerate().filter(|&(_, score)| is_wanted(score)).collect();
        let best_first = |a: &(usize, f32), b: &(usize, f32)| match b.1.total_cmp(&a.1) {
            Ordering::Equal => a.0.cmp(&b.0),
            other => other,
        };
        let most = self.declared.top_k as usize;
        if most < order.len() {
            order.select_nth_unstable_by(most, best_first);
            order.truncate(most);
        }
        order.sort_unstable_by(best_first);
        let class = |(index, score)| Class { label: label(&self.declared.labels, index), index, score };
        order.into_iter().map(class).collect()
    }
}

fn check_labels(declared: &ClassesOutput, spec: &TensorSpec) -> Result<(), StepError> {
    let dimension = spec.shape.as_ref().and_then(|shape| shape.get(1).or(shape.first()));
    let classes = dimension.and_then(|&classes| usize::try_from(classes).ok());
    match classes {
        Some(classes) if !declared.labels.is_empty() && declared.labels.len() != classes => {
            let problem = format!(
                "has {} names, but output `{}` has {classes} classes",
                declared.labels.len(),
                spec.name
            );
            Err(misfit(".labels", problem))
        }
        _ => Ok(()),
    }
}

fn activate(activation: Activation, values: &[f32]) -> Vec<f32> {
    match activation {
        Activation::None => values.to_vec(),
        Activation::Sigmoid => values.iter().map(|value| 1.0 / (1.0 + (-value).exp())).collect(),
        Activation::Softmax => {
            // The greatest value is taken off, so that no power overflows.
            let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = values.iter().map(|value| (value - greatest).exp()).collect();
            let sum: f32 = powers.iter().sum();
            powers.iter().map(|power| power / sum).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Datatype;

    fn read(declared: ClassesOutput, shape: &[usize], values: &[f32]) -> Vec<Vec<Class>> {
        let shape_of = |shape: &[usize]| shape.iter().map(|&size| size as i64).collect();
        let spec = TensorSpec { name: "y".into(), datatype: Datatype::Fp32, shape: Some(shape_of(shape)) };
        let signature = Signature { inputs: vec![], outputs: vec![spec] };
        let classes = Classes::compile(&declared, &signature).unwrap();
        classes.read(&[Tensor::from_vec("y", shape, values.to_vec()).unwrap()]).unwrap()
    }

    fn indices(sample: &[Class]) -> Vec<usize> {
        sample.iter().map(|class| class.index).collect()
    }

    #[test]
    fn the_best_come_first_and_equals_in_their_order() {
        let labels = ["a", "", "c", "d"].map(String::from).to_vec();
        let declared = ClassesOutput { top_k: 3, labels, ..ClassesOutput::default() };
        let samples = read(declared, &[2, 4], &[0.1, 0.4, 0.4, 0.1, 0.0, 0.0, f32::NAN, 1.0]);
        assert_eq!(indices(&samples[0]), [1, 2, 0]);
        assert_eq!(samples[0][1].label.as_deref(), Some("c"));
        assert_eq!(samples[0][0].label, None);
        assert_eq!(indices(&samples[1]), [3, 0, 1], "what is no number is no class");
    }

    #[test]
    fn softmax_sums_to_one_even_of_large_values() {
        let declared = ClassesOutput { activation: Activation::Softmax, ..ClassesOutput::default() };
        let samples = read(declared, &[3, 1, 1], &[1.0, 2.0, 3.0]);
        assert_eq!(samples.len(), 3);
        let declared = ClassesOutput { activation: Activation::Softmax, ..ClassesOutput::default() };
        let samples = read(declared, &[1, 3, 1, 1], &[1000.0, 1001.0, 1002.0]);
        let expected = [0.665_240_94, 0.244_728_48, 0.090_030_57];
        for (class, expected) in samples[0].iter().zip(expected) {
            assert!((class.score - expected).abs() < 1e-6, "{class:?}");
        }
    }

    #[test]
    fn sigmoid_lets_any_number_of_classes_be_right() {
        let declared = ClassesOutput {
            activation: Activation::Sigmoid,
            score_threshold: 0.5,
            ..ClassesOutput::default()
        };
        let samples = read(declared, &[3, 2], &[2.0, 3.0, -2.0, 1.0, -1.0, -1.0]);
        assert_eq!(
            samples.iter().map(|sample| indices(sample)).collect::<Vec<_>>(),
            [vec![1, 0], vec![1], vec![]]
        );
    }

    #[test]
    fn labels_that_do_not_fit_are_found_when_the_model_is_loaded() {
        let spec = TensorSpec { name: "y".into(), datatype: Datatype::Fp32, shape: Some(vec![-1, 3]) };
        let signature = Signature { inputs: vec![], outputs: vec![spec] };
        let declared = ClassesOutput { labels: vec!["a".into()], ..ClassesOutput::default() };
        let error = Classes::compile(&declared, &signature).unwrap_err().to_string();
        assert_eq!(
            error,
            "`serving.postprocessing.classes.labels` has 1 names, but output `y` has 3 classes"
        );
        let declared = ClassesOutput { output: Some("z".into()), ..ClassesOutput::default() };
        let error = Classes::compile(&declared, &signature).unwrap_err().to_string();
        assert_eq!(error, "`serving.postprocessing.classes.output` is `z`; the model gives `y`");
    }
}
