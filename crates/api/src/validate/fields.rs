//! The checks of single fields.

use cluster::{SessionToken, limits};
use term::{NamespaceName, Prefix, Surface, Term};

use crate::{ApiError, Reason, RequestId, v1};

pub(super) fn namespace(raw: &str) -> Result<NamespaceName, ApiError> {
    NamespaceName::new(raw)
        .map_err(|error| ApiError::field(Reason::BadNamespace, "namespace", error))
}

pub(super) fn term(raw: &str) -> Result<Term, ApiError> {
    Term::new(raw).map_err(|error| ApiError::field(Reason::BadTerm, "term", error))
}

pub(super) fn surface(raw: String) -> Result<(Term, Option<Box<str>>), ApiError> {
    Surface::from_string(raw)
        .map(Surface::into_parts)
        .map_err(|error| ApiError::field(Reason::BadTerm, "term", error))
}

pub(super) fn prefix(raw: &str) -> Result<Prefix, ApiError> {
    Prefix::new(raw).map_err(|error| ApiError::field(Reason::BadPrefix, "prefix", error))
}

/// Unset means 1.
pub(super) fn count(raw: u64) -> Result<u64, ApiError> {
    match raw {
        0 => Ok(1),
        1..=limits::RECORD_COUNT_MAX => Ok(raw),
        _ => Err(ApiError::field(
            Reason::BadCount,
            "count",
            format_args!("{raw} is above the limit of {}", limits::RECORD_COUNT_MAX),
        )),
    }
}

pub(super) fn request_id(raw: Option<&v1::RequestId>) -> Result<Option<RequestId>, ApiError> {
    raw.map(RequestId::try_from).transpose()
}

/// Unset means that nothing was seen yet.
pub(super) fn token(raw: Option<v1::SessionToken>) -> Result<SessionToken, ApiError> {
    raw.map_or_else(|| Ok(SessionToken::default()), TryInto::try_into)
}

/// Checks a term that must have been normalised before, as on the way from a coordinator to a shard.
///
/// # Errors
/// `BAD_TERM` with the name of the field when it is not a term as it stands.
pub fn normalised_term(field: &str, raw: &str) -> Result<Term, ApiError> {
    let term = Term::new(raw).map_err(|error| ApiError::field(Reason::BadTerm, field, error))?;
    if term.as_str() == raw {
        Ok(term)
    } else {
        Err(ApiError::field(Reason::BadTerm, field, "is not normalised"))
    }
}

/// Checks a prefix that must have been normalised before, as on the way from a coordinator to a shard.
///
/// # Errors
/// `BAD_PREFIX` with the name of the field when it is not a prefix as it stands.
pub fn normalised_prefix(field: &str, raw: &str) -> Result<Prefix, ApiError> {
    let prefix =
        Prefix::new(raw).map_err(|error| ApiError::field(Reason::BadPrefix, field, error))?;
    if prefix.as_str() == raw {
        Ok(prefix)
    } else {
        Err(ApiError::field(
            Reason::BadPrefix,
            field,
            "is not normalised",
        ))
    }
}
