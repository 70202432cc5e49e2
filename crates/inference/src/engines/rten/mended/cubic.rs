//! `Resize` in the mode `cubic`: each pixel is a sum of four of its column, and of four of its row, with weights that
//! follow from where it lies between them.

use super::input;
use super::writer::{TO_FLOAT, TO_WHOLE, Writer};
use crate::onnx::nodes::Node;
use crate::tflite::writer::Attribute;

/// How far the four neighbours are from the one before a pixel.
const NEIGHBOURS: [f32; 4] = [-1.0, 0.0, 1.0, 2.0];

pub(super) fn is(node: &Node) -> bool {
    node.texts.get("mode").is_some_and(|mode| mode == "cubic")
}

/// What is asked for beyond that.
pub(super) fn obstacle(node: &Node) -> Option<&'static str> {
    let text = |name: &str| node.texts.get(name).map(String::as_str);
    let number = |name: &str| node.numbers.get(name).copied();
    let policy = text("keep_aspect_ratio_policy").unwrap_or("stretch");
    match coordinates(node) {
        "half_pixel" | "pytorch_half_pixel" | "align_corners" | "asymmetric" => {
            if number("antialias").unwrap_or(0) != 0 {
                Some("with `antialias`")
            } else if number("axes").is_some() {
                Some("with `axes`")
            } else {
                (policy != "stretch").then_some("with `keep_aspect_ratio_policy`")
            }
        }
        _ => Some("with this `coordinate_transformation_mode`"),
    }
}

fn coordinates(node: &Node) -> &str {
    node.texts.get("coordinate_transformation_mode").map_or("half_pixel", String::as_str)
}

pub(super) fn write(writer: &mut Writer<'_>, node: &Node, output: &str) {
    let picture = input(node, 0);
    let shape = writer.node("Shape", &[picture]);
    let shape_float = writer.node_with("Cast", &[&shape], &TO_FLOAT);
    let (scales, sizes) = match (input(node, 2), input(node, 3)) {
        (scales, "") => {
            let sizes = writer.node("Mul", &[&shape_float, scales]);
            let sizes = writer.node("Floor", &[&sizes]);
            (scales.to_owned(), writer.node_with("Cast", &[&sizes], &TO_WHOLE))
        }
        (_, sizes) => {
            let float = writer.node_with("Cast", &[sizes], &TO_FLOAT);
            (writer.node("Div", &[&float, &shape_float]), sizes.to_owned())
        }
    };
    let rows = along(writer, node, picture, [&shape, &sizes, &scales], -2);
    let pixels = along(writer, node, &rows, [&shape, &sizes, &scales], -1);
    // Other dimensions are as they were, or this is an error.
    writer.node_to(output, "Reshape", &[&pixels, &sizes], &[]);
}

/// Resizes along one axis; the lists hold how long axes are before and after, and the scales.
fn along(writer: &mut Writer<'_>, node: &Node, picture: &str, lists: [&str; 3], axis: i64) -> String {
    let at = writer.number(axis);
    let [before, after, scale] = lists.map(|list| writer.node("Gather", &[list, &at]));
    let before = writer.node_with("Cast", &[&before], &TO_FLOAT);
    let [start, step] = [0, 1].map(|number| writer.number(number));
    let index = writer.node("Range", &[&start, &after, &step]);
    let index = writer.node_with("Cast", &[&index], &TO_FLOAT);
    let place = place(writer, coordinates(node), &index, [&before, &after, &scale]);

    let column = writer.list(&[-1, 1]);
    let base = writer.node("Floor", &[&place]);
    let beyond = writer.node("Sub", &[&place, &base]);
    let [base, beyond] = [&base, &beyond].map(|list| writer.node("Reshape", &[list, &column]));
    let neighbours = writer.floats(&NEIGHBOURS);
    let from = writer.node("Add", &[&base, &neighbours]);
    let distance = writer.node("Sub", &[&beyond, &neighbours]);
    let distance = writer.node("Abs", &[&distance]);
    let mut weights = weights(writer, &distance, node.floats.get("cubic_coeff_a").copied().unwrap_or(-0.75));
    let [zero, one] = [0.0, 1.0].map(|number| writer.float(number));
    if node.numbers.get("exclude_outside").is_some_and(|&exclude| exclude != 0) {
        let is_before = writer.node("Less", &[&from, &zero]);
        let is_within = writer.node("Less", &[&from, &before]);
        let counted = writer.node("Where", &[&is_before, &zero, &weights]);
        let counted = writer.node("Where", &[&is_within, &counted, &zero]);
        let sum = [("axes", Attribute::Ints(&[-1])), ("keepdims", Attribute::Int(1))];
        let sum = writer.node_with("ReduceSum", &[&counted], &sum);
        weights = writer.node("Div", &[&counted, &sum]);
    }
    let last = writer.node("Sub", &[&before, &one]);
    let from = writer.node("Max", &[&from, &zero]);
    let from = writer.node("Min", &[&from, &last]);
    let from = writer.node_with("Cast", &[&from], &TO_WHOLE);
    // The four neighbours are an axis behind the pixels'.
    let gathered = writer.node_with("Gather", &[picture, &from], &[("axis", Attribute::Int(axis))]);
    if axis == -2 {
        let aside = writer.list(&[-1, 4, 1]);
        weights = writer.node("Reshape", &[&weights, &aside]);
    }
    let parts = writer.node("Mul", &[&gathered, &weights]);
    writer.node_with(
        "ReduceSum",
        &[&parts],
        &[("axes", Attribute::Ints(&[axis])), ("keepdims", Attribute::Int(0))],
    )
}

/// Where pixels lie between those that were.
fn place(writer: &mut Writer<'_>, coordinates: &str, index: &str, axis: [&str; 3]) -> String {
    let [before, after, scale] = axis;
    let [half, one] = [0.5, 1.0].map(|number| writer.float(number));
    match coordinates {
        "asymmetric" => writer.node("Div", &[index, scale]),
        "align_corners" => {
            let after = writer.node_with("Cast", &[after], &TO_FLOAT);
            let [to, from] = [after.as_str(), before].map(|length| writer.node("Sub", &[length, &one]));
            let to = writer.node("Max", &[&to, &one]);
            let way = writer.node("Mul", &[index, &from]);
            writer.node("Div", &[&way, &to])
        }
        _ => {
            let centre = writer.node("Add", &[index, &half]);
            let centre = writer.node("Div", &[&centre, scale]);
            let place = writer.node("Sub", &[&centre, &half]);
            if coordinates == "half_pixel" {
                return place;
            }
            let after = writer.node_with("Cast", &[after], &TO_FLOAT);
            let is_many = writer.node("Greater", &[&after, &one]);
            let zero = writer.float(0.0);
            writer.node("Where", &[&is_many, &place, &zero])
        }
    }
}

/// `((a + 2) d - (a + 3)) d² + 1` up to a distance of 1, then `a (((d - 5) d + 8) d - 4)`.
fn weights(writer: &mut Writer<'_>, distance: &str, a: f32) -> String {
    let mut horner = |factors: &[f32]| {
        let mut sum = String::new();
        for &factor in factors {
            let factor = writer.float(factor);
            sum = if sum.is_empty() {
                factor
            } else {
                let product = writer.node("Mul", &[&sum, distance]);
                writer.node("Add", &[&product, &factor])
            };
        }
        sum
    };
    let near = horner(&[a + 2.0, -(a + 3.0), 0.0, 1.0]);
    let far = horner(&[a, -5.0 * a, 8.0 * a, -4.0 * a]);
    let one = writer.float(1.0);
    let is_far = writer.node("Greater", &[distance, &one]);
    writer.node("Where", &[&is_far, &far, &near])
}
