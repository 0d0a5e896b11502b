//! Small pages that read well in a browser and in a terminal. Everything is escaped.

use std::fmt::{self, Write as _};

/// A page.
pub(super) struct Page(String);

/// What stands in a cell of a table.
pub(super) enum Cell {
    Text(String),
    /// Links, each a text and its address.
    Links(Vec<(String, String)>),
}

impl Cell {
    pub(super) fn text(text: impl fmt::Display) -> Self {
        Self::Text(text.to_string())
    }

    fn html(&self) -> String {
        match self {
            Self::Text(text) => escaped(text),
            Self::Links(links) => {
                let link = |(text, to): &(String, String)| {
                    format!("<a href=\"{}\">{}</a>", escaped(to), escaped(text))
                };
                links.iter().map(link).collect::<Vec<_>>().join(" ")
            }
        }
    }
}

impl Page {
    pub(super) fn new(title: &str) -> Self {
        let title = escaped(title);
        Self(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title>\n\
             <style>body {{font-family: sans-serif}} td, th {{padding: 0 1em; text-align: left; \
             vertical-align: top}} tr:nth-child(odd) {{background: #eee}}</style></head>\n<body>\n\
             <h1>{title}</h1>\n"
        ))
    }

    pub(super) fn heading(mut self, text: &str) -> Self {
        self.add(format_args!("<h2>{}</h2>\n", escaped(text)));
        self
    }

    pub(super) fn line(mut self, cell: &Cell) -> Self {
        self.add(format_args!("<p>{}</p>\n", cell.html()));
        self
    }

    /// A row a line, its cells padded: a terminal shows columns, too.
    pub(super) fn table<const N: usize>(mut self, heads: [&str; N], rows: &[[Cell; N]]) -> Self {
        let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(Cell::html)).collect();
        let heads = heads.map(escaped);
        let mut widths = heads.each_ref().map(|head| head.len());
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                // One long reason must not push the other rows off the screen.
                *width = (*width).max(cell.len().min(40));
            }
        }
        self.0.push_str("<table>\n");
        let mut add = |tag: &str, cells: &[String; N]| {
            self.0.push_str("<tr>");
            for (cell, width) in cells.iter().zip(widths) {
                let _ = write!(self.0, "<{tag}>{cell:width$}</{tag}>");
            }
            self.0.push_str("</tr>\n");
        };
        add("th", &heads);
        rows.iter().for_each(|row| add("td", row));
        self.0.push_str("</table>\n");
        self
    }

    pub(super) fn end(self) -> String {
        self.0 + "</body>\n</html>\n"
    }

    fn add(&mut self, text: fmt::Arguments<'_>) {
        // A `String` takes everything.
        let _ = self.0.write_fmt(text);
    }
}

/// Text as it may stand in an element or in an attribute with double quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // A terminal would obey them.
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Text as a value in an address's query.
pub(super) fn in_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
                out.push(byte.into());
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_escaped() {
        let evil = "<script>\"&'\u{1b}[31m";
        let safe = "&lt;script&gt;&quot;&amp;&#39;\u{fffd}[31m";
        let link = Cell::Links(vec![(evil.to_owned(), format!("?x={}", in_query(evil)))]);
        let page = Page::new(evil)
            .heading(evil)
            .line(&Cell::text(evil))
            .table([evil], &[[Cell::text(evil)], [link]])
            .end();
        assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
        assert_eq!(page.matches(safe).count(), 7, "{page}");
        assert!(page.contains("href=\"?x=%3Cscript%3E%22%26%27%1B%5B31m\""), "{page}");
    }
}
