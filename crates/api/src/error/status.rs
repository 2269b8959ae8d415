//! `ApiError` as a gRPC status, and back.

use std::collections::HashMap;
use std::error::Error as _;

use cluster::{Epoch, NodeId};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb::RetryInfo;
use tonic_types::{ErrorDetails, RpcStatusExt as _, StatusExt as _};

use super::{ATTACHED_MAP_BYTES_MAX, ApiError, DOMAIN, Outcome, Reason};
use crate::admin::v1::ShardMap;

/// Keys of our own in the metadata of `ErrorInfo`.
const OUTCOME_KEY: &str = "outcome";
const LEADER_KEY: &str = "leader_node_id";
const EPOCH_KEY: &str = "epoch";

/// Milliseconds after which clients of gRPC's own retry rule (gRFC A6) call again, in the trailers.
const PUSHBACK_KEY: &str = "grpc-retry-pushback-ms";

const MAP_TYPE: &str = "type.googleapis.com/autocomplete.admin.v1.ShardMap";
const RETRY_TYPE: &str = "type.googleapis.com/google.rpc.RetryInfo";

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut metadata: HashMap<String, String> =
            error.extra.metadata.clone().into_iter().collect();
        if let Some(outcome) = error.outcome {
            metadata.insert(OUTCOME_KEY.into(), outcome.as_str().into());
        }
        if let Some(leader) = error.extra.leader {
            metadata.insert(LEADER_KEY.into(), leader.to_string());
        }
        if let Some(epoch) = error.extra.epoch {
            metadata.insert(EPOCH_KEY.into(), epoch.to_string());
        }
        let mut details = ErrorDetails::with_error_info(error.reason.as_str(), DOMAIN, metadata);
        if error.retry_after.is_some() {
            details.set_retry_info(error.retry_after);
        }
        if let Some(field) = &error.field {
            details.add_bad_request_violation(field.as_ref(), error.message.as_str());
        }
        let status = Self::with_error_details(error.code(), error.message.as_str(), details);
        let mut status = match error.extra.map {
            Some(map) if map.encoded_len() <= ATTACHED_MAP_BYTES_MAX => attach(status, &map),
            Some(_) | None => status,
        };
        // Some clients follow it whatever else they are told, and what may have been applied is not theirs to repeat.
        if let Some(delay) = error.retry_after
            && error.outcome != Some(Outcome::Unknown)
        {
            let millis = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
            status.metadata_mut().insert(PUSHBACK_KEY, millis.into());
        }
        status
    }
}

/// Adds the map to the details of a status. Left out when the details are not ours to read.
fn attach(status: Status, map: &ShardMap) -> Status {
    let Ok(mut rich) = tonic_types::pb::Status::decode(status.details()) else {
        return status;
    };
    rich.details.push(prost_types::Any {
        type_url: MAP_TYPE.into(),
        value: map.encode_to_vec(),
    });
    Status::with_details(status.code(), status.message(), rich.encode_to_vec().into())
}

fn attached(status: &Status) -> Option<ShardMap> {
    let rich = tonic_types::pb::Status::decode(status.details()).ok()?;
    let any = rich
        .details
        .into_iter()
        .find(|any| any.type_url == MAP_TYPE)?;
    ShardMap::decode(any.value.as_slice()).ok()
}

/// The details as the library reads them.
fn details_of(status: &Status) -> ErrorDetails {
    let Ok(mut rich) = tonic_types::pb::Status::decode(status.details()) else {
        return ErrorDetails::default();
    };
    rich.details.retain(|any| !has_lowest_delay(any));
    rich.get_error_details()
}

/// Whether a detail is the lowest delay of all. The library negates what lies below zero, and there is no such number.
fn has_lowest_delay(any: &prost_types::Any) -> bool {
    if any.type_url != RETRY_TYPE {
        return false;
    }
    let found = RetryInfo::decode(any.value.as_slice()).ok();
    let delay = found.and_then(|info| info.retry_delay);
    delay.is_some_and(|delay| delay.normalized().seconds == i64::MIN)
}

/// What the gRPC library says of its own accord under a code that means something else here.
///
/// Its refusals have no other mark than their text; the tests of the `rpc` crate provoke each of them for real. A
/// connection that breaks shows under several codes, but always with the error of the transport as its source, which
/// no status from the wire has.
fn of_transport(status: &Status) -> Option<Reason> {
    let text = status.message();
    let too_large = "Error, decoded message length too large";
    if status.code() == Code::OutOfRange && text.starts_with(too_large) {
        return Some(Reason::MessageTooLarge);
    }
    if status.code() == Code::Cancelled && text == "Timeout expired" {
        return Some(Reason::Deadline);
    }
    let broken = matches!(
        status.code(),
        Code::Cancelled | Code::Unknown | Code::Internal | Code::Unavailable
    );
    (broken && status.source().is_some()).then_some(Reason::Disconnected)
}

impl ApiError {
    /// Understands any status: ours with everything it carries; a foreign one by its code alone. A broken or foreign
    /// detail is ignored, never an error of its own.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let by_code = of_transport(status)
            .or(Reason::of_code(status.code()))
            .unwrap_or(Reason::Internal);
        let details = details_of(status);
        let mut error = Self::new(by_code, status.message());
        error.retry_after = details.retry_info().and_then(|info| info.retry_delay);
        error.field = details
            .bad_request()
            .and_then(|bad| bad.field_violations.first())
            .map(|violation| violation.field.clone().into_boxed_str());
        let Some(info) = details.error_info().filter(|info| info.domain == DOMAIN) else {
            return error;
        };
        // A reason that this version does not know, or that contradicts its code, falls back to the code.
        if let Some(reason) =
            Reason::parse(&info.reason).filter(|known| known.code() == status.code())
        {
            error.reason = reason;
        }
        for (key, value) in &info.metadata {
            match key.as_str() {
                OUTCOME_KEY => error.outcome = Outcome::parse(value),
                LEADER_KEY => error.extra.leader = value.parse().ok().map(NodeId),
                EPOCH_KEY => error.extra.epoch = value.parse().ok().map(Epoch),
                _ => {
                    error.extra.metadata.insert(key.clone(), value.clone());
                }
            }
        }
        error.extra.map = attached(status);
        error
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        Self::from_status(&status)
    }
}
