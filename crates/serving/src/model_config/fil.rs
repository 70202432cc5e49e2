//! What configurations of Triton's backend `fil` say of a model's output.

use inference::Fil;

use super::{ConfigError, ModelConfig};

/// The names that the backend gives to inputs and outputs.
const NAMES: [&str; 2] = ["input__0", "output__0"];

impl ModelConfig {
    /// What it gives where it is known by the names of that backend; `None` where it goes by its own.
    ///
    /// # Errors
    /// When a parameter is none.
    pub fn fil(&self) -> Result<Option<Fil>, ConfigError> {
        let mut named = self.input.iter().chain(&self.output);
        if self.backend != "fil" || !named.any(|tensor| NAMES.contains(&tensor.name.as_str())) {
            return Ok(None);
        }
        let threshold =
            self.said("threshold", |text| text.parse().ok().filter(|number: &f32| number.is_finite()))?;
        let (shares, class) = (self.said("predict_proba", truth)?, self.said("output_class", truth)?);
        Ok(Some(match (shares, class) {
            (Some(true), _) => Fil::Probabilities,
            (_, Some(true)) => Fil::Classes { threshold: threshold.unwrap_or(0.5) },
            _ => Fil::Scores,
        }))
    }

    fn said<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ConfigError> {
        let Some(parameter) = self.parameters.get(name) else { return Ok(None) };
        let value = parameter.string_value.trim();
        let wrong = || ConfigError::Parameter { name: name.into(), value: value.chars().take(64).collect() };
        read(value).map(Some).ok_or_else(wrong)
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_choose_what_is_given() {
        let read = |text: &str| ModelConfig::from_text(text.as_bytes()).unwrap().fil();
        let named = "backend: \"fil\" input { name: \"input__0\" data_type: TYPE_FP32 dims: [ 5 ] }";
        let with = |parameters: &[(&str, &str)]| {
            let line = |(key, value): &(&str, &str)| {
                format!(" parameters {{ key: \"{key}\" value {{ string_value: \"{value}\" }} }}")
            };
            read(&format!("{named}{}", parameters.iter().map(line).collect::<String>()))
        };
        assert_eq!(with(&[]), Ok(Some(Fil::Scores)));
        assert_eq!(
            with(&[("predict_proba", "true"), ("output_class", "true")]),
            Ok(Some(Fil::Probabilities))
        );
        assert_eq!(with(&[("output_class", "True")]), Ok(Some(Fil::Classes { threshold: 0.5 })));
        assert_eq!(
            with(&[("output_class", "1"), ("threshold", "0.25")]),
            Ok(Some(Fil::Classes { threshold: 0.25 }))
        );
        for (name, value) in [("threshold", "NaN"), ("threshold", "x"), ("predict_proba", "perhaps")] {
            let wrong = ConfigError::Parameter { name: name.into(), value: value.into() };
            assert_eq!(with(&[(name, value)]), Err(wrong));
        }
        assert_eq!(read("backend: \"fil\" input { name: \"input\" }"), Ok(None), "its own names");
        assert_eq!(read(&named.replace("\"fil\"", "\"onnxruntime\"")), Ok(None));
    }
}
