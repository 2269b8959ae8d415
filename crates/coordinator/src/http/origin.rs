//! From which pages a browser may record.
//!
//! A browser sends `Origin` with every POST of a page. It must name this very host, as the request's `Host` has it, or be one
//! of the origins in the configuration. Callers that are no browsers send none, and are let in: they could send any.

use std::sync::Arc;

use api::{ApiError, Reason};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Site;
use super::error::HttpError;

/// Where a request may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// No browser, or a page of this host.
    Own,
    /// A page of an origin in the configuration, which is told that it may read the answer.
    Allowed(HeaderValue),
}

/// Decides by the headers.
pub(crate) fn check(headers: &HeaderMap, allowed: &[String]) -> Result<Origin, ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(Origin::Own);
    };
    let text = origin.to_str().unwrap_or_default();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    if authority.is_some() && authority == host {
        return Ok(Origin::Own);
    }
    if allowed.iter().any(|known| known == text) {
        return Ok(Origin::Allowed(origin.clone()));
    }
    let message = "pages of this origin may not record here";
    Err(ApiError::new(Reason::PermissionDenied, message).with_outcome(api::Outcome::NotApplied))
}

impl Origin {
    /// Tells the browser that the page may read the answer.
    pub(crate) fn mark(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if let Self::Allowed(origin) = self {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        response
    }
}

/// What a browser asks before it sends a record from another origin.
pub(crate) async fn preflight(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let origin = check(&headers, &site.allowed_origins)?;
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    Ok(origin.mark((StatusCode::NO_CONTENT, allowed).into_response()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(origin: Option<&str>, host: &str) -> Result<Origin, Reason> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        check(&headers, &["https://search.example".to_owned()]).map_err(|error| error.reason())
    }

    #[test]
    fn only_the_own_page_and_those_in_the_configuration_may_record() {
        let here = "127.0.0.1:8080";
        assert_eq!(judge(None, here), Ok(Origin::Own));
        assert_eq!(judge(Some("http://127.0.0.1:8080"), here), Ok(Origin::Own));
        let allowed = judge(Some("https://search.example"), here);
        assert!(matches!(allowed, Ok(Origin::Allowed(_))));
        for foreign in [
            "http://127.0.0.1:8081",
            "http://evil.example",
            "https://search.example.evil.example",
            "http://search.example",
            "null",
            "",
            "ftp://127.0.0.1:8080",
        ] {
            let judged = judge(Some(foreign), here);
            assert_eq!(judged, Err(Reason::PermissionDenied), "{foreign}");
        }
    }
}
