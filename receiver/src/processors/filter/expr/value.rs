//! What parts of an expression come to. The parser has seen to it that operators get what they are for.

use std::{borrow::Cow, cmp::Ordering};

use super::{Function, Operator};

#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// The same without its own copy of a text.
    pub(super) fn borrowed(&'a self) -> Self {
        match self {
            Self::Text(text) => Self::text(text),
            other => other.clone(),
        }
    }

    pub(super) fn as_text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::Int(number) => *number as f64,
            Self::Float(number) => *number,
            _ => f64::NAN,
        }
    }

    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nil, Self::Nil) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::Int(one), Self::Int(other)) => one == other,
            (Self::Text(one), Self::Text(other)) => one == other,
            _ => self.number() == other.number(),
        }
    }

    pub(super) fn compared(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => Some(one.cmp(other)),
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            _ => self.number().partial_cmp(&other.number()),
        }
    }

    pub(super) fn negative(self) -> Self {
        match self {
            Self::Int(number) => Self::Int(number.wrapping_neg()),
            other => Self::Float(-other.number()),
        }
    }

    /// Both, put together by an operator.
    pub(super) fn with(self, operator: Operator, other: Self) -> Result<Self, String> {
        Ok(Self::Bool(match operator {
            Operator::Equal => self.equals(&other),
            Operator::NotEqual => !self.equals(&other),
            Operator::Contains => self.as_text().contains(other.as_text()),
            Operator::StartsWith => self.as_text().starts_with(other.as_text()),
            Operator::EndsWith => self.as_text().ends_with(other.as_text()),
            Operator::Add
            | Operator::Subtract
            | Operator::Multiply
            | Operator::Divide
            | Operator::Modulo
            | Operator::Power => return self.calculated(operator, other),
        }))
    }

    /// As Go calculates: integers go round, and a quotient is no integer.
    fn calculated(self, operator: Operator, other: Self) -> Result<Self, String> {
        Ok(match (operator, self, other) {
            (_, Self::Text(one), Self::Text(other)) => Self::Text(one + other),
            (Operator::Add, Self::Int(one), Self::Int(other)) => Self::Int(one.wrapping_add(other)),
            (Operator::Subtract, Self::Int(one), Self::Int(other)) => {
                Self::Int(one.wrapping_sub(other))
            }
            (Operator::Multiply, Self::Int(one), Self::Int(other)) => {
                Self::Int(one.wrapping_mul(other))
            }
            (Operator::Modulo, Self::Int(_), Self::Int(0)) => {
                return Err("integer divide by zero".to_owned());
            }
            (Operator::Modulo, Self::Int(one), Self::Int(other)) => {
                Self::Int(one.wrapping_rem(other))
            }
            (operator, one, other) => {
                let (one, other) = (one.number(), other.number());
                Self::Float(match operator {
                    Operator::Add => one + other,
                    Operator::Subtract => one - other,
                    Operator::Multiply => one * other,
                    Operator::Power => one.powf(other),
                    _ => one / other,
                })
            }
        })
    }

    /// What a function makes of it.
    pub(super) fn given_to(self, function: Function) -> Result<Self, String> {
        let text = self.as_text();
        Ok(match function {
            Function::Len => Self::Int(i64::try_from(text.chars().count()).unwrap_or(i64::MAX)),
            Function::Lower => Self::Text(text.to_lowercase().into()),
            Function::Upper => Self::Text(text.to_uppercase().into()),
            Function::Trim => Self::Text(text.trim().to_owned().into()),
            Function::Int => match &self {
                Self::Int(number) => Self::Int(*number),
                // What is out of range is the nearest that there is.
                Self::Float(number) => Self::Int(*number as i64),
                _ => Self::Int(
                    text.parse().map_err(|_| format!("invalid operation: int({text:?})"))?,
                ),
            },
            Function::Float => match &self {
                Self::Text(text) => Self::Float(
                    text.parse().map_err(|_| format!("invalid operation: float({text:?})"))?,
                ),
                number => Self::Float(number.number()),
            },
        })
    }
}
