//! Why a write was refused.

/// Longest term in bytes.
pub const TERM_BYTES_MAX: usize = 65_535;

/// Longest display form in bytes.
pub const DISPLAY_BYTES_MAX: usize = 65_535;

/// A write that was refused. The dictionary is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The sum does not fit 64 bits. Record less, or delete the term.
    #[error("count {count} plus {add} does not fit 64 bits")]
    Overflow {
        /// The present count.
        count: u64,
        /// What was to be added.
        add: u64,
    },
    /// A count of zero never exists in a dictionary.
    #[error("a count of zero cannot be recorded")]
    ZeroCount,
    /// The term is empty or longer than [`TERM_BYTES_MAX`].
    #[error("a term has {len} bytes; 1 to {max} are allowed")]
    TermLength {
        /// Length of the term in bytes.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The display form is longer than [`DISPLAY_BYTES_MAX`].
    #[error("a display form has {len} bytes; at most {max} are allowed")]
    DisplayLength {
        /// Length of the display form in bytes.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A bulk load met a term that does not come after the one before it. Sort, and merge equal terms.
    #[error("term {position} of a bulk load does not come after the one before it")]
    OutOfOrder {
        /// Number of the term in the load, from 0.
        position: u64,
    },
}

/// Checks what every write checks before it changes anything.
pub(crate) fn check(term: &[u8], count: u64, display: Option<&[u8]>) -> Result<(), RecordError> {
    if count == 0 {
        return Err(RecordError::ZeroCount);
    }
    if term.is_empty() || term.len() > TERM_BYTES_MAX {
        return Err(RecordError::TermLength {
            len: term.len(),
            max: TERM_BYTES_MAX,
        });
    }
    check_display(display.map_or(0, <[u8]>::len))
}

/// Checks the length of a display form.
pub(crate) fn check_display(len: usize) -> Result<(), RecordError> {
    if len > DISPLAY_BYTES_MAX {
        return Err(RecordError::DisplayLength {
            len,
            max: DISPLAY_BYTES_MAX,
        });
    }
    Ok(())
}
