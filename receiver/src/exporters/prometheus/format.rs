//! Which form of the exposition a scraper is given: what its header `Accept` asks for.

use axum::http::{HeaderMap, header};

use super::{proto, store::Store, text, view::Rendered};

/// A form of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    format: Format,
    version: Version,
    /// Whether names are shown as they are.
    utf8: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    OpenMetrics,
    Protobuf,
}

/// Of a text format. What they differ in is only what else is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V0_0_1,
    V0_0_4,
    V1_0_0,
}

impl Form {
    /// How many of them are rendered differently.
    pub(super) const COUNT: usize = 6;

    /// Which of them it is.
    pub(super) fn number(self) -> usize {
        self.format as usize * 2 + usize::from(self.utf8)
    }

    pub(super) fn render(self, store: &Store) -> Rendered {
        match self.format {
            Format::Text => text::prometheus(store, self.utf8),
            Format::OpenMetrics => text::openmetrics(store, self.utf8),
            Format::Protobuf => proto::render(store, self.utf8),
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        macro_rules! either {
            ($type:literal) => {
                if self.utf8 { concat!($type, "; escaping=allow-utf-8") } else { $type }
            };
        }
        match (self.format, self.version) {
            (Format::Protobuf, _) => either!(
                "application/vnd.google.protobuf; \
                 proto=io.prometheus.client.MetricFamily; encoding=delimited"
            ),
            (Format::OpenMetrics, Version::V0_0_1) => {
                either!("application/openmetrics-text; version=0.0.1; charset=utf-8")
            }
            (Format::OpenMetrics, _) => {
                either!("application/openmetrics-text; version=1.0.0; charset=utf-8")
            }
            (Format::Text, Version::V1_0_0) => {
                either!("text/plain; version=1.0.0; charset=utf-8")
            }
            (Format::Text, _) => either!("text/plain; version=0.0.4; charset=utf-8"),
        }
    }

    /// The best of those that are asked for, or else text. `utf8` says whether there may be names
    /// that are not classic.
    pub(super) fn negotiated(headers: &HeaderMap, openmetrics: bool, utf8: bool) -> Self {
        let mut best = (0.0, Self { format: Format::Text, version: Version::V0_0_4, utf8: false });
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in values.flat_map(|value| value.split(',')) {
            let Some((form, quality)) = offered(range, openmetrics) else { continue };
            // Of equals the first.
            if quality > best.0 {
                best = (quality, Self { utf8: form.utf8 && utf8, ..form });
            }
        }
        best.1
    }
}

/// What one element of `Accept` asks for, and how much.
fn offered(range: &str, openmetrics: bool) -> Option<(Form, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    let (mut version, mut message, mut encoding, mut escaping, mut quality) = ("", "", "", "", 1.0);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim() {
            "version" => version = value,
            "proto" => message = value,
            "encoding" => encoding = value,
            "escaping" => escaping = value,
            "q" => quality = value.parse().ok()?,
            _ => {}
        }
    }
    let (format, version) = match (media.as_str(), version) {
        ("application/vnd.google.protobuf", _)
            if message == "io.prometheus.client.MetricFamily" && encoding == "delimited" =>
        {
            (Format::Protobuf, Version::V1_0_0)
        }
        ("application/openmetrics-text", "" | "1.0.0") if openmetrics => {
            (Format::OpenMetrics, Version::V1_0_0)
        }
        ("application/openmetrics-text", "0.0.1") if openmetrics => {
            (Format::OpenMetrics, Version::V0_0_1)
        }
        ("text/plain", "1.0.0") => (Format::Text, Version::V1_0_0),
        ("text/plain", "" | "0.0.4") | ("text/*" | "*/*", _) => (Format::Text, Version::V0_0_4),
        _ => return None,
    };
    Some((Form { format, version, utf8: escaping == "allow-utf-8" }, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrapers_get_what_they_ask_for() {
        const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
        const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        const PROTOBUF: &str = "application/vnd.google.protobuf; \
                                proto=io.prometheus.client.MetricFamily; encoding=delimited";
        // What Prometheus 2.42 asks for, without and with native histograms, and Prometheus 3.
        let v2 = "application/openmetrics-text;version=1.0.0,\
                  application/openmetrics-text;version=0.0.1;q=0.75,\
                  text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let native = "application/vnd.google.protobuf;\
                      proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                      application/openmetrics-text;version=1.0.0;q=0.8,\
                      application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let v3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                  application/openmetrics-text;version=0.0.1;q=0.5,\
                  text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                  text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, openmetrics, utf8, expected) in [
            ("", true, true, TEXT),
            ("*/*", true, true, TEXT),
            ("text/html", true, true, TEXT),
            ("text/plain;version=0.0.4", true, true, TEXT),
            (v2, true, false, OPENMETRICS),
            (v2, false, false, TEXT),
            (native, true, false, PROTOBUF),
            (native, false, false, PROTOBUF),
            (v3, true, false, OPENMETRICS),
            (
                v3,
                true,
                true,
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            ),
            (v3, false, true, "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"),
            (v3, false, false, "text/plain; version=1.0.0; charset=utf-8"),
            (
                "Application/OpenMetrics-Text; version=\"0.0.1\"",
                true,
                false,
                "application/openmetrics-text; version=0.0.1; charset=utf-8",
            ),
            ("application/vnd.google.protobuf;encoding=delimited", true, false, TEXT),
            ("application/openmetrics-text;q=0", true, false, TEXT),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("ascii"))]);
            let form = Form::negotiated(&headers, openmetrics, utf8);
            assert_eq!(form.content_type(), expected, "{accept} {openmetrics} {utf8}");
        }
    }
}
