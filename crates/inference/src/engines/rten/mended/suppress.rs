//! `NonMaxSuppression`: all classes of all images choose their best box at once, again and again, and drop those that
//! overlap it.
//!
//! Scores are `[images, classes, boxes]` and what is said of boxes `[images, 1, boxes]`, whatever they are called below.

use super::input;
use super::writer::{TO_FLOAT, TO_WHOLE, Writer};
use crate::onnx::nodes::Node;
use crate::tflite::writer::Attribute;

/// What a box has whom nobody may choose (any more).
const NEVER: f32 = f32::NEG_INFINITY;
/// The last dimension alone, which stays as 1.
const EACH: [(&str, Attribute<'_>); 2] = [("axes", Attribute::Ints(&[-1])), ("keepdims", Attribute::Int(1))];
/// All but the last dimension, none of which stays.
const ANYWHERE: [(&str, Attribute<'_>); 2] =
    [("axes", Attribute::Ints(&[0, 1])), ("keepdims", Attribute::Int(0))];
/// All dimensions, none of which stays.
const ALL: [(&str, Attribute<'_>); 1] = [("keepdims", Attribute::Int(0))];

/// Corners and area of boxes.
struct Boxes {
    top: String,
    left: String,
    bottom: String,
    right: String,
    area: String,
}

pub(super) fn write(writer: &mut Writer<'_>, node: &Node, output: &str) {
    let (boxes, scores) = (input(node, 0), input(node, 1));
    let is_centred = node.numbers.get("center_point_box").is_some_and(|&kind| kind == 1);
    let (more, never, zero) = (writer.list(&[0, 0, 0, 0, 0, 1]), writer.float(NEVER), writer.float(0.0));
    let least = match input(node, 4) {
        "" => never.clone(),
        threshold => threshold.to_owned(),
    };
    let is_candidate = writer.node("Greater", &[scores, &least]);
    let candidates = writer.node("Where", &[&is_candidate, scores, &never]);
    // Most boxes are candidates of no class.
    let highest = writer.node_with("ReduceMax", &[&candidates], &ANYWHERE);
    let is_candidate = writer.node("Greater", &[&highest, &never]);
    let numbers = writer.node("NonZero", &[&is_candidate]);
    let flat = writer.list(&[-1]);
    let numbers = writer.node("Reshape", &[&numbers, &flat]);
    let candidates = writer.node_with("Gather", &[&candidates, &numbers], &[("axis", Attribute::Int(2))]);
    let boxes = writer.node_with("Gather", &[boxes, &numbers], &[("axis", Attribute::Int(1))]);
    // One box more, so that there is one.
    let candidates = writer.node("Pad", &[&candidates, &more, &never]);
    let corners = corners(writer, &boxes, &more, &zero, is_centred);

    let (shape, axis) = (writer.node("Shape", &[&candidates]), writer.number(2));
    let (start, one) = (writer.number(0), writer.number(1));
    let count = writer.node("Gather", &[&shape, &axis]);
    let places = writer.node("Range", &[&start, &count, &one]);
    let places = writer.node_with("Cast", &[&places], &TO_FLOAT);
    let none = writer.node_with("Cast", &[&count], &TO_FLOAT);

    let most = match input(node, 2) {
        "" => start.clone(),
        most => writer.node_with("ReduceMax", &[most], &ALL),
    };
    let is_wanted = writer.node("Greater", &[&most, &start]);
    let rounds = writer.node("Max", &[&most, &one]);
    let overlap = match input(node, 3) {
        "" => zero.clone(),
        threshold => threshold.to_owned(),
    };
    let known = Known {
        corners: &corners,
        never: &never,
        zero: &zero,
        places: &places,
        none: &none,
        overlap: &overlap,
    };
    let round = round(writer, &known);
    let (left, chosen, counts) = (writer.name(), writer.name(), writer.name());
    let results = [left.as_str(), &chosen, &counts];
    writer.node_of(&results, "Loop", &[&rounds, "", &candidates], &[("body", Attribute::Graph(&round))]);

    // From [rounds, images, classes, 1] to rows of image, class and box.
    let order = [("perm", Attribute::Ints(&[1, 2, 0, 3]))];
    let chosen = writer.node_with("Transpose", &[&chosen], &order);
    let counts = writer.node("And", &[&counts, &is_wanted]);
    let counts = writer.node_with("Cast", &[&counts], &TO_WHOLE);
    let counts = writer.node_with("Transpose", &[&counts], &order);
    let rows = writer.node("NonZero", &[&counts]);
    let rows = writer.node_with("Transpose", &[&rows], &[("perm", Attribute::Ints(&[1, 0]))]);
    let chosen = writer.node("GatherND", &[&chosen, &rows]);
    let chosen = writer.node_with("Cast", &[&chosen], &TO_WHOLE);
    let chosen = writer.node("Gather", &[&numbers, &chosen]);
    let chosen = writer.node_with("Unsqueeze", &[&chosen], &[("axes", Attribute::Ints(&[1]))]);
    let (from, to) = (writer.list(&[0]), writer.list(&[2]));
    let axes = writer.list(&[1]);
    let whose = writer.node("Slice", &[&rows, &from, &to, &axes]);
    writer.node_to(output, "Concat", &[&whose, &chosen], &[("axis", Attribute::Int(1))]);
}

fn corners(writer: &mut Writer<'_>, boxes: &str, more: &str, zero: &str, is_centred: bool) -> Boxes {
    let [a, b, c, d] = [0, 1, 2, 3].map(|side| {
        let side = writer.list(&[side]);
        let side = writer.node_with("Gather", &[boxes, &side], &[("axis", Attribute::Int(2))]);
        let side = writer.node_with("Transpose", &[&side], &[("perm", Attribute::Ints(&[0, 2, 1]))]);
        writer.node("Pad", &[&side, more, zero])
    });
    let [top, left, bottom, right] = if is_centred {
        let two = writer.float(2.0);
        let (width, height) = (writer.node("Div", &[&c, &two]), writer.node("Div", &[&d, &two]));
        [("Sub", &b, &height), ("Sub", &a, &width), ("Add", &b, &height), ("Add", &a, &width)]
            .map(|(operator, centre, half)| writer.node(operator, &[centre, half]))
    } else {
        // Any two corners that are opposite.
        [("Min", &a, &c), ("Min", &b, &d), ("Max", &a, &c), ("Max", &b, &d)]
            .map(|(operator, one, other)| writer.node(operator, &[one, other]))
    };
    let (height, width) = (writer.node("Sub", &[&bottom, &top]), writer.node("Sub", &[&right, &left]));
    let area = writer.node("Mul", &[&height, &width]);
    Boxes { top, left, bottom, right, area }
}

/// What each round sees.
struct Known<'a> {
    corners: &'a Boxes,
    never: &'a str,
    zero: &'a str,
    /// The number of each box, and one that no box has.
    places: &'a str,
    none: &'a str,
    overlap: &'a str,
}

/// Takes scores; gives whether there are boxes left, scores, which boxes were chosen, and whether that counts.
fn round(around: &mut Writer<'_>, known: &Known<'_>) -> Vec<u8> {
    let mut writer = around.inside();
    let (_number, _goes_on, scores) = (writer.input(), writer.input(), writer.input());
    let best = writer.node_with("ReduceMax", &[&scores], &EACH);
    let counts = writer.node("Greater", &[&best, known.never]);
    // The first of equal ones.
    let is_best = writer.node("Equal", &[&scores, &best]);
    let place = writer.node("Where", &[&is_best, known.places, known.none]);
    let place = writer.node_with("ReduceMin", &[&place], &EACH);
    let is_chosen = writer.node("Equal", &[known.places, &place]);
    let Boxes { top, left, bottom, right, area } = known.corners;
    let [chosen_top, chosen_left, chosen_bottom, chosen_right, chosen_area] =
        [top, left, bottom, right, area].map(|side| {
            let side = writer.node("Where", &[&is_chosen, side, known.zero]);
            writer.node_with("ReduceSum", &[&side], &EACH)
        });
    let [height, width] =
        [(top, chosen_top, bottom, chosen_bottom), (left, chosen_left, right, chosen_right)].map(
            |(start, chosen_start, end, chosen_end)| {
                let start = writer.node("Max", &[start, &chosen_start]);
                let end = writer.node("Min", &[end, &chosen_end]);
                let length = writer.node("Sub", &[&end, &start]);
                writer.node("Relu", &[&length])
            },
        );
    let shared = writer.node("Mul", &[&height, &width]);
    let both = writer.node("Add", &[area, &chosen_area]);
    let union = writer.node("Sub", &[&both, &shared]);
    // Of two boxes without area no number, which nothing is below.
    let share = writer.node("Div", &[&shared, &union]);
    let overlaps = writer.node("Greater", &[&share, known.overlap]);
    let goes = writer.node("Or", &[&overlaps, &is_chosen]);
    let left = writer.node("Where", &[&goes, known.never, &scores]);
    let most = writer.node_with("ReduceMax", &[&left], &ALL);
    let goes_on = writer.node("Greater", &[&most, known.never]);
    writer.outputs(&[&goes_on, &left, &place, &counts]);
    writer.graph().0
}
