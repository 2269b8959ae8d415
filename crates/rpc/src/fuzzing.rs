//! A door to what a server reads of a call before a handler sees it, for `crates/fuzz`.

use std::time::Duration;

use api::ApiError;
use http::HeaderMap;

use crate::ServerConfig;
use crate::server::edge;

/// How long a unary call with these headers may take.
///
/// # Errors
/// As the caller is told.
pub fn patience(config: &ServerConfig, headers: &HeaderMap) -> Result<Duration, ApiError> {
    edge::patience(config, headers)
}
