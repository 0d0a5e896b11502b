//! Times and durations, and times as texts: directives as of C's `strptime`, with the Collector's own.

use std::time::SystemTime;

use jiff::{
    Timestamp, ToSpan as _, Zoned,
    civil::{Date, DateTime, Time},
    tz::{Offset, TimeZone},
};

use super::{super::compare::Any, Arguments, made};

type Value<'a> = Result<Any<'a>, String>;

const SECOND: i64 = 1_000_000_000;

pub(super) fn now(_: Arguments<'_>) -> Value<'_> {
    let now = Timestamp::try_from(SystemTime::now()).map_err(|error| error.to_string())?;
    Ok(Any::Time(now.to_zoned(TimeZone::system())))
}

macro_rules! parts {
    ($($name:ident = |$time:ident| $part:expr;)*) => {
        $(pub(super) fn $name(mut arguments: Arguments<'_>) -> Value<'_> {
            let $time = arguments.time()?;
            Ok(Any::Int($part))
        })*
    };
}

parts! {
    day = |time| time.day().into();
    hour = |time| time.hour().into();
    minute = |time| time.minute().into();
    month = |time| time.month().into();
    nanosecond = |time| time.subsec_nanosecond().into();
    second = |time| time.second().into();
    unix_micro = |time| time.timestamp().as_microsecond();
    unix_milli = |time| time.timestamp().as_millisecond();
    unix_nano = |time| time.timestamp().as_nanosecond() as i64;
    unix_seconds = |time| time.timestamp().as_second();
    weekday = |time| time.weekday().to_sunday_zero_offset().into();
    year = |time| time.year().into();
}

/// A duration in units of so many nanoseconds.
fn whole(mut arguments: Arguments<'_>, unit: i64) -> Value<'_> {
    Ok(Any::Int(arguments.duration()? / unit))
}

fn parts(mut arguments: Arguments<'_>, unit: i64) -> Value<'_> {
    Ok(Any::Double(arguments.duration()? as f64 / unit as f64))
}

pub(super) fn nanoseconds(arguments: Arguments<'_>) -> Value<'_> {
    whole(arguments, 1)
}

pub(super) fn microseconds(arguments: Arguments<'_>) -> Value<'_> {
    whole(arguments, SECOND / 1_000_000)
}

pub(super) fn milliseconds(arguments: Arguments<'_>) -> Value<'_> {
    whole(arguments, SECOND / 1000)
}

pub(super) fn seconds(arguments: Arguments<'_>) -> Value<'_> {
    parts(arguments, SECOND)
}

pub(super) fn minutes(arguments: Arguments<'_>) -> Value<'_> {
    parts(arguments, 60 * SECOND)
}

pub(super) fn hours(arguments: Arguments<'_>) -> Value<'_> {
    parts(arguments, 3600 * SECOND)
}

pub(super) fn duration(mut arguments: Arguments<'_>) -> Value<'_> {
    let text = arguments.text()?;
    let (text, sign) = match text.strip_prefix('-') {
        Some(rest) => (rest, -1),
        None => (text.strip_prefix('+').unwrap_or(&text), 1),
    };
    // Configurations take days, too.
    if text.contains('d') {
        return Err(format!("time: unknown unit \"d\" in duration {text:?}"));
    }
    let duration = crate::config::parse_duration(text)?;
    Ok(Any::Duration(sign * i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
}

pub(super) fn unix(mut arguments: Arguments<'_>) -> Value<'_> {
    let seconds = arguments.int()?;
    let nanos = match arguments.given() {
        None => 0,
        Some(Any::Int(nanos)) => nanos,
        Some(other) => return Err(super::expected("int64", &other)),
    };
    let all = i128::from(seconds) * i128::from(SECOND) + i128::from(nanos);
    let time = Timestamp::from_nanosecond(all).map_err(|error| error.to_string())?;
    Ok(Any::Time(time.to_zoned(TimeZone::system())))
}

/// Down to a multiple of the duration since the year 1, as Go has it.
pub(super) fn truncate_time(mut arguments: Arguments<'_>) -> Value<'_> {
    let (time, to) = (arguments.time()?, arguments.duration()?);
    if to <= 0 {
        return Ok(Any::Time(time));
    }
    const SINCE_YEAR_1: i128 = 62_135_596_800 * SECOND as i128;
    let nanos = time.timestamp().as_nanosecond();
    let rest = (nanos + SINCE_YEAR_1).rem_euclid(to.into());
    let down = Timestamp::from_nanosecond(nanos - rest).map_err(|error| error.to_string())?;
    Ok(Any::Time(down.to_zoned(time.time_zone().clone())))
}

pub(super) fn format_time(mut arguments: Arguments<'_>) -> Value<'_> {
    let (time, format) = (arguments.time()?, arguments.text()?);
    Ok(made(formatted(&time, &format)))
}

pub(super) fn parse_time(mut arguments: Arguments<'_>) -> Value<'_> {
    let (text, format, place) = (arguments.text()?, arguments.text()?, arguments.text_or("")?);
    if text.is_empty() {
        return Err("time cannot be nil".to_owned());
    }
    Parsed::read(&text, &format)
        .and_then(|parsed| parsed.time(&location(&place, &format)?))
        .map(Any::Time)
        .map_err(|error| format!("parsing time {text:?} as {format:?}: {error}"))
}

/// Where a time without a zone is meant.
pub(super) fn location(name: &str, format: &str) -> Result<TimeZone, String> {
    if name.is_empty() {
        return Ok(if format.ends_with('Z') { TimeZone::UTC } else { TimeZone::system() });
    }
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name)
        .map_err(|_| format!("failed to load location {name}: unknown time zone {name}"))
}

/// Directives that are short for others.
fn short(directive: char) -> Option<&'static str> {
    Some(match directive {
        'D' | 'x' => "%m/%d/%Y",
        'F' => "%Y-%m-%d",
        'T' | 'X' => "%H:%M:%S",
        'r' => "%I:%M:%S %P",
        'R' => "%H:%M",
        'c' => "%a %b %d %H:%M:%S %Y",
        'n' => "\n",
        't' => "\t",
        _ => return None,
    })
}

/// The same where a text is read: `%D` has two digits of the year then.
fn read_as(directive: char) -> Option<&'static str> {
    match directive {
        'D' => Some("%m/%d/%y"),
        other => short(other),
    }
}

/// Names of months and days are known in English alone.
pub(super) fn check_locale(locale: &str) -> Result<(), String> {
    match locale.is_empty() || locale == "en" || locale.starts_with("en-") {
        true => Ok(()),
        false => Err(format!("unsupported locale '{locale}': Fathom reads English names only")),
    }
}

/// Whether the Collector knows all directives.
pub(super) fn check_format(format: &str) -> Result<(), String> {
    if format.is_empty() {
        return Err("format cannot be nil".to_owned());
    }
    let mut wrong = Vec::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if let ('%', Some(directive)) = (c, if c == '%' { chars.next() } else { None })
            && short(directive).is_none()
            && !"YymoqbhBdegaAHlIpPMSLfsZzwijk%".contains(directive)
        {
            wrong.push(format!("unsupported ctimefmt.toNative() directive: %{directive}"));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("invalid strptime format: [{}]", wrong.join(" ")))
}

fn formatted(time: &Zoned, format: &str) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        let directive = if c == '%' { chars.next() } else { None };
        let Some(directive) = directive else {
            out.push(c);
            continue;
        };
        if let Some(long) = short(directive) {
            out.push_str(&formatted(time, long));
            continue;
        }
        let hour = time.hour().rem_euclid(12);
        let hour = if hour == 0 { 12 } else { hour };
        let fraction = |digits: usize| {
            let all = format!("{:09}", time.subsec_nanosecond());
            all[..digits].trim_end_matches('0').to_owned()
        };
        let standard = |format: &str| time.strftime(format).to_string();
        out.push_str(&match directive {
            'Y' => format!("{:04}", time.year()),
            'o' => format!("{:2}", time.month()),
            'q' => time.month().to_string(),
            'e' => format!("{:2}", time.day()),
            'g' => time.day().to_string(),
            'l' => hour.to_string(),
            'I' => format!("{hour:02}"),
            'p' => if time.hour() < 12 { "AM" } else { "PM" }.to_owned(),
            'P' => if time.hour() < 12 { "am" } else { "pm" }.to_owned(),
            'L' => fraction(3),
            'f' => fraction(6),
            's' => fraction(9),
            'z' if time.offset() == Offset::UTC => "Z".to_owned(),
            'z' => standard("%z"),
            'w' => format!("{}00", standard("%z")),
            'i' => standard("%z")[..3].to_owned(),
            'j' => standard("%:z"),
            'k' => format!("{}:00", standard("%:z")),
            '%' => "%".to_owned(),
            // A zone without a name is its offset.
            'Z' if time.time_zone().iana_name().is_none() && time.offset() != Offset::UTC => {
                standard("%z")
            }
            other => standard(&format!("%{other}")),
        });
    }
    out
}

/// What is read of a time.
#[derive(Default)]
struct Parsed {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    hour: i8,
    minute: i8,
    second: i8,
    nanos: i32,
    afternoon: Option<bool>,
    offset: Option<Offset>,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const DAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

impl Parsed {
    fn read(text: &str, format: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        let rest = parsed.follow(text, format, "")?;
        match rest {
            "" => Ok(parsed),
            extra => Err(format!("extra text: {extra:?}")),
        }
    }

    /// Reads what the format asks for, after which comes `then`; returns what is left.
    fn follow<'t>(
        &mut self,
        mut rest: &'t str,
        format: &str,
        then: &str,
    ) -> Result<&'t str, String> {
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            let directive = if c == '%' { chars.next() } else { None };
            rest = match directive {
                Some('%') | None if c.is_whitespace() => rest.trim_start(),
                Some('%') | None => {
                    rest.strip_prefix(c).ok_or_else(|| cannot(rest, &c.to_string()))?
                }
                Some(directive) => match read_as(directive) {
                    Some(long) => self.follow(rest, long, chars.as_str())?,
                    None => {
                        let next = if chars.as_str().is_empty() { then } else { chars.as_str() };
                        let ends = !next.starts_with(['.', ',']);
                        self.directive(rest, directive, ends)?
                    }
                },
            };
        }
        Ok(rest)
    }

    fn directive<'t>(
        &mut self,
        rest: &'t str,
        directive: char,
        ends: bool,
    ) -> Result<&'t str, String> {
        let number = |least: usize, most: usize, range: std::ops::RangeInclusive<i64>| {
            let rest = rest.trim_start_matches(' ');
            let digits = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
            let value = rest[..digits].parse().ok().filter(|value| range.contains(value));
            match value.filter(|_| digits >= least) {
                Some(value) => Ok((value, &rest[digits..])),
                None => Err(cannot(rest, &format!("%{directive}"))),
            }
        };
        let named = |names: &[&'static str], letters: Option<usize>| {
            let found = names.iter().position(|name| {
                let name = &name[..letters.unwrap_or(name.len())];
                rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            });
            let length = |at: usize| letters.unwrap_or(names[at].len());
            found
                .map(|at| (at, &rest[length(at)..]))
                .ok_or_else(|| cannot(rest, &format!("%{directive}")))
        };
        Ok(match directive {
            'Y' => {
                let (year, rest) = number(4, 4, 0..=9999)?;
                self.year = Some(year as i16);
                rest
            }
            'y' => {
                let (year, rest) = number(2, 2, 0..=99)?;
                self.year = Some(if year >= 69 { 1900 } else { 2000 } + year as i16);
                rest
            }
            'm' | 'o' | 'q' => {
                let (month, rest) = number(1, 2, 1..=12)?;
                self.month = Some(month as i8);
                rest
            }
            'b' | 'h' | 'B' => {
                let (month, rest) = named(&MONTHS, (directive != 'B').then_some(3))?;
                self.month = Some(month as i8 + 1);
                rest
            }
            'd' | 'e' | 'g' => {
                let (day, rest) = number(1, 2, 1..=31)?;
                self.day = Some(day as i8);
                rest
            }
            'a' | 'A' => named(&DAYS, (directive == 'a').then_some(3))?.1,
            'H' | 'I' | 'l' => {
                let most = if directive == 'H' { 23 } else { 12 };
                let (hour, rest) = number(1, 2, 0..=most)?;
                self.hour = hour as i8;
                rest
            }
            'M' => {
                let (minute, rest) = number(1, 2, 0..=59)?;
                self.minute = minute as i8;
                rest
            }
            'S' => {
                let (second, rest) = number(1, 2, 0..=59)?;
                self.second = second as i8;
                // Go takes a fraction here even if the format has none.
                match rest.strip_prefix(['.', ',']) {
                    Some(digits) if ends && digits.starts_with(|c: char| c.is_ascii_digit()) => {
                        self.fraction(digits)
                    }
                    _ => rest,
                }
            }
            'L' | 'f' | 's' => self.fraction(rest),
            'p' | 'P' => {
                let (half, rest) = named(&["am", "pm"], None)?;
                self.afternoon = Some(half == 1);
                rest
            }
            'Z' => {
                let letters = rest.bytes().take(5).take_while(u8::is_ascii_uppercase).count();
                if letters < 3 {
                    return Err(cannot(rest, "%Z"));
                }
                if matches!(&rest[..letters], "UTC" | "GMT") {
                    self.offset = Some(Offset::UTC);
                }
                &rest[letters..]
            }
            _ => self.zone(rest, directive)?,
        })
    }

    fn fraction<'t>(&mut self, rest: &'t str) -> &'t str {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let nine = format!("{:0<9}", &rest[..digits.min(9)]);
        self.nanos = nine.parse().unwrap_or(0);
        &rest[digits..]
    }

    /// `+0100`, `+01`, `+01:00`, with seconds if the directive says so.
    fn zone<'t>(&mut self, rest: &'t str, directive: char) -> Result<&'t str, String> {
        let wrong = || cannot(rest, &format!("%{directive}"));
        if let ('z', Some(rest)) = (directive, rest.strip_prefix('Z')) {
            self.offset = Some(Offset::UTC);
            return Ok(rest);
        }
        let parts = match directive {
            'i' => 1,
            'z' | 'j' => 2,
            _ => 3,
        };
        let sign = match rest.bytes().next() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(wrong()),
        };
        let (mut at, mut seconds) = (1, 0);
        for (part, unit) in [3600, 60, 1].into_iter().take(parts).enumerate() {
            let colon = rest.as_bytes().get(at) == Some(&b':');
            if part > 0 && (matches!(directive, 'j' | 'k') || directive == 'z' && colon) {
                if rest.as_bytes().get(at) != Some(&b':') {
                    return Err(wrong());
                }
                at += 1;
            }
            let two = rest.get(at..at + 2).and_then(|two| two.parse::<i32>().ok());
            seconds += unit * two.ok_or_else(wrong)?;
            at += 2;
        }
        self.offset = Some(Offset::from_seconds(sign * seconds).map_err(|_| wrong())?);
        Ok(&rest[at..])
    }

    fn time(&self, zone: &TimeZone) -> Result<Zoned, String> {
        let error = |error: jiff::Error| error.to_string();
        let hour = match (self.afternoon, self.hour) {
            (Some(true), 0..12) => self.hour + 12,
            (Some(false), 12) => 0,
            _ => self.hour,
        };
        let time = Time::new(hour, self.minute, self.second, self.nanos).map_err(error)?;
        let zone = self.offset.map_or_else(|| zone.clone(), TimeZone::fixed);
        let on = |year| -> Result<Zoned, String> {
            let date = Date::new(year, self.month.unwrap_or(1), self.day.unwrap_or(1));
            DateTime::from_parts(date.map_err(error)?, time).to_zoned(zone.clone()).map_err(error)
        };
        if let Some(year) = self.year.filter(|year| *year > 0) {
            return on(year);
        }
        // A time without a year is of this one, unless it were more than a week ahead.
        let now = Zoned::now().with_time_zone(zone.clone());
        let of_now = on(now.year())?;
        match now.checked_add(7.days()) {
            Ok(ahead) if of_now > ahead => on(now.year() - 1),
            _ => Ok(of_now),
        }
    }
}

fn cannot(rest: &str, what: &str) -> String {
    format!("cannot parse {rest:?} as {what:?}")
}
