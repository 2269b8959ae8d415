//! Ranges of terms.

use cluster::KeyRange;

use crate::v1::TermRange;
use crate::{ApiError, Reason};

impl From<&KeyRange> for TermRange {
    fn from(range: &KeyRange) -> Self {
        Self::from(range.clone())
    }
}

impl From<KeyRange> for TermRange {
    fn from(range: KeyRange) -> Self {
        let (start, end) = range.into_parts();
        Self {
            start,
            // No range ends before the empty term, so "" is free to mean "to the last term".
            end: end.unwrap_or_default(),
        }
    }
}

impl TryFrom<TermRange> for KeyRange {
    type Error = ApiError;

    /// # Errors
    /// `BAD_ARGUMENT` for a range that holds no term.
    fn try_from(range: TermRange) -> Result<Self, ApiError> {
        let TermRange { start, end } = range;
        if !end.is_empty() && end <= start {
            let problem = format!("{start:?} does not lie before {end:?}");
            return Err(ApiError::field(Reason::BadArgument, "range", problem));
        }
        let end = Some(end).filter(|end| !end.is_empty());
        Self::new(start, end).ok_or_else(|| ApiError::internal("a range without terms"))
    }
}
