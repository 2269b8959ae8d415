//! A term's key.

use std::borrow::Borrow;
use std::fmt;

use crate::normalise::{Ends, normalise};
use crate::{RAW_BYTES_MAX, TERM_BYTES_MAX, TermError};

/// The key of a term: normalised text of 1 to [`TERM_BYTES_MAX`] bytes. Ordered by its UTF-8 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(Box<str>);

impl Term {
    /// Makes the key of `raw`.
    ///
    /// # Errors
    ///
    /// Refuses text that is too long before or after normalising, and text of which nothing is left.
    pub fn new(raw: &str) -> Result<Self, TermError> {
        if raw.len() > RAW_BYTES_MAX {
            return Err(TermError::RawTooLong {
                bytes: raw.len(),
                limit: RAW_BYTES_MAX,
            });
        }
        let key = normalise(raw, Ends::Trimmed);
        if key.is_empty() {
            return Err(TermError::Empty);
        }
        if key.len() > TERM_BYTES_MAX {
            return Err(TermError::TooLong {
                bytes: key.len(),
                limit: TERM_BYTES_MAX,
            });
        }
        Ok(Self(key.into_owned().into_boxed_str()))
    }

    /// Text that is known to be its own key, of a length that is allowed.
    pub(crate) fn from_key(key: String) -> Self {
        Self(key.into_boxed_str())
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as bytes, by which terms are ordered.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Hands out the key.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0.into_string()
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Term {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Term {
    fn borrow(&self) -> &str {
        &self.0
    }
}
