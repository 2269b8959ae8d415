//! A door to what is understood of the status that a call ended with, for `crates/fuzz`.

use tonic::{Code, Status};

use crate::ApiError;

/// What a caller understands of a status: a number for its code, a message, and its details, which nobody has to have written.
#[must_use]
pub fn understood(code: i32, message: &str, details: &[u8]) -> ApiError {
    let details = details.to_vec().into();
    ApiError::from_status(&Status::with_details(
        Code::from_i32(code),
        message,
        details,
    ))
}

/// What the next caller understands where an error is passed on, in the headers of an answer; nothing if they say nothing.
#[must_use]
pub fn passed_on(error: ApiError) -> Option<ApiError> {
    let answer = Status::from(error).into_http::<()>();
    let status = Status::from_header_map(answer.headers())?;
    Some(ApiError::from_status(&status))
}

/// The code, the message and the details of an error.
#[must_use]
pub fn told(error: ApiError) -> (i32, String, Vec<u8>) {
    let status = Status::from(error);
    let message = status.message().to_owned();
    (status.code().into(), message, status.details().to_vec())
}
