//! Formulas of scores: whole numbers from -100 to 100.

/// A value between the least and the greatest that there are; the same everywhere is as good as can be.
pub(super) fn relative(value: f64, least: f64, greatest: f64) -> i64 {
    if greatest == least {
        return 100;
    }
    let ratio = (value - least) / (greatest - least);
    ((ratio - 0.5) * 2.0 * 100.0) as i64
}

/// A value for an add-on's score: -100 at the least, 100 at the greatest and beyond.
pub fn normalized_score(value: f64, least: f64, greatest: f64) -> i32 {
    if value > greatest {
        100
    } else if value <= least {
        -100
    } else {
        (200.0 * (value - least) / (greatest - least) - 100.0) as i32
    }
}

/// The fewer of the others' decisions name a site, of at most `most`, the better.
pub(super) fn balance(others: u32, most: u32) -> i64 {
    if others == 0 {
        return 100;
    }
    2 * ((100.0 * (0.5 - f64::from(others) / f64::from(most))) as i64)
}

/// 100 at no distance, 25 less each time that a millisecond and the distance double, -100 where there is no way.
pub(super) fn latency(milliseconds: Option<f64>) -> i64 {
    milliseconds.map_or(-100, |milliseconds| doublings(100.0, -25.0, milliseconds))
}

/// -100 without connection or where it wasn't measured, 25 more with each doubling of a megabit per second.
pub(super) fn bandwidth(megabits: Option<f64>) -> i64 {
    megabits.map_or(-100, |megabits| doublings(-100.0, 25.0, megabits))
}

fn doublings(from: f64, step: f64, value: f64) -> i64 {
    (from + step * (1.0 + value.max(0.0)).log2()).clamp(-100.0, 100.0).round() as i64
}

/// -100 where nothing is taken, 100 where all is.
pub(super) fn packing(taken: f64, allocatable: f64) -> i64 {
    if !(allocatable > 0.0) {
        return 0;
    }
    (200.0 * (taken / allocatable).clamp(0.0, 1.0) - 100.0).round() as i64
}

/// From a share of 0 to 1.
pub(super) fn share(share: f64) -> i64 {
    (200.0 * share.clamp(0.0, 1.0) - 100.0).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearer_is_better_and_a_doubling_counts_the_same_everywhere() {
        assert_eq!(latency(Some(0.0)), 100);
        assert_eq!(latency(Some(3.0)) - latency(Some(7.0)), 25);
        assert_eq!(latency(Some(1e9)), -100);
        assert_eq!(latency(None), -100);
        assert_eq!(
            (bandwidth(None), bandwidth(Some(0.0)), bandwidth(Some(f64::INFINITY))),
            (-100, -100, 100)
        );
    }

    #[test]
    fn what_most_chose_is_worst_and_what_nobody_chose_is_best() {
        assert_eq!((balance(0, 0), balance(0, 3), balance(1, 3), balance(3, 3)), (100, 100, 32, -100));
    }
}
