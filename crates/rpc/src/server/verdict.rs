//! What the gRPC library says of its own accord, in the words of the contract.
//!
//! The library refuses oversized and ill-formed messages before a handler sees them, with codes that blame the server or
//! mean something else here. Such a status is known by its code, by having no details (every one of ours has), and
//! by its text.

use api::{ApiError, Reason};
use http::HeaderMap;
use tonic::{Code, Status};

/// Texts of an `INTERNAL` that is the caller's fault.
const MALFORMED_TEXTS: [&str; 4] = [
    "Missing request message.",
    "Unexpected EOF decoding stream.",
    "protocol error: received message with",
    "Error decompressing:",
];

/// Text of a `RESOURCE_EXHAUSTED` for a message that inflates above the limit.
const INFLATED_TEXT: &str = "Error decompressing: size limit";

/// The code of an answer's headers or trailers; `None` where they have none.
pub(super) fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(Status::GRPC_STATUS)
        .map(|value| Code::from_bytes(value.as_bytes()))
}

/// Rewrites the status in headers or trailers when the library made it; returns the code that stands there now.
pub(super) fn rewrite(headers: &mut HeaderMap) -> Option<Code> {
    let code = code_of(headers)?;
    let ours = headers.contains_key(Status::GRPC_STATUS_DETAILS);
    let suspect = match code {
        Code::OutOfRange | Code::Internal | Code::ResourceExhausted => true,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => false,
    };
    if ours || !suspect {
        return Some(code);
    }
    let Some(error) = Status::from_header_map(headers).and_then(|status| in_our_words(&status))
    else {
        return Some(code);
    };
    put(error.for_write().into(), headers);
    code_of(headers)
}

fn in_our_words(status: &Status) -> Option<ApiError> {
    let text = status.message();
    let understood = ApiError::from_status(status);
    if understood.reason() == Reason::MessageTooLarge || text.starts_with(INFLATED_TEXT) {
        return Some(ApiError::new(Reason::MessageTooLarge, text));
    }
    let malformed = status.code() == Code::Internal
        && MALFORMED_TEXTS.iter().any(|known| text.starts_with(known));
    malformed.then(|| ApiError::malformed(text))
}

/// Replaces the status in headers or trailers.
pub(super) fn put(status: Status, headers: &mut HeaderMap) {
    headers.remove(Status::GRPC_STATUS);
    headers.remove(Status::GRPC_MESSAGE);
    headers.remove(Status::GRPC_STATUS_DETAILS);
    // Fails for text that no header can hold; what is written is escaped, so only the code is left to lose.
    if let Err(fallback) = status.add_header(headers) {
        headers.insert(
            Status::GRPC_STATUS,
            http::HeaderValue::from(fallback.code() as i32),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(status: Status) -> ApiError {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let code = rewrite(&mut headers).unwrap();
        let status = Status::from_header_map(&headers).unwrap();
        assert_eq!(status.code(), code);
        ApiError::from_status(&status)
    }

    #[test]
    fn our_own_statuses_pass_unchanged() {
        for &reason in Reason::ALL {
            let error = ApiError::new(reason, "Missing request message.");
            assert_eq!(rewritten(error.clone().into()), error);
        }
    }

    #[test]
    fn other_internal_errors_stay_internal() {
        let error = rewritten(Status::internal("something else"));
        assert_eq!(error.reason(), Reason::Internal);
    }

    #[test]
    fn what_the_caller_did_is_blamed_on_the_caller() {
        let large = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
        let inflated = "Error decompressing: size limit, of 4 bytes, exceeded";
        for (status, reason) in [
            (Status::out_of_range(large), Reason::MessageTooLarge),
            (
                Status::resource_exhausted(inflated),
                Reason::MessageTooLarge,
            ),
            (
                Status::internal("Missing request message."),
                Reason::Malformed,
            ),
            (
                Status::internal("Error decompressing: corrupt deflate stream"),
                Reason::Malformed,
            ),
        ] {
            assert_eq!(rewritten(status).reason(), reason);
        }
    }

    #[test]
    fn headers_without_a_status_are_left_alone() {
        let mut headers = HeaderMap::new();
        assert_eq!(rewrite(&mut headers), None);
        assert!(headers.is_empty());
    }
}
