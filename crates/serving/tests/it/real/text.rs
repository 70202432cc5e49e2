//! Reading a sign: one model finds lines of text, one says which way up they are, one reads them.

use std::io::Cursor;

use serde_json::Value;

use super::{PACKAGES, Served, engines, file, numbers, references, values};

const FIND: &str = "
serving:
  preprocessing: {image: {width: 320, height: 160, channels: BGR, mean: [0.5], std: [0.5]}}
";
const TURN: &str = "
serving:
  preprocessing:
    image:
      {width: 192, height: 48, layout: NCHW, channels: BGR, mean: [0.5], std: [0.5], antialias: false}
  postprocessing: {classes: {labels: [upright, upside down]}}
";
const READ: &str = "
serving:
  preprocessing:
    image:
      {width: 352, height: 48, resize: letterbox, align: topLeft, padValue: 127.5, layout: NCHW, channels: BGR,
       mean: [0.5], std: [0.5], antialias: false}
";

/// Left, top, width, height.
type Part = [usize; 4];

#[tokio::test]
async fn lines_of_a_sign_are_found_turned_upright_and_read() {
    let of = |name: &str| file(PACKAGES, &format!("rapidocr_onnxruntime/models/{name}_infer.onnx"));
    let (Some(find), Some(turn), Some(read)) =
        (of("ch_PP-OCRv4_det"), of("ch_ppocr_mobile_v2.0_cls"), of("ch_PP-OCRv4_rec"))
    else {
        return;
    };
    let content = std::fs::read("tests/data/real/sign.png").unwrap();
    let sign = Picture::read(&content);
    let references = references();
    let letters = Letters::new(&references["sign"]["letters"]);
    for engine in engines() {
        let models =
            [("find", find.clone(), FIND), ("turn", turn.clone(), TURN), ("read", read.clone(), READ)];
        let served = Served::new(engine, &models);
        let map = served.ask("find", "image/png", content.clone()).await;
        let found = parts(&values(&map, "sigmoid_0.tmp_0"), sign.width);
        let lines = references["sign"]["lines"].as_array().unwrap();
        assert_eq!(found.len(), lines.len(), "{engine}: {found:?}");
        for (part, line) in found.into_iter().zip(lines) {
            let expected = numbers(&line["box"]);
            let apart = part.iter().zip(expected).map(|(&side, expected)| (side as f32 - expected).abs());
            assert!(apart.fold(0.0, f32::max) <= 1.0, "{engine}: {part:?} is not {line}");
            let crop = sign.crop(part);
            for (picture, way, scores) in
                [(&crop, "upright", "upright"), (&crop.turned(), "upside down", "turned")]
            {
                let answer = served.ask("turn", "image/png", picture.write()).await;
                let class = &answer["classes"][0][0];
                let expected = numbers(&line[scores]).into_iter().fold(0.0, f32::max);
                let apart = (class["score"].as_f64().unwrap() as f32 - expected).abs();
                assert!(class["label"] == way && apart < 0.01, "{engine}: {class} is not {way} {expected}");
            }
            let steps = values(&served.ask("read", "image/png", crop.write()).await, "softmax_11.tmp_0");
            let (text, score) = letters.decode(&steps);
            assert_eq!(line["text"], text, "on {engine}");
            assert!((score - line["score"].as_f64().unwrap() as f32).abs() < 0.02, "{engine}: {score}");
        }
    }
}

/// Boxes around what is above 0.3 and touches, from top to bottom.
fn parts(map: &[f32], width: usize) -> Vec<Part> {
    let mut left: Vec<bool> = map.iter().map(|&probability| probability > 0.3).collect();
    let mut parts = Vec::new();
    for start in 0..left.len() {
        let (mut open, mut edges) = (vec![start], [width, usize::MAX, 0, 0]);
        while let Some(at) = open.pop() {
            if !std::mem::take(&mut left[at]) {
                continue;
            }
            let (x, y) = (at % width, at / width);
            edges = [edges[0].min(x), edges[1].min(y), edges[2].max(x), edges[3].max(y)];
            for (dx, dy) in (0..3).flat_map(|dx| (0..3).map(move |dy| (dx, dy))) {
                if (1..=width).contains(&(x + dx)) && (1..=map.len() / width).contains(&(y + dy)) {
                    open.push((y + dy - 1) * width + x + dx - 1);
                }
            }
        }
        if edges[1] != usize::MAX {
            parts.push([edges[0], edges[1], edges[2] + 1 - edges[0], edges[3] + 1 - edges[1]]);
        }
    }
    parts
}

/// Shades of grey.
struct Picture {
    width: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn read(content: &[u8]) -> Picture {
        let mut reader = png::Decoder::new(Cursor::new(content)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Grayscale, png::BitDepth::Eight));
        Picture { width: info.width as usize, pixels }
    }

    /// A line with what the detector, as it was taught, leaves off around it.
    fn crop(&self, [x, y, width, height]: Part) -> Picture {
        let grown = width * height * 16 / (20 * (width + height));
        let rows = self.pixels.chunks(self.width).skip(y - grown).take(height + 2 * grown);
        let pixels = rows.flat_map(|row| &row[x - grown..x + width + grown]).copied().collect();
        Picture { width: width + 2 * grown, pixels }
    }

    fn turned(&self) -> Picture {
        Picture { width: self.width, pixels: self.pixels.iter().rev().copied().collect() }
    }

    fn write(&self) -> Vec<u8> {
        let mut content = Vec::new();
        let size = |pixels: usize| u32::try_from(pixels).unwrap();
        let mut encoder =
            png::Encoder::new(&mut content, size(self.width), size(self.pixels.len() / self.width));
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&self.pixels).unwrap();
        content
    }
}

/// The classes of the reader that are letters of ASCII; class 0 is none.
struct Letters(Vec<(usize, char)>);

const CLASSES: usize = 6625;

impl Letters {
    fn new(reference: &Value) -> Letters {
        let classes = reference[0].as_array().unwrap().iter();
        let classes = classes.map(|class| usize::try_from(class.as_u64().unwrap()).unwrap());
        Letters(classes.zip(reference[1].as_str().unwrap().chars()).collect())
    }

    /// The text, and how sure its letters are on average: of equal ones in a row the first counts.
    fn decode(&self, steps: &[f32]) -> (String, f32) {
        let (mut text, mut sure, mut before) = (String::new(), Vec::new(), 0);
        for step in steps.chunks(CLASSES) {
            let best = (0..CLASSES).max_by(|&a, &b| step[a].total_cmp(&step[b])).unwrap();
            if best != 0 && best != before {
                let letter = self.0.iter().find(|(class, _)| *class == best);
                text.push(letter.map_or('\u{fffd}', |&(_, letter)| letter));
                sure.push(step[best]);
            }
            before = best;
        }
        (text, sure.iter().sum::<f32>() / sure.len() as f32)
    }
}
