//! What rten computes otherwise than ONNX says, and nobody [mended](super::mended): refused with a reason, because a
//! wrong answer is worse than none.
//!
//! Found by ONNX's own tests of operators (`docs/conformance`). Look again with each release of rten.

use super::mended;
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
    match node.operator.as_str() {
        "NonMaxSuppression" => Some("it counts the boxes of all classes and images together"),
        "Resize" | "Upsample" if is("mode", "cubic") => {
            Some("it interpolates linearly where it should cubically")
        }
        _ if node.is_inside => mended::difference(node, nodes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn refused(operator: &str, mode: &str, second: &str, is_inside: bool) -> bool {
        let node = Node {
            operator: operator.into(),
            is_inside,
            inputs: vec!["x".into(), second.into()],
            texts: [("mode".to_owned(), mode.to_owned())].into(),
            ..Node::default()
        };
        let vectors: HashSet<String> = ["v".to_owned()].into();
        reason(&Nodes { all: vec![node], vectors: vectors.clone(), vectors_inside: vectors }).is_some()
    }

    #[test]
    fn only_what_is_wrong_is_refused() {
        for (operator, mode, second, inside, outside) in [
            ("ArgMax", "", "", true, false),
            ("ArgMin", "", "", true, false),
            ("Resize", "cubic", "", true, true),
            ("Resize", "linear", "", false, false),
            ("MatMul", "", "v", true, false),
            ("MatMul", "", "w", false, false),
        ] {
            for (is_inside, expected) in [(true, inside), (false, outside)] {
                let found = refused(operator, mode, second, is_inside);
                assert_eq!(found, expected, "{operator} {mode} {second} {is_inside}");
            }
        }
    }
}
