//! Metrics as text, in Prometheus' own format and in OpenMetrics.

use std::fmt::{Display, Write};

/// The two formats, which differ in how counters are named in their description and in how the text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// From an `Accept` header.
    pub(super) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Text under construction: families, each with its samples.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    family: String,
}

/// What kind of numbers a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Names and values of labels.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Exposition {
    /// Begins a family; `name` is the full name of its samples, `_total` included.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) -> &mut Self {
        // Writing to a String cannot fail; so in the rest of this file.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        name.clone_into(&mut self.family);
        self
    }

    /// A sample of the family.
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.write("", labels, None, value);
        self
    }

    /// The samples of one histogram: counts of each bucket, not yet added up, with upper bounds, and the sum.
    pub(super) fn histogram(&mut self, labels: Labels<'_>, buckets: &[(f64, u64)], sum: f64) {
        let mut total = 0;
        for (bound, count) in buckets {
            total += count;
            let bound = if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() };
            self.write("_bucket", labels, Some(("le", &bound)), total);
        }
        self.write("_sum", labels, None, sum);
        self.write("_count", labels, None, total);
    }

    fn write(&mut self, suffix: &str, labels: Labels<'_>, last: Option<(&str, &str)>, value: impl Display) {
        self.text.push_str(&self.family);
        self.text.push_str(suffix);
        for (at, (name, value)) in labels.iter().copied().chain(last).enumerate() {
            let opening = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{opening}{name}=\"{}\"", escape(value));
        }
        if !labels.is_empty() || last.is_some() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// Adds families that are text already, in Prometheus' format.
    pub(super) fn append(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn finish(self, format: Format) -> String {
        match format {
            Format::Prometheus => self.text,
            Format::OpenMetrics => to_open_metrics(&self.text),
        }
    }
}

/// OpenMetrics describes a counter by its name without `_total`, has no blank lines, and says where it ends.
fn to_open_metrics(text: &str) -> String {
    let mut converted = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), rest) => {
                let name = name.strip_suffix("_total").unwrap_or(name);
                let _ = writeln!(converted, "# {what} {name} {}", rest.unwrap_or_default());
            }
            _ => {
                converted.push_str(line);
                converted.push('\n');
            }
        }
    }
    converted.push_str("# EOF\n");
    converted
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_both_formats() {
        let write = |format| {
            let mut exposition = Exposition::default();
            exposition
                .family("pointsman_queries_total", Kind::Counter, "Statements.")
                .sample(&[("server", "db \"1\""), ("kind", "read")], 7_u64);
            exposition.family("pointsman_seconds", Kind::Histogram, "Durations.").histogram(
                &[("server", "a")],
                &[(0.00005, 2), (0.0001, 1), (f64::INFINITY, 1)],
                0.25,
            );
            exposition.append("\n# TYPE x gauge\nx 1\n");
            exposition.finish(format)
        };
        let samples = "\
pointsman_queries_total{server=\"db \\\"1\\\"\",kind=\"read\"} 7
# HELP pointsman_seconds Durations.
# TYPE pointsman_seconds histogram
pointsman_seconds_bucket{server=\"a\",le=\"0.00005\"} 2
pointsman_seconds_bucket{server=\"a\",le=\"0.0001\"} 3
pointsman_seconds_bucket{server=\"a\",le=\"+Inf\"} 4
pointsman_seconds_sum{server=\"a\"} 0.25
pointsman_seconds_count{server=\"a\"} 4
";
        let prometheus =
            "# HELP pointsman_queries_total Statements.\n# TYPE pointsman_queries_total counter\n";
        assert_eq!(write(Format::Prometheus), format!("{prometheus}{samples}\n# TYPE x gauge\nx 1\n"));
        let open = "# HELP pointsman_queries Statements.\n# TYPE pointsman_queries counter\n";
        assert_eq!(write(Format::OpenMetrics), format!("{open}{samples}# TYPE x gauge\nx 1\n# EOF\n"));
    }
}
