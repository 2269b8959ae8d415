//! Pages of a namespace.

use cluster::limits;
use term::{NamespaceName, Prefix, Term};

use super::fields;
use crate::{ApiError, Reason, v1};

/// Where the next page begins: behind this term. Holds on any coordinator and through any change of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken {
    /// The last term of the page before.
    pub after: Term,
}

/// What a token of this version starts with.
const TOKEN_VERSION: &str = "1:";

impl PageToken {
    /// The text that goes to the caller.
    #[must_use]
    pub fn encode(&self) -> String {
        format!("{TOKEN_VERSION}{}", self.after)
    }

    fn parse(raw: &str) -> Result<Option<Self>, ApiError> {
        if raw.is_empty() {
            return Ok(None);
        }
        let after = raw
            .strip_prefix(TOKEN_VERSION)
            .and_then(|text| Term::new(text).ok().filter(|term| term.as_str() == text));
        match after {
            Some(after) => Ok(Some(Self { after })),
            None => Err(ApiError::field(
                Reason::BadToken,
                "page_token",
                "was not issued by this service",
            )),
        }
    }
}

/// A sound ListTerms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListTerms {
    /// Where.
    pub namespace: NamespaceName,
    /// What the terms start with.
    pub prefix: Prefix,
    /// Most terms of the page: 1 to [`limits::PAGE_TERMS_MAX`].
    pub page_size: u32,
    /// Where the page begins; `None` for the first.
    pub page_token: Option<PageToken>,
}

impl TryFrom<v1::ListTermsRequest> for ListTerms {
    type Error = ApiError;

    fn try_from(wire: v1::ListTermsRequest) -> Result<Self, ApiError> {
        Ok(Self {
            namespace: fields::namespace(&wire.namespace)?,
            prefix: fields::prefix(&wire.prefix)?,
            page_size: page_size(wire.page_size)?,
            page_token: PageToken::parse(&wire.page_token)?,
        })
    }
}

fn page_size(raw: u32) -> Result<u32, ApiError> {
    match raw {
        0 => Ok(limits::PAGE_TERMS_DEFAULT),
        1..=limits::PAGE_TERMS_MAX => Ok(raw),
        _ => Err(ApiError::field(
            Reason::BadArgument,
            "page_size",
            format_args!("{raw} is above the limit of {}", limits::PAGE_TERMS_MAX),
        )),
    }
}
