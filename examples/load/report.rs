//! Results, as a table to read and as JSON.
use crate::tally::Measured;
use hdrhistogram::Histogram;
use std::fmt::Write as _;

/// The quantiles of a latency that are told, by the names they have in JSON.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Count(u64),
    Figure(f64),
    Text(String),
    Group(Report),
}

/// Named values, in the order in which they are told. A name carries its unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report(Vec<(String, Value)>);

impl Report {
    pub(crate) fn count(&mut self, name: &str, count: u64) {
        self.0.push((name.to_owned(), Value::Count(count)));
    }

    /// Left out if there was nothing to divide by.
    pub(crate) fn figure(&mut self, name: &str, figure: f64) {
        if figure.is_finite() {
            self.0.push((name.to_owned(), Value::Figure(figure)));
        }
    }

    pub(crate) fn text(&mut self, name: &str, text: impl Into<String>) {
        self.0.push((name.to_owned(), Value::Text(text.into())));
    }

    /// Left out if it is empty.
    pub(crate) fn group(&mut self, name: &str, group: Report) {
        if !group.0.is_empty() {
            self.0.push((name.to_owned(), Value::Group(group)));
        }
    }

    pub(crate) fn append(&mut self, other: Report) {
        self.0.extend(other.0);
    }

    /// The quantiles of a histogram of nanoseconds, in microseconds.
    pub(crate) fn latency(&mut self, name: &str, histogram: &Histogram<u64>) {
        let mut group = Self::default();
        if !histogram.is_empty() {
            group.count("count", histogram.len());
            for (name, quantile) in QUANTILES {
                group.figure(name, histogram.value_at_quantile(quantile) as f64 / 1e3);
            }
            group.figure("max", histogram.max() as f64 / 1e3);
        }
        self.group(name, group);
    }

    /// What the processes used for each of `units`, in microseconds of CPU time, and the cores they kept busy.
    pub(crate) fn usage(&mut self, measured: &Measured, unit: &str, units: u64) {
        if let Some(usage) = measured.usage {
            self.figure(&format!("cpu_us_per_{unit}"), usage.cpu * 1e6 / units as f64);
            self.figure("cpu_cores", usage.cpu / measured.secs);
            self.figure("memory_mib", usage.memory / 1024.0);
        }
        self.figure("load_cpu_cores", measured.own_cpu / measured.secs);
    }

    #[cfg(test)]
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> String {
        let mut out = String::new();
        self.put_json(&mut out);
        out
    }

    fn put_json(&self, out: &mut String) {
        for (index, (name, value)) in self.0.iter().enumerate() {
            out.push_str(if index == 0 { "{" } else { ", " });
            put_quoted(out, name);
            out.push_str(": ");
            match value {
                Value::Count(count) => out.push_str(&count.to_string()),
                Value::Figure(figure) => out.push_str(&digits(*figure)),
                Value::Text(text) => put_quoted(out, text),
                Value::Group(group) => group.put_json(out),
            }
        }
        out.push_str(if self.0.is_empty() { "{}" } else { "}" });
    }

    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        self.put_table(&mut out, "");
        out
    }

    fn put_table(&self, out: &mut String, indent: &str) {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.0 {
            let line = match value {
                Value::Count(count) => format!("{name:width$}  {count:>12}"),
                Value::Figure(figure) => format!("{name:width$}  {:>12}", digits(*figure)),
                Value::Text(text) => format!("{name:width$}  {}", text.replace(char::is_control, " ")),
                Value::Group(_) => name.clone(),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{indent}{line}");
            if let Value::Group(group) = value {
                group.put_table(out, &format!("{indent}  "));
            }
        }
    }
}

/// At least four significant digits, and no exponent.
fn digits(figure: f64) -> String {
    let places = match figure.abs() {
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        1.0.. => 3,
        _ => 5,
    };
    format!("{figure:.places$}")
}

fn put_quoted(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\u{0}'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> Report {
        let mut histogram = Histogram::new(3).unwrap();
        for microseconds in 1..=1000 {
            histogram.record(microseconds * 1000).unwrap();
        }
        let mut report = Report::default();
        report.text("url", "ws://x/\"a\\b\"\n");
        report.count("messages", 1000);
        report.figure("small", 0.123456);
        report.figure("nothing", 1.0 / 0.0);
        report.latency("latency_us", &histogram);
        report.group("failures", Report::default());
        report
    }

    #[test]
    fn json_is_quoted_ordered_and_finite() {
        let json = sample().json();
        let begin =
            r#"{"url": "ws://x/\"a\\b\"\u000a", "messages": 1000, "small": 0.12346, "latency_us": {"count": 1000, "#;
        assert!(json.starts_with(begin), "{json}");
        assert!(!json.contains("nothing") && !json.contains("failures"), "{json}");
        assert_eq!(Report::default().json(), "{}");
    }

    #[test]
    fn quantiles_are_within_a_thousandth() {
        let report = sample();
        let Some(Value::Group(latency)) = report.get("latency_us") else { panic!("{report:?}") };
        for (name, expected) in [("p50", 500.0), ("p90", 900.0), ("p99", 990.0), ("p99.9", 999.0), ("max", 1000.0)] {
            let Some(Value::Figure(found)) = latency.get(name) else { panic!("{latency:?}") };
            assert!((found / expected - 1.0).abs() < 0.002, "{name}: {found}");
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_value() {
        let table = sample().table();
        assert_eq!(table.lines().count(), 10, "{table}");
        assert!(table.contains("\n  p99.9  "), "{table}");
    }
}
