use super::*;
use crate::engines::rten::Rten;
use crate::tflite::writer::{Attribute, FLOAT, Graph, INT64};
use crate::{Engine, LoadOptions, Tensor};

/// What rten answers as a model of one node.
fn answer(
    operator: &str,
    inputs: &[(&[usize], &[f32])],
    kind: u64,
    axis: Option<i64>,
) -> (Vec<usize>, Vec<u8>) {
    let mut graph = Graph::of_file(1000);
    let names: Vec<String> = (0..inputs.len()).map(|index| format!(".in{index}")).collect();
    for (name, (shape, _)) in names.iter().zip(inputs) {
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        graph.input(name, FLOAT, &shape);
    }
    let attributes: Vec<_> = axis
        .into_iter()
        .flat_map(|axis| [("axis", Attribute::Int(axis)), ("keepdims", Attribute::Int(0))])
        .collect();
    let named: Vec<&str> = names.iter().map(String::as_str).collect();
    graph.node_to("out", operator, &named, &attributes);
    graph.output("out", kind, &[]);
    let tensors = names.iter().zip(inputs).map(|(name, (shape, values))| {
        Tensor::from_vec(name.clone(), shape.to_vec(), values.to_vec()).unwrap()
    });
    let answered = run(graph, &tensors.collect::<Vec<_>>());
    (answered.shape().to_vec(), answered.data().to_vec())
}

fn run(graph: Graph, inputs: &[Tensor]) -> Tensor {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, graph.finish()).unwrap();
    let model = Rten::new(1).load(&path, &LoadOptions { workers: 1, threads: 0, instances: 0 }).unwrap();
    model.run(inputs, &["out"]).unwrap().remove(0)
}

fn numbers(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn of_equal_values_the_first_is_found() {
    let x: (&[usize], &[f32]) = (&[2, 3], &[5.0, 1.0, 5.0, 2.0, 1.0, 1.0]);
    assert_eq!(answer("ArgMax", &[x], INT64, Some(1)), (vec![2], numbers(&[0, 0])));
    assert_eq!(answer("ArgMin", &[x], INT64, Some(-1)), (vec![2], numbers(&[1, 1])));
    assert_eq!(answer("ArgMin", &[x], INT64, Some(0)), (vec![3], numbers(&[1, 0, 1])));
}

#[test]
fn nothing_has_no_sign() {
    let x: (&[usize], &[f32]) = (&[5], &[-2.5, -0.0, 0.0, 0.25, f32::INFINITY]);
    assert_eq!(answer("Sign", &[x], FLOAT, None), (vec![5], floats(&[-1.0, -0.0, 0.0, 1.0, 1.0])));
    let mut graph = Graph::of_file(1000);
    graph.input("x", INT64, &[3]);
    graph.node_to("out", "Sign", &["x"], &[]);
    graph.output("out", INT64, &[3]);
    let x = Tensor::from_vec("x", [3], vec![-7_i64, 0, 7]).unwrap();
    assert_eq!(run(graph, &[x]).data().to_vec(), numbers(&[-1, 0, 1]));
}

#[test]
fn weights_in_another_file_are_found() {
    let model = |location: &str| {
        let entry =
            |key: &str, value: &str| Message::default().bytes(1, key.as_bytes()).bytes(2, value.as_bytes()).0;
        let weight = Message::default().number(1, 2).number(2, FLOAT).bytes(8, b"v");
        let place = [("location", location), ("offset", "0"), ("length", "8")];
        let weight =
            place.iter().fold(weight, |weight, (key, value)| weight.bytes(EXTERNAL, &entry(key, value)));
        let weight = weight.number(14, 1);
        let mut graph = Graph::of_file(1000);
        graph.input("x", FLOAT, &[1, 2]);
        graph.node_to("out", "MatMul", &["x", "v"], &[]);
        graph.output("out", FLOAT, &[1]);
        let model = graph.finish();
        rewrite(&model, |field, content, model| {
            let content = if field == GRAPH {
                Message(content.to_vec()).bytes(WEIGHT, &weight.0).0
            } else {
                content.to_vec()
            };
            Ok(model.bytes(field, &content))
        })
        .unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w.data"), floats(&[1.0, 10.0])).unwrap();
    std::fs::create_dir(folder.path().join("m")).unwrap();
    let load = |path: &str, location: &str| {
        let path = folder.path().join(path);
        std::fs::write(&path, model(location)).unwrap();
        Rten::new(1).load(&path, &LoadOptions { workers: 1, threads: 0, instances: 0 })
    };
    let x = Tensor::from_vec("x", [1, 2], vec![2.0_f32, 3.0]).unwrap();
    let answered = load("m.onnx", "w.data").unwrap().run(&[x], &["out"]).unwrap().remove(0);
    assert_eq!((answered.shape(), answered.data().to_vec()), (&[1][..], floats(&[32.0])));
    for location in ["../w.data", folder.path().join("w.data").to_str().unwrap(), ""] {
        assert!(load("m/m.onnx", location).is_err(), "{location} is not in the model's folder");
    }
}

#[test]
fn times_a_vector_the_last_dimension_goes() {
    let vector: (&[usize], &[f32]) = (&[2], &[1.0, 10.0]);
    let values: Vec<f32> = (1_u8..=8).map(f32::from).collect();
    for (shape, expected) in [
        (&[2_usize][..], &[21.0][..]),
        (&[1, 2], &[21.0]),
        (&[2, 2], &[21.0, 43.0]),
        (&[2, 2, 2], &[21.0, 43.0, 65.0, 87.0]),
        (&[1, 2, 2], &[21.0, 43.0]),
    ] {
        let count = shape.iter().product();
        let answered = answer("MatMul", &[(shape, &values[..count]), vector], FLOAT, None);
        let (_, kept) = shape.split_last().unwrap();
        assert_eq!(answered, (kept.to_vec(), floats(expected)), "{shape:?}");
    }
}

/// `If` with the same node in both branches, on what each branch has under the same name.
fn branches(operator: &str, seconds: [(&[i64], &[f32]); 2], attributes: &[(&str, Attribute<'_>)]) -> Graph {
    let branch = |place: usize| {
        let (shape, values) = seconds[place];
        let mut graph = Graph::of_file(1000);
        graph.weight("w", FLOAT, shape, &floats(values));
        let output = format!("out{place}");
        let inputs = if values.is_empty() { vec!["x"] } else { vec!["x", "w"] };
        graph.node_to(&output, operator, &inputs, attributes);
        graph.output(&output, FLOAT, &[]);
        graph.graph()
    };
    let (first, second) = (branch(0), branch(1));
    let mut graph = Graph::of_file(10_000);
    graph.input("which", BOOL, &[]);
    graph.input("x", FLOAT, &[2, 2, 2]);
    let branches = [("then_branch", Attribute::Graph(&first)), ("else_branch", Attribute::Graph(&second))];
    graph.node_to("out", "If", &["which"], &branches);
    graph
}

const BOOL: u64 = 9;

#[test]
fn nodes_inside_of_others_are_mended_by_what_is_known_where_they_are() {
    let x = Tensor::from_vec("x", [2, 2, 2], (1_u8..=8).map(f32::from).collect()).unwrap();
    let which = |first: bool| Tensor::from_vec("which", Vec::new(), vec![first]).unwrap();
    for first in [true, false] {
        let vector: (&[i64], &[f32]) = (&[2], &[1.0, 10.0]);
        let matrix: (&[i64], &[f32]) = (&[2, 1], &[1.0, 10.0]);
        let mut graph = branches("MatMul", [vector, matrix], &[]);
        graph.output("out", FLOAT, &[]);
        let answered = run(graph, &[which(first), x.clone()]);
        let shape: &[usize] = if first { &[2, 2] } else { &[2, 2, 1] };
        assert_eq!((answered.shape(), answered.data().to_vec()), (shape, floats(&[21.0, 43.0, 65.0, 87.0])));
    }
    let equal = Tensor::from_vec("x", [2, 2, 2], vec![3.0_f32; 8]).unwrap();
    let axis = [("axis", Attribute::Int(2)), ("keepdims", Attribute::Int(0))];
    let mut graph = branches("ArgMax", [(&[0], &[]), (&[0], &[])], &axis);
    graph.output("out", INT64, &[]);
    assert_eq!(run(graph, &[which(true), equal]).data().to_vec(), numbers(&[0, 0, 0, 0]));
}

#[test]
fn boxes_that_overlap_are_dropped_in_each_class_of_each_image() {
    // Of two images, three boxes each: the second one covers most of the first, the third lies apart.
    let boxes = [[0.0, 0.0, 1.0, 1.0], [0.0, 0.1, 1.0, 1.1], [0.0, 5.0, 1.0, 6.0]].concat();
    let scores = [[0.9_f32, 0.75, 0.6], [0.6, 0.6, 0.1], [0.5, 0.95, 0.2], [0.1, 0.2, 0.0]].concat();
    let suppress = |boxes: usize, most: &[i64]| {
        let mut graph = Graph::of_file(1000);
        graph.input("boxes", FLOAT, &[2, -1, 4]);
        graph.input("scores", FLOAT, &[2, 2, -1]);
        let most = graph.ints(most);
        let (overlap, least) = (graph.float(0.5), graph.float(0.15));
        graph.node_to("out", "NonMaxSuppression", &["boxes", "scores", &most, &overlap, &least], &[]);
        graph.output("out", INT64, &[-1, 3]);
        (graph, boxes)
    };
    let answer = |(graph, count): (Graph, usize)| {
        let all =
            |name: &str, shape: [usize; 3], values: Vec<f32>| Tensor::from_vec(name, shape, values).unwrap();
        let answered = if count == 0 {
            run(graph, &[all("boxes", [2, 0, 4], vec![]), all("scores", [2, 2, 0], vec![])])
        } else {
            run(graph, &[all("boxes", [2, 3, 4], boxes.repeat(2)), all("scores", [2, 2, 3], scores.clone())])
        };
        assert_eq!(answered.shape()[1], 3);
        answered.data().to_vec()
    };
    let expected = [[0, 0, 0], [0, 0, 2], [0, 1, 0], [1, 0, 1], [1, 0, 2], [1, 1, 1]].concat();
    assert_eq!(answer(suppress(3, &[i64::MAX])), numbers(&expected));
    assert_eq!(answer(suppress(3, &[1])), numbers(&[[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]].concat()));
    assert_eq!(answer(suppress(3, &[0])), numbers(&[]));
    assert_eq!(answer(suppress(0, &[5])), numbers(&[]));
}

#[test]
fn a_picture_grows_along_a_cubic() {
    let grow = |sizes: bool| {
        let mut graph = Graph::of_file(1000);
        graph.input("x", FLOAT, &[-1, 1, -1, -1]);
        graph.weight("scales", FLOAT, &[4], &floats(&[1.0, 1.0, 1.0, 2.0]));
        let size = graph.ints(&[2, 1, 1, 8]);
        let inputs = if sizes { vec!["x", "", "", &size] } else { vec!["x", "", "scales"] };
        let attributes = [
            ("mode", Attribute::Text("cubic")),
            ("coordinate_transformation_mode", Attribute::Text("asymmetric")),
            ("cubic_coeff_a", Attribute::Float(-0.5)),
        ];
        graph.node_to("out", "Resize", &inputs, &attributes);
        graph.output("out", FLOAT, &[]);
        let x = vec![0.0_f32, 8.0, 8.0, 8.0, 0.0, 0.0, 16.0, 0.0];
        run(graph, &[Tensor::from_vec("x", [2, 1, 1, 4], x).unwrap()])
    };
    for sizes in [false, true] {
        let answered = grow(sizes);
        assert_eq!(answered.shape(), [2, 1, 1, 8]);
        // Halfway between two pixels, their neighbours count -1/16 each and they 9/16.
        let expected = [0.0, 4.0, 8.0, 8.5, 8.0, 8.0, 8.0, 8.0, 0.0, -1.0, 0.0, 9.0, 16.0, 9.0, 0.0, -1.0];
        assert_eq!(answered.data().to_vec(), floats(&expected));
    }
}
