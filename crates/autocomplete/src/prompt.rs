//! Asking a person to confirm what cannot be undone.

use std::io::{self, BufRead as _, Write as _};

/// Whether the person types exactly this word. No answer, as where nobody sits at the terminal, is no.
pub(crate) fn confirmed(question: &str, word: &str) -> io::Result<bool> {
    let mut stderr = io::stderr();
    writeln!(stderr, "{question}")?;
    write!(stderr, "Type {word} to go on: ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim_end_matches(['\r', '\n']) == word)
}
