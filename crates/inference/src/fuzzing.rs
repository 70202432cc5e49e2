//! Entry points for fuzzers: each hands bytes to what reads one sort of content, and looks at nothing but that it
//! comes back. See `fuzz/` at the top of the repository.

mod models;

pub use models::models;

use types::{CsvInput, ImageInput, Interpolation, Layout, Preprocessing, Resize};

use crate::steps::Input;
use crate::{Datatype, Signature, TensorSpec};

fn input(preprocessing: &Preprocessing, datatypes: &[Datatype], shape: &[i64]) -> Option<Input> {
    let spec = |(at, &datatype): (usize, &Datatype)| TensorSpec {
        name: format!("x{at}"),
        datatype,
        shape: Some(shape.to_vec()),
    };
    let signature = Signature { inputs: datatypes.iter().enumerate().map(spec).collect(), outputs: vec![] };
    Input::compile(preprocessing, &signature).ok()
}

/// Pictures, in each way to fit them in. The first byte chooses the way, the rest is the picture.
pub fn pictures(bytes: &[u8]) {
    let Some((&way, content)) = bytes.split_first() else { return };
    let chosen = |choices: u8, shift: u8| (way >> shift) % choices;
    let image = ImageInput {
        resize: [Resize::Stretch, Resize::Letterbox, Resize::Crop]
            .into_iter()
            .nth(chosen(3, 0).into())
            .unwrap_or_default(),
        interpolation: if chosen(2, 2) == 0 { Interpolation::Nearest } else { Interpolation::Bilinear },
        antialias: chosen(2, 3) == 0,
        layout: Some(if chosen(2, 4) == 0 { Layout::Nchw } else { Layout::Nhwc }),
        width: 17,
        height: 9,
        ..ImageInput::default()
    };
    let preprocessing = Preprocessing { image: Some(image), csv: None };
    if let Some(input) = input(&preprocessing, &[Datatype::Fp32], &[-1, -1, -1, -1]) {
        let _ = input.image(content);
    }
}

/// Tables, for a model with one input and for one with an input per column.
pub fn tables(bytes: &[u8]) {
    let preprocessing = Preprocessing { image: None, csv: Some(CsvInput::default()) };
    let three = [Datatype::Bytes, Datatype::Int64, Datatype::Fp16];
    for (datatypes, shape) in [(&three[2..], [-1, -1]), (&three[..], [-1, 1])] {
        if let Some(input) = input(&preprocessing, datatypes, &shape) {
            let _ = input.csv(bytes);
        }
    }
}

/// What a process that runs a model in isolation says, and what it is asked.
pub fn frames(bytes: &[u8]) {
    crate::isolation::read_all(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    const MAGIC: [&[u8]; 4] = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x20\0\0\0WEBP", b""];

    proptest! {
        #[test]
        fn promise_6_no_bytes_make_a_reader_of_content_panic(
            way: u8, magic in 0_usize..4, bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            super::pictures(&[&[way], MAGIC[magic], &bytes].concat());
            super::tables(&bytes);
            super::frames(&bytes);
        }
    }
}
