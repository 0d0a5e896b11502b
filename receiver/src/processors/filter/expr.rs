//! `match_type: expr`: expressions such as `MetricName == 'a' && Label('b') matches '^c'`, asked of each point.

use std::str::Chars;

use opentelemetry_proto::tonic::{
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Metric, metric::Data},
};
use regex::Regex;

use crate::{processors::matching::regexp, value};

/// Parentheses and negations within each other; what is deeper was not written by a person.
const DEPTH: usize = 100;

/// An expression that is true or false.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    Or(Vec<Expression>),
    And(Vec<Expression>),
    Not(Box<Expression>),
    Constant(bool),
    HasLabel(String),
    Compare(Text, Operator, Text),
    Matches(Text, Regex),
}

/// Something that is a text.
#[derive(Clone, Debug)]
pub(super) enum Text {
    MetricName,
    MetricType,
    Label(String),
    Literal(String),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
}

/// A metric and one of its points.
struct Asked<'a> {
    name: &'a str,
    kind: &'static str,
    attributes: &'a [KeyValue],
}

impl Expression {
    /// Reads an expression, or says what is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: tokens.as_slice(), depth: 0 };
        let expression = parser.or()?;
        match parser.tokens {
            [] => Ok(expression),
            [token, ..] => Err(format!("unexpected token {token:?}")),
        }
    }

    /// Whether it is true of one of the metric's points.
    pub(super) fn matches(&self, metric: &Metric) -> bool {
        macro_rules! any {
            ($data:ident, $kind:literal) => {
                $data.data_points.iter().any(|point| {
                    let attributes = &point.attributes;
                    self.holds(&Asked { name: &metric.name, kind: $kind, attributes })
                })
            };
        }
        match &metric.data {
            Some(Data::Gauge(data)) => any!(data, "Gauge"),
            Some(Data::Sum(data)) => any!(data, "Sum"),
            Some(Data::Histogram(data)) => any!(data, "Histogram"),
            Some(Data::ExponentialHistogram(data)) => any!(data, "ExponentialHistogram"),
            Some(Data::Summary(data)) => any!(data, "Summary"),
            None => false,
        }
    }

    fn holds(&self, asked: &Asked<'_>) -> bool {
        match self {
            Self::Or(all) => all.iter().any(|one| one.holds(asked)),
            Self::And(all) => all.iter().all(|one| one.holds(asked)),
            Self::Not(one) => !one.holds(asked),
            Self::Constant(value) => *value,
            Self::HasLabel(key) => asked.attributes.iter().any(|a| a.key == *key),
            Self::Compare(left, operator, right) => {
                let (left, right) = (left.of(asked), right.of(asked));
                match operator {
                    Operator::Equal => left == right,
                    Operator::NotEqual => left != right,
                    Operator::Contains => left.contains(right),
                    Operator::StartsWith => left.starts_with(right),
                    Operator::EndsWith => left.ends_with(right),
                }
            }
            Self::Matches(text, pattern) => pattern.is_match(text.of(asked)),
        }
    }
}

impl Text {
    fn of<'a>(&'a self, asked: &Asked<'a>) -> &'a str {
        match self {
            Self::MetricName => asked.name,
            Self::MetricType => asked.kind,
            // What is no text is an empty one.
            Self::Label(key) => match value::get(asked.attributes, key) {
                Some(Value::StringValue(text)) => text,
                _ => "",
            },
            Self::Literal(text) => text,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Mark(&'static str),
}

const MARKS: [&str; 7] = ["==", "!=", "&&", "||", "!", "(", ")"];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let token;
        (token, rest) = if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            (Token::Mark(mark), &rest[mark.len()..])
        } else if matches!(first, '\'' | '"') {
            let mut chars = rest[1..].chars();
            (Token::Text(quoted(&mut chars, first)?), chars.as_str())
        } else {
            let inside = |c: char| c.is_alphanumeric() || c == '_';
            let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
            if end == 0 {
                return Err(format!("unrecognized character: {first:?}"));
            }
            (Token::Word(rest[..end].to_owned()), &rest[end..])
        };
        tokens.push(token);
        rest = rest.trim_start();
    }
    Ok(tokens)
}

fn quoted(chars: &mut Chars<'_>, quote: char) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match chars.next() {
            Some(c) if c == quote => return Ok(text),
            Some('\\') => match chars.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(c @ ('\\' | '\'' | '"')) => text.push(c),
                _ => return Err("invalid char escape".to_owned()),
            },
            Some(c) => text.push(c),
            None => return Err("literal not terminated".to_owned()),
        }
    }
}

struct Parser<'t> {
    tokens: &'t [Token],
    depth: usize,
}

impl<'t> Parser<'t> {
    fn next(&mut self) -> Option<&'t Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn takes(&mut self, mark: &'static str, word: &str) -> bool {
        let found = match self.tokens.first() {
            Some(Token::Mark(found)) => *found == mark,
            Some(Token::Word(found)) => found == word,
            _ => false,
        };
        if found {
            self.next();
        }
        found
    }

    fn must(&mut self, mark: &'static str) -> Result<(), String> {
        match self.takes(mark, "") {
            true => Ok(()),
            false => Err(unexpected(self.tokens.first())),
        }
    }

    fn or(&mut self) -> Result<Expression, String> {
        let mut all = vec![self.and()?];
        while self.takes("||", "or") {
            all.push(self.and()?);
        }
        Ok(Expression::Or(all))
    }

    fn and(&mut self) -> Result<Expression, String> {
        let mut all = vec![self.unary()?];
        while self.takes("&&", "and") {
            all.push(self.unary()?);
        }
        Ok(Expression::And(all))
    }

    fn unary(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("nested too deeply".to_owned());
        }
        let expression = if self.takes("!", "not") {
            Expression::Not(Box::new(self.unary()?))
        } else if self.takes("(", "") {
            let inner = self.or()?;
            self.must(")")?;
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn comparison(&mut self) -> Result<Expression, String> {
        if self.takes("", "true") {
            return Ok(Expression::Constant(true));
        }
        if self.takes("", "false") {
            return Ok(Expression::Constant(false));
        }
        if self.takes("", "HasLabel") {
            return Ok(Expression::HasLabel(self.argument()?));
        }
        let left = self.text()?;
        let operator = match self.next() {
            Some(Token::Mark("==")) => Operator::Equal,
            Some(Token::Mark("!=")) => Operator::NotEqual,
            Some(Token::Word(word)) => match word.as_str() {
                "contains" => Operator::Contains,
                "startsWith" => Operator::StartsWith,
                "endsWith" => Operator::EndsWith,
                "matches" => {
                    return match self.next() {
                        Some(Token::Text(pattern)) => {
                            Ok(Expression::Matches(left, regexp(pattern)?))
                        }
                        other => Err(unexpected(other)),
                    };
                }
                _ => return Err(format!("unexpected token {word:?}")),
            },
            other => return Err(unexpected(other)),
        };
        Ok(Expression::Compare(left, operator, self.text()?))
    }

    fn text(&mut self) -> Result<Text, String> {
        match self.next() {
            Some(Token::Text(text)) => Ok(Text::Literal(text.clone())),
            Some(Token::Word(word)) => match word.as_str() {
                "MetricName" => Ok(Text::MetricName),
                "MetricType" => Ok(Text::MetricType),
                "Label" => Ok(Text::Label(self.argument()?)),
                _ => Err(format!("unknown name {word}")),
            },
            other => Err(unexpected(other)),
        }
    }

    fn argument(&mut self) -> Result<String, String> {
        self.must("(")?;
        let key = match self.next() {
            Some(Token::Text(key)) => key.clone(),
            other => return Err(unexpected(other)),
        };
        self.must(")")?;
        Ok(key)
    }
}

fn unexpected(token: Option<&Token>) -> String {
    match token {
        Some(token) => format!("unexpected token {token:?}"),
        None => "unexpected end of expression".to_owned(),
    }
}
