//! The text format, version 0.0.4.

use std::fmt::{self, Write};

use super::{
    buckets::cumulative,
    store::{Family, Series, Store},
    value::Value,
};

/// The whole exposition.
pub(super) fn render(store: &Store, timestamps: bool) -> String {
    let mut out = String::new();
    for (name, family) in &store.families {
        let _ = write_family(&mut out, name, family, timestamps);
    }
    out
}

fn write_family(out: &mut String, name: &str, family: &Family, timestamps: bool) -> fmt::Result {
    if !family.help.is_empty() {
        let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
        writeln!(out, "# HELP {name} {help}")?;
    }
    writeln!(out, "# TYPE {name} {}", family.kind.name())?;
    for (labels, series) in &family.series {
        write_series(&mut Lines { out, name, labels, series, timestamps }, family)?;
    }
    Ok(())
}

/// Writes the lines of one series.
struct Lines<'a> {
    out: &'a mut String,
    name: &'a str,
    labels: &'a str,
    series: &'a Series,
    timestamps: bool,
}

fn write_series(lines: &mut Lines<'_>, family: &Family) -> fmt::Result {
    let series = lines.series;
    let (count, sum) = match &series.value {
        Value::Int(value) => return lines.line("", None, |out| write!(out, "{value}")),
        Value::Float(value) => return lines.line("", None, |out| float(out, *value)),
        Value::Histogram(histogram) => {
            let mut below = 0;
            for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
                below += count;
                lines.line("_bucket", Some(("le", *bound)), |out| write!(out, "{below}"))?;
            }
            (histogram.count, histogram.sum)
        }
        Value::Exponential(histogram) => {
            for (bound, below) in cumulative(histogram, family.window) {
                lines.line("_bucket", Some(("le", bound)), |out| write!(out, "{below}"))?;
            }
            (histogram.count, histogram.sum)
        }
        Value::Summary(summary) => {
            for (quantile, value) in &summary.quantiles {
                lines.line("", Some(("quantile", *quantile)), |out| float(out, *value))?;
            }
            (summary.count, Some(summary.sum))
        }
    };
    if !matches!(series.value, Value::Summary(_)) {
        lines.line("_bucket", Some(("le", f64::INFINITY)), |out| write!(out, "{count}"))?;
    }
    // A sum that was not recorded is absent, not zero.
    if let Some(sum) = sum {
        lines.line("_sum", None, |out| float(out, sum))?;
    }
    lines.line("_count", None, |out| write!(out, "{count}"))
}

impl Lines<'_> {
    fn line(
        &mut self,
        ending: &str,
        own: Option<(&str, f64)>,
        value: impl FnOnce(&mut String) -> fmt::Result,
    ) -> fmt::Result {
        let out = &mut *self.out;
        out.push_str(self.name);
        out.push_str(ending);
        if !self.labels.is_empty() || own.is_some() {
            out.push('{');
            out.push_str(self.labels);
            if let Some((label, bound)) = own {
                let comma = if self.labels.is_empty() { "" } else { "," };
                write!(out, "{comma}{label}=\"")?;
                float(out, bound)?;
                out.push('"');
            }
            out.push('}');
        }
        out.push(' ');
        value(out)?;
        if self.timestamps && self.series.time > 0 {
            write!(out, " {}", self.series.time / 1_000_000)?;
        }
        out.push('\n');
        Ok(())
    }
}

/// The shortest form that reads back as the same number, spelled as Go does (`1e-06`): Prometheus
/// before version 3 compares the text of `le`.
fn float(out: &mut String, value: f64) -> fmt::Result {
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
