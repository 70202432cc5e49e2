//! `values`: JSON lists without the batch dimension to tensors, and back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::StatusCode;
use inference::{Datatype, Limits, Signature, Tensor, TensorSpec};
use serde_json::Value;
use serde_json::value::RawValue;

use super::reply::Reply;
use crate::{data, encode};

/// Deepest nesting of `values`.
const MAX_DEPTH: usize = 32;

/// A model's inputs.
#[derive(Debug, PartialEq)]
pub(super) struct Inputs {
    pub tensors: Vec<Tensor>,
    /// Whether the client gave the batch dimension, and so expects one in the answer.
    pub batched: bool,
}

/// Reads `values`: a list for a model of one input, or an object of lists by the inputs' names.
///
/// # Errors
/// When they don't fit the model.
pub(super) fn read(json: &str, signature: &Signature, limits: Limits) -> Result<Inputs, Reply> {
    let named: BTreeMap<Cow<'_, str>, &RawValue>;
    let given: Vec<(&TensorSpec, &str)> = if json.starts_with('{') {
        named = serde_json::from_str(json).map_err(|_| Reply::bad_request())?;
        let spec = |name: &str| signature.input(name).ok_or_else(|| not_the_inputs(signature));
        let pairs = named.iter().map(|(name, values)| Ok((spec(name)?, values.get())));
        pairs.collect::<Result<_, Reply>>()?
    } else {
        let [spec] = signature.inputs.as_slice() else { return Err(not_the_inputs(signature)) };
        vec![(spec, json)]
    };
    let mut inputs = Inputs { tensors: Vec::with_capacity(given.len()), batched: false };
    for (spec, json) in given {
        let (tensor, batched) = tensor(spec, json, limits)?;
        inputs.tensors.push(tensor);
        inputs.batched |= batched;
    }
    Ok(inputs)
}

fn not_the_inputs(signature: &Signature) -> Reply {
    let names: Vec<String> =
        signature.inputs.iter().map(|spec| format!("\"{}\": [...]", spec.name)).collect();
    let text = format!("The model takes {{{}}}; send an object like this as `values`", names.join(", "));
    Reply::unprocessable(text).without_values()
}

fn tensor(spec: &TensorSpec, json: &str, limits: Limits) -> Result<(Tensor, bool), Reply> {
    let refused = |text: String| Reply::unprocessable(text).without_values();
    let name = &spec.name;
    let List { shape: given, quoted, words } =
        List::of(json).map_err(|problem| refused(format!("The values of input `{name}` {problem}")))?;
    let (shape, batched) = place(spec, &given).ok_or_else(|| misfit(spec, &given))?;
    let count = shape.iter().fold(1_usize, |product, &size| product.saturating_mul(size));
    if count > limits.elements {
        let text = format!("The values of input `{name}` are {count}, over the limit of {}", limits.elements);
        return Err(Reply::new(StatusCode::PAYLOAD_TOO_LARGE, text).without_values());
    }
    // Numbers may come as strings, as in tables that were read as text.
    let unquoted = quoted && !words && spec.datatype != Datatype::Bytes;
    let json: Cow<'_, str> = if unquoted { json.replace('"', "").into() } else { json.into() };
    let tensor =
        data::read(name, spec.datatype, &shape, &json).map_err(|error| refused(error.to_string()))?;
    Ok((tensor, batched))
}

/// The tensor's shape, and whether the batch dimension was given.
fn place(spec: &TensorSpec, given: &[usize]) -> Option<(Vec<usize>, bool)> {
    let sample = [&[1], given].concat();
    let rank = spec.shape.as_ref().map(Vec::len);
    if spec.accepts(&sample) && rank != Some(given.len()) {
        return Some((sample, false));
    }
    spec.accepts(given).then(|| (given.to_vec(), true))
}

/// For values of another shape; MLBuffet says so in NumPy's words.
pub(super) fn misfit(spec: &TensorSpec, given: &[usize]) -> Reply {
    let batch = spec.shape.as_deref().unwrap_or_default();
    let sample = batch.get(1..).unwrap_or_default();
    let text = format!(
        "Values of shape {given:?} don't fit input `{}`: send {sample:?} for one sample or {batch:?} for a batch, \
         where -1 stands for any size",
        spec.name
    );
    let theirs = format!("axis {} is out of bounds for array of dimension {}", batch.len(), given.len());
    let reply = Reply::unprocessable(text).without_values();
    reply.theirs_in_body(StatusCode::INTERNAL_SERVER_ERROR).theirs_says(theirs)
}

/// What a nested list looks like.
#[derive(Debug, PartialEq)]
struct List {
    shape: Vec<usize>,
    /// Whether there are strings.
    quoted: bool,
    /// Whether there are strings that aren't numbers.
    words: bool,
}

impl List {
    /// Looks at valid JSON, without recursion.
    fn of(json: &str) -> Result<List, String> {
        let (mut list, mut open) = (List { shape: vec![], quoted: false, words: false }, Vec::<usize>::new());
        let (mut sizes, mut leaves) = (Vec::<Option<usize>>::new(), None);
        let (bytes, mut at) = (json.as_bytes(), 0);
        while let Some(&byte) = bytes.get(at) {
            let end = match byte {
                b',' | b' ' | b'\t' | b'\n' | b'\r' => {
                    at += 1;
                    continue;
                }
                b'[' => {
                    count(&mut open);
                    open.push(0);
                    if open.len() > MAX_DEPTH {
                        return Err(format!("nest deeper than {MAX_DEPTH} levels"));
                    }
                    if sizes.len() < open.len() {
                        sizes.push(None);
                    }
                    at += 1;
                    continue;
                }
                b']' => {
                    let size = open.pop().unwrap_or_default();
                    let level = sizes.get_mut(open.len());
                    if level.is_some_and(|known| *known.get_or_insert(size) != size) {
                        return Err("are lists of different lengths side by side".into());
                    }
                    at += 1;
                    continue;
                }
                b'{' => return Err("hold an object; send numbers or texts".into()),
                b'"' => data::end_of_string(bytes, at),
                _ => data::end_of_scalar(bytes, at),
            };
            count(&mut open);
            if *leaves.get_or_insert(open.len()) != open.len() {
                return Err("mix values and lists".into());
            }
            if byte == b'"' {
                list.quoted = true;
                let text = bytes.get(at + 1..end.saturating_sub(1)).unwrap_or_default();
                let number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                list.words |= text.is_empty() || !text.iter().all(number);
            }
            at = end;
        }
        if leaves.is_some_and(|depth| depth != sizes.len()) {
            return Err("mix values and lists".into());
        }
        list.shape = sizes.into_iter().map(Option::unwrap_or_default).collect();
        Ok(list)
    }
}

/// One more member of the innermost list.
fn count(open: &mut [usize]) {
    if let Some(size) = open.last_mut() {
        *size += 1;
    }
}

/// An output as nested lists. Where the client gave no batch dimension, there is none; a lone value stays in a list.
///
/// # Errors
/// When it holds bytes that are no text.
pub(super) fn write(output: &Tensor, batched: bool) -> Result<Value, Reply> {
    let failed = |problem: String| Reply::new(StatusCode::INTERNAL_SERVER_ERROR, problem);
    let mut json = Vec::new();
    encode::write_data(&mut json, output).map_err(|error| Reply::unprocessable(error.message()))?;
    let flat: Vec<Value> = serde_json::from_slice(&json).map_err(|error| failed(error.to_string()))?;
    let shape = match output.shape() {
        [1, sample @ ..] if !batched && !sample.is_empty() => sample,
        [] => &[1],
        shape => shape,
    };
    Ok(nest(shape, &mut flat.into_iter()))
}

/// Recursion as deep as a tensor has dimensions, which engines keep small.
fn nest(shape: &[usize], flat: &mut dyn Iterator<Item = Value>) -> Value {
    match shape {
        [] => flat.next().unwrap_or_default(),
        [size, rest @ ..] => (0..*size).map(|_| nest(rest, &mut *flat)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype, shape: Some(shape.to_vec()) }
    }

    fn read_one(datatype: Datatype, shape: &[i64], json: &str) -> Result<Inputs, Reply> {
        let signature = Signature { inputs: vec![spec("x", datatype, shape)], outputs: vec![] };
        read(json, &signature, Limits::default())
    }

    #[test]
    fn a_sample_gets_a_batch_dimension_and_a_batch_keeps_its_own() {
        for (json, shape, batched) in [
            ("[1, 2]", vec![1, 2], false),
            ("[[1, 2]]", vec![1, 2], true),
            ("[[1, 2], [3, 4], [5, 6]]", vec![3, 2], true),
            (r#"["1", "2.5e0"]"#, vec![1, 2], false),
        ] {
            let inputs = read_one(Datatype::Fp32, &[-1, 2], json).unwrap();
            assert_eq!((inputs.tensors[0].shape(), inputs.batched), (shape.as_slice(), batched), "{json}");
        }
        assert_eq!(read_one(Datatype::Int64, &[-1], "[1, 2, 3]").unwrap().tensors[0].shape(), [3]);
        assert_eq!(
            read_one(Datatype::Fp32, &[1, 3, 1, 1], "[[[1]],[[2]],[[3]]]").unwrap().tensors[0].count(),
            3
        );
    }

    #[test]
    fn strings_are_texts_only_where_the_model_takes_texts() {
        let texts = read_one(Datatype::Bytes, &[-1, 1], r#"["5.1"]"#).unwrap();
        assert_eq!(texts.tensors[0].strings().next(), Some(b"5.1".as_slice()));
        for refused in [r#"["five"]"#, r#"[""]"#, r#"["1,2"]"#, r#"["1]"]"#] {
            assert!(read_one(Datatype::Fp32, &[-1, 1], refused).is_err(), "{refused}");
        }
        assert!(read_one(Datatype::Bytes, &[-1, 1], "[5.1]").is_err(), "a number is no text");
    }

    #[test]
    fn what_is_no_even_list_is_refused() {
        for refused in
            ["[1]", "[1,2,3]", "[]", "[[1,2],[3]]", "[[1,2],3]", "[[],1]", "[{\"a\":1}]", "[[[1,2]]]"]
        {
            assert!(read_one(Datatype::Fp32, &[-1, 2], refused).is_err(), "{refused}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read_one(Datatype::Fp32, &[-1, 2], &deep).is_err());
    }

    #[test]
    fn several_inputs_come_by_name() {
        let inputs = vec![spec("a", Datatype::Fp32, &[1, 2]), spec("b", Datatype::Int64, &[1, 1])];
        let signature = Signature { inputs, outputs: vec![] };
        let given = read(r#"{"b": [7], "a": [1, 2]}"#, &signature, Limits::default()).unwrap();
        let names: Vec<&str> = given.tensors.iter().map(Tensor::name).collect();
        assert_eq!(names, ["a", "b"]);
        for refused in ["[1, 2]", r#"{"z": [1]}"#] {
            assert!(read(refused, &signature, Limits::default()).is_err());
        }
    }

    #[test]
    fn outputs_lose_the_batch_dimension_unless_it_was_given() {
        let matrix = |rows: usize| Tensor::from_vec("y", [rows, 2], vec![1_i64; rows * 2]).unwrap();
        assert_eq!(write(&matrix(1), false).unwrap(), json!([1, 1]));
        assert_eq!(write(&matrix(1), true).unwrap(), json!([[1, 1]]));
        assert_eq!(write(&matrix(2), true).unwrap(), json!([[1, 1], [1, 1]]));
        let label = Tensor::from_vec("y", [1], vec![0_i64]).unwrap();
        assert_eq!(write(&label, false).unwrap(), json!([0]));
        let scalar = Tensor::from_vec("y", [], vec![0.1_f32]).unwrap();
        assert_eq!(write(&scalar, false).unwrap(), json!([0.1]));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<i8>().prop_map(Value::from), any::<String>().prop_map(Value::from)];
        leaf.prop_recursive(4, 32, 4, |item| prop::collection::vec(item, 0..4).prop_map(Value::from))
    }

    /// The shape of a list whose parts agree.
    fn shape(value: &Value) -> Option<Vec<usize>> {
        let Value::Array(items) = value else { return Some(vec![]) };
        let mut shapes = items.iter().map(shape);
        let first = shapes.next().unwrap_or(Some(vec![]))?;
        shapes.all(|other| other.as_ref() == Some(&first)).then(|| [vec![items.len()], first].concat())
    }

    proptest! {
        #[test]
        fn the_shape_of_a_list_is_what_a_parser_finds(value in values()) {
            let found = List::of(&value.to_string()).ok().map(|list| list.shape);
            // Empty lists say nothing of what is in them.
            if !value.to_string().contains("[]") {
                prop_assert_eq!(found, shape(&value));
            }
        }
    }
}
