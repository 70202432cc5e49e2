//! What a model's owner says that it takes and gives, held against what it has.

use types::{DeclaredTensor, ElementType, ModelSignature};

use crate::{Datatype, LoadError, Signature, TensorSpec};

/// Refuses a model that doesn't have what is declared.
///
/// # Errors
/// The first thing that it doesn't have.
pub(crate) fn check(own: &Signature, declared: &ModelSignature) -> Result<(), LoadError> {
    let sides = [("input", &own.inputs, &declared.inputs), ("output", &own.outputs, &declared.outputs)];
    for (side, own, declared) in sides {
        for tensor in declared {
            let Some(spec) = own.iter().find(|spec| spec.name == tensor.name) else {
                let known: Vec<String> = own.iter().map(|spec| format!("`{}`", spec.name)).collect();
                let problem = format!("the model has no such {side}; it has {}", known.join(", "));
                return Err(LoadError::Declared { side, name: tensor.name.clone(), problem });
            };
            joined(side, spec, tensor)?;
        }
    }
    Ok(())
}

/// What is true of a tensor by the model and by its owner.
///
/// # Errors
/// When they contradict each other.
pub(crate) fn joined(
    side: &'static str,
    own: &TensorSpec,
    declared: &DeclaredTensor,
) -> Result<TensorSpec, LoadError> {
    let named = declared.datatype.map_or(own.datatype, datatype);
    let said = TensorSpec { name: own.name.clone(), datatype: named, shape: declared.shape.clone() };
    own.join(&said).ok_or_else(|| {
        let problem = format!("it is declared as {} but the model has {}", said.shown(), own.shown());
        LoadError::Declared { side, name: own.name.clone(), problem }
    })
}

fn datatype(declared: ElementType) -> Datatype {
    match declared {
        ElementType::Bool => Datatype::Bool,
        ElementType::Uint8 => Datatype::Uint8,
        ElementType::Uint16 => Datatype::Uint16,
        ElementType::Uint32 => Datatype::Uint32,
        ElementType::Uint64 => Datatype::Uint64,
        ElementType::Int8 => Datatype::Int8,
        ElementType::Int16 => Datatype::Int16,
        ElementType::Int32 => Datatype::Int32,
        ElementType::Int64 => Datatype::Int64,
        ElementType::Fp16 => Datatype::Fp16,
        ElementType::Fp32 => Datatype::Fp32,
        ElementType::Fp64 => Datatype::Fp64,
        ElementType::Bf16 => Datatype::Bf16,
        ElementType::Bytes => Datatype::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &str, datatype: Option<ElementType>, shape: Option<&[i64]>) -> ModelSignature {
        let tensor = DeclaredTensor { name: name.into(), datatype, shape: shape.map(<[i64]>::to_vec) };
        ModelSignature { inputs: vec![tensor], outputs: vec![] }
    }

    #[test]
    fn a_model_has_to_have_what_is_declared_and_may_have_more() {
        let spec = TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: Some(vec![-1, 4]) };
        let own = Signature { inputs: vec![spec.clone()], outputs: vec![spec] };
        for fits in [
            declared("x", None, None),
            declared("x", Some(ElementType::Fp32), None),
            declared("x", Some(ElementType::Fp32), Some(&[8, 4])),
            declared("x", None, Some(&[-1, -1])),
            ModelSignature::default(),
        ] {
            check(&own, &fits).unwrap();
        }
        let refusal = |declared: &ModelSignature| check(&own, declared).unwrap_err().to_string();
        assert_eq!(refusal(&declared("z", None, None)), "input `z`: the model has no such input; it has `x`");
        assert_eq!(
            refusal(&declared("x", Some(ElementType::Int64), None)),
            "input `x`: it is declared as INT64 of any shape but the model has FP32 [-1, 4]"
        );
        assert!(refusal(&declared("x", None, Some(&[-1, 3]))).contains("FP32 [-1, 3]"));
        assert!(refusal(&declared("x", None, Some(&[4]))).contains("FP32 [4]"));
    }
}
