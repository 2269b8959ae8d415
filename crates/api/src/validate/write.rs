//! Writes of one term or one namespace.

use term::{NamespaceName, Term};

use super::fields;
use crate::{ApiError, RequestId, v1};

/// One term and what is added to its count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub term: Term,
    /// How it was written, where that is another text.
    pub display: Option<Box<str>>,
    /// 1 to [`cluster::limits::RECORD_COUNT_MAX`].
    pub count: u64,
}

impl Item {
    /// Checks a term and its count; 0 means 1.
    ///
    /// # Errors
    /// `BAD_TERM` or `BAD_COUNT` with the field.
    pub fn parse(term: String, count: u64) -> Result<Self, ApiError> {
        let (term, display) = fields::surface(term)?;
        let count = fields::count(count)?;
        Ok(Self {
            term,
            display,
            count,
        })
    }
}

/// A sound Record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where to.
    pub namespace: NamespaceName,
    /// What.
    pub item: Item,
    /// The caller's own id, if it has one.
    pub request_id: Option<RequestId>,
}

impl TryFrom<v1::RecordRequest> for Record {
    type Error = ApiError;

    fn try_from(wire: v1::RecordRequest) -> Result<Self, ApiError> {
        let parse = || {
            Ok(Self {
                namespace: fields::namespace(&wire.namespace)?,
                item: Item::parse(wire.term, wire.count)?,
                request_id: fields::request_id(wire.request_id.as_ref())?,
            })
        };
        parse().map_err(ApiError::for_write)
    }
}

/// A sound Delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// Where from.
    pub namespace: NamespaceName,
    /// What.
    pub term: Term,
    /// The caller's own id, if it has one.
    pub request_id: Option<RequestId>,
}

impl TryFrom<v1::DeleteRequest> for Delete {
    type Error = ApiError;

    fn try_from(wire: v1::DeleteRequest) -> Result<Self, ApiError> {
        let parse = || {
            Ok(Self {
                namespace: fields::namespace(&wire.namespace)?,
                term: fields::term(&wire.term)?,
                request_id: fields::request_id(wire.request_id.as_ref())?,
            })
        };
        parse().map_err(ApiError::for_write)
    }
}

/// A sound ClearNamespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearNamespace {
    /// What to clear.
    pub namespace: NamespaceName,
    /// The caller's own id, if it has one.
    pub request_id: Option<RequestId>,
}

impl TryFrom<v1::ClearNamespaceRequest> for ClearNamespace {
    type Error = ApiError;

    fn try_from(wire: v1::ClearNamespaceRequest) -> Result<Self, ApiError> {
        let parse = || {
            Ok(Self {
                namespace: fields::namespace(&wire.namespace)?,
                request_id: fields::request_id(wire.request_id.as_ref())?,
            })
        };
        parse().map_err(ApiError::for_write)
    }
}
