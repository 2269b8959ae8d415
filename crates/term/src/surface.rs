//! What a person wrote, next to the key that was made of it.

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::normalise::{Ends, is_ascii_key, tidy};
use crate::{DISPLAY_BYTES_MAX, TERM_BYTES_MAX, Term, TermError};

/// The form of `raw` to be shown: NFC, white space and control characters as in a key, neither folded nor changed in
/// appearance. Applying it again changes nothing.
#[must_use]
pub fn display_form(raw: &str) -> String {
    let composed = ComposingNormalizerBorrowed::new_nfc().normalize(raw);
    tidy(composed, Ends::Trimmed).into_owned()
}

/// A term as it was written: its key, and the form to be shown where that is another text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surface {
    term: Term,
    display: Option<Box<str>>,
}

impl Surface {
    /// Makes the key and the display form of `raw`.
    ///
    /// # Errors
    ///
    /// As [`Term::new`]; also refuses a display form above [`DISPLAY_BYTES_MAX`].
    pub fn parse(raw: &str) -> Result<Self, TermError> {
        let term = Term::new(raw)?;
        if term.as_str() == raw {
            return Ok(Self {
                term,
                display: None,
            });
        }
        let display = display_form(raw);
        if display.len() > DISPLAY_BYTES_MAX {
            return Err(TermError::DisplayTooLong {
                bytes: display.len(),
                limit: DISPLAY_BYTES_MAX,
            });
        }
        let display = (display != term.as_str()).then(|| display.into_boxed_str());
        Ok(Self { term, display })
    }

    /// As [`Surface::parse`], for whoever has no other use for the text: one that is its own key is kept and not copied.
    ///
    /// # Errors
    ///
    /// As [`Surface::parse`].
    pub fn from_string(raw: String) -> Result<Self, TermError> {
        if raw.len() <= TERM_BYTES_MAX && is_ascii_key(&raw) {
            return Ok(Self {
                term: Term::from_key(raw),
                display: None,
            });
        }
        Self::parse(&raw)
    }

    /// The key.
    #[must_use]
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// The form to be shown, where it differs from the key: 1 to [`DISPLAY_BYTES_MAX`] bytes.
    #[must_use]
    pub fn display(&self) -> Option<&str> {
        self.display.as_deref()
    }

    /// Hands out both.
    #[must_use]
    pub fn into_parts(self) -> (Term, Option<Box<str>>) {
        (self.term, self.display)
    }
}
