//! OTLP names -> Prometheus names, by the rules of the OpenTelemetry specification and of
//! `prometheus/otlptranslator`.

/// What a translated name depends on beside the name and the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::exporters) enum Suffix {
    /// A monotonic sum: `_total`.
    Total,
    /// A gauge: `_ratio` if its unit is `1`.
    Ratio,
    /// Anything else.
    None,
}

/// How metric names are made.
#[derive(Clone, Debug, Default)]
pub(in crate::exporters) struct Names {
    /// Comes before every name.
    pub(in crate::exporters) namespace: String,
    /// Whether names say their unit and kind.
    pub(in crate::exporters) suffixes: bool,
}

impl Names {
    /// The metric's name; `None` if no character of it can stand in one.
    pub(in crate::exporters) fn metric(
        &self,
        name: &str,
        unit: &str,
        suffix: Suffix,
    ) -> Option<String> {
        // Without suffixes the words stay as they are written, `__` included.
        let mut words: Vec<&str> = if self.suffixes {
            name.split(|c| !valid(c)).filter(|word| !word.is_empty()).collect()
        } else {
            name.split(|c| !valid(c) && c != '_').filter(|word| !word.is_empty()).collect()
        };
        if words.is_empty() {
            return None;
        }
        let (main, per);
        if self.suffixes {
            (main, per) = unit_words(unit);
            let add_main = !main.is_empty() && !words.contains(&main.as_str());
            let add_per = !per.is_empty() && !words.contains(&per.as_str());
            if add_main {
                words.push(&main);
            }
            if add_per {
                words.extend(["per", &per]);
            }
            let last = match suffix {
                Suffix::Total => Some("total"),
                Suffix::Ratio if unit == "1" => Some("ratio"),
                Suffix::Ratio | Suffix::None => None,
            };
            if let Some(last) = last {
                words.retain(|word| *word != last);
                words.push(last);
            }
        }
        if !self.namespace.is_empty() {
            words.insert(0, &self.namespace);
        }
        let mut name = words.join("_");
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            name.insert(0, '_');
        }
        Some(name)
    }
}

/// A label's name.
pub(in crate::exporters) fn label(key: &str) -> String {
    let mut name: String =
        key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "key_");
    }
    name
}

const fn valid(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// A unit in words, as names say it.
pub(in crate::exporters) fn unit(unit: &str) -> String {
    match unit_words(unit) {
        (main, per) if per.is_empty() => main,
        (main, per) if main.is_empty() => format!("per_{per}"),
        (main, per) => format!("{main}_per_{per}"),
    }
}

/// The words for a unit and for what it is divided by; annotations in `{}` say nothing.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    (clean(main, main_word), clean(per, per_word))
}

fn clean(unit: &str, word: fn(&str) -> &str) -> String {
    let unit = unit.trim();
    if unit.contains(['{', '}']) {
        return String::new();
    }
    let words = word(unit).split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}

fn main_word(unit: &str) -> &str {
    match unit {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "%" => "percent",
        "1" => "",
        other => other,
    }
}

fn per_word(unit: &str) -> &str {
    match unit {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_unit_and_kind_once() {
        let names = Names { namespace: String::new(), suffixes: true };
        for (name, unit, suffix, expected) in [
            ("ebpf.cache.misses", "{page}", Suffix::Total, "ebpf_cache_misses_total"),
            ("ebpf.syscall.io", "By", Suffix::Total, "ebpf_syscall_io_bytes_total"),
            ("ebpf.syscall.duration", "s", Suffix::None, "ebpf_syscall_duration_seconds"),
            ("reclaim_efficiency", "%", Suffix::Ratio, "reclaim_efficiency_percent"),
            ("cpu.utilization", "1", Suffix::Ratio, "cpu_utilization_ratio"),
            ("things", "1", Suffix::Total, "things_total"),
            ("total.things", "", Suffix::Total, "things_total"),
            ("seconds.spent", "s", Suffix::None, "seconds_spent"),
            ("speed", "m/s", Suffix::Ratio, "speed_meters_per_second"),
            ("rate", "{packet}/s", Suffix::Ratio, "rate_per_second"),
            ("free space", "{fam/x}", Suffix::None, "free_space"),
            ("a..b__c", "foo*bar", Suffix::None, "a_b_c_foo_bar"),
            ("2nd.try", "", Suffix::None, "_2nd_try"),
            ("node:cpu", "", Suffix::None, "node:cpu"),
        ] {
            assert_eq!(names.metric(name, unit, suffix).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(names.metric("---", "s", Suffix::None), None);
    }

    #[test]
    fn a_namespace_comes_first_and_suffixes_can_be_off() {
        let names = Names { namespace: "my".to_owned(), suffixes: false };
        assert_eq!(names.metric("2x.io__y", "By", Suffix::Total).as_deref(), Some("my_2x_io__y"));
    }

    #[test]
    fn labels() {
        assert_eq!(label("http.route"), "http_route");
        assert_eq!(label("0day"), "key_0day");
        assert_eq!(label("__x"), "__x");
        assert_eq!(label("größe"), "gr__e");
    }
}
