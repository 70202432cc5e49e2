//! What the outputs of detectors hold: arithmetic from one sample's numbers to candidates.

use types::BoxFormat;

use super::nms::Candidate;

/// What every decoder needs to know.
pub struct Wanted<'a> {
    pub score_threshold: f32,
    pub box_format: BoxFormat,
    /// What a box's numbers are multiplied by, across and down.
    pub unit: (f32, f32),
    /// Classes with an empty name are left out.
    pub labels: &'a [String],
}

impl Wanted<'_> {
    fn wants(&self, class: usize, score: f32) -> bool {
        score >= self.score_threshold && self.labels.get(class).is_none_or(|label| !label.is_empty())
    }

    fn candidate(&self, [a, b, c, d]: [f32; 4], score: f32, class: usize) -> Candidate {
        let [left, top, right, bottom] = match self.box_format {
            BoxFormat::Xyxy => [a, b, c, d],
            BoxFormat::Yxyx => [b, a, d, c],
            BoxFormat::Xywh => [a, b, a + c, b + d],
            BoxFormat::Cxcywh => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        };
        let (across, down) = self.unit;
        let (left, right, top, bottom) = (left * across, right * across, top * down, bottom * down);
        Candidate { left, top, right, bottom, score, class, landmarks: vec![] }
    }
}

/// The class that scores best, the first of equals.
fn best(scores: &[f32]) -> Option<(usize, f32)> {
    let better = |a: (usize, f32), b: (usize, f32)| if b.1 > a.1 { b } else { a };
    scores.iter().copied().enumerate().filter(|(_, score)| !score.is_nan()).reduce(better)
}

/// Rows of `width` numbers: a box, objectness, a score per class.
pub fn yolov5(values: &[f32], width: usize, wanted: &Wanted<'_>) -> Vec<Candidate> {
    let candidate = |row: &[f32]| {
        let (&place, rest) = row.split_first_chunk::<4>()?;
        let (&objectness, scores) = rest.split_first()?;
        let (class, score) = if scores.is_empty() { (0, 1.0) } else { best(scores)? };
        let score = score * objectness;
        wanted.wants(class, score).then(|| wanted.candidate(place, score, class))
    };
    values.chunks_exact(width.max(1)).filter_map(candidate).collect()
}

/// Columns of a box and a score per class, of which there are `count`.
pub fn yolov8(values: &[f32], count: usize, wanted: &Wanted<'_>) -> Vec<Candidate> {
    let mut planes = values.chunks_exact(count.max(1));
    let (Some(a), Some(b), Some(c), Some(d)) = (planes.next(), planes.next(), planes.next(), planes.next())
    else {
        return vec![];
    };
    // Class by class, as the numbers lie in memory.
    let mut best = vec![(0_usize, f32::NEG_INFINITY); count];
    for (class, scores) in planes.enumerate() {
        for (best, &score) in best.iter_mut().zip(scores) {
            if score > best.1 {
                *best = (class, score);
            }
        }
    }
    let places = a.iter().zip(b).zip(c).zip(d).map(|(((&a, &b), &c), &d)| [a, b, c, d]);
    let wanted_ones = places.zip(best).filter(|&(_, (class, score))| wanted.wants(class, score));
    wanted_ones.map(|(place, (class, score))| wanted.candidate(place, score, class)).collect()
}

/// Boxes, and for each of them `classes` scores, or one score and its class.
pub fn ssd(
    places: &[f32],
    scores: &[f32],
    per_box: usize,
    classes: Option<&[f32]>,
    wanted: &Wanted<'_>,
) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let boxes = places.chunks_exact(4).zip(scores.chunks_exact(per_box.max(1)));
    for (at, (place, scores)) in boxes.enumerate() {
        let Some(&place) = place.first_chunk::<4>() else { continue };
        for (class, &score) in scores.iter().enumerate() {
            let class = classes.and_then(|classes| classes.get(at)).map_or(class, |&class| index(class));
            if wanted.wants(class, score) {
                candidates.push(wanted.candidate(place, score, class));
            }
        }
    }
    candidates
}

/// Rows of `width` numbers: a box, a score, a class unless there is but one.
pub fn rows(values: &[f32], width: usize, wanted: &Wanted<'_>) -> Vec<Candidate> {
    let candidate = |row: &[f32]| {
        let (&place, rest) = row.split_first_chunk::<4>()?;
        let (&score, rest) = rest.split_first()?;
        let class = rest.first().map_or(0, |&class| index(class));
        wanted.wants(class, score).then(|| wanted.candidate(place, score, class))
    };
    values.chunks_exact(width.max(1)).filter_map(candidate).collect()
}

/// The four outputs of CenterFace, which see a quarter of the picture's width and height.
pub struct CenterFace<'a> {
    pub heatmap: &'a [f32],
    pub scale: &'a [f32],
    pub offset: &'a [f32],
    pub landmarks: &'a [f32],
    pub width: usize,
}

/// Points of a face that CenterFace gives.
pub const FACE_LANDMARKS: usize = 5;
const STRIDE: f32 = 4.0;

impl CenterFace<'_> {
    pub fn decode(&self, wanted: &Wanted<'_>) -> Vec<Candidate> {
        let peaks = self.heatmap.iter().enumerate().filter(|&(_, &score)| wanted.wants(0, score));
        peaks.filter_map(|(at, &score)| self.face(at, score)).collect()
    }

    fn face(&self, at: usize, score: f32) -> Option<Candidate> {
        let area = self.heatmap.len();
        let value = |plane: &[f32], channel: usize| plane.get(channel * area + at).copied();
        let (row, column) = (at.checked_div(self.width)?, at.checked_rem(self.width)?);
        let height = value(self.scale, 0)?.exp() * STRIDE;
        let width = value(self.scale, 1)?.exp() * STRIDE;
        let top = (row as f32 + value(self.offset, 0)? + 0.5) * STRIDE - height / 2.0;
        let left = (column as f32 + value(self.offset, 1)? + 0.5) * STRIDE - width / 2.0;
        let point = |number: usize| {
            let x = left + value(self.landmarks, 2 * number + 1)? * width;
            let y = top + value(self.landmarks, 2 * number)? * height;
            Some((x, y))
        };
        let landmarks = (0..FACE_LANDMARKS).map(point).collect::<Option<Vec<_>>>()?;
        Some(Candidate { left, top, right: left + width, bottom: top + height, score, class: 0, landmarks })
    }
}

/// A class as models write it; what is no index is none that has a name.
fn index(class: f32) -> usize {
    if class >= 0.0 { class.round() as usize } else { usize::MAX >> 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(box_format: BoxFormat, labels: &[String]) -> Wanted<'_> {
        Wanted { score_threshold: 0.5, box_format, unit: (1.0, 1.0), labels }
    }

    fn place(candidate: &Candidate) -> [f32; 4] {
        [candidate.left, candidate.top, candidate.right, candidate.bottom]
    }

    #[test]
    fn yolov5_multiplies_objectness_and_class() {
        let values = [10.0, 20.0, 4.0, 6.0, 0.9, 0.1, 0.8, 50.0, 60.0, 4.0, 6.0, 0.9, 0.5, 0.4];
        let found = yolov5(&values, 7, &wanted(BoxFormat::Cxcywh, &[]));
        assert_eq!(found.len(), 1);
        assert_eq!(place(&found[0]), [8.0, 17.0, 12.0, 23.0]);
        assert_eq!((found[0].class, found[0].score), (1, 0.8 * 0.9));
        assert_eq!(yolov5(&values[..5], 5, &wanted(BoxFormat::Xywh, &[]))[0].score, 0.9);
    }

    #[test]
    fn yolov8_reads_columns() {
        let values = [10.0, 50.0, 20.0, 60.0, 4.0, 4.0, 6.0, 6.0, 0.1, 0.2, 0.8, 0.3];
        let found = yolov8(&values, 2, &wanted(BoxFormat::Cxcywh, &[]));
        assert_eq!(found.len(), 1);
        assert_eq!((place(&found[0]), found[0].class, found[0].score), ([8.0, 17.0, 12.0, 23.0], 1, 0.8));
        assert_eq!(yolov8(&values[..3], 1, &wanted(BoxFormat::Cxcywh, &[])), []);
    }

    #[test]
    fn ssd_leaves_out_classes_without_a_name() {
        let labels = ["", "person", "dog"].map(String::from);
        let mut wanted = wanted(BoxFormat::Yxyx, &labels);
        wanted.unit = (300.0, 200.0);
        let places = [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 1.0, 1.0];
        let found = ssd(&places, &[0.9, 0.05, 0.05, 0.1, 0.6, 0.7], 3, None, &wanted);
        assert_eq!(found.iter().map(|one| one.class).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(place(&found[0]), [150.0, 100.0, 300.0, 200.0]);
        let found = ssd(&places, &[0.9, 0.6], 1, Some(&[2.0, 0.0]), &wanted);
        assert_eq!(found.iter().map(|one| one.class).collect::<Vec<_>>(), [2]);
        assert!((found[0].left - 60.0).abs() < 1e-4 && (found[0].top - 20.0).abs() < 1e-4);
    }

    #[test]
    fn rows_are_corners_score_class() {
        let values = [1.0, 2.0, 3.0, 4.0, 0.9, 7.0, 1.0, 2.0, 3.0, 4.0, 0.1, 7.0];
        let found = rows(&values, 6, &wanted(BoxFormat::Xyxy, &[]));
        assert_eq!((found.len(), found[0].class, place(&found[0])), (1, 7, [1.0, 2.0, 3.0, 4.0]));
        assert_eq!(rows(&values[..5], 5, &wanted(BoxFormat::Xyxy, &[]))[0].class, 0);
    }

    #[test]
    fn a_face_lies_around_its_peak() {
        let mut heatmap = [0.0; 6];
        heatmap[4] = 0.9;
        let (mut scale, mut offset, mut landmarks) = ([0.0; 12], [0.0; 12], [0.0; 60]);
        scale[4] = 2_f32.ln();
        scale[6 + 4] = 4_f32.ln();
        (offset[4], offset[6 + 4]) = (0.25, -0.25);
        (landmarks[4], landmarks[6 + 4]) = (0.5, 0.25);
        let face =
            CenterFace { heatmap: &heatmap, scale: &scale, offset: &offset, landmarks: &landmarks, width: 3 };
        let found = face.decode(&wanted(BoxFormat::Xyxy, &[]));
        // The peak is in row 1, column 1: its middle is 4 * (1 + offset + 0.5) down and across.
        let expected = [5.0 - 8.0, 7.0 - 4.0, 5.0 + 8.0, 7.0 + 4.0];
        assert_eq!(found.len(), 1);
        assert!(
            place(&found[0]).iter().zip(expected).all(|(given, expected)| (given - expected).abs() < 1e-5)
        );
        let (x, y) = found[0].landmarks[0];
        assert!((x - (-3.0 + 0.25 * 16.0)).abs() < 1e-5 && (y - (3.0 + 0.5 * 8.0)).abs() < 1e-5);
    }
}
