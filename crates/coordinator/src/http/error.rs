//! Errors as JSON: `{"status": "INVALID_ARGUMENT", "reason": "BAD_TERM", "message": "...", "field": "term", "outcome": "NOT_APPLIED"}`.

use api::{ApiError, Reason};
use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tonic::Code;

/// An error on its way to a browser.
#[derive(Debug)]
pub(crate) struct HttpError(pub(crate) ApiError);

impl From<ApiError> for HttpError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    status: &'static str,
    reason: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let error = &self.0;
        let code = error.code();
        let body = Body {
            status: rpc::code_name(code),
            reason: error.reason().as_str(),
            message: error.message(),
            field: error.field_name(),
            outcome: error.outcome().map(api::Outcome::as_str),
        };
        let mut response = (status_of(error), Json(body)).into_response();
        if let Some(delay) = error.retry_after() {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A path that is not served.
pub(crate) async fn not_found() -> HttpError {
    ApiError::new(Reason::NotFound, "there is nothing at this path").into()
}

/// A path that is served, and not in this way.
pub(crate) async fn not_allowed(method: Method) -> Response {
    let message = format!("this path does not take {method}");
    let mut response = HttpError(ApiError::new(Reason::Unimplemented, message)).into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// The HTTP status of an error: that of its gRPC status, as gateways map them. A body that is too large is told apart from a full server, for
/// it will be as large the next time.
fn status_of(error: &ApiError) -> StatusCode {
    if error.reason() == Reason::MessageTooLarge {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    match error.code() {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::Aborted | Code::AlreadyExists => StatusCode::CONFLICT,
        Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}
