//! The words of an expression, each with its place.

use std::{fmt, str::Chars};

/// A word and where it begins, in bytes.
pub(super) struct Token {
    pub(super) word: Word,
    pub(super) at: usize,
}

/// What an expression is written of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    Operator(&'static str),
    Bracket(char),
    End,
}

/// As the Collector's library writes them.
impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "Identifier({name:?})"),
            Self::Text(text) => write!(f, "String({text:?})"),
            Self::Int(number) => write!(f, "Number(\"{number}\")"),
            Self::Float(number) => write!(f, "Number(\"{number}\")"),
            Self::Operator(operator) => write!(f, "Operator({operator:?})"),
            Self::Bracket(bracket) => write!(f, "Bracket(\"{bracket}\")"),
            Self::End => f.write_str("EOF"),
        }
    }
}

/// What is wrong, and where, in bytes.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) at: usize,
}

impl Wrong {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), at }
    }
}

/// The longer ones first.
const SIGNS: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "**", "??", "?.", "..", "::", "<", ">", "!", "+", "-", "*",
    "/", "%", "^", "?", ":", ",", ".", "|", "#", ";",
];

/// Operators that are written as names.
const NAMED: [&str; 9] =
    ["and", "or", "not", "in", "matches", "contains", "startsWith", "endsWith", "let"];

/// All words, and an [`Word::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Wrong> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let after = |n| rest[n..].starts_with(|c: char| c.is_ascii_digit());
        let (word, length) = if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        } else if first.is_ascii_digit() || first == '.' && after(1) {
            number(rest).map_err(|message| Wrong::new(at, message))?
        } else if first.is_alphabetic() || matches!(first, '_' | '$') {
            let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
            let length = rest.find(|c| !inside(c)).unwrap_or(rest.len());
            let name = &rest[..length];
            let operator = NAMED.iter().find(|named| **named == name);
            (operator.map_or_else(|| Word::Name(name.to_owned()), |o| Word::Operator(o)), length)
        } else if matches!(first, '\'' | '"' | '`') {
            let (text, length) = quoted(rest, first).map_err(|(i, m)| Wrong::new(at + i, m))?;
            (Word::Text(text), length)
        } else if matches!(first, '(' | ')' | '[' | ']' | '{' | '}') {
            (Word::Bracket(first), 1)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Word::Operator(sign), sign.len())
        } else {
            return Err(Wrong::new(at, format!("unrecognized character: {first:?}")));
        };
        tokens.push(Token { word, at });
        at += length;
    }
    tokens.push(Token { word: Word::End, at });
    Ok(tokens)
}

/// The number at the start, and how long it is written.
fn number(text: &str) -> Result<(Word, usize), String> {
    let bytes = text.as_bytes();
    let mut length = 0;
    while let Some(&byte) = bytes.get(length) {
        let exponent = length > 0
            && matches!(bytes[length - 1], b'e' | b'E')
            && !text.starts_with("0x")
            && matches!(byte, b'+' | b'-');
        // Two dots are another operator.
        let dot = byte == b'.' && bytes.get(length + 1) != Some(&b'.');
        if !(byte.is_ascii_alphanumeric() || byte == b'_' || dot || exponent) {
            break;
        }
        length += 1;
    }
    let written = &text[..length];
    let digits = written.replace('_', "").to_ascii_lowercase();
    let bad = || format!("bad number syntax: {written:?}");
    let radix = |digits, radix| i64::from_str_radix(digits, radix).map_err(|_| bad());
    let word = match digits.get(..2) {
        Some("0x") => Word::Int(radix(&digits[2..], 16)?),
        Some("0o") => Word::Int(radix(&digits[2..], 8)?),
        Some("0b") => Word::Int(radix(&digits[2..], 2)?),
        _ if digits.contains(['.', 'e']) => {
            Word::Float(digits.parse().ok().filter(|n: &f64| n.is_finite()).ok_or_else(bad)?)
        }
        _ => Word::Int(radix(&digits, 10)?),
    };
    Ok((word, length))
}

/// The text at the start, and how long it is written; or what is wrong, and where.
fn quoted(text: &str, quote: char) -> Result<(String, usize), (usize, &'static str)> {
    let mut out = String::new();
    let mut chars = text[1..].chars();
    loop {
        let at = text.len() - chars.as_str().len();
        match chars.next() {
            Some(c) if c == quote => return Ok((out, at + 1)),
            Some('\\') if quote != '`' => {
                out.push(escape(&mut chars).ok_or((at, "invalid char escape"))?);
            }
            Some(c) => out.push(c),
            None => return Err((0, "literal not terminated")),
        }
    }
}

fn escape(chars: &mut Chars<'_>) -> Option<char> {
    let digits = match chars.next()? {
        'a' => return Some('\x07'),
        'b' => return Some('\x08'),
        'f' => return Some('\x0c'),
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        'v' => return Some('\x0b'),
        c @ ('\\' | '\'' | '"' | '`') => return Some(c),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let code = (0..digits)
        .try_fold(0_u32, |code, _| code.checked_mul(16)?.checked_add(chars.next()?.to_digit(16)?));
    char::from_u32(code?)
}
