//! Speech in a recording, found by a model that a client gives its state back with every piece.

use std::ops::Range;

use serde_json::{Value, json};

use super::{PACKAGES, Served, engines, file, numbers, references, values};

/// Samples of silence before the recording, at 16 kHz.
const SILENCE: usize = 8192;
/// What one request hears of, and what it is reminded of from the one before.
const CHUNK: usize = 512;
const CONTEXT: usize = 64;
const STATE: usize = 2 * 128;

/// The recording behind silence, from -1 to 1.
fn sound() -> Option<Vec<f32>> {
    let content = std::fs::read(file(PACKAGES, "moonshine_onnx/assets/beckett.wav")?).unwrap();
    let start = content.windows(4).position(|part| part == b"data").unwrap() + 8;
    let samples = content[start..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
    let silence = std::iter::repeat_n(0.0, CONTEXT + SILENCE);
    Some(silence.chain(samples.map(|sample| f32::from(sample) / 32768.0)).collect())
}

fn model(name: &str) -> Option<std::path::PathBuf> {
    file(PACKAGES, &format!("silero_vad/data/{name}.onnx"))
}

fn input(name: &str, shape: &Value, data: &[f32]) -> Value {
    json!({"name": name, "shape": shape, "datatype": "FP32", "data": data})
}

/// The pieces, by their numbers, in which somebody speaks.
fn spoken(probabilities: &[f32]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for piece in (0..probabilities.len()).filter(|&piece| probabilities[piece] > 0.5) {
        match found.last_mut() {
            Some(range) if range.end == piece => range.end += 1,
            _ => found.push(piece..piece + 1),
        }
    }
    found
}

#[tokio::test]
async fn speech_is_found_where_it_is_and_silence_is_silence() {
    let Some(sound) = sound() else { return };
    for (name, expected) in references()["speech"].as_object().unwrap() {
        let (file, expected) = (model(name).unwrap(), numbers(expected));
        for engine in engines() {
            let served = Served::new(engine, &[("voice", file.clone(), "")]);
            let takes_rate = !name.ends_with("half") && !name.ends_with("openvino_16k");
            let mut state = vec![0.0; STATE];
            let mut heard = Vec::new();
            for piece in sound.windows(CONTEXT + CHUNK).step_by(CHUNK).take(expected.len()) {
                let mut inputs = vec![
                    input("input", &json!([1, piece.len()]), piece),
                    input("state", &json!([2, 1, 128]), &state),
                ];
                let rate = json!({"name": "sr", "shape": [], "datatype": "INT64", "data": [16000]});
                inputs.extend(takes_rate.then_some(rate));
                let answer = served.tensors("voice", &json!(inputs)).await;
                heard.extend(values(&answer, "output"));
                state = values(&answer, "stateN");
            }
            let apart = heard.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{name} on {engine}: {apart} apart");
            assert!(apart < 0.002, "{name} on {engine}: {apart} apart");
            let silent = SILENCE / CHUNK;
            assert!(heard[..silent].iter().all(|&probability| probability < 0.1), "{name} on {engine}");
            let spoken = spoken(&heard);
            assert!(spoken.len() == 1 && spoken[0].len() > 10, "{name} on {engine}: {spoken:?}");
        }
    }
}

#[tokio::test]
async fn a_recording_in_one_request_is_heard_as_piece_by_piece() {
    let (Some(sound), Some(file)) = (sound(), model("silero_vad_16k_sequence")) else { return };
    let expected = numbers(&references()["speech"]["silero_vad"]);
    let pieces = sound.windows(CONTEXT + CHUNK).step_by(CHUNK).take(expected.len());
    let pieces: Vec<f32> = pieces.flatten().copied().collect();
    let inputs = json!([
        input("input", &json!([expected.len(), CONTEXT + CHUNK]), &pieces),
        input("h", &json!([1, 1, 128]), &[0.0; 128]),
        input("c", &json!([1, 1, 128]), &[0.0; 128]),
    ]);
    for engine in engines() {
        let served = Served::new(engine, &[("voice", file.clone(), "")]);
        let heard = values(&served.tensors("voice", &inputs).await, "speech_probs");
        assert_eq!(spoken(&heard), spoken(&expected), "on {engine}");
        let apart = heard.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 0.002, "{engine}: {apart} apart");
    }
}
