//! Names of namespaces.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use crate::NamespaceError;

/// The namespace that is meant where none is named.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Most bytes in the name of a namespace.
pub const NAMESPACE_BYTES_MAX: usize = 63;

/// The name of a namespace: `[a-z0-9][a-z0-9._-]{0,62}`. It is taken as written; nothing is folded or trimmed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceName(Box<str>);

impl NamespaceName {
    /// Checks a name. An empty one means [`DEFAULT_NAMESPACE`].
    ///
    /// # Errors
    ///
    /// Refuses a name that is too long or has a character that is not allowed where it stands.
    pub fn new(raw: &str) -> Result<Self, NamespaceError> {
        let Some(first) = raw.chars().next() else {
            return Ok(Self::default());
        };
        if raw.len() > NAMESPACE_BYTES_MAX {
            return Err(NamespaceError::TooLong {
                bytes: raw.len(),
                limit: NAMESPACE_BYTES_MAX,
            });
        }
        if !is_letter_or_digit(first) {
            return Err(NamespaceError::BadStart { found: first });
        }
        let bad = raw
            .char_indices()
            .find(|&(_, c)| !is_letter_or_digit(c) && !matches!(c, '.' | '_' | '-'));
        if let Some((at, found)) = bad {
            return Err(NamespaceError::BadCharacter { found, at });
        }
        Ok(Self(raw.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_letter_or_digit(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

impl Default for NamespaceName {
    fn default() -> Self {
        Self(DEFAULT_NAMESPACE.into())
    }
}

impl fmt::Display for NamespaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NamespaceName {
    type Err = NamespaceError;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        Self::new(raw)
    }
}

impl AsRef<str> for NamespaceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for NamespaceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_means_default() {
        assert_eq!(NamespaceName::new("").unwrap(), NamespaceName::default());
        assert_eq!(NamespaceName::default().as_str(), "default");
        assert_eq!(
            NamespaceName::new(DEFAULT_NAMESPACE).unwrap(),
            NamespaceName::default()
        );
    }

    #[test]
    fn names_of_the_pattern_are_taken_as_they_are() {
        let longest = "a".repeat(NAMESPACE_BYTES_MAX);
        for name in [
            "a",
            "0",
            "en",
            "tenant-7.en_gb",
            "9..",
            "a-",
            longest.as_str(),
        ] {
            assert_eq!(NamespaceName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_place() {
        let long = "a".repeat(NAMESPACE_BYTES_MAX + 1);
        assert_eq!(
            NamespaceName::new(&long),
            Err(NamespaceError::TooLong {
                bytes: 64,
                limit: 63
            })
        );
        for found in ['A', '.', '_', '-', ' ', 'é', '\u{0}', '/'] {
            let error = NamespaceName::new(&format!("{found}a")).unwrap_err();
            assert_eq!(error, NamespaceError::BadStart { found });
        }
        for found in ['A', ' ', 'é', '\u{0}', '/', '\n', ':'] {
            let error = NamespaceName::new(&format!("ab{found}")).unwrap_err();
            assert_eq!(error, NamespaceError::BadCharacter { found, at: 2 });
        }
        let text = NamespaceError::BadCharacter { found: '\n', at: 2 }.to_string();
        assert_eq!(
            text,
            "has '\\n' at byte 2; allowed are a-z, 0-9, '.', '_' and '-'"
        );
    }
}
