//! A door to the reader of files to be loaded, for `crates/fuzz`.

use crate::load;

/// The number of a line, and the term and the count that it records, or why it is not taken.
pub type LoadedLine = (u64, Result<(String, u64), String>);

/// Reads a text as `load` does, columns being found by themselves: each line that is not empty.
#[must_use]
pub fn load_lines(text: &[u8]) -> Vec<LoadedLine> {
    load::lines_of(text)
}
