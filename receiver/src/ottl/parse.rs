//! Tokens -> expressions, by recursive descent.

use regex::Regex;

use super::{
    Context, Expression, Operand, Sign,
    function::Function,
    lex::{Kind, Token, tokens},
    path::{self, Key},
};

/// Parentheses and negations within each other; what is deeper was not written by a person.
const DEPTH: usize = 100;

/// Parses a condition, whose paths must say what they are about if `prefixed`; errors have the Collector's text.
pub fn condition(context: Context, text: &str, prefixed: bool) -> Result<Expression, String> {
    let syntax = |error| format!("condition has invalid syntax: {error}");
    let tokens = tokens(text).map_err(syntax)?;
    let mut parser = Parser { context, prefixed, tokens: &tokens, at: 0, depth: 0 };
    let expression = parser.or()?;
    match parser.peek().kind {
        Kind::End => Ok(expression),
        _ => Err(parser.unexpected("")),
    }
}

struct Parser<'t> {
    context: Context,
    /// Whether paths must say what they are about.
    prefixed: bool,
    /// The last one is an end.
    tokens: &'t [Token],
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> &'t Token {
        &self.tokens[self.at]
    }

    fn next(&mut self) -> &'t Token {
        let token = self.peek();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn takes(&mut self, kind: &Kind) -> bool {
        let found = self.peek().kind == *kind;
        if found {
            self.next();
        }
        found
    }

    fn must(&mut self, mark: char) -> Result<(), String> {
        match self.takes(&Kind::Mark(mark)) {
            true => Ok(()),
            false => Err(self.unexpected(&format!(" (expected \"{mark}\")"))),
        }
    }

    fn unexpected(&self, expected: &str) -> String {
        let Token { column, text, .. } = self.peek();
        format!(
            "condition has invalid syntax: 1:{column}: unexpected token \"{}\"{expected}",
            text.trim_matches('"')
        )
    }

    fn or(&mut self) -> Result<Expression, String> {
        let mut all = vec![self.and()?];
        while self.takes(&Kind::Or) {
            all.push(self.and()?);
        }
        Ok(one_or(all, Expression::Or))
    }

    fn and(&mut self) -> Result<Expression, String> {
        let mut all = vec![self.boolean()?];
        while self.takes(&Kind::And) {
            all.push(self.boolean()?);
        }
        Ok(one_or(all, Expression::And))
    }

    fn boolean(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("nested too deeply (at 1:{})", self.peek().column));
        }
        let expression = if self.takes(&Kind::Not) {
            match self.peek().kind {
                // As in the Collector, there is one negation.
                Kind::Not => return Err(self.unexpected("")),
                _ => Expression::Not(Box::new(self.boolean()?)),
            }
        } else if self.peek().kind == Kind::Mark('(') && !self.calculates() {
            self.next();
            let inner = self.or()?;
            self.must(')')?;
            inner
        } else {
            let left = self.sum()?;
            match self.peek().kind {
                Kind::Compare(operator) => {
                    self.next();
                    Expression::Compare(left, operator, self.sum()?)
                }
                _ => match left {
                    Operand::Bool(_)
                    | Operand::IsMatch(..)
                    | Operand::HasAttribute(..)
                    | Operand::Call(..)
                    | Operand::At(..) => Expression::Is(left),
                    _ => return Err(self.unexpected(" (expected <opcomparison> Value)")),
                },
            }
        };
        self.depth -= 1;
        Ok(expression)
    }

    /// Whether the parenthesis here holds a number: what follows it says so.
    fn calculates(&self) -> bool {
        let mut open = 0;
        let mut rest = self.tokens[self.at..].iter();
        let end = rest.find(|token| {
            match token.kind {
                Kind::Mark('(') => open += 1,
                Kind::Mark(')') => open -= 1,
                _ => {}
            }
            open == 0
        });
        let Some(Token { kind, .. }) = end.and_then(|_| rest.next()) else { return false };
        matches!(kind, Kind::Compare(_) | Kind::Mark('+' | '-' | '*' | '/'))
    }

    fn sum(&mut self) -> Result<Operand, String> {
        self.signs([('+', Sign::Plus), ('-', Sign::Minus)], Self::product)
    }

    fn product(&mut self) -> Result<Operand, String> {
        self.signs([('*', Sign::Times), ('/', Sign::Divided)], Self::factor)
    }

    fn signs(
        &mut self,
        signs: [(char, Sign); 2],
        part: impl Fn(&mut Self) -> Result<Operand, String>,
    ) -> Result<Operand, String> {
        let mut all = part(self)?;
        while let Some((_, sign)) =
            signs.iter().find(|(mark, _)| self.peek().kind == Kind::Mark(*mark))
        {
            self.next();
            all = Operand::Calculate(Box::new(all), *sign, Box::new(part(self)?));
        }
        Ok(all)
    }

    fn factor(&mut self) -> Result<Operand, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(format!("nested too deeply (at 1:{})", self.peek().column));
        }
        let operand = match self.peek().kind {
            Kind::Mark('+') => {
                self.next();
                self.factor()?
            }
            Kind::Mark('-') => {
                self.next();
                match self.factor()? {
                    Operand::Int(value) => Operand::Int(value.wrapping_neg()),
                    Operand::Double(value) => Operand::Double(-value),
                    other => Operand::Negate(Box::new(other)),
                }
            }
            Kind::Mark('(') => {
                self.next();
                let inner = self.sum()?;
                self.must(')')?;
                inner
            }
            Kind::Mark('[') => {
                self.next();
                let mut items = Vec::new();
                while self.peek().kind != Kind::Mark(']') {
                    if !items.is_empty() {
                        self.must(',')?;
                    }
                    items.push(self.sum()?);
                }
                self.next();
                Operand::List(items)
            }
            _ => self.operand()?,
        };
        self.depth -= 1;
        Ok(operand)
    }

    fn operand(&mut self) -> Result<Operand, String> {
        let token = self.peek();
        let operand = match &token.kind {
            Kind::Nil => Operand::Nil,
            Kind::Bool(value) => Operand::Bool(*value),
            Kind::Int(value) => Operand::Int(*value),
            Kind::Double(value) => Operand::Double(*value),
            Kind::Text(text) => Operand::Text(text.clone()),
            Kind::Bytes(bytes) => Operand::Bytes(bytes.clone()),
            Kind::Upper | Kind::Mixed | Kind::Lower
                if self.tokens.get(self.at + 1).is_some_and(|t| t.kind == Kind::Mark('(')) =>
            {
                return self.function();
            }
            Kind::Upper => Operand::Int(path::number(&token.text).ok_or_else(|| {
                format!("enum symbol, {}, not found (at 1:{})", token.text, token.column)
            })?),
            Kind::Lower => return self.path(),
            _ => return Err(self.unexpected(" (expected Value)")),
        };
        self.next();
        Ok(operand)
    }

    fn function(&mut self) -> Result<Operand, String> {
        let Token { text: name, column, .. } = self.next();
        let at = |error: String| format!("{error} (at 1:{column})");
        if name.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(at(format!(
                "converter names must start with an uppercase letter but got '{name}'"
            )));
        }
        // Looked up before its arguments: what is unknown explains what is odd in them.
        let on_metric = self.context == Context::Metric;
        let known = Function::named(name, self.context);
        let expected = match (name.as_str(), &known) {
            ("IsMatch", _) => 2..=2,
            ("HasAttrOnDatapoint", _) if on_metric => 2..=2,
            ("HasAttrKeyOnDatapoint", _) if on_metric => 1..=1,
            (_, Some((_, expected))) => expected.clone(),
            _ => return Err(at(format!("undefined function \"{name}\""))),
        };
        self.must('(')?;
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(at("nested too deeply".to_owned()));
        }
        let mut arguments = Vec::new();
        while self.peek().kind != Kind::Mark(')') {
            if !arguments.is_empty() {
                self.must(',')?;
            }
            arguments.push(self.sum()?);
        }
        self.must(')')?;
        self.depth -= 1;
        let wrong = |error: String| {
            at(format!("error while parsing arguments for call to {name:?}: {error}"))
        };
        let given = arguments.len();
        if !expected.contains(&given) {
            let expected = expected.end();
            return Err(wrong(format!(
                "incorrect number of arguments. Expected: {expected} Received: {given}"
            )));
        }
        if let Some((function, _)) = known {
            let call = Operand::Call(function, arguments);
            let keys = self.keys()?;
            return Ok(if keys.is_empty() { call } else { Operand::At(Box::new(call), keys) });
        }
        let mut arguments = arguments.into_iter();
        match (name.as_str(), arguments.next(), arguments.next(), arguments.next()) {
            ("IsMatch", Some(target), Some(Operand::Text(pattern)), None) => {
                let regex = Regex::new(&pattern).map_err(|_| {
                    at(format!(
                        "couldn't create function: the pattern supplied to IsMatch is not a valid \
                         regexp pattern: `{pattern}`"
                    ))
                })?;
                Ok(Operand::IsMatch(Box::new(target), regex))
            }
            ("HasAttrOnDatapoint", Some(Operand::Text(key)), Some(Operand::Text(value)), None) => {
                Ok(Operand::HasAttribute(key, Some(value)))
            }
            ("HasAttrKeyOnDatapoint", Some(Operand::Text(key)), None, None) => {
                Ok(Operand::HasAttribute(key, None))
            }
            _ => Err(wrong("invalid argument: must be a string".to_owned())),
        }
    }

    /// What stands in brackets after a value.
    fn keys(&mut self) -> Result<Vec<Key>, String> {
        let mut keys = Vec::new();
        while self.takes(&Kind::Mark('[')) {
            let negative = self.takes(&Kind::Mark('-'));
            let token = self.peek();
            keys.push(match &token.kind {
                Kind::Text(text) if !negative => Key::Name(text.clone()),
                Kind::Int(index) => Key::Index(if negative { -index } else { *index }),
                _ => return Err(self.unexpected(" (expected <string> or <int>)")),
            });
            self.next();
            self.must(']')?;
        }
        Ok(keys)
    }

    fn path(&mut self) -> Result<Operand, String> {
        let column = self.peek().column;
        let mut fields = Vec::new();
        let mut keys;
        loop {
            let Token { kind: Kind::Lower, text, .. } = self.peek() else {
                return Err(self.unexpected(" (expected Field (\".\" Field)*)"));
            };
            self.next();
            fields.push(text.as_str());
            keys = self.keys()?;
            // Only a path's end has keys.
            if !keys.is_empty() || !self.takes(&Kind::Mark('.')) {
                break;
            }
        }
        path::Path::new(self.context, self.prefixed, &fields, keys)
            .map(Operand::Path)
            .map_err(|error| format!("{error} (at 1:{column})"))
    }
}

fn one_or(mut all: Vec<Expression>, many: impl Fn(Vec<Expression>) -> Expression) -> Expression {
    match all.pop() {
        Some(only) if all.is_empty() => only,
        last => {
            all.extend(last);
            many(all)
        }
    }
}
