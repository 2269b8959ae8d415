//! A door to what a Docker Engine answers to a watchdog, for `crates/fuzz`.

use hyper::StatusCode;

use crate::restart::{RestartError, container};

/// Where the engine is asked to restart the container of node `n7`, of those that it lists for it.
///
/// # Errors
/// What is told of the attempt.
pub fn restart_path(listed: &[u8]) -> Result<String, RestartError> {
    container::only_one("n7", listed).map(|id| container::restart_path(&id))
}

/// What is told of an attempt that the engine refuses with this body.
#[must_use]
pub fn refused(body: &[u8]) -> RestartError {
    container::refused(StatusCode::INTERNAL_SERVER_ERROR, body)
}
