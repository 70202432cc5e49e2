//! Pictures of every format become the tensors that a model declares.

use avocet_inference::steps::{Input, StepError};
use avocet_inference::{Datatype, Signature, Tensor, TensorSpec};
use proptest::prelude::*;
use types::{Align, Channels, ImageInput, Interpolation, Layout, Preprocessing, Resize};

pub fn signature(datatype: Datatype, shape: &[i64]) -> Signature {
    let spec = |name: &str| TensorSpec { name: name.into(), datatype, shape: Some(shape.to_vec()) };
    Signature { inputs: vec![spec("x")], outputs: vec![spec("y")] }
}

pub fn compile(image: ImageInput, signature: &Signature) -> Result<Input, StepError> {
    Input::compile(&Preprocessing { image: Some(image), csv: None }, signature)
}

fn picture(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new("tests/data/vision");
    std::fs::read(folder.join(name)).unwrap()
}

fn tensor(image: ImageInput, signature: &Signature, name: &str) -> Tensor {
    compile(image, signature).unwrap().image(&picture(name)).unwrap().0.remove(0)
}

/// As it is: 8-bit values, pixel by pixel.
const BYTES: [i64; 4] = [1, 24, 32, 3];

/// The four quarters' colours, out of values pixel by pixel.
fn quarters(tensor: &Tensor) -> [[u8; 3]; 4] {
    assert_eq!(tensor.shape(), [1, 24, 32, 3]);
    let values = tensor.elements::<u8>().unwrap();
    [(8, 6), (24, 6), (8, 18), (24, 18)].map(|(x, y)| values[(y * 32 + x) * 3..][..3].try_into().unwrap())
}

const COLOURS: [[u8; 3]; 4] = [[220, 30, 20], [20, 200, 40], [30, 40, 210], [128, 128, 128]];

fn assert_like(name: &str, given: [[u8; 3]; 4], expected: [[u8; 3]; 4]) {
    let far = given.iter().flatten().zip(expected.iter().flatten()).any(|(a, b)| a.abs_diff(*b) > 3);
    assert!(!far, "{name}: {given:?} is not {expected:?}");
}

#[test]
fn every_format_gives_the_colours_that_it_shows() {
    let signature = signature(Datatype::Uint8, &BYTES);
    for name in [
        "baseline.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "turned.jpg",
        "rgb.png",
        "rgba.png",
        "palette.png",
        "turned.png",
        "lossy.webp",
        "rgba.webp",
        "turned.webp",
    ] {
        assert_like(name, quarters(&tensor(ImageInput::default(), &signature, name)), COLOURS);
    }
    let luma = [86, 128, 56, 128].map(|luma| [luma; 3]);
    for name in ["gray.jpg", "gray_alpha.png", "gray16.png"] {
        assert_like(name, quarters(&tensor(ImageInput::default(), &signature, name)), luma);
    }
}

#[test]
fn a_turned_picture_is_measured_as_people_see_it() {
    let signature = signature(Datatype::Uint8, &[1, -1, -1, 3]);
    let declared = ImageInput { width: 64, height: 64, resize: Resize::Letterbox, ..ImageInput::default() };
    let input = compile(declared, &signature).unwrap();
    let (_, frame) = input.image(&picture("turned.jpg")).unwrap();
    assert_eq!(frame.picture_size(), (32.0, 24.0));
    assert_eq!(frame.to_picture(64.0, 56.0), (32.0, 24.0));
}

#[test]
fn channels_are_ordered_as_declared() {
    let signature = signature(Datatype::Uint8, &BYTES);
    let bgr = ImageInput { channels: Channels::Bgr, ..ImageInput::default() };
    let reversed = COLOURS.map(|[red, green, blue]| [blue, green, red]);
    assert_like("BGR", quarters(&tensor(bgr.clone(), &signature, "rgb.png")), reversed);
    let luma = [86, 128, 56, 128].map(|luma| [luma; 3]);
    assert_like("gray as BGR", quarters(&tensor(bgr, &signature, "gray.jpg")), luma);

    let signature = self::signature(Datatype::Uint8, &[-1, 1, 24, 32]);
    let gray = ImageInput { channels: Channels::Gray, ..ImageInput::default() };
    let tensor = tensor(gray, &signature, "rgb.png");
    assert_eq!(tensor.shape(), [1, 1, 24, 32]);
    let values = tensor.elements::<u8>().unwrap();
    assert_eq!([values[0], values[31], values[23 * 32], values[24 * 32 - 1]], [86, 128, 56, 128]);
}

#[test]
fn values_are_scaled_then_normalised_channel_by_channel() {
    let signature = signature(Datatype::Fp32, &[-1, 3, 24, 32]);
    let declared =
        ImageInput { mean: vec![0.5, 0.25, 0.0], std: vec![0.5, 0.25, 2.0], ..ImageInput::default() };
    let given = tensor(declared, &signature, "rgb.png");
    let values = given.elements::<f32>().unwrap();
    for (plane, (value, (mean, std))) in
        [220.0, 30.0, 20.0].into_iter().zip([(0.5, 0.5), (0.25, 0.25), (0.0, 2.0)]).enumerate()
    {
        let expected = (value / 255.0 - mean) / std;
        assert!((values[plane * 24 * 32] - expected).abs() < 1e-6);
    }
    let unscaled = ImageInput { scale: Some(1.0), mean: vec![128.0], ..ImageInput::default() };
    assert_eq!(tensor(unscaled, &signature, "rgb.png").elements::<f32>().unwrap()[0], 92.0);
}

#[test]
fn every_datatype_holds_the_same_picture() {
    let signed = ImageInput { mean: vec![128.0], ..ImageInput::default() };
    for (datatype, declared) in [
        (Datatype::Uint8, ImageInput::default()),
        (Datatype::Int8, signed),
        (Datatype::Fp16, ImageInput::default()),
        (Datatype::Bf16, ImageInput::default()),
        (Datatype::Fp64, ImageInput::default()),
    ] {
        let given = tensor(declared, &signature(datatype, &[3, 24, 32]), "rgb.png");
        assert_eq!((given.datatype(), given.shape()), (datatype, &[3, 24, 32][..]));
        let first = &given.data()[..datatype.size().unwrap()];
        let expected: &[u8] = match datatype {
            Datatype::Uint8 => &[220],
            Datatype::Int8 => &[92],
            Datatype::Fp16 => &[0xe7, 0x3a],
            Datatype::Bf16 => &[0x5d, 0x3f],
            _ => &(220.0_f64 / 255.0).to_le_bytes(),
        };
        assert_eq!(first, expected, "{datatype}");
    }
}

#[test]
fn a_letterbox_is_filled_with_the_declared_value_after_it_is_normalised() {
    let signature = signature(Datatype::Fp32, &[1, 3, 8, 16]);
    let declared = |align| ImageInput {
        resize: Resize::Letterbox,
        align,
        pad_value: 127.5,
        mean: vec![0.5],
        std: vec![0.5],
        interpolation: Interpolation::Nearest,
        ..ImageInput::default()
    };
    // 32 x 24 fits as 11 x 8.
    for (align, filled) in [(Align::Center, [0, 1, 13, 14, 15]), (Align::TopLeft, [11, 12, 13, 14, 15])] {
        let given = tensor(declared(align), &signature, "rgb.png");
        for row in given.elements::<f32>().unwrap().chunks(16) {
            let free: Vec<usize> = (0..16).filter(|&x| row[x].abs() < 1e-6).collect();
            assert_eq!(free, filled);
        }
    }
}

#[test]
fn a_crop_sees_the_middle() {
    let signature = signature(Datatype::Uint8, &[1, 4, 4, 3]);
    let crop = |crop_fraction| ImageInput { resize: Resize::Crop, crop_fraction, ..ImageInput::default() };
    let (_, frame) = compile(crop(0.5), &signature).unwrap().image(&picture("rgb.png")).unwrap();
    assert_eq!((frame.to_picture(0.0, 0.0), frame.to_picture(4.0, 4.0)), ((10.0, 6.0), (22.0, 18.0)));
    let given = tensor(crop(1.0), &signature, "rgb.png");
    assert_eq!(given.elements::<u8>().unwrap()[..3], COLOURS[0]);
}

#[test]
fn a_layout_that_shapes_leave_open_is_declared() {
    let open = signature(Datatype::Fp32, &[-1, -1, -1, -1]);
    let sized = ImageInput { width: 8, height: 6, ..ImageInput::default() };
    let error = compile(sized.clone(), &open).unwrap_err().to_string();
    assert_eq!(
        error,
        "`serving.preprocessing.image.layout` is needed: input `x` (FP32, shape [-1, -1, -1, -1]) leaves it open"
    );
    for (layout, shape) in [(Layout::Nchw, [1, 3, 6, 8]), (Layout::Nhwc, [1, 6, 8, 3])] {
        let declared = ImageInput { layout: Some(layout), ..sized.clone() };
        assert_eq!(tensor(declared, &open, "rgb.png").shape(), shape);
    }
}

#[test]
fn what_does_not_fit_the_model_is_found_when_it_is_loaded() {
    let nchw = [1, 3, 24, 32];
    for (datatype, shape, declared, problem) in [
        (Datatype::Fp32, &nchw[..], ImageInput { width: 9, ..ImageInput::default() }, "image.width` is 9"),
        (Datatype::Fp32, &[1, 3, -1, 32], ImageInput::default(), "image.height` is needed"),
        (
            Datatype::Fp32,
            &nchw,
            ImageInput { channels: Channels::Gray, layout: Some(Layout::Nchw), ..ImageInput::default() },
            "image.channels` gives 1 channels",
        ),
        (
            Datatype::Fp32,
            &nchw,
            ImageInput { mean: vec![1.0, 2.0], ..ImageInput::default() },
            "image.mean` has 2 numbers",
        ),
        (
            Datatype::Fp32,
            &nchw,
            ImageInput { input: Some("z".into()), ..ImageInput::default() },
            "image.input` is `z`; the model takes `x`",
        ),
        (Datatype::Fp32, &nchw, ImageInput { std: vec![0.0], ..ImageInput::default() }, "image.std` holds 0"),
        (Datatype::Int64, &nchw, ImageInput::default(), "can't fill input `x` (INT64"),
        (Datatype::Fp32, &[10, 3, 24, 32], ImageInput::default(), "fills one picture"),
        (Datatype::Fp32, &[1, 4], ImageInput::default(), "fills one picture"),
    ] {
        let error = compile(declared, &signature(datatype, shape)).unwrap_err();
        assert!(matches!(error, StepError::Declaration { .. }));
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn content_that_is_no_picture_is_told_apart_from_a_damaged_one() {
    let input = compile(ImageInput::default(), &signature(Datatype::Uint8, &BYTES)).unwrap();
    for content in [&b""[..], b"hello", b"GIF89a", b"\xff\xd8"] {
        assert_eq!(input.image(content).unwrap_err(), StepError::UnknownFormat);
    }
    for name in ["baseline.jpg", "progressive.jpg", "rgb.png", "lossy.webp"] {
        let whole = picture(name);
        let cut = &whole[..whole.len() * 3 / 4];
        let error = input.image(cut).unwrap_err();
        assert!(matches!(error, StepError::Picture { .. }), "{name}: {error}");
    }
    assert!(matches!(input.csv(b"1,2"), Err(StepError::NotTaken { .. })));
}

#[test]
fn a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded() {
    let input = compile(ImageInput::default(), &signature(Datatype::Uint8, &BYTES)).unwrap();
    let mut png = picture("rgb.png");
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let checksum = crc(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    let mut jpeg = picture("baseline.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    for content in [png, jpeg] {
        let error = input.image(&content).unwrap_err();
        assert!(matches!(error, StepError::TooLarge { what: "pixels", .. }), "{error}");
    }
}

/// The checksum of PNG's chunks.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 },
        )
    };
    !bytes.iter().fold(u32::MAX, step)
}

const ALL: [&str; 14] = [
    "baseline.jpg",
    "progressive.jpg",
    "gray.jpg",
    "cmyk.jpg",
    "turned.jpg",
    "rgb.png",
    "rgba.png",
    "gray_alpha.png",
    "palette.png",
    "gray16.png",
    "turned.png",
    "lossy.webp",
    "rgba.webp",
    "turned.webp",
];

#[test]
fn every_cut_of_a_picture_is_answered() {
    let input = compile(ImageInput::default(), &signature(Datatype::Uint8, &BYTES)).unwrap();
    for name in ALL {
        let whole = picture(name);
        for length in 0..whole.len() {
            avoid_panic(&input, &whole[..length], name);
        }
    }
}

/// A decoder's panic is told as a damaged picture: it must not even come to that.
fn avoid_panic(input: &Input, content: &[u8], name: &str) {
    if let Err(error) = input.image(content) {
        assert!(!error.to_string().contains("panicked"), "{name}: {error}");
    }
}

proptest! {
    #[test]
    fn changed_bytes_never_make_a_decoder_panic(
        which in 0_usize..ALL.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let input = compile(ImageInput::default(), &signature(Datatype::Uint8, &BYTES)).unwrap();
        let mut content = picture(ALL[which]);
        for (at, value) in changes {
            *at.get_mut(&mut content) = value;
        }
        avoid_panic(&input, &content, ALL[which]);
    }
}
