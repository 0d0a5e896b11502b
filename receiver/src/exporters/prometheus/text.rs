//! The text formats: Prometheus' own, and OpenMetrics 1.0.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use super::{
    buckets::cumulative,
    exemplar::{Exemplar, newest},
    family::{Family, Kind, Series},
    labels::quote,
    store::Store,
    value::Value,
    view::{Rendered, view},
};
use crate::prometheus_names::is_classic_metric;

/// The whole exposition in Prometheus' format.
pub(super) fn prometheus(store: &Store, utf8: bool) -> Rendered {
    render(store, utf8, Dialect::Prometheus)
}

/// The whole exposition in OpenMetrics.
pub(super) fn openmetrics(store: &Store, utf8: bool) -> Rendered {
    let mut rendered = render(store, utf8, Dialect::OpenMetrics);
    rendered.bytes.extend_from_slice(b"# EOF\n");
    rendered
}

#[derive(Clone, Copy, PartialEq)]
enum Dialect {
    Prometheus,
    OpenMetrics,
}

fn render(store: &Store, utf8: bool, dialect: Dialect) -> Rendered {
    let mut out = String::new();
    let timestamps = store.sends_timestamps();
    let hidden = view(store, utf8, |name, family, series| {
        let classic = is_classic_metric(name);
        let mut lines = Lines { out: &mut out, name, classic, created: None, dialect, timestamps };
        // A `String` takes all that is written.
        let _ = lines.head(store, family);
        for (labels, series) in series {
            let _ = lines.series(labels, series, family);
        }
    });
    Rendered { bytes: out.into_bytes(), hidden }
}

/// Writes the lines of one family.
struct Lines<'a> {
    out: &'a mut String,
    /// Of a counter, with `_total`.
    name: &'a str,
    /// Whether the name can stand outside quotation marks.
    classic: bool,
    /// The name of the samples that say since when the others count, if there are any.
    created: Option<String>,
    dialect: Dialect,
    timestamps: bool,
}

/// What a line says beside its value.
struct Sample<'a> {
    name: &'a str,
    ending: &'a str,
    labels: &'a str,
    /// The label that the metric's kind needs for itself.
    own: Option<(&'a str, f64)>,
    time: u64,
    exemplar: Option<&'a Exemplar>,
}

impl Lines<'_> {
    fn head(&mut self, store: &Store, family: &Family) -> fmt::Result {
        let (mut name, mut kind) = (Cow::Borrowed(self.name), family.kind.name());
        let free = |name: &str| !store.families.contains_key(name);
        if self.dialect == Dialect::OpenMetrics {
            // Here a family's name lacks `_total`. Where that name is taken, or there is no
            // `_total`, it cannot be called a counter.
            let base = self.name.strip_suffix("_total").filter(|base| free(base));
            match (family.kind, base) {
                (Kind::Counter, Some(base)) => name = Cow::Borrowed(base),
                (Kind::Counter, None) => kind = "unknown",
                _ => {}
            }
            let created = format!("{name}_created");
            let counts = family.kind != Kind::Gauge && kind != "unknown";
            self.created = (counts && free(&created)).then_some(created);
        }
        let name = quoted(&name);
        if !family.help.is_empty() {
            let help = match self.dialect {
                Dialect::Prometheus => family.help.replace('\\', "\\\\").replace('\n', "\\n"),
                Dialect::OpenMetrics => {
                    let mut help = String::new();
                    quote(&mut help, &family.help);
                    help[1..help.len() - 1].to_owned()
                }
            };
            writeln!(self.out, "# HELP {name} {help}")?;
        }
        writeln!(self.out, "# TYPE {name} {kind}")
    }

    fn series(&mut self, labels: &str, series: &Series, family: &Family) -> fmt::Result {
        let name = self.name;
        let sample = |ending: &'static str| Sample {
            name,
            ending,
            labels,
            own: None,
            time: series.time,
            exemplar: None,
        };
        match &series.value {
            Value::Int(value) => {
                let exemplar = counters(family.kind, &series.exemplars);
                self.line(&Sample { exemplar, ..sample("") }, |out| write!(out, "{value}"))?;
            }
            Value::Float(value) => {
                let exemplar = counters(family.kind, &series.exemplars);
                self.line(&Sample { exemplar, ..sample("") }, |out| float(out, *value))?;
            }
            Value::Histogram(histogram) => {
                let buckets = histogram.cumulative();
                self.buckets(labels, series, buckets, histogram.count)?;
                self.sum_and_count(&sample, histogram.sum, histogram.count)?;
            }
            Value::Exponential(histogram) => {
                let buckets = cumulative(histogram, family.window);
                self.buckets(labels, series, buckets, histogram.count)?;
                self.sum_and_count(&sample, histogram.sum, histogram.count)?;
            }
            Value::Summary(summary) => {
                for (quantile, value) in &summary.quantiles {
                    let own = Some(("quantile", *quantile));
                    self.line(&Sample { own, ..sample("") }, |out| float(out, *value))?;
                }
                self.sum_and_count(&sample, Some(summary.sum), summary.count)?;
            }
        }
        if series.start > 0
            && let Some(created) = self.created.take()
        {
            let sample = Sample { name: &created, time: 0, ..sample("") };
            self.line(&sample, |out| seconds(out, series.start))?;
            self.created = Some(created);
        }
        Ok(())
    }

    fn buckets(
        &mut self,
        labels: &str,
        series: &Series,
        buckets: Vec<(f64, u64)>,
        count: u64,
    ) -> fmt::Result {
        let mut above = f64::NEG_INFINITY;
        for (bound, below) in buckets.into_iter().chain([(f64::INFINITY, count)]) {
            let sample = Sample {
                name: self.name,
                ending: "_bucket",
                labels,
                own: Some(("le", bound)),
                time: series.time,
                exemplar: newest(&series.exemplars, above, bound),
            };
            self.line(&sample, |out| write!(out, "{below}"))?;
            above = bound;
        }
        Ok(())
    }

    fn sum_and_count<'a>(
        &mut self,
        sample: &impl Fn(&'static str) -> Sample<'a>,
        sum: Option<f64>,
        count: u64,
    ) -> fmt::Result {
        // A sum that was not recorded is absent, not zero.
        if let Some(sum) = sum {
            self.line(&sample("_sum"), |out| float(out, sum))?;
        }
        // OpenMetrics has both or none.
        if sum.is_some() || self.dialect == Dialect::Prometheus {
            self.line(&sample("_count"), |out| write!(out, "{count}"))?;
        }
        Ok(())
    }

    fn line(
        &mut self,
        sample: &Sample<'_>,
        value: impl FnOnce(&mut String) -> fmt::Result,
    ) -> fmt::Result {
        let out = &mut *self.out;
        let mut separator = "{";
        if self.classic {
            out.push_str(sample.name);
            out.push_str(sample.ending);
        } else {
            out.push('{');
            quote(out, &format!("{}{}", sample.name, sample.ending));
            separator = ",";
        }
        if !sample.labels.is_empty() {
            out.push_str(separator);
            out.push_str(sample.labels);
            separator = ",";
        }
        if let Some((label, bound)) = sample.own {
            write!(out, "{separator}{label}=\"")?;
            let digits = out.len();
            float(out, bound)?;
            // OpenMetrics compares such labels as text, and wants all to be written as one would
            // write a float.
            if self.dialect == Dialect::OpenMetrics
                && bound.is_finite()
                && !out[digits..].contains(['.', 'e'])
            {
                out.push_str(".0");
            }
            out.push('"');
            separator = ",";
        }
        if separator == "," {
            out.push('}');
        }
        out.push(' ');
        value(out)?;
        if self.timestamps && sample.time > 0 {
            out.push(' ');
            match self.dialect {
                Dialect::Prometheus => write!(out, "{}", sample.time / 1_000_000)?,
                Dialect::OpenMetrics => seconds(out, sample.time)?,
            }
        }
        if let Some(exemplar) = sample.exemplar.filter(|_| self.dialect == Dialect::OpenMetrics) {
            write!(out, " # {{{}}} ", exemplar.labels)?;
            float(out, exemplar.value)?;
            if exemplar.time > 0 {
                out.push(' ');
                seconds(out, exemplar.time)?;
            }
        }
        out.push('\n');
        Ok(())
    }
}

/// The exemplar of a number; gauges have none.
fn counters(kind: Kind, exemplars: &[Exemplar]) -> Option<&Exemplar> {
    exemplars.first().filter(|_| kind == Kind::Counter)
}

/// A name as comments and samples show it.
fn quoted(name: &str) -> Cow<'_, str> {
    if is_classic_metric(name) {
        return Cow::Borrowed(name);
    }
    let mut out = String::new();
    quote(&mut out, name);
    Cow::Owned(out)
}

/// Nanoseconds as seconds, to the millisecond, which is what Prometheus keeps.
fn seconds(out: &mut String, nanos: u64) -> fmt::Result {
    write!(out, "{}.{:03}", nanos / 1_000_000_000, nanos / 1_000_000 % 1000)
}

/// The shortest form that reads back as the same number, spelled as Go does (`1e-06`): Prometheus
/// before version 3 compares the text of `le`.
pub(super) fn float(out: &mut String, value: f64) -> fmt::Result {
    if value.is_nan() {
        out.write_str("NaN")
    } else if value.is_infinite() {
        out.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if value == 0.0 || (1e-4..1e21).contains(&value.abs()) {
        write!(out, "{value}")
    } else {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        write!(out, "{digits}e{sign}{exponent:0>2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelled_as_prometheus_spells_them() {
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (2_f64.powi(-20), "9.5367431640625e-07"),
            (1e-4, "0.0001"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-2.5e300, "-2.5e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            let mut out = String::new();
            float(&mut out, value).expect("a String grows");
            assert_eq!(out, expected);
        }
    }
}
