//! Columns as kubectl prints them: no borders, three blanks between.

use std::{borrow::Cow, fmt::Write as _};

use super::output::{Color, RESET};

/// A cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    color: Option<Color>,
}

/// Widths of columns, and how to print rows in them.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    titles: Vec<&'static str>,
    widths: Vec<usize>,
    color: bool,
}

// === impl Cell ===

impl Cell {
    /// A cell in this colour.
    pub(super) fn colored(text: impl Into<String>, color: Color) -> Self {
        Self {
            text: text.into(),
            color: Some(color),
        }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            color: None,
        }
    }
}

// === impl Columns ===

impl Columns {
    /// Columns with titles, at least as wide as these.
    pub(super) fn new(titles: &[&'static str], color: bool) -> Self {
        Self {
            titles: titles.to_vec(),
            widths: titles.iter().map(|title| title.len()).collect(),
            color,
        }
    }

    /// Makes columns at least so wide, for rows that are not known yet.
    pub(super) fn expect(&mut self, widths: &[usize]) {
        for (width, expected) in self.widths.iter_mut().zip(widths) {
            *width = (*width).max(*expected);
        }
    }

    /// Makes columns wide enough for these rows.
    pub(super) fn fit(&mut self, rows: &[Vec<Cell>]) {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
    }

    /// The line with the titles.
    pub(super) fn header(&self, text: &mut String) {
        let cell = |title: &&str| {
            if self.color {
                Cell::colored(*title, Color::Bold)
            } else {
                Cell::from(*title)
            }
        };
        let cells: Vec<Cell> = self.titles.iter().map(cell).collect();
        self.row(text, &cells);
    }

    /// A line.
    pub(super) fn row(&self, text: &mut String, cells: &[Cell]) {
        let last = cells.len().saturating_sub(1);
        for (index, cell) in cells.iter().enumerate() {
            match cell.color.filter(|_| self.color) {
                Some(color) => {
                    text.extend([color.code(), &cell.text, RESET]);
                }
                None => text.push_str(&cell.text),
            }
            if index < last {
                let width = self.widths.get(index).copied().unwrap_or_default();
                let blanks = width.saturating_sub(cell.width()) + 3;
                let _ = write!(text, "{:blanks$}", "");
            }
        }
        text.push('\n');
    }
}

/// Rows below their titles.
pub(super) fn table(titles: &[&'static str], rows: &[Vec<Cell>], color: bool) -> String {
    let mut columns = Columns::new(titles, color);
    columns.fit(rows);
    let mut text = String::new();
    columns.header(&mut text);
    for row in rows {
        columns.row(&mut text, row);
    }
    text
}

/// A text that does nothing to a terminal: control characters, and characters that change the
/// direction of what follows, are escaped.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !text.contains(is_harmful) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_harmful(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_widest_cell_and_lines_end_without_blanks() {
        let rows = [
            vec![
                Cell::from("a"),
                Cell::colored("established", Color::Green),
                Cell::from("1"),
            ],
            vec![Cell::from("long name"), Cell::from("-"), Cell::from("22")],
        ];
        expect_test::expect![[r"
            NAME        OUTCOME       N
            a           established   1
            long name   -             22
        "]]
        .assert_eq(&table(&["NAME", "OUTCOME", "N"], &rows, false));
        let colored = table(&["NAME", "OUTCOME", "N"], &rows, true);
        assert!(
            colored.contains("a           \u{1b}[32mestablished\u{1b}[0m   1\n"),
            "{colored}"
        );
    }

    #[test]
    fn terminals_are_safe() {
        assert_eq!(escape("eth0é"), "eth0é");
        assert_eq!(
            escape("a\u{1b}[2J\n\u{9b}\u{202e}b"),
            r"a\u{1b}[2J\n\u{9b}\u{202e}b"
        );
    }
}
