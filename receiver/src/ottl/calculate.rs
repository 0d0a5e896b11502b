//! Signs between values: numbers, times and durations.

use jiff::{SignedDuration, Zoned};

use super::compare::Any;

/// A sign between two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Plus,
    Minus,
    Times,
    Divided,
}

impl Sign {
    /// The value; fails on values of types that the sign does not take.
    pub fn calculate<'a>(self, left: &Any<'a>, right: &Any<'a>) -> Result<Any<'a>, String> {
        match (left, right) {
            (Any::Time(time), other) => return self.on_time(time, other),
            (Any::Duration(nanos), other) => return self.on_duration(*nanos, other),
            _ => {}
        }
        let must = |value: &Any<'_>, more: &str| {
            format!(
                "{} must be int64{more} float64{}",
                value.shown(),
                match more {
                    "," => ", time.Time or time.Duration",
                    _ => "",
                }
            )
        };
        let number = |value: &Any<'_>, more: &str| match value {
            Any::Int(value) => Ok(*value as f64),
            Any::Double(value) => Ok(*value),
            other => Err(must(other, more)),
        };
        if let (Any::Int(a), Any::Int(b)) = (left, right) {
            return Ok(Any::Int(match self {
                Self::Plus => a.wrapping_add(*b),
                Self::Minus => a.wrapping_sub(*b),
                Self::Times => a.wrapping_mul(*b),
                Self::Divided if *b == 0 => return Err("attempted to divide by 0".to_owned()),
                Self::Divided => a.wrapping_div(*b),
            }));
        }
        let (a, b) = (number(left, ",")?, number(right, " or")?);
        Ok(Any::Double(match self {
            Self::Plus => a + b,
            Self::Minus => a - b,
            Self::Times => a * b,
            Self::Divided if b == 0.0 => return Err("attempted to divide by 0".to_owned()),
            Self::Divided => a / b,
        }))
    }
}

/// What makes no sense with times and durations.
const ONLY: &str = "only addition and subtraction supported for time.Time and time.Duration";

impl Sign {
    fn on_time<'a>(self, time: &Zoned, other: &Any<'_>) -> Result<Any<'a>, String> {
        let later = |nanos: i64| {
            let later = time.checked_add(SignedDuration::from_nanos(nanos));
            later.map(Any::Time).map_err(|error| error.to_string())
        };
        match (self, other) {
            (Self::Plus, Any::Duration(nanos)) => later(*nanos),
            (Self::Minus, Any::Duration(nanos)) => later(nanos.saturating_neg()),
            (Self::Minus, Any::Time(other)) => {
                let nanos = time.duration_since(other).as_nanos();
                Ok(Any::Duration(nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64))
            }
            (Self::Plus, other) => Err(format!(
                "time.Time must be added to time.Duration; found {} instead",
                other.shown()
            )),
            (Self::Minus, other) => Err(format!(
                "time.Time or time.Duration must be subtracted from time.Time; found {} instead",
                other.shown()
            )),
            _ => Err(ONLY.to_owned()),
        }
    }

    fn on_duration<'a>(self, nanos: i64, other: &Any<'_>) -> Result<Any<'a>, String> {
        match (self, other) {
            (Self::Plus, Any::Duration(other)) => Ok(Any::Duration(nanos.wrapping_add(*other))),
            (Self::Minus, Any::Duration(other)) => Ok(Any::Duration(nanos.wrapping_sub(*other))),
            (Self::Plus, Any::Time(time)) => Self::Plus.on_time(time, &Any::Duration(nanos)),
            (Self::Plus, other) => Err(format!(
                "time.Duration must be added to time.Duration or time.Time; found {} instead",
                other.shown()
            )),
            (Self::Minus, other) => Err(format!(
                "time.Duration must be subtracted from time.Duration; found {} instead",
                other.shown()
            )),
            _ => Err(ONLY.to_owned()),
        }
    }
}
