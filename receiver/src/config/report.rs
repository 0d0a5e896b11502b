//! What is wrong with a configuration, for people.

use std::fmt;

use super::Mistake;

/// What a report may hold. Nobody reads more, and a file that is not meant for us has millions.
pub const MOST: usize = 200;

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub struct Report(pub(super) Vec<Mistake>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Mistake { path, place, message, hint }) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            if !path.is_empty() {
                write!(f, "{path}: ")?;
            }
            write!(f, "{message}")?;
            if let Some(place) = place {
                write!(f, "\n    at {place}")?;
            }
            if let Some(hint) = hint {
                write!(f, "\n    {hint}")?;
            }
        }
        match self.0.len() {
            0 | 1 => Ok(()),
            MOST => write!(f, "\n({MOST} mistakes, and no more are looked for)"),
            count => write!(f, "\n({count} mistakes)"),
        }
    }
}
