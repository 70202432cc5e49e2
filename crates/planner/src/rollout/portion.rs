//! Amounts of sites: a number, or a percentage of them.

use types::Portion;

/// A text that is no percentage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPortion(pub String);

impl std::fmt::Display for InvalidPortion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is no amount of sites; write a number or a percentage, such as 3 or 25%", self.0)
    }
}

impl std::error::Error for InvalidPortion {}

/// How many of `total` an amount is, percentages rounded up; what is not in `1..=total` is the default.
///
/// # Errors
/// If the amount is a text that is no percentage.
pub fn size(amount: &Portion, total: usize, default: usize) -> Result<usize, InvalidPortion> {
    let wanted = count(amount, total)?;
    let fits = wanted > 0.0 && wanted <= total as f64;
    Ok(if fits { wanted as usize } else { default })
}

/// How many of `total` an amount is, percentages rounded up; more than all is all, and what is no amount is none.
pub(super) fn part(amount: &Portion, total: usize) -> usize {
    count(amount, total).map_or(0, |wanted| wanted.clamp(0.0, total as f64) as usize)
}

// Sites are far fewer than what a float counts exactly.
fn count(amount: &Portion, total: usize) -> Result<f64, InvalidPortion> {
    match amount {
        Portion::Number(number) => Ok(f64::from(*number)),
        Portion::Percent(text) => {
            let share: Option<f64> = text.strip_suffix('%').and_then(|share| share.parse().ok());
            // Digits that make more than a float holds are no number; the word `inf` is one.
            let is_too_large =
                |share: &f64| share.is_infinite() && text.contains(|c: char| c.is_ascii_digit());
            let share =
                share.filter(|share| !is_too_large(share)).ok_or_else(|| InvalidPortion(text.clone()))?;
            Ok((share / 100.0 * total as f64).ceil())
        }
    }
}
