//! Writes the smallest ONNX models that there are.

/// ONNX element types by the protocol's names.
pub const TYPES: [(&str, u8); 14] = [
    ("FP32", 1),
    ("UINT8", 2),
    ("INT8", 3),
    ("UINT16", 4),
    ("INT16", 5),
    ("INT32", 6),
    ("INT64", 7),
    ("BYTES", 8),
    ("BOOL", 9),
    ("FP16", 10),
    ("FP64", 11),
    ("UINT32", 12),
    ("UINT64", 13),
    ("BF16", 16),
];

/// A model whose output `y` is its input `x`, of one element type; -1 in the shape is any size.
pub fn identity(element: u8, shape: &[i64]) -> Vec<u8> {
    one_node("Identity", &[], ("x", element, shape), ("y", element, shape))
}

/// A model that gives the index of the largest number of each row, as a classifier's label.
pub fn largest(input: &str, columns: i64, output: &str) -> Vec<u8> {
    // axis = 1, of type INT
    let axis = [field(1, b"axis"), vec![3 << 3, 1], vec![0xa0, 1, 2]].concat();
    one_node("ArgMax", &axis, (input, 1, &[-1, columns]), (output, 7, &[-1, 1]))
}

/// A model that gives each channel's mean over the pixels of a picture.
pub fn mean_over_pixels(picture: &[i64], means: &[i64]) -> Vec<u8> {
    // axes = [2, 3], of type INTS
    let axes = [field(1, b"axes"), vec![8 << 3, 2, 8 << 3, 3], vec![0xa0, 1, 7]].concat();
    one_node("ReduceMean", &axes, ("x", 1, picture), ("y", 1, means))
}

type Tensor<'a> = (&'a str, u8, &'a [i64]);

fn one_node(operator: &str, attribute: &[u8], input: Tensor<'_>, output: Tensor<'_>) -> Vec<u8> {
    let value = |(name, element, shape): Tensor<'_>| {
        let dimensions: Vec<u8> = shape.iter().flat_map(|&size| field(1, &dimension(size))).collect();
        let tensor = [vec![8, element], field(2, &dimensions)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    };
    let attribute = if attribute.is_empty() { Vec::new() } else { field(5, attribute) };
    let node = [
        field(1, input.0.as_bytes()),
        field(2, output.0.as_bytes()),
        field(4, operator.as_bytes()),
        attribute,
    ];
    let graph =
        [field(1, &node.concat()), field(2, b"small"), field(11, &value(input)), field(12, &value(output))];
    // IR version 8, operators of version 17; 13 are too old for BF16.
    [vec![8, 8], field(8, &[16, 17]), field(7, &graph.concat())].concat()
}

fn dimension(size: i64) -> Vec<u8> {
    match u8::try_from(size) {
        Ok(size) => vec![8, size],
        Err(_) => field(2, b"n"),
    }
}

/// A length-delimited protobuf field; all of ours are short.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length > 127 {
        bytes.push(u8::try_from(length % 128).unwrap() | 128);
        length /= 128;
    }
    bytes.push(u8::try_from(length).unwrap());
    [bytes, content.to_vec()].concat()
}
