//! Why a metric cannot be.

/// Why a metric cannot be made or written. Always a mistake in the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// Not a name of ours.
    #[error(
        "{name:?} is no name for a metric: lower-case letters, digits and single underscores, a letter first"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The family exists as something else, or with other labels.
    #[error("{name} exists as a {exists} with other labels or of another kind")]
    Mismatch {
        /// The name.
        name: String,
        /// What it exists as.
        exists: &'static str,
    },
    /// What the library refused.
    #[error("{name}: {problem}")]
    Refused {
        /// The name.
        name: String,
        /// What the library says.
        problem: String,
    },
}
