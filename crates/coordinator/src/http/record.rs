//! `POST /v1/record`: one search, with a request id so that a retry counts once.

use std::sync::Arc;

use api::v1::RecordRequest;
use api::{ApiError, Reason, v1, validate};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use rpc::Deadline;
use serde::{Deserialize, Serialize};

use super::error::HttpError;
use super::{PATIENCE, Site, origin};

/// What is recorded.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input {
    term: String,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    namespace: String,
    request_id: Option<InputId>,
}

/// The fields of `autocomplete.v1.RequestId`; the client id as 32 hexadecimal digits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputId {
    client_id: String,
    sequence: u64,
    issued_at_ms: i64,
    #[serde(default)]
    acked_below: u64,
}

#[derive(Debug, Serialize)]
struct Output {
    term: String,
    count: u64,
    repeated: bool,
}

pub(crate) async fn record(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    input: Result<Json<Input>, JsonRejection>,
) -> Result<Response, HttpError> {
    let from = origin::check(&headers, &site.allowed_origins)?;
    let answer = match sound(input) {
        Ok(record) => apply(&site, record).await,
        Err(error) => Err(error),
    };
    let response = match answer {
        Ok(output) => (StatusCode::OK, Json(output)).into_response(),
        Err(error) => HttpError(error.for_write()).into_response(),
    };
    Ok(from.mark(response))
}

/// What a body means.
pub(crate) fn sound(
    input: Result<Json<Input>, JsonRejection>,
) -> Result<validate::Record, ApiError> {
    let Json(input) = input.map_err(|rejection| refuse(&rejection))?;
    let request_id = input.request_id.map(to_wire).transpose()?;
    validate::Record::try_from(RecordRequest {
        term: input.term,
        count: input.count,
        namespace: input.namespace,
        request_id,
    })
}

async fn apply(site: &Site, record: validate::Record) -> Result<Output, ApiError> {
    let term = record.item.term.as_str().to_owned();
    let deadline = Deadline::after(&site.runtime, PATIENCE);
    let answer = site.router.record(record, deadline.at()).await?;
    Ok(Output {
        term,
        count: answer.count,
        repeated: answer.repeated,
    })
}

fn to_wire(id: InputId) -> Result<v1::RequestId, ApiError> {
    let client_id = from_hex(&id.client_id).ok_or_else(|| {
        let problem = "must be 32 hexadecimal digits";
        ApiError::field(Reason::BadRequestId, "request_id.client_id", problem)
    })?;
    Ok(v1::RequestId {
        client_id: Bytes::copy_from_slice(&client_id),
        sequence: id.sequence,
        issued_at_ms: id.issued_at_ms,
        acked_below: id.acked_below,
    })
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
    Some(number.to_be_bytes())
}

fn refuse(rejection: &JsonRejection) -> ApiError {
    let text = rejection.body_text();
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::message_too_large(None, super::BODY_BYTES_MAX),
        _ => ApiError::new(Reason::Malformed, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_32_hexadecimal_digits() {
        let id = from_hex("000102030405060708090a0b0c0d0eff").unwrap();
        assert_eq!(id[1], 1);
        assert_eq!(id[15], 0xff);
        for bad in [
            "",
            "00",
            "+00102030405060708090a0b0c0d0eff",
            "g00102030405060708090a0b0c0d0eff",
        ] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }
}
