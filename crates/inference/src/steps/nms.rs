//! Non-maximum suppression: of boxes that show the same thing, the best is kept.

use std::cmp::Ordering;

use super::limits;

/// A box that a model found, in the model's pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub left: f32,
    pub top: f32,
    pub right: f32,
    pub bottom: f32,
    pub score: f32,
    pub class: usize,
    /// Points of it, x and y.
    pub landmarks: Vec<(f32, f32)>,
}

impl Candidate {
    fn area(&self) -> f32 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    /// Area of the intersection by area of the union, 0 to 1.
    pub fn overlap(&self, other: &Candidate) -> f32 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        let common = width * height;
        common / (self.area() + other.area() - common)
    }

    fn is_sound(&self) -> bool {
        let numbers = [self.left, self.top, self.right, self.bottom, self.score];
        numbers.iter().all(|number| number.is_finite())
            && self.landmarks.iter().all(|(x, y)| x.is_finite() && y.is_finite())
            && self.area().is_normal()
    }
}

/// How boxes suppress each other.
#[derive(Clone, Copy, Debug)]
pub struct Suppression {
    /// Overlap above which the lesser box goes.
    pub iou_threshold: f32,
    /// Boxes of other classes suppress, too.
    pub is_agnostic: bool,
    /// Most boxes that stay.
    pub max_boxes: usize,
}

/// What stays, best first. The answer is the same in whatever order the candidates come.
pub fn suppress(mut candidates: Vec<Candidate>, how: Suppression) -> Vec<Candidate> {
    candidates.retain(Candidate::is_sound);
    if candidates.len() > limits::CANDIDATES {
        candidates.select_nth_unstable_by(limits::CANDIDATES, best_first);
        candidates.truncate(limits::CANDIDATES);
    }
    candidates.sort_unstable_by(best_first);
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() == how.max_boxes {
            break;
        }
        let is_same = |better: &Candidate| {
            (how.is_agnostic || better.class == candidate.class)
                && better.overlap(&candidate) > how.iou_threshold
        };
        if !kept.iter().any(is_same) {
            kept.push(candidate);
        }
    }
    kept
}

/// By score; what scores the same by class and place, so that the order of candidates doesn't matter.
fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    let place = |one: &Candidate| [one.left, one.top, one.right, one.bottom];
    let places = || {
        let pairs = place(a).into_iter().zip(place(b));
        pairs.map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    };
    b.score.total_cmp(&a.score).then(a.class.cmp(&b.class)).then_with(places)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(left: f32, top: f32, size: f32, score: f32, class: usize) -> Candidate {
        let (right, bottom) = (left + size, top + size);
        Candidate { left, top, right, bottom, score, class, landmarks: vec![] }
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        // Few places and scores, so that boxes overlap and scores are equal.
        let one = (0_u8..12, 0_u8..12, 1_u8..8, 0_u8..6, 0_usize..3);
        let one = one.prop_map(|(left, top, size, score, class)| {
            candidate(f32::from(left), f32::from(top), f32::from(size), f32::from(score) / 5.0, class)
        });
        prop::collection::vec(one, 0..60)
    }

    const HOW: Suppression = Suppression { iou_threshold: 0.4, is_agnostic: true, max_boxes: 1000 };

    #[test]
    fn overlap_is_common_area_by_covered_area() {
        let one = candidate(0.0, 0.0, 2.0, 1.0, 0);
        assert_eq!(one.overlap(&one), 1.0);
        assert_eq!(one.overlap(&candidate(1.0, 0.0, 2.0, 1.0, 0)), 2.0 / 6.0);
        assert_eq!(one.overlap(&candidate(2.0, 0.0, 2.0, 1.0, 0)), 0.0);
    }

    #[test]
    fn boxes_of_other_classes_stay_unless_classes_do_not_matter() {
        let both = vec![candidate(0.0, 0.0, 4.0, 0.9, 0), candidate(0.0, 0.0, 4.0, 0.8, 1)];
        assert_eq!(suppress(both.clone(), Suppression { is_agnostic: false, ..HOW }).len(), 2);
        assert_eq!(suppress(both.clone(), HOW), both[..1]);
    }

    #[test]
    fn boxes_that_are_no_boxes_are_left_out() {
        let mut broken = vec![candidate(0.0, 0.0, 0.0, 1.0, 0), candidate(f32::NAN, 0.0, 1.0, 1.0, 0)];
        broken.push(candidate(0.0, 0.0, f32::INFINITY, 1.0, 0));
        broken.push(candidate(0.0, 0.0, 1.0, f32::NAN, 0));
        broken.push(candidate(3.0, 3.0, -2.0, 1.0, 0));
        broken.push(Candidate { landmarks: vec![(f32::NAN, 0.0)], ..candidate(0.0, 0.0, 1.0, 1.0, 0) });
        assert_eq!(suppress(broken, HOW), []);
    }

    #[test]
    fn of_too_many_candidates_the_best_are_compared() {
        let row = (0..limits::CANDIDATES + 100).map(|at| candidate(at as f32 * 2.0, 0.0, 1.0, at as f32, 0));
        let kept = suppress(row.collect(), Suppression { max_boxes: 2, ..HOW });
        assert_eq!(kept[0].score, (limits::CANDIDATES + 99) as f32);
        assert_eq!(kept.len(), 2);
    }

    proptest! {
        #[test]
        fn kept_boxes_do_not_overlap_and_dropped_ones_lie_on_a_better_one(all in candidates(), agnostic: bool) {
            let how = Suppression { is_agnostic: agnostic, ..HOW };
            let kept = suppress(all.clone(), how);
            let meet = |a: &Candidate, b: &Candidate| {
                (agnostic || a.class == b.class) && a.overlap(b) > how.iou_threshold
            };
            for (at, one) in kept.iter().enumerate() {
                prop_assert!(kept[..at].iter().all(|other| !meet(one, other)));
            }
            for dropped in all.iter().filter(|one| !kept.contains(one)) {
                prop_assert!(kept.iter().any(|better| better.score >= dropped.score && meet(better, dropped)));
            }
        }

        #[test]
        fn the_order_of_candidates_does_not_matter(
            (all, mixed) in candidates().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            max_boxes in 1_usize..8,
        ) {
            let how = Suppression { max_boxes, ..HOW };
            prop_assert_eq!(suppress(all, how), suppress(mixed, how));
        }
    }
}
