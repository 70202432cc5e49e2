//! Answers that people can read, and the same as tensors.

use serde::Serialize;

use super::StepError;
use crate::{Datatype, Tensor, TensorSpec};

/// What a model's outputs say, one list for each sample, the best first. As JSON `{"classes": [[…]]}` or
/// `{"boxes": [[…]]}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reading {
    Classes(Vec<Vec<Class>>),
    Boxes(Vec<Vec<Found>>),
}

/// A class that a sample may be of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// The class's name; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its place in the output, from 0.
    pub index: usize,
    pub score: f32,
}

/// A thing found in a picture, in pixels of the picture as people see it: x to the right and y down from its top left.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// The class's name; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its class, from 0.
    pub index: usize,
    pub score: f32,
    /// The left edge.
    pub x: f32,
    /// The upper edge.
    pub y: f32,
    pub width: f32,
    pub height: f32,
    /// Points of the thing, x and y. CenterFace's are eye, eye, nose, corner of the mouth, corner of the mouth, the
    /// left one of the picture first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub landmarks: Vec<(f32, f32)>,
}

/// The tensors that [`tensors`] makes: `-1` is the number of samples, and of the longest list.
pub fn specs(is_boxes: bool, landmarks: usize) -> Vec<TensorSpec> {
    let spec = |name: &str, datatype, shape: &[i64]| TensorSpec {
        name: name.into(),
        datatype,
        shape: Some(shape.to_vec()),
    };
    let list = [-1, -1];
    if !is_boxes {
        return vec![
            spec("classes.labels", Datatype::Bytes, &list),
            spec("classes.indices", Datatype::Int64, &list),
            spec("classes.scores", Datatype::Fp32, &list),
            spec("classes.counts", Datatype::Int64, &[-1]),
        ];
    }
    let mut specs = vec![
        spec("boxes.labels", Datatype::Bytes, &list),
        spec("boxes.indices", Datatype::Int64, &list),
        spec("boxes.scores", Datatype::Fp32, &list),
        spec("boxes.counts", Datatype::Int64, &[-1]),
        spec("boxes.places", Datatype::Fp32, &[-1, -1, 4]),
    ];
    if landmarks > 0 {
        specs.push(spec("boxes.landmarks", Datatype::Fp32, &[-1, -1, landmarks as i64, 2]));
    }
    specs
}

/// A reading as tensors: lists that are shorter than the longest are filled with index -1 and zeros. Places are x, y,
/// width, height.
pub fn tensors(reading: &Reading, landmarks: usize) -> Result<Vec<Tensor>, StepError> {
    match reading {
        Reading::Classes(samples) => {
            let shared = |class: &Class| (class.label.clone(), class.index, class.score);
            common("classes", &rows(samples), shared)
        }
        Reading::Boxes(samples) => {
            let rows = rows(samples);
            let shared = |found: &Found| (found.label.clone(), found.index, found.score);
            let mut tensors = common("boxes", &rows, shared)?;
            let [samples, longest] = rows.shape;
            let place = |found: Option<&Found>| {
                found.map_or([0.0; 4], |found| [found.x, found.y, found.width, found.height])
            };
            let places: Vec<f32> = rows.cells.iter().flat_map(|found| place(*found)).collect();
            tensors.push(Tensor::from_vec("boxes.places", [samples, longest, 4], places)?);
            if landmarks > 0 {
                let points = |found: &Option<&Found>| {
                    let given = found.map(|found| found.landmarks.clone()).unwrap_or_default();
                    given.into_iter().chain(std::iter::repeat((0.0, 0.0))).take(landmarks)
                };
                let values = rows.cells.iter().flat_map(points).flat_map(|(x, y)| [x, y]).collect();
                let shape = [samples, longest, landmarks, 2];
                tensors.push(Tensor::from_vec::<f32>("boxes.landmarks", shape, values)?);
            }
            Ok(tensors)
        }
    }
}

/// Lists as a rectangle.
struct Rows<'a, T> {
    shape: [usize; 2],
    counts: Vec<i64>,
    cells: Vec<Option<&'a T>>,
}

fn rows<T>(samples: &[Vec<T>]) -> Rows<'_, T> {
    let longest = samples.iter().map(Vec::len).max().unwrap_or_default();
    let cells = samples.iter().flat_map(|list| (0..longest).map(|at| list.get(at))).collect();
    let counts = samples.iter().map(|list| list.len() as i64).collect();
    Rows { shape: [samples.len(), longest], counts, cells }
}

type Shared = (Option<String>, usize, f32);

fn common<T>(
    name: &str,
    rows: &Rows<'_, T>,
    shared: impl Fn(&T) -> Shared,
) -> Result<Vec<Tensor>, StepError> {
    let cells: Vec<Option<Shared>> = rows.cells.iter().map(|cell| cell.map(&shared)).collect();
    let label =
        |cell: &Option<Shared>| cell.as_ref().and_then(|(label, ..)| label.clone()).unwrap_or_default();
    let index = |cell: &Option<Shared>| cell.as_ref().map_or(-1, |&(_, index, _)| index as i64);
    let score = |cell: &Option<Shared>| cell.as_ref().map_or(0.0, |&(.., score)| score);
    Ok(vec![
        Tensor::from_strings(format!("{name}.labels"), rows.shape, cells.iter().map(label))?,
        Tensor::from_vec(format!("{name}.indices"), rows.shape, cells.iter().map(index).collect())?,
        Tensor::from_vec::<f32>(format!("{name}.scores"), rows.shape, cells.iter().map(score).collect())?,
        Tensor::from_vec(format!("{name}.counts"), [rows.counts.len()], rows.counts.clone())?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_different_length_become_a_rectangle_that_says_how_long_they_are() {
        let class = |index| Class { label: None, index, score: 0.5 };
        let reading = Reading::Classes(vec![vec![class(3)], vec![class(1), class(2)], vec![]]);
        let tensors = tensors(&reading, 0).unwrap();
        for (tensor, spec) in tensors.iter().zip(specs(false, 0)) {
            assert_eq!((tensor.name(), tensor.datatype()), (spec.name.as_str(), spec.datatype));
            assert!(spec.accepts(tensor.shape()), "{tensor:?}");
        }
        assert_eq!(tensors[1].shape(), [3, 2]);
        assert_eq!(*tensors[1].elements::<i64>().unwrap(), [3, -1, 1, 2, -1, -1]);
        assert_eq!(*tensors[3].elements::<i64>().unwrap(), [1, 2, 0]);
    }

    #[test]
    fn boxes_have_documented_fields() {
        let found = Found {
            label: Some("face".into()),
            index: 0,
            score: 0.75,
            x: 1.0,
            y: 2.0,
            width: 3.0,
            height: 4.0,
            landmarks: vec![(5.0, 6.0)],
        };
        let reading = Reading::Boxes(vec![vec![found], vec![]]);
        assert_eq!(
            serde_json::to_string(&reading).unwrap(),
            r#"{"boxes":[[{"label":"face","index":0,"score":0.75,"x":1.0,"y":2.0,"width":3.0,"height":4.0,"landmarks":[[5.0,6.0]]}],[]]}"#
        );
        let tensors = tensors(&reading, 2).unwrap();
        for (tensor, spec) in tensors.iter().zip(specs(true, 2)) {
            assert_eq!((tensor.name(), tensor.datatype()), (spec.name.as_str(), spec.datatype));
            assert!(spec.accepts(tensor.shape()), "{tensor:?}");
        }
        assert_eq!(*tensors[4].elements::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(tensors[5].elements::<f32>().unwrap()[..4], [5.0, 6.0, 0.0, 0.0]);
    }
}
