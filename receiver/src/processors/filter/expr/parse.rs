//! From words to a tree, and what each part of it is: operators bind as they do in the Collector's library.

use std::{cmp::Ordering, fmt};

use super::{
    Function, Node, Operator, Wanted,
    lex::{Token, Word, Wrong},
    value::Value,
};
use crate::processors::matching::regexp;

/// Parts within each other; what is deeper was not written by a person.
const DEPTH: usize = 100;

/// What a part of an expression comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Nil,
    Bool,
    Int,
    Float,
    Text,
}

impl Kind {
    fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Float)
    }
}

/// As Go names them.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nil => "nil",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float64",
            Self::Text => "string",
        })
    }
}

/// A part that has been read.
pub(super) struct Part {
    node: Node,
    kind: Kind,
    /// How many parts are within each other.
    depth: usize,
    at: usize,
}

impl Part {
    pub(super) fn must_be(
        self,
        kind: Kind,
        message: impl FnOnce(Kind) -> String,
    ) -> Result<Node, Wrong> {
        match self.kind == kind {
            true => Ok(self.node),
            false => Err(Wrong::new(self.at, message(self.kind))),
        }
    }
}

/// How strongly what stands between two parts binds them.
fn binds(operator: &str) -> Option<u8> {
    Some(match operator {
        "or" | "||" => 10,
        "and" | "&&" => 15,
        "==" | "!=" | "<" | ">" | "<=" | ">=" | "in" | "matches" | "contains" | "startsWith"
        | "endsWith" => 20,
        "+" | "-" => 30,
        "*" | "/" | "%" => 60,
        "**" | "^" => 100,
        _ => return None,
    })
}

const NOT: u8 = 50;
const SIGN: u8 = 90;

pub(super) struct Parser<'t> {
    tokens: &'t [Token],
    depth: usize,
}

impl<'t> Parser<'t> {
    pub(super) fn new(tokens: &'t [Token]) -> Self {
        Self { tokens, depth: 0 }
    }

    pub(super) fn whole(mut self) -> Result<Part, Wrong> {
        let made = self.expression()?;
        match self.word() {
            Word::End => Ok(made),
            _ => Err(self.unexpected()),
        }
    }

    fn word(&self) -> &'t Word {
        self.tokens.first().map_or(&Word::End, |token| &token.word)
    }

    fn at(&self) -> usize {
        self.tokens.first().map_or(0, |token| token.at)
    }

    /// The last word stays: it is the end.
    fn next(&mut self) {
        if let [_, rest @ ..] = self.tokens
            && !rest.is_empty()
        {
            self.tokens = rest;
        }
    }

    fn takes(&mut self, wanted: &Word) -> bool {
        let found = self.word() == wanted;
        if found {
            self.next();
        }
        found
    }

    fn must(&mut self, wanted: &Word) -> Result<(), Wrong> {
        match self.takes(wanted) {
            true => Ok(()),
            false => Err(self.unexpected()),
        }
    }

    fn unexpected(&self) -> Wrong {
        let unknown = |operator: &str| {
            matches!(operator, ".." | "|" | "?." | "??" | "." | "::" | "#" | "let")
        };
        Wrong::new(
            self.at(),
            match self.word() {
                Word::Operator(operator) if unknown(operator) => {
                    format!("operator {operator:?} is not supported")
                }
                Word::Bracket(bracket @ ('{' | '[')) => format!(
                    "unexpected token Bracket(\"{bracket}\"): a list can only stand after \"in\", \
                     and maps, indices and slices are not supported"
                ),
                word => format!("unexpected token {word}"),
            },
        )
    }

    /// A part around others.
    fn around(
        node: Node,
        kind: Kind,
        at: usize,
        inner: impl IntoIterator<Item = usize>,
    ) -> Result<Part, Wrong> {
        let depth = inner.into_iter().max().unwrap_or_default() + 1;
        match depth > DEPTH {
            true => Err(Wrong::new(at, "nested too deeply")),
            false => Ok(Part { node, kind, depth, at }),
        }
    }

    /// All that can stand between parentheses.
    fn expression(&mut self) -> Result<Part, Wrong> {
        let mut made = self.operation(0)?;
        while let at = self.at()
            && self.takes(&Word::Operator("?"))
        {
            if self.takes(&Word::Operator(":")) {
                made = binary("or", made, self.expression()?, at)?;
                continue;
            }
            let yes = self.expression()?;
            self.must(&Word::Operator(":"))?;
            let no = self.expression()?;
            let kind = match (yes.kind, no.kind) {
                (yes, no) if yes == no => yes,
                (yes, no) if yes.is_number() && no.is_number() => Kind::Float,
                (yes, no) => return Err(mismatched("?:", yes, no, at)),
            };
            let depths = [made.depth, yes.depth, no.depth];
            let condition = made.must_be(Kind::Bool, |found| {
                format!("non-bool expression (type {found}) used as condition")
            })?;
            let parts = Box::new([condition, yes.node, no.node]);
            made = Self::around(Node::Choice(parts), kind, at, depths)?;
        }
        Ok(made)
    }

    /// Parts, and what stands between them and binds at least this strongly.
    fn operation(&mut self, least: u8) -> Result<Part, Wrong> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Wrong::new(self.at(), "nested too deeply"));
        }
        let mut left = self.primary()?;
        // What stood last in a row of comparisons: `a < b < c`.
        let mut last = None;
        while let Word::Operator(first) = self.word() {
            let before = self.tokens;
            let negated = *first == "not";
            if negated {
                self.next();
            }
            let Word::Operator(operator) = self.word() else { return Err(self.unexpected()) };
            let negatable = ["in", "matches", "contains", "startsWith", "endsWith"];
            if negated && !negatable.contains(operator) {
                return Err(self.unexpected());
            }
            let Some(strength) = binds(operator).filter(|strength| *strength >= least) else {
                self.tokens = before;
                break;
            };
            let at = self.at();
            self.next();
            left = match *operator {
                "in" => self.list(left, at)?,
                "matches" => self.pattern(left, at)?,
                "**" | "^" => binary(operator, left, self.operation(strength)?, at)?,
                _ => {
                    let right = self.operation(strength + 1)?;
                    let kind = right.kind;
                    match compares(operator) {
                        Some(by) => {
                            let made = compared(operator, by, last, left, right, at)?;
                            last = Some(kind);
                            made
                        }
                        None => {
                            last = None;
                            binary(operator, left, right, at)?
                        }
                    }
                }
            };
            if negated {
                left.node = Node::Not(Box::new(left.node));
            }
        }
        self.depth -= 1;
        Ok(left)
    }

    /// What follows `in`.
    fn list(&mut self, one: Part, at: usize) -> Result<Part, Wrong> {
        if *self.word() != Word::Bracket('[') {
            return Err(Wrong::new(self.at(), "what follows \"in\" must be a list: [a, b]"));
        }
        self.next();
        let mut all = Vec::new();
        let mut depths = vec![one.depth];
        while !self.takes(&Word::Bracket(']')) {
            if !all.is_empty() {
                self.must(&Word::Operator(","))?;
                if self.takes(&Word::Bracket(']')) {
                    break;
                }
            }
            let item = self.expression()?;
            if !comparable(one.kind, item.kind) {
                let (one, item) = (one.kind, item.kind);
                let text = format!("cannot use {one} as type {item} in array");
                return Err(Wrong::new(at, text));
            }
            depths.push(item.depth);
            all.push(item.node);
        }
        Self::around(Node::In(Box::new(one.node), all), Kind::Bool, at, depths)
    }

    /// What follows `matches`.
    fn pattern(&mut self, text: Part, at: usize) -> Result<Part, Wrong> {
        let place = self.at();
        let Word::Text(pattern) = self.word() else {
            return Err(Wrong::new(place, "what follows \"matches\" must be a text in quotes"));
        };
        self.next();
        let pattern = regexp(pattern).map_err(|message| Wrong::new(place, message))?;
        if text.kind != Kind::Text {
            return Err(mismatched("matches", text.kind, Kind::Text, at));
        }
        let depth = text.depth;
        Self::around(Node::Matches(Box::new(text.node), pattern), Kind::Bool, at, [depth])
    }

    fn primary(&mut self) -> Result<Part, Wrong> {
        let at = self.at();
        let word = self.word();
        let constant = |value, kind| Part { node: Node::Constant(value), kind, depth: 1, at };
        let part = match word {
            Word::Operator("not" | "!") => {
                self.next();
                let of = self.operation(NOT)?;
                let depth = of.depth;
                let node = of.must_be(Kind::Bool, |found| {
                    format!("invalid operation: ! (mismatched type {found})")
                })?;
                return Self::around(Node::Not(Box::new(node)), Kind::Bool, at, [depth]);
            }
            Word::Operator(sign @ ("-" | "+")) => {
                self.next();
                let of = self.operation(SIGN)?;
                if !of.kind.is_number() {
                    let text = format!("invalid operation: {sign} (mismatched type {})", of.kind);
                    return Err(Wrong::new(at, text));
                }
                if *sign == "+" {
                    return Ok(of);
                }
                return Self::around(Node::Negative(Box::new(of.node)), of.kind, at, [of.depth]);
            }
            Word::Bracket('(') => {
                self.next();
                let inner = self.expression()?;
                self.must(&Word::Bracket(')'))?;
                return Ok(inner);
            }
            Word::Text(text) => constant(Value::Text(text.clone().into()), Kind::Text),
            Word::Int(number) => constant(Value::Int(*number), Kind::Int),
            Word::Float(number) => constant(Value::Float(*number), Kind::Float),
            Word::Name(name) => match name.as_str() {
                "true" => constant(Value::Bool(true), Kind::Bool),
                "false" => constant(Value::Bool(false), Kind::Bool),
                "nil" => constant(Value::Nil, Kind::Nil),
                "MetricName" => Part { node: Node::MetricName, kind: Kind::Text, depth: 1, at },
                "MetricType" => Part { node: Node::MetricType, kind: Kind::Text, depth: 1, at },
                name => return self.call(name),
            },
            _ => return Err(self.unexpected()),
        };
        self.next();
        Ok(part)
    }

    fn call(&mut self, name: &str) -> Result<Part, Wrong> {
        let at = self.at();
        self.next();
        let called = *self.word() == Word::Bracket('(');
        type Make = fn(Box<Node>) -> Node;
        let (make, kind, takes): (Make, _, &[Kind]) = match name {
            "Label" => (Node::Label, Kind::Text, &[Kind::Text]),
            "HasLabel" => (Node::HasLabel, Kind::Bool, &[Kind::Text]),
            "len" => (|of| Node::Call(Function::Len, of), Kind::Int, &[Kind::Text]),
            "lower" => (|of| Node::Call(Function::Lower, of), Kind::Text, &[Kind::Text]),
            "upper" => (|of| Node::Call(Function::Upper, of), Kind::Text, &[Kind::Text]),
            "trim" => (|of| Node::Call(Function::Trim, of), Kind::Text, &[Kind::Text]),
            "int" => {
                let takes = &[Kind::Text, Kind::Int, Kind::Float];
                (|of| Node::Call(Function::Int, of), Kind::Int, takes)
            }
            "float" => {
                let takes = &[Kind::Text, Kind::Int, Kind::Float];
                (|of| Node::Call(Function::Float, of), Kind::Float, takes)
            }
            _ if called => {
                return Err(Wrong::new(
                    at,
                    format!(
                        "unknown function {name}: the functions are Label, HasLabel, len, lower, \
                         upper, trim, int and float"
                    ),
                ));
            }
            _ => return Err(Wrong::new(at, format!("unknown name {name}"))),
        };
        self.must(&Word::Bracket('('))?;
        if *self.word() == Word::Bracket(')') {
            return Err(Wrong::new(at, format!("not enough arguments to call {name}")));
        }
        let argument = self.expression()?;
        if *self.word() == Word::Operator(",") {
            return Err(Wrong::new(self.at(), format!("too many arguments to call {name}")));
        }
        self.must(&Word::Bracket(')'))?;
        if !takes.contains(&argument.kind) {
            let text = format!("cannot use {} as argument to call {name}", argument.kind);
            return Err(Wrong::new(argument.at, text));
        }
        Self::around(make(Box::new(argument.node)), kind, at, [argument.depth])
    }
}

fn comparable(one: Kind, other: Kind) -> bool {
    one == other || one.is_number() && other.is_number() || [one, other].contains(&Kind::Nil)
}

fn mismatched(operator: &str, left: Kind, right: Kind, at: usize) -> Wrong {
    let text = format!("invalid operation: {operator} (mismatched types {left} and {right})");
    Wrong::new(at, text)
}

/// Which order an operator asks for.
fn compares(operator: &str) -> Option<Wanted> {
    Some(match operator {
        "<" => Ordering::is_lt,
        "<=" => Ordering::is_le,
        ">" => Ordering::is_gt,
        ">=" => Ordering::is_ge,
        _ => return None,
    })
}

/// Two parts in an order, or a row of them and the next, if its last is known.
fn compared(
    operator: &str,
    by: Wanted,
    last: Option<Kind>,
    left: Part,
    right: Part,
    at: usize,
) -> Result<Part, Wrong> {
    let (one, other) = (last.unwrap_or(left.kind), right.kind);
    if !(one.is_number() && other.is_number() || one == Kind::Text && other == Kind::Text) {
        return Err(mismatched(operator, one, other, at));
    }
    match (left.node, last) {
        // A long row of them is not deep.
        (Node::Ordered(first, mut rest), Some(_)) => {
            rest.push((by, right.node));
            let depth = left.depth.max(right.depth + 1);
            Ok(Part { node: Node::Ordered(first, rest), kind: Kind::Bool, depth, at })
        }
        (first, _) => {
            let node = Node::Ordered(Box::new(first), vec![(by, right.node)]);
            Parser::around(node, Kind::Bool, at, [left.depth, right.depth])
        }
    }
}

/// Two parts and what stands between them.
fn binary(operator: &str, left: Part, right: Part, at: usize) -> Result<Part, Wrong> {
    let depths = [left.depth, right.depth];
    let (one, other) = (left.kind, right.kind);
    let texts = one == Kind::Text && other == Kind::Text;
    let numbers = one.is_number() && other.is_number();
    let integers = one == Kind::Int && other == Kind::Int;
    let calculated = match integers {
        true => Kind::Int,
        false => Kind::Float,
    };
    let (made, suits, kind) = match operator {
        "or" | "||" | "and" | "&&" => {
            if (one, other) != (Kind::Bool, Kind::Bool) {
                return Err(mismatched(operator, one, other, at));
            }
            let depth = left.depth.max(right.depth + 1);
            let node = match (operator, left.node) {
                ("or" | "||", Node::Or(mut all)) => {
                    all.push(right.node);
                    Node::Or(all)
                }
                ("and" | "&&", Node::And(mut all)) => {
                    all.push(right.node);
                    Node::And(all)
                }
                ("or" | "||", left) => Node::Or(vec![left, right.node]),
                (_, left) => Node::And(vec![left, right.node]),
            };
            // A long row of them is not deep.
            return Ok(Part { node, kind: Kind::Bool, depth, at });
        }
        "==" => (Operator::Equal, comparable(one, other), Kind::Bool),
        "!=" => (Operator::NotEqual, comparable(one, other), Kind::Bool),
        "contains" => (Operator::Contains, texts, Kind::Bool),
        "startsWith" => (Operator::StartsWith, texts, Kind::Bool),
        "endsWith" => (Operator::EndsWith, texts, Kind::Bool),
        "+" if texts => (Operator::Add, true, Kind::Text),
        "+" => (Operator::Add, numbers, calculated),
        "-" => (Operator::Subtract, numbers, calculated),
        "*" => (Operator::Multiply, numbers, calculated),
        "/" => (Operator::Divide, numbers, Kind::Float),
        "%" => (Operator::Modulo, integers, Kind::Int),
        _ => (Operator::Power, numbers, Kind::Float),
    };
    if !suits {
        return Err(mismatched(operator, one, other, at));
    }
    Parser::around(Node::Binary(made, Box::new([left.node, right.node])), kind, at, depths)
}
