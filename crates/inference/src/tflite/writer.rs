//! Writing an ONNX model: nodes, weights, inputs and outputs in the order in which they are added.

use crate::protobuf::Message;

/// Element types of `TensorProto`.
pub const FLOAT: u64 = 1;
pub const INT32: u64 = 6;
pub const INT64: u64 = 7;

/// An attribute of a node.
pub enum Attribute<'a> {
    Int(i64),
    Float(f32),
    Text(&'a str),
    Ints(&'a [i64]),
    /// A graph inside, as it is written.
    Graph(&'a [u8]),
}

/// Bytes that a translation may take for each of the file: nodes are longer here than there.
const GROWTH: usize = 16;
/// Bytes that it may take beside those.
const BESIDE: usize = 1 << 20;

pub struct Graph {
    nodes: Vec<Vec<u8>>,
    weights: Vec<Vec<u8>>,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    names: usize,
    /// Bytes that may still be read and written. In a file, many may share what each of them has here.
    left: usize,
}

impl Graph {
    /// An empty one for a file of that many bytes.
    pub fn of_file(bytes: usize) -> Graph {
        let left = bytes.saturating_mul(GROWTH).saturating_add(BESIDE);
        Graph { nodes: vec![], weights: vec![], inputs: vec![], outputs: vec![], names: 0, left }
    }

    /// Counts what is read before it is written. To be asked for each tensor and operator; what is added once nothing
    /// is left is not kept.
    ///
    /// # Errors
    /// When the file is to become many times as large.
    pub fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self.left.saturating_sub(bytes);
        if self.left > 0 { Ok(()) } else { Err("its tensors and operators share too much".into()) }
    }

    /// A name that nothing has yet.
    pub fn name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    pub fn weight(&mut self, name: &str, kind: u64, shape: &[i64], data: &[u8]) {
        if self.spend(data.len()).is_err() {
            return;
        }
        let mut tensor = Message::default();
        for size in shape {
            tensor = tensor.number(1, size.cast_unsigned());
        }
        self.weights.push(tensor.number(2, kind).bytes(8, name.as_bytes()).bytes(9, data).0);
    }

    /// A list of whole numbers, by a new name.
    pub fn ints(&mut self, values: &[i64]) -> String {
        let name = self.name();
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.weight(&name, INT64, &[values.len() as i64], &data);
        name
    }

    /// A single float, by a new name.
    pub fn float(&mut self, value: f32) -> String {
        let name = self.name();
        self.weight(&name, FLOAT, &[], &value.to_le_bytes());
        name
    }

    /// Adds a node with one output, which gets a new name.
    pub fn node(&mut self, operator: &str, inputs: &[&str], attributes: &[(&str, Attribute<'_>)]) -> String {
        let output = self.name();
        self.node_to(&output, operator, inputs, attributes);
        output
    }

    pub fn node_to(
        &mut self,
        output: &str,
        operator: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) {
        let lists = attributes.iter().map(|(_, attribute)| match attribute {
            Attribute::Ints(values) => values.len() * 10,
            Attribute::Graph(graph) => graph.len(),
            _ => 0,
        });
        let length = lists.chain(inputs.iter().map(|input| input.len())).sum::<usize>() + operator.len();
        if self.spend(length).is_err() {
            return;
        }
        self.nodes.push(node(&[output], operator, inputs, attributes));
    }

    pub fn input(&mut self, name: &str, kind: u64, shape: &[i64]) {
        let info = self.value_info(name, kind, shape);
        self.inputs.extend(info);
    }

    pub fn output(&mut self, name: &str, kind: u64, shape: &[i64]) {
        let info = self.value_info(name, kind, shape);
        self.outputs.extend(info);
    }

    /// Each open dimension is named after its tensor.
    fn value_info(&mut self, name: &str, kind: u64, shape: &[i64]) -> Option<Vec<u8>> {
        self.spend(name.len().saturating_mul(shape.len() + 1)).ok()?;
        Some(value_info(name, kind, shape))
    }

    /// The model's bytes, for ONNX's operators of version 18.
    pub fn finish(self) -> Vec<u8> {
        let version = Message::default().bytes(1, b"").number(2, 18);
        Message::default().number(1, 8).bytes(7, &self.graph()).bytes(8, &version.0).0
    }

    /// The graph alone.
    pub fn graph(self) -> Vec<u8> {
        let mut graph = Message::default();
        let parts = [(1, &self.nodes), (5, &self.weights), (11, &self.inputs), (12, &self.outputs)];
        for (field, part) in
            parts.into_iter().flat_map(|(field, parts)| parts.iter().map(move |part| (field, part)))
        {
            graph = graph.bytes(field, part);
        }
        graph.bytes(2, b"translated").0
    }
}

/// A `NodeProto`.
pub fn node(
    outputs: &[&str],
    operator: &str,
    inputs: &[&str],
    attributes: &[(&str, Attribute<'_>)],
) -> Vec<u8> {
    let all = |field: u64, names: &[&str], node: Message| {
        names.iter().fold(node, |node, name| node.bytes(field, name.as_bytes()))
    };
    let node = all(2, outputs, all(1, inputs, Message::default())).bytes(4, operator.as_bytes());
    let written = attributes.iter().map(|(name, attribute)| {
        let told = Message::default().bytes(1, name.as_bytes());
        match attribute {
            Attribute::Int(value) => told.number(3, value.cast_unsigned()).number(20, 2),
            Attribute::Float(value) => told.float(2, *value).number(20, 1),
            Attribute::Text(text) => told.bytes(4, text.as_bytes()).number(20, 3),
            Attribute::Ints(values) => {
                let all = values.iter().fold(told, |told, value| told.number(8, value.cast_unsigned()));
                all.number(20, 7)
            }
            Attribute::Graph(graph) => told.bytes(6, graph).number(20, 5),
        }
    });
    written.fold(node, |node, attribute| node.bytes(5, &attribute.0)).0
}

fn value_info(name: &str, kind: u64, shape: &[i64]) -> Vec<u8> {
    let shape = shape.iter().enumerate().fold(Message::default(), |shape, (axis, &size)| {
        let dimension = match u64::try_from(size) {
            Ok(size) => Message::default().number(1, size),
            Err(_) => Message::default().bytes(2, format!("{name}_{axis}").as_bytes()),
        };
        shape.bytes(1, &dimension.0)
    });
    let tensor = Message::default().number(1, kind).bytes(2, &shape.0);
    let declared = Message::default().bytes(1, &tensor.0);
    Message::default().bytes(1, name.as_bytes()).bytes(2, &declared.0).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_share_in_a_file_does_not_grow_without_bound() {
        let (mut graph, shared) = (Graph::of_file(1000), vec![0; 10_000]);
        let taken = (0..1_000_000).take_while(|_| {
            graph.weight("w", FLOAT, &[10_000], &shared);
            graph.node("Relu", &["a", "b"], &[]);
            graph.spend(0).is_ok()
        });
        assert!((50..=120).contains(&taken.count()));
        for _ in 0..100_000 {
            graph.weight("w", FLOAT, &[10_000], &shared);
            graph.node("Relu", &["a", "b"], &[("axes", Attribute::Ints(&[0; 1000]))]);
            graph.input("x", FLOAT, &[-1; 1000]);
        }
        assert!(graph.finish().len() < 2 << 20);
    }
}
