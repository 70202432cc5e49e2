//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

/// What a family's numbers mean.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Summary,
}

/// Families, each followed by its samples. A family without samples isn't written.
#[derive(Default)]
pub(super) struct Text {
    text: String,
    /// The present family: its name, and its heading until there is a sample.
    family: &'static str,
    heading: Option<String>,
}

impl Text {
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
        };
        self.family = name;
        self.heading = Some(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// A sample whose name is the family's with a suffix.
    pub fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        if let Some(heading) = self.heading.take() {
            self.text.push_str(&heading);
        }
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            value.chars().for_each(|char| self.escape(char));
            self.text.push('"');
        }
        self.text.push_str(if labels.is_empty() { " " } else { "} " });
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "{value}");
    }

    fn escape(&mut self, char: char) {
        match char {
            '\\' => self.text.push_str("\\\\"),
            '"' => self.text.push_str("\\\""),
            '\n' => self.text.push_str("\\n"),
            other => self.text.push(other),
        }
    }

    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_one_heading_and_labels_are_escaped() {
        let mut text = Text::default();
        text.family("empty", Kind::Gauge, "Nothing");
        text.family("a", Kind::Summary, "Something");
        text.sample(&[("input", "x\"\\\n"), ("n", "1")], 0.25);
        text.part("_count", &[], 3);
        let expected =
            "# HELP a Something\n# TYPE a summary\na{input=\"x\\\"\\\\\\n\",n=\"1\"} 0.25\na_count 3\n";
        assert_eq!(text.finish(), expected);
    }
}
