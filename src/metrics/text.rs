//! The two texts: Prometheus' own (0.0.4) and OpenMetrics 1.0, and which of them a request asks for.
use super::count::Distribution;
use std::fmt::{Display, Write};

/// How figures are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4, which everything reads.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header likes best (RFC 9110 section 12.5.1); Prometheus' own if it likes none or both alike.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let (mut text, mut open) = (0, 0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1000, "1.0.0");
            for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
                if name.eq_ignore_ascii_case("q") {
                    quality = thousandths(value);
                } else if name.eq_ignore_ascii_case("version") {
                    version = value.trim_matches('"');
                }
            }
            match (kind.as_str(), version) {
                ("application/openmetrics-text", "1.0.0") => open = open.max(quality),
                ("text/plain" | "text/*" | "*/*", _) => text = text.max(quality),
                (_, _) => {}
            }
        }
        if open > text { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// For the `Content-Type` header.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A weight in thousandths; what is no weight is none.
fn thousandths(weight: &str) -> u32 {
    let weight: f32 = weight.parse().unwrap_or(0.0);
    (weight.clamp(0.0, 1.0) * 1000.0) as u32
}

/// What kind of figures a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// Figures of one name that differ by their labels.
#[derive(Debug)]
pub(super) struct Family {
    /// Without `_total` and `_info`; its unit is its last word.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    /// One sentence, without quotes, backslashes and line breaks.
    pub(super) help: &'static str,
}

impl Family {
    fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes"].into_iter().find(|unit| self.name.ends_with(unit) && self.kind != Kind::Info)
    }

    /// What its samples' names have behind the family's.
    fn suffix(&self) -> &'static str {
        match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        }
    }
}

/// A page of figures under way.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    format: Format,
}

impl Page {
    pub(super) fn new(format: Format) -> Self {
        Self { text: String::with_capacity(32 * 1024), format }
    }

    /// One family: `samples` writes each of its figures.
    pub(super) fn family(&mut self, family: &Family, samples: impl FnOnce(&mut Samples<'_>)) {
        let (kind, suffix) = match (family.kind, self.format) {
            (Kind::Counter, Format::Prometheus) => ("counter", "_total"),
            (Kind::Counter, Format::OpenMetrics) => ("counter", ""),
            (Kind::Gauge, _) => ("gauge", ""),
            (Kind::Histogram, _) => ("histogram", ""),
            (Kind::Info, Format::Prometheus) => ("gauge", "_info"),
            (Kind::Info, Format::OpenMetrics) => ("info", ""),
        };
        let name = family.name;
        self.line(format_args!("# HELP {name}{suffix} {}", family.help));
        self.line(format_args!("# TYPE {name}{suffix} {kind}"));
        if let (Format::OpenMetrics, Some(unit)) = (self.format, family.unit()) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        samples(&mut Samples { page: self, family });
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> String {
        match self.format {
            Format::Prometheus => {}
            Format::OpenMetrics => self.text.push_str("# EOF\n"),
        }
        self.text
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// The figures of one family.
pub(super) struct Samples<'a> {
    page: &'a mut Page,
    family: &'a Family,
}

impl Samples<'_> {
    /// One figure, with a value for each of the family's labels.
    pub(super) fn put(&mut self, labels: &[&str], value: impl Display) {
        self.sample(self.family.suffix(), labels, None, value);
    }

    /// A histogram of seconds.
    pub(super) fn histogram(&mut self, labels: &[&str], distribution: &Distribution) {
        let mut cumulated = 0;
        let bounds = distribution.bounds.iter().map(Some).chain([None]);
        for (bound, count) in bounds.zip(&distribution.counts) {
            cumulated += count;
            let bound = match (bound.map(std::time::Duration::as_secs_f64), self.page.format) {
                (None, _) => "+Inf".to_owned(),
                (Some(seconds), Format::Prometheus) => seconds.to_string(),
                // Always with a point.
                (Some(seconds), Format::OpenMetrics) => format!("{seconds:?}"),
            };
            self.sample("_bucket", labels, Some(&bound), cumulated);
        }
        self.sample("_sum", labels, None, std::time::Duration::from_nanos(distribution.nanos).as_secs_f64());
        self.sample("_count", labels, None, cumulated);
    }

    fn sample(&mut self, suffix: &str, labels: &[&str], le: Option<&str>, value: impl Display) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        let text = &mut self.page.text;
        text.push_str(self.family.name);
        text.push_str(suffix);
        let mut before = '{';
        let pairs = self.family.labels.iter().copied().zip(labels.iter().copied());
        for (name, value) in pairs.chain(le.map(|bound| ("le", bound))) {
            text.push(before);
            text.push_str(name);
            text.push_str("=\"");
            escape(value, text);
            text.push('"');
            before = ',';
        }
        if before == ',' {
            text.push('}');
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, " {value}");
    }
}

/// A label's value as both texts have it: with backslash, quote and line break escaped.
fn escape(value: &str, text: &mut String) {
    for letter in value.chars() {
        match letter {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            letter => text.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const WAITS: Family =
        Family { name: "wait_seconds", kind: Kind::Histogram, labels: &["route"], help: "How long it waits." };
    const BYTES: Family = Family { name: "read_bytes", kind: Kind::Counter, labels: &["route"], help: "Bytes read." };
    const BUILD: Family = Family { name: "x_build", kind: Kind::Info, labels: &["version"], help: "What it is." };

    fn page(format: Format) -> String {
        static BOUNDS: [Duration; 2] = [Duration::from_millis(2), Duration::from_secs(1)];
        let mut page = Page::new(format);
        let waits = Distribution { bounds: &BOUNDS, counts: vec![2, 1, 1], nanos: 2_500_000_000 };
        page.family(&WAITS, |samples| samples.histogram(&["a\\b\"c\nd"], &waits));
        page.family(&BYTES, |samples| samples.put(&["chat"], 7));
        page.family(&BUILD, |samples| samples.put(&["1.0"], 1));
        page.finish()
    }

    #[test]
    fn prometheus_text() {
        let expected = r#"# HELP wait_seconds How long it waits.
# TYPE wait_seconds histogram
wait_seconds_bucket{route="a\\b\"c\nd",le="0.002"} 2
wait_seconds_bucket{route="a\\b\"c\nd",le="1"} 3
wait_seconds_bucket{route="a\\b\"c\nd",le="+Inf"} 4
wait_seconds_sum{route="a\\b\"c\nd"} 2.5
wait_seconds_count{route="a\\b\"c\nd"} 4
# HELP read_bytes_total Bytes read.
# TYPE read_bytes_total counter
read_bytes_total{route="chat"} 7
# HELP x_build_info What it is.
# TYPE x_build_info gauge
x_build_info{version="1.0"} 1
"#;
        assert_eq!(page(Format::Prometheus), expected);
    }

    #[test]
    fn openmetrics_text() {
        let expected = r#"# HELP wait_seconds How long it waits.
# TYPE wait_seconds histogram
# UNIT wait_seconds seconds
wait_seconds_bucket{route="a\\b\"c\nd",le="0.002"} 2
wait_seconds_bucket{route="a\\b\"c\nd",le="1.0"} 3
wait_seconds_bucket{route="a\\b\"c\nd",le="+Inf"} 4
wait_seconds_sum{route="a\\b\"c\nd"} 2.5
wait_seconds_count{route="a\\b\"c\nd"} 4
# HELP read_bytes Bytes read.
# TYPE read_bytes counter
# UNIT read_bytes bytes
read_bytes_total{route="chat"} 7
# HELP x_build What it is.
# TYPE x_build info
x_build_info{version="1.0"} 1
# EOF
"#;
        assert_eq!(page(Format::OpenMetrics), expected);
    }

    #[test]
    fn what_a_scraper_likes_best_is_chosen() {
        use Format::{OpenMetrics, Prometheus};
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (None, Prometheus),
            (Some(""), Prometheus),
            (Some("*/*"), Prometheus),
            (Some("text/html,application/xhtml+xml"), Prometheus),
            (Some(prometheus_3), OpenMetrics),
            (Some("application/openmetrics-text; version=1.0.0, text/plain;q=0.5"), OpenMetrics),
            (Some("Application/OpenMetrics-Text"), OpenMetrics),
            (Some("application/openmetrics-text;version=0.0.1"), Prometheus),
            (Some("application/openmetrics-text;q=0.1, text/plain"), Prometheus),
            (Some("application/openmetrics-text;q=0"), Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept:?}");
        }
    }
}
