//! What is wrong with a configuration, for people.

use std::fmt;

use super::Mistake;

/// What a report may hold. Nobody reads more, and a file that is not meant for us has millions.
pub const MOST: usize = 200;

/// What is shown of one message, which may quote a value of any size.
const LONGEST: usize = 4 << 10;

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub struct Report {
    pub(super) wrong: Vec<Mistake>,
    /// What is legal, but may be the cause.
    pub(super) warnings: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Mistake { path, place, message, hint }) in self.wrong.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            if !path.is_empty() {
                write!(f, "{}: ", printable(path))?;
            }
            // Some messages have lines of their own.
            let end = message.floor_char_boundary(LONGEST);
            let cut = if end < message.len() { "…" } else { "" };
            let lines: Vec<_> = message[..end].lines().map(printable).collect();
            write!(f, "{}{cut}", lines.join("\n    "))?;
            if let Some(place) = place {
                write!(f, "\n    at {}", printable(&place.to_string()))?;
            }
            if let Some(hint) = hint {
                write!(f, "\n    {}", printable(hint))?;
            }
        }
        match self.wrong.len() {
            0 | 1 => {}
            MOST => write!(f, "\n({MOST} mistakes, and no more are looked for)")?,
            count => write!(f, "\n({count} mistakes)")?,
        }
        self.warnings.iter().try_for_each(|text| write!(f, "\nWarning: {}", printable(text)))
    }
}

/// Text without what a terminal would obey: control characters, and marks that turn the direction of writing.
pub fn printable(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match obeyed(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let mistake = Mistake {
            path: "a\u{1b}[2J::\nb".into(),
            place: None,
            message: "no\u{7}\nhow: \u{202e}\u{9b}".into(),
            hint: Some("tab\there".into()),
        };
        let report = Report { wrong: vec![mistake], warnings: vec!["\r".into()] };
        assert_eq!(
            report.to_string(),
            "a\\u{1b}[2J::\\nb: no\\u{7}\n    how: \\u{202e}\\u{9b}\n    tab\\there\nWarning: \\r"
        );
    }
}
