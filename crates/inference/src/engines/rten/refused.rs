//! What rten computes otherwise than ONNX says: refused with a reason, because a wrong answer is worse than none.
//!
//! Found by ONNX's own tests of operators (`docs/conformance`). Look again with each release of rten.

use crate::onnx::nodes::{Node, Nodes};

/// Why rten 0.27 must not run this graph.
pub(super) fn reason(nodes: &Nodes) -> Option<String> {
    nodes.all.iter().filter(|node| node.domain.is_empty()).find_map(|node| {
        let difference = difference(node, nodes)?;
        let operator = &node.operator;
        Some(format!(
            "rten computes {operator} otherwise than ONNX says: {difference}; use engine `onnxruntime`"
        ))
    })
}

fn difference(node: &Node, nodes: &Nodes) -> Option<&'static str> {
    let is = |name: &str, text: &str| node.texts.get(name).is_some_and(|given| given == text);
    let second_is_vector = || node.inputs.get(1).is_some_and(|input| nodes.vectors.contains(input));
    match node.operator.as_str() {
        "ArgMax" => Some("of equal values it takes the last instead of the first"),
        "NonMaxSuppression" => Some("it counts the boxes of all classes and images together"),
        "Resize" | "Upsample" if is("mode", "cubic") => {
            Some("it interpolates linearly where it should cubically")
        }
        "Sign" => Some("the sign of 0 is 1 instead of 0"),
        "MatMul" if second_is_vector() => Some("times a vector it keeps a dimension too many"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(operator: &str, mode: &str, second: &str) -> bool {
        let node = Node {
            operator: operator.into(),
            inputs: vec!["x".into(), second.into()],
            texts: [("mode".to_owned(), mode.to_owned())].into(),
            ..Node::default()
        };
        reason(&Nodes { all: vec![node], vectors: ["v".to_owned()].into() }).is_some()
    }

    #[test]
    fn only_what_is_wrong_is_refused() {
        for (operator, mode, second, expected) in [
            ("ArgMax", "", "", true),
            ("ArgMin", "", "", false),
            ("Resize", "cubic", "", true),
            ("Resize", "linear", "", false),
            ("MatMul", "", "v", true),
            ("MatMul", "", "w", false),
        ] {
            assert_eq!(refused(operator, mode, second), expected, "{operator} {mode} {second}");
        }
    }
}
