//! Adds nodes and weights to a graph, under names that nothing else has.

use super::{NODE, WEIGHT};
use crate::protobuf::Message;
use crate::tflite::writer::{Attribute, FLOAT, INT64, node};

// More fields of `GraphProto`.
const GRAPH_INPUT: u64 = 11;
const GRAPH_OUTPUT: u64 = 12;

pub(super) type Attributes<'a> = [(&'static str, Attribute<'a>)];

pub(super) const TO_FLOAT: [(&str, Attribute<'_>); 1] = [("to", Attribute::Int(FLOAT.cast_signed()))];
pub(super) const TO_WHOLE: [(&str, Attribute<'_>); 1] = [("to", Attribute::Int(INT64.cast_signed()))];

pub(super) struct Writer<'a> {
    graph: Message,
    /// How many names were given in the whole model.
    names: &'a mut usize,
}

impl<'a> Writer<'a> {
    /// Adds to a graph.
    pub fn new(graph: Message, names: &'a mut usize) -> Writer<'a> {
        Writer { graph, names }
    }

    /// Begins a graph inside of a node, which sees what is around it.
    pub fn inside(&mut self) -> Writer<'_> {
        Writer { graph: Message::default().bytes(2, b"inside"), names: self.names }
    }

    pub fn graph(self) -> Message {
        self.graph
    }

    pub fn name(&mut self) -> String {
        *self.names += 1;
        format!("avocet.dev/mended/{}", self.names)
    }

    pub fn add(&mut self, field: u64, content: &[u8]) {
        self.graph = std::mem::take(&mut self.graph).bytes(field, content);
    }

    /// Declares an input of a graph inside.
    pub fn input(&mut self) -> String {
        let name = self.name();
        self.add(GRAPH_INPUT, &Message::default().bytes(1, name.as_bytes()).0);
        name
    }

    /// Declares outputs of a graph inside.
    pub fn outputs(&mut self, names: &[&str]) {
        for name in names {
            self.add(GRAPH_OUTPUT, &Message::default().bytes(1, name.as_bytes()).0);
        }
    }

    /// Whole numbers in a row.
    pub fn list(&mut self, values: &[i64]) -> String {
        self.whole(Message::default().number(1, values.len() as u64), values)
    }

    /// A whole number.
    pub fn number(&mut self, value: i64) -> String {
        self.whole(Message::default(), &[value])
    }

    fn whole(&mut self, shaped: Message, values: &[i64]) -> String {
        self.weight(shaped, INT64, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Floats in a row.
    pub fn floats(&mut self, values: &[f32]) -> String {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.weight(Message::default().number(1, values.len() as u64), FLOAT, &data)
    }

    pub fn float(&mut self, value: f32) -> String {
        self.weight(Message::default(), FLOAT, &value.to_le_bytes())
    }

    fn weight(&mut self, shaped: Message, kind: u64, data: &[u8]) -> String {
        let name = self.name();
        self.add(WEIGHT, &shaped.number(2, kind).bytes(8, name.as_bytes()).bytes(9, data).0);
        name
    }

    /// A node, by the name of its output.
    pub fn node(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.node_with(operator, inputs, &[])
    }

    pub fn node_with(&mut self, operator: &str, inputs: &[&str], attributes: &Attributes<'_>) -> String {
        let output = self.name();
        self.node_to(&output, operator, inputs, attributes);
        output
    }

    pub fn node_to(&mut self, output: &str, operator: &str, inputs: &[&str], attributes: &Attributes<'_>) {
        self.node_of(&[output], operator, inputs, attributes);
    }

    /// A node of several outputs.
    pub fn node_of(
        &mut self,
        outputs: &[&str],
        operator: &str,
        inputs: &[&str],
        attributes: &Attributes<'_>,
    ) {
        self.add(NODE, &node(outputs, operator, inputs, attributes));
    }
}
