//! Durations as the Collector's users write them: Go's syntax (`1h30m`, `1.5s`, `200ms`), or what
//! humantime reads (`2 days`). A bare number is nanoseconds.
//!
//! For `#[serde(with = "crate::config::duration")]`.

use std::{borrow::Cow, fmt, time::Duration};

use humantime_serde::re::humantime;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::style;

/// What the Collector says of one, with its key before it.
const NEGATIVE: &str = "must be non-negative";

/// How a duration is read and written. A type, not a module, so that it has a schema, too.
#[allow(non_camel_case_types, reason = "serde and schemars name it as a path")]
pub enum duration {}

impl duration {
    /// Writes what [`Self::deserialize`] reads.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        match style::current().nanos {
            true => serializer.serialize_u128(duration.as_nanos()),
            false => serializer.serialize_str(&text(*duration)),
        }
    }

    /// Reads a duration; negative ones are refused.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Duration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 10s")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                parse(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, nanos: u64) -> Result<Duration, E> {
                not_too_long(Duration::from_nanos(nanos), nanos).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, nanos: i64) -> Result<Duration, E> {
                let nanos =
                    u64::try_from(nanos).map_err(|_| E::custom(format!("{NEGATIVE}: {nanos}")))?;
                Ok(Duration::from_nanos(nanos))
            }
            fn visit_none<E>(self) -> Result<Duration, E> {
                Ok(Duration::ZERO)
            }
            fn visit_some<D: Deserializer<'de>>(self, given: D) -> Result<Duration, D::Error> {
                given.deserialize_any(self)
            }
        }
        // A key without a value is zero.
        deserializer.deserialize_option(Visitor)
    }
}

/// A duration that may be negative, for sections that are checked only if they are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signed(i64);

impl Signed {
    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// How many nanoseconds it has.
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// As it is if it is not negative; else zero.
    pub fn or_zero(self) -> Duration {
        Duration::from_nanos(self.0.try_into().unwrap_or_default())
    }
}

impl From<Duration> for Signed {
    fn from(duration: Duration) -> Self {
        Self(duration.as_nanos().try_into().unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_negative() { "-" } else { "" };
        write!(f, "{sign}{}", text(Duration::from_nanos(self.0.unsigned_abs())))
    }
}

impl Serialize for Signed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match style::current().nanos {
            true => serializer.serialize_i64(self.0),
            false => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Signed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 10s")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Signed, E> {
                let size = text.strip_prefix('-').unwrap_or(text);
                let Signed(nanos) = parse(size).map_err(E::custom)?.into();
                Ok(Signed(if size == text { nanos } else { -nanos }))
            }
            fn visit_u64<E: de::Error>(self, nanos: u64) -> Result<Signed, E> {
                let duration = not_too_long(Duration::from_nanos(nanos), nanos);
                Ok(duration.map_err(E::custom)?.into())
            }
            fn visit_i64<E: de::Error>(self, nanos: i64) -> Result<Signed, E> {
                Ok(Signed(nanos))
            }
            fn visit_none<E>(self) -> Result<Signed, E> {
                Ok(Signed(0))
            }
            fn visit_some<D: Deserializer<'de>>(self, given: D) -> Result<Signed, D::Error> {
                given.deserialize_any(self)
            }
        }
        deserializer.deserialize_option(Visitor)
    }
}

impl JsonSchema for Signed {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        duration::schema_name()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "format": "go-duration",
            "pattern": format!("^-?{}", PATTERN.trim_start_matches('^')),
        })
    }
}

impl JsonSchema for duration {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "format": "go-duration",
            "minimum": 0,
            "pattern": PATTERN,
        })
    }
}

/// What Go reads, or humantime.
const PATTERN: &str = r"^(0|\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+) ?[a-zA-Zµμ]+ ?)+)$";

/// As Go's `Duration.String` writes it.
pub fn text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, name) = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (mut whole, fraction) = (nanos / unit, nanos % unit);
    let mut text = String::new();
    if name == "s" {
        let (hours, minutes) = (whole / 3600, whole / 60 % 60);
        if hours > 0 {
            text += &format!("{hours}h");
        }
        if whole >= 60 {
            text += &format!("{minutes}m");
        }
        whole %= 60;
    }
    text += &whole.to_string();
    if fraction > 0 {
        let digits = unit.ilog10() as usize;
        text += format!(".{fraction:0digits$}").trim_end_matches('0');
    }
    text + name
}

/// Reads a duration from text.
pub fn parse(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err(format!("{NEGATIVE}: \"{text}\""));
    }
    not_too_long(go(text).map_or_else(|| human(text), Ok)?, text)
}

/// Go's durations end here, and so do sums of an instant and a duration that cannot overflow.
fn not_too_long(duration: Duration, written: impl fmt::Display) -> Result<Duration, String> {
    if duration.as_nanos() > i64::MAX as u128 {
        return Err(format!("time: invalid duration \"{written}\": it is longer than 292 years"));
    }
    Ok(duration)
}

fn human(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| match text.parse::<f64>() {
        Ok(_) => format!("time: missing unit in duration \"{text}\": write {text}s, {text}ms, …"),
        Err(_) => {
            // Go's words for the same.
            let what = match error {
                humantime::DurationError::UnknownUnit { .. } => "unknown unit in",
                _ => "invalid",
            };
            format!("time: {what} duration \"{text}\": {error}")
        }
    })
}

/// Go's `time.ParseDuration`: decimal numbers, each with a unit, without spaces.
fn go(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos = nanos.checked_add(whole.checked_mul(unit)?)?;
        // Nanoseconds of an hour have 13 digits; more digits of a fraction change nothing.
        let fraction = &fraction[..fraction.len().min(15)];
        if !fraction.is_empty() {
            nanos += fraction.parse::<u128>().ok()? * unit / 10_u128.pow(fraction.len() as u32);
        }
        rest = after;
    }
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Section;

    #[test]
    fn what_go_and_humantime_read() {
        let millis = |text| parse(text).map(|d| d.as_millis());
        assert_eq!(millis("10s"), Ok(10_000));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
        assert_eq!(millis("1.5s"), Ok(1_500));
        assert_eq!(millis(".5m"), Ok(30_000));
        assert_eq!(millis("200ms"), Ok(200));
        assert_eq!(millis("0"), Ok(0));
        assert_eq!(millis("2 days"), Ok(172_800_000));
        assert_eq!(parse("1µs"), Ok(Duration::from_micros(1)));
    }

    #[test]
    fn what_is_written_is_go_s_and_is_read_again() {
        for (nanos, written) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (200_000_000, "200ms"),
            (1_000_000_000, "1s"),
            (1_050_000_000, "1.05s"),
            (60_000_000_000, "1m0s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_001, "25h1m1.000000001s"),
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(text(duration), written);
            assert_eq!(parse(written), Ok(duration));
        }
    }

    #[test]
    fn a_signed_one_is_written_as_it_is_read() {
        for (written, nanos) in [("-1.5s", -1_500_000_000), ("0s", 0), ("1m0s", 60_000_000_000)] {
            let read: Signed = serde_json::from_value(written.into()).expect("a duration");
            assert_eq!(read, Signed(nanos));
            assert_eq!(serde_json::to_value(read).expect("text"), written);
            assert_eq!(serde_json::from_value::<Signed>(nanos.into()).expect("a number"), read);
        }
        assert!(serde_json::from_value::<Signed>("--1s".into()).is_err());
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Times {
        #[serde(with = "duration")]
        a: Duration,
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(parse("10").expect_err("no unit").contains("missing unit"));
        assert_eq!(parse("-1s").expect_err("negative"), "must be non-negative: \"-1s\"");
        assert!(parse("10x").expect_err("no such unit").contains("10x"));
        assert!(parse("").is_err());
        assert!(parse("99999999999999h").is_err());
        for text in ["9223372036854775808ns", "9223372036854775808"] {
            let section = |text: &str| Section::of_text(&format!("a: {text}")).expect("valid");
            let said = section(text).parse::<Times>().expect_err(text).0;
            assert!(said[0].message.ends_with("it is longer than 292 years"), "{said:?}");
        }
    }
}
