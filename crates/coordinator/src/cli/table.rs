//! Tables for people.

use std::fmt;

use comfy_table::CellAlignment;
use comfy_table::presets::UTF8_BORDERS_ONLY;

/// A table in the style of all of them. What stands in it was said by servers, and cannot move the cursor or change colours.
#[derive(Debug)]
pub(crate) struct Table(comfy_table::Table);

impl Table {
    /// One without rows.
    pub(super) fn new(header: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header(header.iter().copied());
        Self(table)
    }

    pub(super) fn add_row(&mut self, cells: Vec<String>) {
        self.0.add_row(cells.iter().map(|cell| printable(cell)));
    }

    /// Aligns columns of numbers.
    pub(super) fn right(&mut self, columns: &[usize]) {
        for column in columns {
            if let Some(column) = self.0.column_mut(*column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// Text without control characters.
pub(super) fn printable(text: &str) -> String {
    let shown = |character: char| {
        if character.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            character
        }
    };
    text.chars().map(shown).collect()
}

/// Bytes for people.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_does_not_reach_the_terminal_as_a_command() {
        let mut table = Table::new(&["name", "index"]);
        table.add_row(vec!["a\u{1b}[2Jb\nc\u{9b}".to_owned(), "7".to_owned()]);
        table.right(&[1, 2]);
        let text = table.to_string();
        assert!(text.contains("a\u{fffd}[2Jb\u{fffd}c\u{fffd}"), "{text}");
        let mut shown = text.chars();
        assert!(shown.all(|at| at == '\n' || !at.is_control()), "{text}");
    }
}
