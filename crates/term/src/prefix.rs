//! What a term may start with.

use std::fmt;

use crate::normalise::{Ends, normalise};
use crate::{PREFIX_BYTES_MAX, RAW_BYTES_MAX, TermError};

/// A normalised prefix of 0 to [`PREFIX_BYTES_MAX`] bytes. At most one space at its end, which is significant; none at its
/// start. The empty prefix matches every term.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// Makes the prefix of `raw`.
    ///
    /// # Errors
    ///
    /// Refuses text that is too long before or after normalising.
    pub fn new(raw: &str) -> Result<Self, TermError> {
        if raw.len() > RAW_BYTES_MAX {
            return Err(TermError::RawTooLong {
                bytes: raw.len(),
                limit: RAW_BYTES_MAX,
            });
        }
        let key = normalise(raw, Ends::SpaceKeptAtEnd);
        if key.len() > PREFIX_BYTES_MAX {
            return Err(TermError::TooLong {
                bytes: key.len(),
                limit: PREFIX_BYTES_MAX,
            });
        }
        Ok(Self(key.into_owned().into_boxed_str()))
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The prefix as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether every term matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands out the text.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0.into_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Prefix {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
