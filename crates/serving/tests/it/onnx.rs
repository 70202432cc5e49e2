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
    let dimensions: Vec<u8> = shape.iter().flat_map(|&size| field(1, &dimension(size))).collect();
    let tensor = [vec![8, element], field(2, &dimensions)].concat();
    let value = |name: &str| [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Identity")].concat();
    let graph =
        [field(1, &node), field(2, b"identity"), field(11, &value("x")), field(12, &value("y"))].concat();
    // IR version 8, operators of version 17; 13 are too old for BF16.
    [vec![8, 8], field(8, &[16, 17]), field(7, &graph)].concat()
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
