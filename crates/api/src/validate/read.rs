//! Reads of one prefix or one term.

use cluster::{SessionToken, limits};
use term::{NamespaceName, Prefix, Term};

use super::fields;
use crate::{ApiError, Consistency, v1};

/// A sound GetTopK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetTopK {
    /// Where.
    pub namespace: NamespaceName,
    /// What the terms start with; empty asks for the global top-K.
    pub prefix: Prefix,
    /// The k that is served: 1 to [`limits::K_MAX`].
    pub k: u32,
    /// How fresh.
    pub consistency: Consistency,
    /// What the caller has seen.
    pub token: SessionToken,
    /// Fail rather than answer in part.
    pub require_complete: bool,
}

impl TryFrom<v1::GetTopKRequest> for GetTopK {
    type Error = ApiError;

    fn try_from(wire: v1::GetTopKRequest) -> Result<Self, ApiError> {
        Ok(Self {
            namespace: fields::namespace(&wire.namespace)?,
            prefix: fields::prefix(&wire.prefix)?,
            k: match wire.k {
                0 => limits::K_DEFAULT,
                // The answer says which k was used.
                asked => asked.min(limits::K_MAX),
            },
            consistency: Consistency::parse(wire.consistency)?,
            token: fields::token(wire.token)?,
            require_complete: wire.require_complete,
        })
    }
}

/// A sound GetCount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetCount {
    /// Where.
    pub namespace: NamespaceName,
    /// What.
    pub term: Term,
    /// How fresh.
    pub consistency: Consistency,
    /// What the caller has seen.
    pub token: SessionToken,
}

impl TryFrom<v1::GetCountRequest> for GetCount {
    type Error = ApiError;

    fn try_from(wire: v1::GetCountRequest) -> Result<Self, ApiError> {
        Ok(Self {
            namespace: fields::namespace(&wire.namespace)?,
            term: fields::term(&wire.term)?,
            consistency: Consistency::parse(wire.consistency)?,
            token: fields::token(wire.token)?,
        })
    }
}
