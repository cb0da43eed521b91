//! Prometheus' text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::{Display, Write};

/// A page that grows.
#[derive(Debug, Default)]
pub(crate) struct Page(pub(crate) String);

#[allow(
    clippy::let_underscore_must_use,
    reason = "writing to a String cannot fail"
)]
impl Page {
    /// What a metric is.
    pub(crate) fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A value.
    pub(crate) fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (n, (key, value)) in labels.iter().enumerate() {
            let before = if n == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{key}=\"{}\"", escaped(value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped() {
        let mut page = Page::default();
        page.head("m", "gauge", "Help.");
        page.line("m", &[("a", "x\"\n"), ("b", "\\")], 7);
        page.line("m", &[], 0.5);
        let want = "# HELP m Help.\n# TYPE m gauge\nm{a=\"x\\\"\\n\",b=\"\\\\\"} 7\nm 0.5\n";
        assert_eq!(page.0, want);
    }
}
