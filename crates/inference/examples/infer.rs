//! Runs one model on every engine that is here and prints the time of a run:
//!
//!     cargo run --release -p avocet-inference --example infer -- model.onnx [size of open dimensions] [runs] [divisor of inputs]
//!
//! Inputs are a fixed pattern; outputs of the engines are compared with the first one's.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use avocet_inference::{Datatype, EngineChoice, EngineOptions, Engines, LoadOptions, Tensor, TensorSpec};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().ok_or("name a model file")?);
    let open = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let runs: usize = arguments.next().map_or(Ok(50), |text| text.parse())?;
    let divisor: f32 = arguments.next().map_or(Ok(1.0), |text| text.parse())?;
    let engines = Engines::discover(&EngineOptions::default());
    let mut reference: Option<Vec<Tensor>> = None;
    for engine in engines.list() {
        let choice: EngineChoice = engine.name.parse()?;
        let started = Instant::now();
        let model = match engines.load(choice, &path, &LoadOptions { workers: 1, threads: 0, instances: 0 }) {
            Ok(loaded) => loaded.model,
            Err(error) => {
                println!("{} {}: {error}", engine.name, engine.version);
                continue;
            }
        };
        let load = started.elapsed();
        let signature = model.signature();
        let inputs =
            signature.inputs.iter().map(|spec| pattern(spec, open, divisor)).collect::<Fallible<Vec<_>>>()?;
        let outputs: Vec<&str> = signature.outputs.iter().map(|spec| spec.name.as_str()).collect();
        let mut times = Vec::with_capacity(runs);
        let mut last = model.run(&inputs, &outputs)?;
        for _ in 0..runs {
            let started = Instant::now();
            last = model.run(&inputs, &outputs)?;
            times.push(started.elapsed());
        }
        times.sort();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(Duration::ZERO);
        let difference = reference.as_ref().map(|reference| difference(reference, &last));
        println!(
            "{} {}: load {load:.1?}, run min {:.2?} median {:.2?} p90 {:.2?}, greatest difference {difference:?}",
            engine.name,
            engine.version,
            at(0),
            at(50),
            at(90)
        );
        reference.get_or_insert(last);
    }
    Ok(())
}

fn pattern(spec: &TensorSpec, open: usize, divisor: f32) -> Fallible<Tensor> {
    let shape: Vec<usize> =
        spec.shape.iter().flatten().map(|&size| usize::try_from(size).unwrap_or(open)).collect();
    let count: usize = shape.iter().product();
    println!("input {} {} {shape:?}", spec.name, spec.datatype);
    let numbers = (0..count).map(|index| (index.wrapping_mul(40_503) >> 5) % 256);
    Ok(match spec.datatype {
        Datatype::Fp32 => {
            let floats = numbers.map(|number| u8::try_from(number).map(|number| f32::from(number) / divisor));
            Tensor::from_vec(spec.name.as_str(), shape, floats.collect::<Result<Vec<f32>, _>>()?)?
        }
        Datatype::Int64 => {
            let integers = numbers.map(i64::try_from).collect::<Result<Vec<i64>, _>>()?;
            Tensor::from_vec(spec.name.as_str(), shape, integers)?
        }
        other => return Err(format!("this example makes no {other} input").into()),
    })
}

fn difference(a: &[Tensor], b: &[Tensor]) -> f32 {
    let pairs =
        a.iter().zip(b).filter_map(|(a, b)| Some((a.elements::<f32>().ok()?, b.elements::<f32>().ok()?)));
    let differences =
        pairs.flat_map(|(a, b)| a.iter().zip(b.iter()).map(|(a, b)| (a - b).abs()).collect::<Vec<_>>());
    differences.fold(0.0, f32::max)
}
