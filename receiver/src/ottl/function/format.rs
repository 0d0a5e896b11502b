//! The verbs of Go's `Sprintf` that conditions have a use for.

use std::{iter::Peekable, str::Chars};

use super::{
    super::{compare::Any, hex},
    Arguments, made,
};

pub(super) fn format(mut arguments: Arguments<'_>) -> Result<Any<'_>, String> {
    let (template, values) = (arguments.text()?, arguments.list()?);
    let mut out = String::new();
    let mut chars = template.chars().peekable();
    // Which value comes next, and whether the template picks them by number.
    let (mut at, mut picked) = (0, false);
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = chars.next_if(|c| "+-# 0".contains(*c)) {
            verb.flags.push(flag);
        }
        verb.width = number(&mut chars);
        if chars.next_if_eq(&'*').is_some() {
            match values.get(at) {
                Some(Any::Int(width)) => {
                    verb.width = Some(width.unsigned_abs().min(1024) as usize);
                    if *width < 0 {
                        verb.flags.push('-');
                    }
                }
                _ => out.push_str("%!(BADWIDTH)"),
            }
            at += 1;
        }
        if chars.next_if_eq(&'.').is_some() {
            verb.precision = Some(number(&mut chars).unwrap_or(0));
        }
        if chars.next_if_eq(&'[').is_some() {
            let which = number(&mut chars).filter(|_| chars.next_if_eq(&']').is_some());
            (at, picked) = (which.unwrap_or(0).wrapping_sub(1), true);
        }
        let Some(letter) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        match (letter, values.get(at)) {
            ('%', _) => out.push('%'),
            (_, None) if picked => out.push_str(&format!("%!{letter}(BADINDEX)")),
            (_, None) => out.push_str(&format!("%!{letter}(MISSING)")),
            (_, Some(value)) => {
                at += 1;
                out.push_str(&verb.padded(letter, value));
            }
        }
    }
    let rest = values.get(at..).unwrap_or_default();
    if !picked && !rest.is_empty() {
        let rest: Vec<_> =
            rest.iter().map(|value| format!("{}={}", value.kind(), plain(value))).collect();
        out.push_str(&format!("%!(EXTRA {})", rest.join(", ")));
    }
    Ok(made(out))
}

/// The digits that come next.
fn number(chars: &mut Peekable<Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        number = Some((number.unwrap_or(0_usize) * 10 + digit as usize).min(1024));
    }
    number
}

/// What stands between `%` and its letter.
#[derive(Default)]
struct Verb {
    flags: String,
    width: Option<usize>,
    precision: Option<usize>,
}

impl Verb {
    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }

    fn padded(&self, letter: char, value: &Any<'_>) -> String {
        let text = self.printed(letter, value);
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        if self.has('-') {
            return text + &" ".repeat(missing);
        }
        if self.has('0') && "dfxXobegFGE".contains(letter) {
            let (sign, rest) = text.split_at(usize::from(text.starts_with(['-', '+', ' '])));
            return format!("{sign}{}{rest}", "0".repeat(missing));
        }
        " ".repeat(missing) + &text
    }

    /// Before a number that is not negative.
    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.has('+'), self.has(' ')) {
            (false, true, _) => "+",
            (false, _, true) => " ",
            _ => "",
        }
    }

    fn printed(&self, letter: char, value: &Any<'_>) -> String {
        match (letter, value) {
            ('T', value) => value.kind().to_owned(),
            ('v' | 'd', Any::Int(number)) => format!("{}{number}", self.sign(*number < 0)),
            ('x' | 'X' | 'o' | 'b', Any::Int(number)) => {
                let size = number.unsigned_abs();
                let (mark, digits) = match letter {
                    'x' => ("0x", format!("{size:x}")),
                    'X' => ("0X", format!("{size:X}")),
                    'o' => ("0", format!("{size:o}")),
                    _ => ("0b", format!("{size:b}")),
                };
                let minus = if *number < 0 { "-" } else { self.sign(false) };
                format!("{minus}{}{digits}", if self.has('#') { mark } else { "" })
            }
            ('U', Any::Int(number)) => format!("U+{number:04X}"),
            ('c' | 'q', Any::Int(number)) => {
                let c = u32::try_from(*number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
                if letter == 'q' { format!("{c:?}") } else { c.to_string() }
            }
            ('f' | 'F', Any::Double(number)) => {
                let sign = self.sign(number.is_sign_negative());
                format!("{sign}{number:.*}", self.precision.unwrap_or(6))
            }
            ('e' | 'E', Any::Double(number)) => {
                let digits = format!("{number:.*e}", self.precision.unwrap_or(6));
                let text = self.sign(number.is_sign_negative()).to_owned() + &exponent(&digits);
                if letter == 'E' { text.to_uppercase() } else { text }
            }
            ('v' | 'g' | 'G', Any::Double(number)) => {
                let text = self.sign(number.is_sign_negative()).to_owned() + &general(*number);
                if letter == 'G' { text.to_uppercase() } else { text }
            }
            ('t' | 'v', Any::Bool(truth)) => truth.to_string(),
            ('q', Any::Text(text)) => format!("{text:?}"),
            ('x', Any::Text(text)) => hex(text.as_bytes()),
            ('X', Any::Text(text)) => hex(text.as_bytes()).to_uppercase(),
            ('x', Any::Bytes(bytes) | Any::Id(bytes)) => hex(bytes),
            ('s' | 'v', Any::Text(text)) => match self.precision {
                Some(most) => text.chars().take(most).collect(),
                None => text.clone().into_owned(),
            },
            ('s', Any::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            ('s', Any::Time(_) | Any::Duration(_) | Any::Id(_)) | ('v', _) => plain(value),
            (_, Any::Nil) => format!("%!{letter}(<nil>)"),
            (_, other) => format!("%!{letter}({}={})", other.kind(), plain(other)),
        }
    }
}

/// As `%v` prints it.
fn plain(value: &Any<'_>) -> String {
    match value {
        Any::Double(number) => general(*number),
        Any::Bytes(bytes) => {
            let all: Vec<_> = bytes.iter().map(u8::to_string).collect();
            format!("[{}]", all.join(" "))
        }
        Any::List(items) => {
            format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" "))
        }
        other => other.shown(),
    }
}

/// With an exponent where that is below -4 or 6 and above, as Go's `%v` and `%g`.
fn general(number: f64) -> String {
    let size = number.abs();
    match size != 0.0 && size.is_finite() && !(1e-4..1e6).contains(&size) {
        true => exponent(&format!("{number:e}")),
        false if number.is_infinite() => (if number > 0.0 { "+Inf" } else { "-Inf" }).to_owned(),
        false => number.to_string(),
    }
}

/// Go's exponents have a sign and two digits.
fn exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text.to_owned(),
    }
}
