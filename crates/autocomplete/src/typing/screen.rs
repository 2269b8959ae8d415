//! Draws a session on the terminal's second screen, and gives the terminal back as it was.

use std::io::{self, Stdout, Write};

use crossterm::cursor::{MoveTo, Show};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    self, Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen,
    LeaveAlternateScreen,
};
use crossterm::{execute, queue};

use super::editor::Editor;
use crate::commands::shown;
use crate::output::{grouped, printable};

const HELP: &str = "up/down choose   Tab completes   Enter records   Esc leaves";

#[derive(Debug)]
pub(super) struct Screen {
    out: Stdout,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        // From here on, dropping it puts the terminal in order, also if the next line fails.
        let mut screen = Self { out: io::stdout() };
        execute!(screen.out, EnterAlternateScreen, DisableLineWrap)?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, editor: &Editor) -> io::Result<()> {
        let (_, height) = terminal::size()?;
        let line = printable(editor.text());
        queue!(
            self.out,
            MoveTo(0, 0),
            Clear(ClearType::All),
            Print("> "),
            Print(&line)
        )?;
        // Below the line: the suggestions, a gap, a message and the help, as far as the window reaches.
        let rows = usize::from(height.saturating_sub(5));
        for (row, suggestion) in editor.suggestions().iter().take(rows).enumerate() {
            let is_selected = editor.selected() == Some(row);
            let row = u16::try_from(row).unwrap_or(u16::MAX).saturating_add(2);
            queue!(self.out, MoveTo(0, row))?;
            if is_selected {
                queue!(self.out, SetAttribute(Attribute::Reverse))?;
            }
            let text = format!("{:>15}  {}", grouped(suggestion.count), shown(suggestion));
            queue!(self.out, Print(text), SetAttribute(Attribute::Reset))?;
        }
        let message = if !editor.message().is_empty() {
            printable(editor.message())
        } else if editor.is_partial() {
            "incomplete: a shard did not answer".to_owned()
        } else {
            String::new()
        };
        queue!(
            self.out,
            MoveTo(0, height.saturating_sub(2)),
            Print(message),
            MoveTo(0, height.saturating_sub(1)),
            SetAttribute(Attribute::Dim),
            Print(HELP),
            SetAttribute(Attribute::Reset),
            // Printed again, so that the cursor ends behind the text whatever the width of its characters.
            MoveTo(0, 0),
            Print("> "),
            Print(&line),
            Show
        )?;
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Each step on its own: one that fails must not keep the others from being tried.
        let _ = execute!(self.out, EnableLineWrap);
        let _ = execute!(self.out, LeaveAlternateScreen, Show);
        let _ = terminal::disable_raw_mode();
    }
}
