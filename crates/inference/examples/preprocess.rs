//! Prints how long a picture takes to become a tensor, decoding and all:
//!
//!     cargo run --release -p avocet-inference --example preprocess -- photo.jpg 224 224 [stretch|letterbox|crop] [runs]

use std::time::Instant;

use avocet_inference::steps::Input;
use avocet_inference::{Datatype, Signature, TensorSpec};
use types::{ImageInput, Preprocessing, Resize};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let photo = std::fs::read(arguments.next().ok_or("name a picture")?)?;
    let width: u32 = arguments.next().ok_or("give the width")?.parse()?;
    let height: u32 = arguments.next().ok_or("give the height")?.parse()?;
    let resize = match arguments.next().as_deref() {
        Some("letterbox") => Resize::Letterbox,
        Some("crop") => Resize::Crop,
        _ => Resize::Stretch,
    };
    let runs: usize = arguments.next().map_or(Ok(20), |text| text.parse())?;
    for antialias in [true, false] {
        let image = ImageInput { resize, antialias, width, height, ..ImageInput::default() };
        let spec = TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: Some(vec![1, 3, -1, -1]) };
        let signature = Signature { inputs: vec![spec], outputs: vec![] };
        let input = Input::compile(&Preprocessing { image: Some(image), csv: None }, &signature)?;
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs {
            let started = Instant::now();
            input.image(&photo)?;
            times.push(started.elapsed());
        }
        times.sort();
        println!(
            "antialias {antialias}: median {:?} of {runs}",
            times.get(runs / 2).copied().unwrap_or_default()
        );
    }
    Ok(())
}
