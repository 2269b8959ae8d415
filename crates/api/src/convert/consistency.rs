//! How fresh a read must be.

use crate::{ApiError, Reason, v1};

/// How fresh a read must be; see the public interface for what each promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Consistency {
    /// Answered by a leader inside its lease.
    #[default]
    Leader,
    /// Confirmed with a majority.
    Linearizable,
    /// Any verified replica.
    Stale,
}

impl Consistency {
    /// Reads the field of a request; unset means [`Consistency::Leader`].
    ///
    /// # Errors
    /// `BAD_ARGUMENT` for a number that is no level.
    pub fn parse(number: i32) -> Result<Self, ApiError> {
        match v1::Consistency::try_from(number) {
            Ok(v1::Consistency::Unspecified | v1::Consistency::Leader) => Ok(Self::Leader),
            Ok(v1::Consistency::Linearizable) => Ok(Self::Linearizable),
            Ok(v1::Consistency::Stale) => Ok(Self::Stale),
            Err(_) => Err(ApiError::field(
                Reason::BadArgument,
                "consistency",
                format_args!("{number} is not one of 0 to 3"),
            )),
        }
    }
}

impl From<Consistency> for v1::Consistency {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Leader => Self::Leader,
            Consistency::Linearizable => Self::Linearizable,
            Consistency::Stale => Self::Stale,
        }
    }
}
