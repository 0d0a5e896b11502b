//! Text -> tokens.

use super::compare::Operator;

/// A token and where it begins, counted in characters from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub kind: Kind,
    pub column: usize,
    /// As it was written.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Bytes(Vec<u8>),
    Double(f64),
    Int(i64),
    Text(String),
    Not,
    Or,
    And,
    Bool(bool),
    Nil,
    Compare(Operator),
    /// `( ) [ ] { } , . : = + - * /`
    Mark(char),
    /// A word of capitals, digits and `_`.
    Upper,
    /// A word of small letters, digits and `_`.
    Lower,
    /// A word of both: a function's name.
    Mixed,
    End,
}

/// All tokens, an [`Kind::End`] last; or what is wrong, with its position.
pub fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if chars[at].is_whitespace() {
            at += 1;
            continue;
        }
        let (kind, length) =
            token(&chars[at..]).map_err(|error| format!("1:{}: {error}", at + 1))?;
        let text = chars[at..at + length].iter().collect();
        tokens.push(Token { kind, column: at + 1, text });
        at += length;
    }
    tokens.push(Token { kind: Kind::End, column: chars.len() + 1, text: "<EOF>".to_owned() });
    Ok(tokens)
}

fn token(rest: &[char]) -> Result<(Kind, usize), String> {
    let next = rest.get(1).copied();
    let digit = |c: Option<&char>| c.is_some_and(char::is_ascii_digit);
    Ok(match rest[0] {
        '"' => return text(rest),
        '(' | ')' | '[' | ']' | '{' | '}' | ',' | ':' | '+' | '-' | '*' | '/' => {
            (Kind::Mark(rest[0]), 1)
        }
        '=' if next == Some('=') => (Kind::Compare(Operator::Equal), 2),
        '!' if next == Some('=') => (Kind::Compare(Operator::NotEqual), 2),
        '<' if next == Some('=') => (Kind::Compare(Operator::LessOrEqual), 2),
        '>' if next == Some('=') => (Kind::Compare(Operator::GreaterOrEqual), 2),
        '=' => (Kind::Mark('='), 1),
        '<' => (Kind::Compare(Operator::Less), 1),
        '>' => (Kind::Compare(Operator::Greater), 1),
        '0' if next == Some('x') => {
            let digits = run(&rest[2..], |c| c.is_ascii_hexdigit());
            return bytes(&rest[2..2 + digits]).map(|bytes| (Kind::Bytes(bytes), 2 + digits));
        }
        '.' if !digit(rest.get(1)) => (Kind::Mark('.'), 1),
        '0'..='9' | '.' => return number(rest),
        c if c.is_ascii_alphabetic() => {
            let length = run(rest, |c| c.is_ascii_alphanumeric() || c == '_');
            let word: String = rest[..length].iter().collect();
            let kind = match word.as_str() {
                "not" => Kind::Not,
                "or" => Kind::Or,
                "and" => Kind::And,
                "true" => Kind::Bool(true),
                "false" => Kind::Bool(false),
                "nil" => Kind::Nil,
                _ if !word.contains(|c: char| c.is_ascii_lowercase()) => Kind::Upper,
                _ if !word.contains(|c: char| c.is_ascii_uppercase()) => Kind::Lower,
                _ => Kind::Mixed,
            };
            (kind, length)
        }
        _ => return Err(invalid(rest)),
    })
}

/// What is left of the text, as far as the Collector shows it.
fn invalid(rest: &[char]) -> String {
    let rest: String = rest.iter().collect();
    match rest.char_indices().nth(16) {
        Some((end, _)) => format!(
            "lexer: invalid input text \"{}...\"",
            &format!("{:?}", &rest[..end]).trim_matches('"')
        ),
        None => format!("lexer: invalid input text {rest:?}"),
    }
}

fn run(rest: &[char], belongs: impl Fn(char) -> bool) -> usize {
    rest.iter().take_while(|&&c| belongs(c)).count()
}

fn bytes(digits: &[char]) -> Result<Vec<u8>, String> {
    let byte = |pair: &[char]| {
        let text: String = pair.iter().collect();
        (pair.len() == 2).then(|| u8::from_str_radix(&text, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| "invalid bytes".to_owned())
}

fn number(rest: &[char]) -> Result<(Kind, usize), String> {
    let digits = |from: usize| run(&rest[from..], |c| c.is_ascii_digit());
    let mut end = digits(0);
    let mut double = false;
    if rest.get(end) == Some(&'.') && end + digits(end + 1) > 0 {
        double = true;
        end += 1 + digits(end + 1);
        let sign = usize::from(matches!(rest.get(end + 1), Some('+' | '-')));
        let from = end + 1 + sign;
        if matches!(rest.get(end), Some('e' | 'E')) && from < rest.len() && digits(from) > 0 {
            end = from + digits(from);
        }
    }
    let text: String = rest[..end].iter().collect();
    let kind = match double {
        true => text.parse().ok().map(Kind::Double),
        false => text.parse().ok().map(Kind::Int),
    };
    let kind = kind.ok_or_else(|| {
        format!("failed to conform: strconv.ParseInt: parsing {text:?}: value out of range")
    })?;
    Ok((kind, end))
}

/// A text in quotes, with Go's escapes.
fn text(rest: &[char]) -> Result<(Kind, usize), String> {
    let mut out = String::new();
    let mut at = 1;
    loop {
        match rest.get(at) {
            None => return Err(invalid(rest)),
            Some('"') => return Ok((Kind::Text(out), at + 1)),
            Some('\\') => {
                let invalid = || {
                    // As far as the quote that would have ended it.
                    let end =
                        rest[1..].iter().position(|c| *c == '"').map_or(rest.len(), |at| at + 2);
                    let quoted: String = rest[..end].iter().collect();
                    format!("invalid quoted string {quoted:?}: invalid syntax")
                };
                let escape = *rest.get(at + 1).ok_or_else(invalid)?;
                at += 2;
                let code = |length: usize| {
                    let digits: String = rest.get(at..at + length)?.iter().collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
                };
                let (c, length) = match escape {
                    'n' => ('\n', 0),
                    't' => ('\t', 0),
                    'r' => ('\r', 0),
                    'a' => ('\x07', 0),
                    'b' => ('\x08', 0),
                    'f' => ('\x0c', 0),
                    'v' => ('\x0b', 0),
                    '\\' | '"' => (escape, 0),
                    // A byte; above ASCII it would be a part of a character.
                    'x' => (code(2).filter(char::is_ascii).ok_or_else(invalid)?, 2),
                    '0'..='7' => {
                        let digits: String =
                            rest.get(at - 1..at + 2).into_iter().flatten().collect();
                        let code =
                            u32::from_str_radix(&digits, 8).ok().filter(|_| digits.len() == 3);
                        let c = code.and_then(char::from_u32).filter(char::is_ascii);
                        (c.ok_or_else(invalid)?, 2)
                    }
                    'u' => (code(4).ok_or_else(invalid)?, 4),
                    'U' => (code(8).ok_or_else(invalid)?, 8),
                    _ => return Err(invalid()),
                };
                out.push(c);
                at += length;
            }
            Some(c) => {
                out.push(*c);
                at += 1;
            }
        }
    }
}
