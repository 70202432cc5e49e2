//! The text form of Prometheus.

use std::fmt::{Display, Write};

use super::series::Series;

/// Metrics, line by line.
#[derive(Default)]
pub struct Text(String);

impl Text {
    /// What a metric is; its lines follow.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A metric's value for some labels.
    pub fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.write(format_args!("{before}{label}={text:?}"));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{end} {value}\n"));
    }

    /// A histogram, unless it is empty.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], series: &Series) {
        let (buckets, count, seconds) = series.times();
        if count == 0 {
            return;
        }
        let bucket = format!("{name}_bucket");
        let with = |most: &str, text: &mut Self, count: u64| {
            text.line(&bucket, &[labels, &[("le", most)]].concat(), count);
        };
        for (most, count) in buckets {
            with(&most.to_string(), self, count);
        }
        with("+Inf", self, count);
        self.line(&format!("{name}_sum"), labels, seconds);
        self.line(&format!("{name}_count"), labels, count);
    }

    pub fn into_string(self) -> String {
        self.0
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // A string takes all that is written to it.
        let _ = self.0.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn metrics_read_as_prometheus_writes_them() {
        let mut text = Text::default();
        text.head("a_total", "counter", "What is counted.");
        text.line("a_total", &[], 1);
        text.line("a_total", &[("x", "1"), ("y", "quoted \"")], 0.5);
        let series = Series::default();
        text.histogram("empty", &[], &series);
        series.took(Duration::from_secs(50));
        text.histogram("t", &[("x", "1")], &series);
        let text = text.into_string();
        let lines: Vec<&str> = text.lines().collect();
        let expected = [
            "# HELP a_total What is counted.",
            "# TYPE a_total counter",
            "a_total 1",
            r#"a_total{x="1",y="quoted \""} 0.5"#,
            r#"t_bucket{x="1",le="0.005"} 0"#,
        ];
        assert_eq!(lines.get(..5), Some(&expected[..]));
        let expected = [
            r#"t_bucket{x="1",le="60"} 1"#,
            r#"t_bucket{x="1",le="+Inf"} 1"#,
            r#"t_sum{x="1"} 50"#,
            r#"t_count{x="1"} 1"#,
        ];
        assert_eq!(lines.get(lines.len() - 4..), Some(&expected[..]));
    }
}
