//! [`Node`] -> a typed configuration, reporting every mistake at once.
//!
//! An unknown key is noted and skipped. A value of the wrong type ends serde's run; it is noted, and
//! the run is repeated without that value, until one passes. Configurations have a default for every
//! field, so a value can always be left out.

mod access;
mod error;
mod optional;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer as _, Visitor};

pub use self::optional::optional;
use self::{
    access::{Entries, Items},
    error::Error,
    optional::{NULL_IS_ON, OPTIONAL},
};
use super::{
    Mistake, Mistakes, Place,
    mistake::{dotted, hint},
    node::{Node, Value},
    report::MOST,
};

/// Reads `node` as `T`, with the mistakes that were found. Values with mistakes are left at their
/// defaults; only if that is impossible there is no `T`.
pub fn read<T: DeserializeOwned>(node: &Node) -> (Option<T>, Mistakes) {
    let run = Run::default();
    loop {
        let error = match T::deserialize(At { node, path: "", run: &run, of: None }) {
            Ok(value) => return (Some(value), run.sorted()),
            Err(error) => error,
        };
        if error.keeps_default {
            run.found_again.set(true);
            continue;
        }
        let path = error.path.clone().unwrap_or_default();
        // Without a value of its own, a field that must be given is missing.
        let consequence =
            error.missing && run.left_out.borrow().iter().any(|p| p.starts_with(&path));
        if !consequence {
            run.note(error, node);
        }
        let enough = run.mistakes.borrow().len() >= MOST;
        if enough || consequence || path.is_empty() || !run.left_out.borrow_mut().insert(path) {
            return (None, run.sorted());
        }
        // What was noted on the way is found again.
        run.found_again.set(true);
    }
}

/// What all steps of reading one section share.
#[derive(Default)]
struct Run {
    mistakes: RefCell<Vec<Mistake>>,
    /// Paths of values that were noted and are skipped.
    left_out: RefCell<BTreeSet<String>>,
    /// Structs, by their lists of fields, and fields of them that keep their default if they have no value.
    kept: RefCell<BTreeSet<(usize, String)>>,
    found_again: Cell<bool>,
}

impl Run {
    fn sorted(self) -> Mistakes {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        Mistakes(mistakes)
    }

    fn note(&self, error: Error, root: &Node) {
        let path = error.path.unwrap_or_default();
        let place = error.place.or_else(|| root.nearest(&path).place.clone());
        let message = match error.wrong_type {
            true => format!("'{}' {}", dotted(&path), error.message),
            false => error.message,
        };
        self.mistakes.borrow_mut().push(Mistake { path, place, message, hint: error.hint });
    }

    fn unknown(&self, path: String, place: Option<Place>, name: &str, fields: &[&str]) {
        let mut mistakes = self.mistakes.borrow_mut();
        if mistakes.len() >= MOST
            || self.found_again.get() && mistakes.iter().any(|m| m.path == path)
        {
            return;
        }
        let holder = path.rsplit_once("::").map_or("", |(holder, _)| holder);
        let shown: Vec<_> =
            fields.iter().copied().filter(|field| !field.ends_with(NULL_IS_ON)).collect();
        mistakes.push(Mistake {
            message: format!("'{}' has invalid keys: {name}", dotted(holder)),
            hint: hint(name, &shown),
            path,
            place,
        });
    }
}

/// A value at its path.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    path: &'a str,
    run: &'a Run,
    /// The struct that it is a field of, by its list of fields.
    of: Option<&'static [&'static str]>,
}

/// Which struct it is: several have fields of the same names.
fn identity(fields: &'static [&'static str]) -> usize {
    fields.as_ptr() as usize
}

impl<'a> At<'a> {
    fn child<'de, S: DeserializeSeed<'de>>(
        self,
        key: &str,
        node: &Node,
        of: Option<&'static [&'static str]>,
        seed: S,
    ) -> Result<S::Value, Error> {
        let path = self.below(key);
        seed.deserialize(At { node, path: &path, run: self.run, of }).map_err(|e| e.at(&path, node))
    }

    /// Whether there is no value. An empty default of a variable is none where no text is wanted.
    fn is_nothing(&self) -> bool {
        match &self.node.value {
            Value::Null => true,
            Value::String(text) => text.is_empty() && self.node.unread.is_some(),
            _ => false,
        }
    }

    /// A field that is no plain value keeps its default if it has none: the next run leaves it out, in every struct
    /// of its kind.
    fn or_default(&self) -> Result<(), Error> {
        match self.of {
            Some(fields) if self.is_nothing() => {
                let key = self.path.rsplit("::").next().unwrap_or_default();
                self.run.kept.borrow_mut().insert((identity(fields), key.to_owned()));
                Err(Error::keeps_default())
            }
            _ => Ok(()),
        }
    }

    fn below(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}::{key}", self.path) }
    }

    fn left_out(&self, key: &str) -> bool {
        self.run.left_out.borrow().contains(&self.below(key))
    }

    fn integer(&self, expected: &str) -> Result<i128, Error> {
        match self.node.value {
            Value::Int(number) => Ok(number),
            // What has no fraction may be written with one.
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                Ok(number as i128)
            }
            // A key without a value is zero, as an unset variable is.
            _ if self.is_nothing() => Ok(0),
            _ => Err(Error::expected(expected, self.node)),
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty, $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.integer($name)?;
            match <$type>::try_from(number) {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(Error::out_of_range(number, $name)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Error;

    integers! {
        deserialize_i8 visit_i8 i8, "int8";
        deserialize_i16 visit_i16 i16, "int16";
        deserialize_i32 visit_i32 i32, "int32";
        deserialize_i64 visit_i64 i64, "int";
        deserialize_u8 visit_u8 u8, "uint8";
        deserialize_u16 visit_u16 u16, "uint16";
        deserialize_u32 visit_u32 u32, "uint32";
        deserialize_u64 visit_u64 u64, "uint";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => {
                self.or_default()?;
                visitor.visit_unit()
            }
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value as i64),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            // The Collector has no attribute that is a time.
            Value::String(_) if self.node.time => {
                let message = "<Invalid value type time.Time>".to_owned();
                Err(Error::new(message).or_hint("in quotes, it is text"))
            }
            Value::String(value) => visitor.visit_str(value),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ if self.is_nothing() => visitor.visit_bool(false),
            _ => Err(Error::expected("bool", self.node)),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Float(value) => visitor.visit_f64(value),
            Value::Int(value) => visitor.visit_f64(value as f64),
            _ if self.is_nothing() => visitor.visit_f64(0.0),
            _ => Err(Error::expected("float64", self.node)),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match (&self.node.value, &self.node.text) {
            (Value::Null, _) => visitor.visit_str(""),
            // What stands for an expression is taken as it was written.
            (_, Some(text)) => visitor.visit_str(text),
            (Value::String(value), _) => visitor.visit_str(value),
            (Value::Bool(_) | Value::Int(_) | Value::Float(_), _) => {
                Err(Error::expected("string", self.node).or_hint("in quotes, it is text"))
            }
            _ => Err(Error::expected("string", self.node)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.is_nothing() {
            true => visitor.visit_none(),
            // What stands in it is no field.
            false => visitor.visit_some(At { of: None, ..self }),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == RAW {
            HANDED.set(Some(self.node.clone()));
            return visitor.visit_unit();
        }
        if name == OPTIONAL {
            return self.optional(visitor);
        }
        if name == NAMED {
            self.or_default()?;
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.or_default()?;
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items { at: self, items, next: 0 }),
            Value::Null => visitor.visit_seq(Items { at: self, items: &[], next: 0 }),
            // The Collector splits a string where it expects a list.
            Value::String(text) => {
                let items: Vec<_> = split(text)
                    .into_iter()
                    .map(|part| Node {
                        value: Value::String(part.to_owned()),
                        text: Some(part.to_owned()),
                        place: self.node.place.clone(),
                        ..Node::default()
                    })
                    .collect();
                visitor.visit_seq(Items { at: self, items: &items, next: 0 })
            }
            _ => Err(Error::expected("slice", self.node)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Map(_) => visitor.visit_map(Entries { at: self, next: 0, fields: None }),
            _ if self.is_nothing() => {
                self.or_default()?;
                visitor.visit_map(Entries { at: self, next: 0, fields: None })
            }
            _ => Err(Error::no_map(self.node)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.node.value {
            Value::Map(_) => visitor.visit_map(Entries { at: self, next: 0, fields: Some(fields) }),
            _ if self.is_nothing() => {
                self.or_default()?;
                visitor.visit_map(Entries { at: self, next: 0, fields: Some(fields) })
            }
            _ => Err(Error::no_map(self.node)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.or_default()?;
        match (&self.node.value, &self.node.text) {
            (Value::String(text), _) => visitor.visit_enum(text.as_str().into_deserializer()),
            // `level: none` is text, but `mode: null` or `1` must be named as they were written.
            (Value::List(_) | Value::Map(_) | Value::Null, _) | (_, None) => {
                Err(Error::expected("string", self.node))
            }
            (_, Some(text)) => visitor.visit_enum(text.as_str().into_deserializer()),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! { char bytes byte_buf unit unit_struct identifier }
}

/// At commas, but for those inside brackets and quotes: a condition has some.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut quoted, mut escaped) = (0, 0_usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if quoted || depth > 0 {
        // It is no such text.
        return text.split(',').collect();
    }
    parts.push(&text[start..]);
    parts.retain(|_| !text.is_empty());
    parts
}

/// The name by which a type says that it is one of a few names.
pub const NAMED: &str = "$fathom::config::Named";

/// The name by which a type asks for the node itself.
pub const RAW: &str = "$fathom::config::Raw";

thread_local! {
    /// serde's visitors take plain values alone: a node is handed over here.
    static HANDED: Cell<Option<Node>> = const { Cell::new(None) };
}

/// The node that was handed over last.
pub fn handed() -> Option<Node> {
    HANDED.take()
}
