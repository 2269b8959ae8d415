//! Why text was refused.

/// Why a term or a prefix was refused. The text fits behind the name of a field: `items[3].term: must not be empty`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermError {
    /// Nothing is left of it: only white space and control characters, or no character at all.
    #[error("must not be empty, nor consist of white space and control characters only")]
    Empty,
    /// The key is too long.
    #[error("has {bytes} bytes after normalising, more than the limit of {limit}")]
    TooLong {
        /// Bytes of the key.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The text is too long to be looked at.
    #[error("has {bytes} bytes, more than the limit of {limit} before normalising")]
    RawTooLong {
        /// Bytes of the text as given.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The form to be shown is too long, although the key is not.
    #[error("has {bytes} bytes as it would be shown, more than the limit of {limit}")]
    DisplayTooLong {
        /// Bytes of the display form.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
}

/// Why the name of a namespace was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The name is too long.
    #[error("has {bytes} bytes, more than the limit of {limit}")]
    TooLong {
        /// Bytes of the name.
        bytes: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The name starts with something else than a letter or a digit.
    #[error("must start with a lower-case ASCII letter or a digit, not {found:?}")]
    BadStart {
        /// The first character.
        found: char,
    },
    /// A character is not allowed.
    #[error("has {found:?} at byte {at}; allowed are a-z, 0-9, '.', '_' and '-'")]
    BadCharacter {
        /// The character.
        found: char,
        /// Its place, in bytes from the start.
        at: usize,
    },
}
