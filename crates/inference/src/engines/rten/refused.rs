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

fn difference(node: &Node, nodes: &Nodes) -> Option<String> {
    if node.operator == "Upsample" && node.texts.get("mode").is_some_and(|mode| mode == "cubic") {
        return Some("it interpolates linearly where it should cubically".into());
    }
    let difference = mended::difference(node, &nodes.vectors)?;
    let obstacle = mended::obstacle(node)?;
    Some(format!("{difference} ({obstacle} this can't be said with other operators)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(operator: &str, texts: &[(&str, &str)], second: &str, is_in_function: bool) -> Option<String> {
        let text = |&(name, text): &(&str, &str)| (name.to_owned(), text.to_owned());
        let node = Node {
            operator: operator.into(),
            is_in_function,
            inputs: vec!["x".into(), second.into()],
            texts: texts.iter().map(text).collect(),
            ..Node::default()
        };
        reason(&Nodes { all: vec![node], vectors: ["v".to_owned()].into(), ..Nodes::default() })
    }

    #[test]
    fn only_what_is_wrong_is_refused() {
        let cubic = [("mode", "cubic")];
        let cropped = [cubic[0], ("coordinate_transformation_mode", "tf_crop_and_resize")];
        for (operator, texts, second, in_function, outside) in [
            ("ArgMax", &[][..], "", true, false),
            ("ArgMin", &[], "", true, false),
            ("NonMaxSuppression", &[], "", true, false),
            ("Resize", &cubic, "", true, false),
            ("Resize", &cropped, "", true, true),
            ("Upsample", &cubic, "", true, true),
            ("Resize", &[("mode", "linear")], "", false, false),
            ("MatMul", &[], "v", true, false),
            ("MatMul", &[], "w", false, false),
        ] {
            for (is_in_function, expected) in [(true, in_function), (false, outside)] {
                let found = refused(operator, texts, second, is_in_function);
                assert_eq!(found.is_some(), expected, "{operator} {texts:?} {second}: {found:?}");
                assert!(found.is_none_or(|reason| reason.contains(operator)));
            }
        }
    }
}
