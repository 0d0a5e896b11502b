//! OTLP names -> Prometheus names, by the rules of the OpenTelemetry specification and of
//! `prometheus/otlptranslator`. Shared by the exporters that speak Prometheus' language.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{common::v1::KeyValue, resource::v1::Resource};

use crate::value;

/// `translation_strategy`: what becomes of names that Prometheus could not have before version 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// `_` for what classic names cannot have; unit and kind at the end.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// `_` for what classic names cannot have.
    UnderscoreEscapingWithoutSuffixes,
    /// Names as they are, with unit and kind at the end.
    NoUTF8EscapingWithSuffixes,
    /// Names as they are.
    NoTranslation,
}

impl Strategy {
    /// All of them, by the names that configurations use.
    pub const ALL: [(&str, Self); 4] = [
        ("UnderscoreEscapingWithSuffixes", Self::UnderscoreEscapingWithSuffixes),
        ("UnderscoreEscapingWithoutSuffixes", Self::UnderscoreEscapingWithoutSuffixes),
        ("NoUTF8EscapingWithSuffixes", Self::NoUTF8EscapingWithSuffixes),
        ("NoTranslation", Self::NoTranslation),
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, strategy)| *strategy)
    }

    /// The one that is `named`, or else the one that the older key `add_metric_suffixes` means.
    pub fn configured(named: &str, add_metric_suffixes: bool) -> Self {
        match Self::named(named) {
            Some(strategy) => strategy,
            None if add_metric_suffixes => Self::UnderscoreEscapingWithSuffixes,
            None => Self::UnderscoreEscapingWithoutSuffixes,
        }
    }

    /// Whether names are made of letters, digits, `_` and `:` alone.
    pub const fn escapes(self) -> bool {
        matches!(
            self,
            Self::UnderscoreEscapingWithSuffixes | Self::UnderscoreEscapingWithoutSuffixes
        )
    }

    /// Whether names say their unit and kind.
    pub const fn suffixes(self) -> bool {
        matches!(self, Self::UnderscoreEscapingWithSuffixes | Self::NoUTF8EscapingWithSuffixes)
    }
}

/// What a translated name depends on beside the name and the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suffix {
    /// A monotonic sum: `_total`.
    Total,
    /// A gauge: `_ratio` if its unit is `1`.
    Ratio,
    /// Anything else.
    None,
}

impl Suffix {
    const fn word(self, unit: &str) -> Option<&'static str> {
        match self {
            Self::Total => Some("total"),
            // Compared as bytes, for a `const fn` cannot compare texts.
            Self::Ratio if matches!(unit.as_bytes(), b"1") => Some("ratio"),
            Self::Ratio | Self::None => None,
        }
    }
}

/// How names are made.
#[derive(Clone, Debug, Default)]
pub struct Names {
    namespace: String,
    strategy: Strategy,
    /// Whether labels keep every `_`.
    keeping: bool,
}

impl Names {
    /// Every metric's name begins with `namespace`, if there is one.
    pub fn new(namespace: &str, strategy: Strategy) -> Self {
        let namespace = if strategy.escapes() {
            let words = namespace.split(|c| !valid(c) && c != '_').filter(|word| !word.is_empty());
            words.collect::<Vec<_>>().join("_")
        } else {
            namespace.to_owned()
        };
        Self { namespace, strategy, keeping: false }
    }

    /// The same names, but labels keep `_` where they begin with one, and as many as they have, which
    /// is how the Collector shows them to scrapers; those that it sends do not.
    #[must_use]
    pub fn keeping_underscores(self) -> Self {
        Self { keeping: true, ..self }
    }

    /// The metric's name; `None` if no character of it can stand in one.
    pub fn metric(&self, name: &str, unit: &str, suffix: Suffix) -> Option<String> {
        if !self.strategy.escapes() {
            return (!name.is_empty()).then(|| self.as_it_is(name, unit, suffix));
        }
        let suffixes = self.strategy.suffixes();
        // Without suffixes the words stay as they are written, `__` included.
        let mut words: Vec<&str> =
            name.split(|c| !valid(c) && (suffixes || c != '_')).filter(|w| !w.is_empty()).collect();
        if words.iter().all(|word| word.bytes().all(|byte| byte == b'_')) {
            return None;
        }
        let (main, per) = unit_words(unit);
        let (main, per) = (clean(&main), clean(&per));
        if suffixes {
            let add_main = !main.is_empty() && !words.contains(&main.as_str());
            let add_per = !per.is_empty() && !words.contains(&per.as_str());
            if add_main {
                words.push(&main);
            }
            if add_per {
                words.extend(["per", &per]);
            }
            if let Some(last) = suffix.word(unit) {
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

    /// The name to the letter, at most with something added.
    fn as_it_is(&self, name: &str, unit: &str, suffix: Suffix) -> String {
        let mut name = self.in_namespace(name);
        if !self.strategy.suffixes() {
            return name;
        }
        let (main, per) = unit_words(unit);
        let per = if per.is_empty() { per } else { format!("per_{per}") };
        let last = suffix.word(unit).unwrap_or_default();
        // What is there already moves behind the unit.
        for end in [last, per.as_str()] {
            if !end.is_empty() && name.ends_with(end) && name.len() > end.len() + 1 {
                name.truncate(name.len() - end.len());
                // The character that set it off.
                name.pop();
            }
        }
        if !main.is_empty() && !name.ends_with(&main) {
            name = format!("{name}_{main}");
        }
        for end in [per.as_str(), last] {
            if !end.is_empty() {
                name = format!("{name}_{end}");
            }
        }
        name
    }

    /// A name that needs no translation, in the namespace.
    pub fn in_namespace(&self, name: &str) -> String {
        match self.namespace.as_str() {
            "" => name.to_owned(),
            namespace => format!("{namespace}_{name}"),
        }
    }

    /// A label's name; empty if no character of it can stand in one.
    pub fn label(&self, key: &str) -> String {
        match self.strategy.escapes() {
            true => escaped_label(key, self.keeping),
            false => key.to_owned(),
        }
    }

    /// Attributes as labels. Values of keys that have become one are joined in the order of the
    /// keys; the last one of a key counts.
    pub fn labels<'a>(
        &self,
        attributes: impl IntoIterator<Item = &'a KeyValue>,
    ) -> BTreeMap<String, String> {
        let by_key: BTreeMap<&str, &KeyValue> =
            attributes.into_iter().map(|attribute| (attribute.key.as_str(), attribute)).collect();
        let mut labels = BTreeMap::<String, String>::new();
        for (key, attribute) in by_key {
            let value = text(attribute);
            labels
                .entry(self.label(key))
                .and_modify(|joined| {
                    joined.push(';');
                    joined.push_str(&value);
                })
                .or_insert(value);
        }
        labels.remove("");
        labels
    }
}

/// The labels `job` and `instance`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The service with its namespace.
    pub job: String,
    /// Which one of the service's instances.
    pub instance: String,
}

/// The resource attributes that say the same as `job` and `instance`.
pub const IDENTIFYING: [&str; 3] = ["service.name", "service.namespace", "service.instance.id"];

impl Target {
    /// The one that a resource stands for; what it does not say is empty.
    pub fn of(resource: &Resource) -> Self {
        let attribute = |key| {
            let found = resource.attributes.iter().find(|attribute| attribute.key == key);
            found.map(text).unwrap_or_default()
        };
        let [name, namespace, instance] = IDENTIFYING.map(attribute);
        let job = if name.is_empty() || namespace.is_empty() {
            name
        } else {
            format!("{namespace}/{name}")
        };
        Self { job, instance }
    }

    /// What a resource says beside that, in its `target_info`.
    pub fn info(resource: &Resource) -> Vec<KeyValue> {
        let says_more = |attribute: &&KeyValue| !IDENTIFYING.contains(&&*attribute.key);
        resource.attributes.iter().filter(says_more).cloned().collect()
    }
}

/// Whether a metric's name can stand outside quotation marks.
pub fn is_classic_metric(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| valid(c) || c == '_')
}

/// Whether a label's name can stand outside quotation marks.
pub fn is_classic_label(name: &str) -> bool {
    is_classic_metric(name) && !name.contains(':')
}

/// A name for readers that know classic names alone, as Prometheus' own libraries write it.
pub fn underscored(name: &str) -> String {
    let stays = |at: usize, c: char| (valid(c) || c == '_') && !(at == 0 && c.is_ascii_digit());
    name.chars().enumerate().map(|(at, c)| if stays(at, c) { c } else { '_' }).collect()
}

fn escaped_label(key: &str, keeping: bool) -> String {
    // Names like `__name__` keep what they begin and end with.
    let inner = key.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    let mut name = String::with_capacity(key.len());
    for c in inner.unwrap_or(key).chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c);
        } else if keeping || !name.ends_with('_') {
            name.push('_');
        }
    }
    if name.bytes().all(|byte| byte == b'_') {
        return String::new();
    }
    match inner {
        Some(_) => format!("__{name}__"),
        None if name.starts_with(|c: char| c.is_ascii_digit()) => format!("key_{name}"),
        None if name.starts_with('_') && !keeping => format!("key{name}"),
        None => name,
    }
}

/// An attribute's value as a label shows it.
pub fn text(attribute: &KeyValue) -> String {
    value::text(attribute.value.as_ref().and_then(|value| value.value.as_ref()))
}

const fn valid(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// A unit in words, as names say it.
pub fn unit(unit: &str) -> String {
    match unit_words(unit) {
        (main, per) if per.is_empty() => main,
        (main, per) if main.is_empty() => format!("per_{per}"),
        (main, per) => format!("{main}_per_{per}"),
    }
}

/// The words for a unit and for what it is divided by; annotations in `{}` say nothing.
fn unit_words(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |unit: &str, word: fn(&str) -> &str| match unit.trim() {
        unit if unit.contains(['{', '}']) => String::new(),
        unit => word(unit).to_owned(),
    };
    (word(main, main_word), word(per, per_word))
}

/// The same, of characters that classic names can have.
fn clean(word: &str) -> String {
    let words = word.split(|c: char| !c.is_ascii_alphanumeric());
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
        let names = Names::default();
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
        let names = Names::new("my", Strategy::UnderscoreEscapingWithoutSuffixes);
        assert_eq!(names.metric("2x.io__y", "By", Suffix::Total).as_deref(), Some("my_2x_io__y"));
    }

    #[test]
    fn names_can_stay_as_they_are() {
        let with = Names::new("", Strategy::NoUTF8EscapingWithSuffixes);
        for (name, unit, suffix, expected) in [
            ("requêsts", "1/s", Suffix::Ratio, "requêsts_per_second"),
            ("cpu_seconds_total", "s", Suffix::Total, "cpu_seconds_total"),
            ("http.server.requests", "{request}", Suffix::Total, "http.server.requests_total"),
            ("cpu.ratio", "1", Suffix::Ratio, "cpu_ratio"),
            ("memory", "By", Suffix::None, "memory_bytes"),
            ("@#$%", "", Suffix::Total, "@#$%_total"),
            ("total", "", Suffix::Total, "total_total"),
        ] {
            assert_eq!(with.metric(name, unit, suffix).as_deref(), Some(expected), "{name}");
        }
        let untouched = Names::new("test@ns", Strategy::NoTranslation);
        let name = untouched.metric("a.b", "By", Suffix::Total);
        assert_eq!(name.as_deref(), Some("test@ns_a.b"));
        assert_eq!(untouched.metric("", "By", Suffix::Total), None);
        assert_eq!(untouched.label("a.b"), "a.b");
    }

    #[test]
    fn labels() {
        for (key, expected) in [
            ("http.route", "http_route"),
            ("0day", "key_0day"),
            ("_foo", "key_foo"),
            ("a__b", "a_b"),
            ("__name__", "__name__"),
            ("__a..b__", "__a_b__"),
            ("größe", "gr_e"),
            ("ようこそ", ""),
            ("__", ""),
        ] {
            assert_eq!(Names::default().label(key), expected, "{key}");
        }
        let keeping = Names::default().keeping_underscores();
        for (key, expected) in [
            ("label:with!signs)", "label_with_signs_"),
            ("0day", "key_0day"),
            ("_foo", "_foo"),
            ("__foo", "__foo"),
            ("a__b..c", "a__b__c"),
            ("__a..b__", "__a__b__"),
            ("größe字", "gr__e_"),
            ("ようこそ", ""),
            ("__", ""),
        ] {
            assert_eq!(keeping.label(key), expected, "{key}");
        }
        let attributes = crate::metric::pairs(&[("a/b", "3"), ("a.b", "2"), ("字", "x")]);
        let expected = BTreeMap::from([("a_b".to_owned(), "2;3".to_owned())]);
        assert_eq!(Names::default().labels(&attributes), expected);
    }

    #[test]
    fn what_classic_readers_see() {
        assert_eq!(underscored("2nd.größe:x_y"), "_nd_gr__e:x_y");
        assert!(
            is_classic_metric("a:b_1") && !is_classic_metric("1a") && !is_classic_metric("a.b")
        );
        assert!(is_classic_label("a_b") && !is_classic_label("a:b"));
    }

    #[test]
    fn a_target_is_named_by_its_service() {
        let of = |attributes: &[(&str, &str)]| {
            let attributes = crate::metric::pairs(attributes);
            Target::of(&Resource { attributes, ..Default::default() })
        };
        let target = of(&[
            ("service.namespace", "prod"),
            ("service.name", "db"),
            ("service.instance.id", "i1"),
        ]);
        assert_eq!((target.job.as_str(), target.instance.as_str()), ("prod/db", "i1"));
        assert_eq!(of(&[("service.namespace", "prod")]), Target::default());
    }
}
