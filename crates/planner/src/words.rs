//! Words for messages.

/// The first of many in one text, and how many more there are: "a, b and 9998 more".
pub fn first_of(all: &[impl AsRef<str>], most: usize, separator: &str) -> String {
    let first: Vec<&str> = all.iter().take(most).map(AsRef::as_ref).collect();
    let first = first.join(separator);
    if all.len() > most { format!("{first} and {} more", all.len() - most) } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_to_name_is_counted() {
        assert_eq!(first_of(&["a", "b"], 2, ", "), "a, b");
        assert_eq!(first_of(&["a", "b", "c", "d"], 2, ", "), "a, b and 2 more");
        assert_eq!(first_of(&[""; 0], 2, ", "), "");
    }
}
