//! Things found in a picture: from a model's outputs to boxes in the picture's pixels.

use std::borrow::Cow;

use types::{BoxFormat, BoxesOutput, Decoder};

use super::decoders::{self, CenterFace, FACE_LANDMARKS, Wanted};
use super::nms::{Candidate, Suppression, suppress};
use super::reading::Found;
use super::values::{find, floats, label};
use super::{Frame, StepError};
use crate::{Signature, Tensor};

/// Declared boxes, fitted to a model's outputs.
#[derive(Clone, Debug)]
pub struct Boxes {
    pub outputs: Vec<String>,
    declared: BoxesOutput,
}

fn misfit(field: &str, problem: impl Into<String>) -> StepError {
    StepError::declaration(&format!("postprocessing.boxes{field}"), problem)
}

impl Boxes {
    pub fn compile(declared: &BoxesOutput, signature: &Signature) -> Result<Boxes, StepError> {
        let given: Vec<String> = signature.outputs.iter().map(|spec| spec.name.clone()).collect();
        let unknown = declared.outputs.iter().find(|name| !given.contains(name));
        if let Some(name) = unknown {
            return Err(misfit(
                ".outputs",
                format!("names `{name}`; the model gives `{}`", given.join("`, `")),
            ));
        }
        let outputs = if declared.outputs.is_empty() { given } else { declared.outputs.clone() };
        let wanted = match declared.decoder {
            Decoder::CenterFace => 4..=4,
            Decoder::Yolov5 | Decoder::Yolov8 | Decoder::Rows => 1..=1,
            Decoder::Ssd => 2..=4,
        };
        if !wanted.contains(&outputs.len()) {
            let problem = format!(
                "needs {} names, for the decoder reads so many; the model gives `{}`",
                wanted.end(),
                outputs.join("`, `")
            );
            return Err(misfit(".outputs", problem));
        }
        check_labels(declared, signature, &outputs)?;
        Ok(Boxes { outputs, declared: declared.clone() })
    }

    /// Points of each box.
    pub fn landmarks(&self) -> usize {
        if self.declared.decoder == Decoder::CenterFace { FACE_LANDMARKS } else { 0 }
    }

    pub fn read(&self, outputs: &[Tensor], frame: Option<&Frame>) -> Result<Vec<Vec<Found>>, StepError> {
        let outputs = self.outputs.iter().map(|name| Values::of(find(outputs, name)?));
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        let wanted = self.wanted(frame);
        let candidates = self.decode(&outputs, &wanted)?;
        let how = Suppression {
            iou_threshold: self.declared.iou_threshold as f32,
            is_agnostic: self.declared.agnostic_nms,
            max_boxes: self.declared.max_boxes as usize,
        };
        let found = |candidate: Candidate| place(candidate, frame, &self.declared.labels);
        let sample =
            |candidates: Vec<Candidate>| suppress(candidates, how).into_iter().filter_map(found).collect();
        Ok(candidates.into_iter().map(sample).collect())
    }

    fn wanted(&self, frame: Option<&Frame>) -> Wanted<'_> {
        let declared = &self.declared;
        let usual = match declared.decoder {
            Decoder::Yolov5 | Decoder::Yolov8 => BoxFormat::Cxcywh,
            Decoder::CenterFace | Decoder::Ssd | Decoder::Rows => BoxFormat::Xyxy,
        };
        let is_normalized = declared.normalized.unwrap_or(declared.decoder == Decoder::Ssd);
        let size = frame.filter(|_| is_normalized).map_or((1.0, 1.0), Frame::model_size);
        Wanted {
            score_threshold: declared.score_threshold as f32,
            box_format: declared.box_format.unwrap_or(usual),
            unit: (size.0 as f32, size.1 as f32),
            labels: &declared.labels,
        }
    }

    /// One list of candidates for each sample.
    fn decode(&self, outputs: &[Values<'_>], wanted: &Wanted<'_>) -> Result<Vec<Vec<Candidate>>, StepError> {
        match (self.declared.decoder, outputs) {
            (Decoder::CenterFace, [heatmap, scale, offset, landmarks]) => {
                let &[samples, 1, height, width] = heatmap.shape else {
                    return Err(heatmap.misshaped("[N, 1, h, w]"));
                };
                scale.expect(&[samples, 2, height, width])?;
                offset.expect(&[samples, 2, height, width])?;
                landmarks.expect(&[samples, 2 * FACE_LANDMARKS, height, width])?;
                let sample = |at| {
                    let (heatmap, scale) = (heatmap.sample(at), scale.sample(at));
                    let (offset, landmarks) = (offset.sample(at), landmarks.sample(at));
                    CenterFace { heatmap, scale, offset, landmarks, width }.decode(wanted)
                };
                Ok((0..samples).map(sample).collect())
            }
            (Decoder::Yolov5, [output]) => {
                let (samples, width) = output.rows("[N, boxes, 5 + classes]", 5)?;
                Ok((0..samples).map(|at| decoders::yolov5(output.sample(at), width, wanted)).collect())
            }
            (Decoder::Yolov8, [output]) => match *output.shape {
                [samples, channels, count] if channels > 4 => {
                    Ok((0..samples).map(|at| decoders::yolov8(output.sample(at), count, wanted)).collect())
                }
                _ => Err(output.misshaped("[N, 4 + classes, boxes]")),
            },
            (Decoder::Rows, [output]) => match output.rows("[N, boxes, 5 or 6]", 5)? {
                (samples, width @ (5 | 6)) => {
                    Ok((0..samples).map(|at| decoders::rows(output.sample(at), width, wanted)).collect())
                }
                _ => Err(output.misshaped("[N, boxes, 5 or 6]")),
            },
            (Decoder::Ssd, [places, scores, rest @ ..]) => decode_ssd(places, scores, rest, wanted),
            _ => Err(misfit(".outputs", "are not as many as the decoder reads")),
        }
    }
}

fn decode_ssd(
    places: &Values<'_>,
    scores: &Values<'_>,
    rest: &[Values<'_>],
    wanted: &Wanted<'_>,
) -> Result<Vec<Vec<Candidate>>, StepError> {
    let &[samples, boxes, 4] = places.shape else { return Err(places.misshaped("[N, boxes, 4]")) };
    let (classes, counts) = (rest.first(), rest.get(1));
    let per_box = match *scores.shape {
        [s, b] if (s, b) == (samples, boxes) => 1,
        [s, b, per_box] if (s, b) == (samples, boxes) && (per_box == 1 || classes.is_none()) => per_box,
        _ => return Err(scores.misshaped(&format!("[{samples}, {boxes}], or with a score per class"))),
    };
    if let Some(classes) = classes {
        classes.expect(&[samples, boxes])?;
    }
    if let Some(counts) = counts.filter(|counts| counts.values.len() != samples) {
        return Err(counts.misshaped(&format!("[{samples}]")));
    }
    let sample = |at: usize| {
        let count = counts.and_then(|counts| counts.values.get(at)).map_or(boxes, |&count| count as usize);
        let places = places.sample(at).get(..count.saturating_mul(4)).unwrap_or(places.sample(at));
        decoders::ssd(places, scores.sample(at), per_box, classes.map(|classes| classes.sample(at)), wanted)
    };
    Ok((0..samples).map(sample).collect())
}

/// An output's numbers.
struct Values<'a> {
    name: &'a str,
    shape: &'a [usize],
    values: Cow<'a, [f32]>,
}

impl<'a> Values<'a> {
    fn of(tensor: &'a Tensor) -> Result<Values<'a>, StepError> {
        Ok(Values { name: tensor.name(), shape: tensor.shape(), values: floats(tensor)? })
    }

    /// The numbers of one sample.
    fn sample(&self, at: usize) -> &[f32] {
        let size: usize = self.shape.iter().skip(1).product();
        self.values.get(at * size..(at + 1) * size).unwrap_or_default()
    }

    /// Samples, and numbers in a row; a matrix is one sample.
    fn rows(&self, expected: &str, least: usize) -> Result<(usize, usize), StepError> {
        match *self.shape {
            [samples, _, width] if width >= least => Ok((samples, width)),
            _ => Err(self.misshaped(expected)),
        }
    }

    fn expect(&self, shape: &[usize]) -> Result<(), StepError> {
        if self.shape == shape { Ok(()) } else { Err(self.misshaped(&format!("{shape:?}"))) }
    }

    fn misshaped(&self, expected: &str) -> StepError {
        StepError::answer(self.name, format!("has shape {:?}, not {expected}", self.shape))
    }
}

/// A box in the picture, cut off at its edges; `None` where it lies outside.
fn place(candidate: Candidate, frame: Option<&Frame>, labels: &[String]) -> Option<Found> {
    let move_to = |x: f32, y: f32| match frame {
        Some(frame) => frame.to_picture(f64::from(x), f64::from(y)),
        None => (f64::from(x), f64::from(y)),
    };
    let (mut left, mut top) = move_to(candidate.left, candidate.top);
    let (mut right, mut bottom) = move_to(candidate.right, candidate.bottom);
    if let Some((width, height)) = frame.map(Frame::picture_size) {
        (left, right) = (left.clamp(0.0, width), right.clamp(0.0, width));
        (top, bottom) = (top.clamp(0.0, height), bottom.clamp(0.0, height));
    }
    let landmarks = candidate.landmarks.iter().map(|&(x, y)| move_to(x, y));
    let found = Found {
        label: label(labels, candidate.class),
        index: candidate.class,
        score: candidate.score,
        x: left as f32,
        y: top as f32,
        width: (right - left) as f32,
        height: (bottom - top) as f32,
        landmarks: landmarks.map(|(x, y)| (x as f32, y as f32)).collect(),
    };
    (found.width > 0.0 && found.height > 0.0).then_some(found)
}

/// Names must be as many as the classes, where the model says how many these are.
fn check_labels(declared: &BoxesOutput, signature: &Signature, outputs: &[String]) -> Result<(), StepError> {
    let (output, axis, others) = match declared.decoder {
        Decoder::Yolov5 => (0, 2, 5),
        Decoder::Yolov8 => (0, 1, 4),
        Decoder::Ssd if outputs.len() == 2 => (1, 2, 0),
        Decoder::CenterFace | Decoder::Ssd | Decoder::Rows => return Ok(()),
    };
    let spec = outputs.get(output).and_then(|name| signature.output(name));
    let size = spec.and_then(|spec| spec.shape.as_ref()?.get(axis).copied());
    let classes = size.and_then(|size| usize::try_from(size).ok()?.checked_sub(others));
    match (spec, classes) {
        (Some(spec), Some(classes)) if !declared.labels.is_empty() && declared.labels.len() != classes => {
            let problem = format!(
                "has {} names, but output `{}` has {classes} classes",
                declared.labels.len(),
                spec.name
            );
            Err(misfit(".labels", problem))
        }
        _ => Ok(()),
    }
}
