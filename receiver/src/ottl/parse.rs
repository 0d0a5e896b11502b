//! Tokens -> expressions, by recursive descent.

use super::{
    Context, Expression, Operand, Sign,
    function::{self, Function, Takes, pattern},
    lex::{Kind, Token, tokens},
    names,
    path::{self, Key},
};

/// Parentheses and negations within each other; what is deeper was not written by a person.
const DEPTH: usize = 100;

/// Parses a condition, whose paths must say what they are about if `prefixed`; errors have the Collector's text.
pub fn condition(context: Context, text: &str, prefixed: bool) -> Result<Expression, String> {
    let syntax = |error| format!("condition has invalid syntax: {error}");
    let tokens = tokens(text).map_err(syntax)?;
    let mut parser = Parser { context, prefixed, tokens: &tokens, at: 0, depth: 0, wrong: None };
    let expression = parser.or()?;
    match (&parser.peek().kind, parser.wrong.take()) {
        (Kind::End, None) => Ok(expression),
        (Kind::End, Some(wrong)) => Err(wrong),
        _ => Err(parser.unexpected("")),
    }
}

/// What the Collector expects where a value should be.
const VALUE: &str = " (expected Field (\".\" Field)*)";
/// What it expects after a value that is no condition.
const COMPARISON: &str = " (expected <opcomparison> Value)";

struct Parser<'t> {
    context: Context,
    /// Whether paths must say what they are about.
    prefixed: bool,
    /// The last one is an end.
    tokens: &'t [Token],
    at: usize,
    depth: usize,
    /// The first thing that can be read but is not there. Mistakes in the syntax come first.
    wrong: Option<String>,
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
                Kind::Not => return Err(self.unexpected(VALUE)),
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
                    | Operand::Call(..)
                    | Operand::At(..) => Expression::Is(left),
                    _ => return Err(self.unexpected(COMPARISON)),
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
            if !all.calculates() {
                return Err(self.unexpected(COMPARISON));
            }
            self.next();
            let at = self.at;
            let right = part(self)?;
            if !right.calculates() {
                self.at = at;
                return Err(self.unexpected(VALUE));
            }
            all = Operand::Calculate(Box::new(all), *sign, Box::new(right));
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
            Kind::Mark('{') => {
                self.next();
                let mut pairs = Vec::new();
                while self.peek().kind != Kind::Mark('}') {
                    let Token { kind: Kind::Text(key), .. } = self.peek() else {
                        return Err(self.unexpected(" (expected \"}\")"));
                    };
                    self.next();
                    self.must(':')?;
                    pairs.push((key.clone(), self.sum()?));
                    self.takes(&Kind::Mark(','));
                }
                self.next();
                Operand::Map(pairs)
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
            Kind::Upper => match names::number(self.context, &token.text) {
                Some(number) => Operand::Int(number),
                None => {
                    let Token { text, column, .. } = token;
                    self.note(format!("enum symbol, {text}, not found (at 1:{column})"))
                }
            },
            Kind::Lower => return self.path(),
            _ => return Err(self.unexpected(VALUE)),
        };
        self.next();
        Ok(operand)
    }

    /// Notes what is not there; nil stands for it.
    fn note(&mut self, wrong: String) -> Operand {
        self.wrong.get_or_insert(wrong);
        Operand::Nil
    }

    fn function(&mut self) -> Result<Operand, String> {
        let Token { text: name, column, .. } = self.next();
        let at = |error: String| format!("{error} (at 1:{column})");
        self.must('(')?;
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(at("nested too deeply".to_owned()));
        }
        // Looked up before its arguments: what is unknown explains what is odd in them.
        let known = match name.starts_with(|c: char| c.is_ascii_lowercase()) {
            true => {
                self.note(at(format!(
                    "converter names must start with an uppercase letter but got '{name}'"
                )));
                None
            }
            false => Some(Function::named(name, self.context)),
        };
        if let Some(None) = known {
            let why = if function::MISSING.contains(&name.as_str()) {
                ": Fathom does not have it"
            } else {
                ""
            };
            self.note(at(format!("undefined function \"{name}\"{why}")));
        }
        let mut arguments = Vec::new();
        while self.peek().kind != Kind::Mark(')') {
            if !arguments.is_empty() {
                self.must(',')?;
            }
            let named = match (&self.peek().kind, self.tokens.get(self.at + 1)) {
                (Kind::Lower | Kind::Mixed, Some(next)) if next.kind == Kind::Mark('=') => {
                    let name = self.next().text.as_str();
                    self.next();
                    Some(name)
                }
                _ => None,
            };
            arguments.push((named, self.sum()?));
        }
        self.must(')')?;
        self.depth -= 1;
        let keys = self.keys()?;
        let call = match known {
            // What begins with a small letter is no condition.
            None => return Ok(Operand::Nil),
            // It stands where a truth may stand.
            Some(None) => return Ok(Operand::Bool(false)),
            Some(Some(function)) => call(function, arguments),
        };
        Ok(match (call, keys.is_empty()) {
            (Ok(call), true) => call,
            (Ok(call), false) => Operand::At(Box::new(call), keys),
            (Err(error), _) => {
                self.note(at(error));
                Operand::Bool(false)
            }
        })
    }

    /// What stands in brackets after a value.
    fn keys(&mut self) -> Result<Vec<Key>, String> {
        let mut keys = Vec::new();
        while self.takes(&Kind::Mark('[')) {
            keys.push(match self.sum()? {
                Operand::Text(text) => Key::Name(text),
                Operand::Int(index) => Key::Index(index),
                made => Key::Made(Box::new(made)),
            });
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
                return Err(self.unexpected(VALUE));
            };
            self.next();
            fields.push(text.as_str());
            keys = self.keys()?;
            // Only a path's end has keys.
            if !keys.is_empty() || !self.takes(&Kind::Mark('.')) {
                break;
            }
        }
        Ok(match path::Path::new(self.context, self.prefixed, &fields, keys) {
            Ok(path) => Operand::Path(path),
            Err(error) => self.note(format!("{error} (at 1:{column})")),
        })
    }
}

/// The call of a converter with these arguments, some of which may be named.
fn call(
    function: &'static Function,
    arguments: Vec<(Option<&str>, Operand)>,
) -> Result<Operand, String> {
    let Function { name, parameters, .. } = function;
    let wrong =
        |error: String| format!("error while parsing arguments for call to {name:?}: {error}");
    let needed = parameters.iter().filter(|parameter| parameter.needed).count();
    let count = arguments.len();
    if count < needed || count > parameters.len() {
        return Err(wrong(format!(
            "incorrect number of arguments. Expected: {needed} Received: {count}"
        )));
    }
    let mut values: Vec<Option<Operand>> = parameters.iter().map(|_| None).collect();
    let mut any_named = false;
    for (i, (named, operand)) in arguments.into_iter().enumerate() {
        let place = match named {
            None if any_named => {
                return Err(wrong("unnamed argument used after named argument".to_owned()));
            }
            None => i,
            Some(named) => parameters
                .iter()
                .position(|parameter| parameter.is_called(named))
                .ok_or_else(|| wrong(format!("no such parameter: {named}")))?,
        };
        any_named |= named.is_some();
        let must = |what| Err(wrong(format!("invalid argument at position {i}: must be {what}")));
        match (parameters[place].takes, &operand) {
            (Takes::Text, Operand::Text(_)) | (Takes::Bool, Operand::Bool(_)) => {}
            (Takes::Any, _) | (Takes::List, Operand::List(_) | Operand::Path(_)) => {}
            (Takes::List, Operand::Call(..) | Operand::At(..)) => {}
            (Takes::Text, _) => return must("a string"),
            (Takes::Bool, _) => return must("a bool"),
            (Takes::List, _) => return must("a list"),
        }
        values[place] = Some(operand);
    }
    let missing = parameters.iter().zip(&values).find(|(p, value)| p.needed && value.is_none());
    if let Some((parameter, _)) = missing {
        let error = format!("no value was given for the parameter {}", parameter.name);
        return Err(wrong(error));
    }
    let known: Vec<_> =
        values.iter().map(|value| value.as_ref().and_then(Operand::known)).collect();
    function.check(&known).map_err(|error| format!("couldn't create function: {error}"))?;
    if let Some((i, error)) = function.mistyped(&values, known) {
        return Err(wrong(format!("invalid argument at position {i}: {error}")));
    }
    Ok(match (*name, values.as_mut_slice()) {
        ("IsMatch", [target, Some(Operand::Text(text))]) => {
            let pattern = pattern(name, text)?;
            Operand::IsMatch(Box::new(target.take().unwrap_or(Operand::Nil)), pattern)
        }
        _ => Operand::Call(function, values),
    })
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
