//! The state of a typing session: what was typed, what was answered, what is selected. Knows no terminal and no cluster.

use api::v1;

use crate::output::grouped;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Character(char),
    Backspace,
    /// Removes the last word.
    EraseWord,
    /// Removes everything.
    EraseAll,
    Up,
    Down,
    /// Takes the selected suggestion, or the first, into the line.
    Complete,
    Enter,
    Leave,
    /// The window changed.
    Resized,
}

/// What a key asks for beyond a change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Record(String),
    Leave,
}

/// The session.
#[derive(Debug)]
pub(super) struct Editor {
    text: String,
    suggestions: Vec<v1::Suggestion>,
    /// Index of the suggestion that Enter chooses; none: the text as typed.
    selected: Option<usize>,
    /// What the answer on the screen belongs to; none while it must be asked for.
    answered: Option<String>,
    partial: bool,
    message: String,
}

impl Editor {
    pub(super) fn new(text: String) -> Self {
        Self {
            text,
            suggestions: Vec::new(),
            selected: None,
            answered: None,
            partial: false,
            message: String::new(),
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn suggestions(&self) -> &[v1::Suggestion] {
        &self.suggestions
    }

    pub(super) fn selected(&self) -> Option<usize> {
        self.selected
    }

    pub(super) fn is_partial(&self) -> bool {
        self.partial
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The prefix to ask for, if what is shown is not its answer.
    pub(super) fn question(&mut self) -> Option<String> {
        if self.answered.as_deref() == Some(self.text.as_str()) {
            return None;
        }
        // Also when the answer is an error: the next key asks again, not a loop.
        self.answered = Some(self.text.clone());
        Some(self.text.clone())
    }

    pub(super) fn answered(&mut self, response: v1::GetTopKResponse) {
        self.partial = response
            .completeness
            .is_some_and(|part| !part.missing.is_empty());
        self.suggestions = response.suggestions;
        self.selected = None;
    }

    pub(super) fn failed(&mut self, problem: &str) {
        self.suggestions.clear();
        self.selected = None;
        problem.clone_into(&mut self.message);
    }

    /// The chosen term was recorded and has this count now.
    pub(super) fn recorded(&mut self, count: u64) {
        let noun = if count == 1 { "search" } else { "searches" };
        self.message = format!("recorded, {} {noun} now", grouped(count));
        self.text.clear();
        self.answered = None;
    }

    pub(super) fn press(&mut self, key: Key) -> Action {
        if key != Key::Resized {
            self.message.clear();
        }
        match key {
            Key::Character(character) => self.text.push(character),
            Key::Backspace => drop(self.text.pop()),
            Key::EraseAll => self.text.clear(),
            Key::EraseWord => {
                let kept = self.text.trim_end();
                let end = kept.rfind(' ').map_or(0, |space| space + 1);
                self.text.truncate(end);
            }
            Key::Down => self.select_next(),
            Key::Up => self.select_previous(),
            Key::Complete => {
                if let Some(chosen) = self.chosen(self.selected.or(Some(0))) {
                    self.text = chosen;
                }
            }
            Key::Enter => {
                let chosen = self
                    .chosen(self.selected)
                    .unwrap_or_else(|| self.text.clone());
                if !chosen.trim().is_empty() {
                    return Action::Record(chosen);
                }
            }
            Key::Leave => return Action::Leave,
            Key::Resized => {}
        }
        Action::None
    }

    fn chosen(&self, index: Option<usize>) -> Option<String> {
        let suggestion = self.suggestions.get(index?)?;
        let text = if suggestion.display.is_empty() {
            &suggestion.term
        } else {
            &suggestion.display
        };
        Some(text.clone())
    }

    fn select_next(&mut self) {
        let last = self.suggestions.len().checked_sub(1);
        self.selected = match (self.selected, last) {
            (_, None) => None,
            (None, Some(_)) => Some(0),
            (Some(index), Some(last)) => Some((index + 1).min(last)),
        };
    }

    fn select_previous(&mut self) {
        self.selected = self.selected.and_then(|index| index.checked_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(terms: &[(&str, &str)]) -> v1::GetTopKResponse {
        let suggestion = |&(term, display): &(&str, &str)| v1::Suggestion {
            term: term.to_owned(),
            count: 1,
            display: display.to_owned(),
        };
        v1::GetTopKResponse {
            suggestions: terms.iter().map(suggestion).collect(),
            ..Default::default()
        }
    }

    fn typed(text: &str) -> Editor {
        let mut editor = Editor::new(String::new());
        for character in text.chars() {
            editor.press(Key::Character(character));
        }
        editor
    }

    #[test]
    fn a_question_is_asked_once_for_each_text() {
        let mut editor = Editor::new("be".to_owned());
        assert_eq!(editor.question(), Some("be".to_owned()));
        assert_eq!(editor.question(), None);
        editor.press(Key::Character('r'));
        assert_eq!(editor.question(), Some("ber".to_owned()));
        editor.press(Key::Backspace);
        assert_eq!(editor.question(), Some("be".to_owned()));
        editor.press(Key::Down);
        assert_eq!(editor.question(), None);
    }

    #[test]
    fn the_selection_stays_within_the_suggestions_and_enter_takes_it() {
        let mut editor = typed("b");
        editor.answered(answer(&[("berlin", "Berlin"), ("bern", "")]));
        assert_eq!(editor.press(Key::Enter), Action::Record("b".to_owned()));
        editor.press(Key::Down);
        assert_eq!(
            editor.press(Key::Enter),
            Action::Record("Berlin".to_owned())
        );
        editor.press(Key::Down);
        editor.press(Key::Down);
        assert_eq!(editor.press(Key::Enter), Action::Record("bern".to_owned()));
        editor.press(Key::Up);
        editor.press(Key::Up);
        editor.press(Key::Up);
        assert_eq!(editor.selected(), None);
    }

    #[test]
    fn completing_takes_the_suggestion_into_the_line() {
        let mut editor = typed("b");
        editor.press(Key::Complete);
        assert_eq!(editor.text(), "b");
        editor.answered(answer(&[("berlin", "Berlin")]));
        editor.press(Key::Complete);
        assert_eq!(editor.text(), "Berlin");
    }

    #[test]
    fn erasing_works_by_character_word_and_line() {
        let mut editor = typed("new york cité");
        editor.press(Key::Backspace);
        assert_eq!(editor.text(), "new york cit");
        editor.press(Key::EraseWord);
        assert_eq!(editor.text(), "new york ");
        editor.press(Key::EraseWord);
        assert_eq!(editor.text(), "new ");
        editor.press(Key::EraseAll);
        editor.press(Key::Backspace);
        assert_eq!(editor.text(), "");
    }

    #[test]
    fn nothing_is_recorded_for_an_empty_line_and_recording_begins_anew() {
        let mut editor = typed("  ");
        assert_eq!(editor.press(Key::Enter), Action::None);
        let mut editor = typed("rust");
        editor.question();
        editor.recorded(2);
        assert_eq!(editor.message(), "recorded, 2 searches now");
        assert_eq!(editor.question(), Some(String::new()));
        editor.recorded(1);
        assert_eq!(editor.message(), "recorded, 1 search now");
        assert_eq!(editor.press(Key::Leave), Action::Leave);
    }
}
