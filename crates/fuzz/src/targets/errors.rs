//! What a caller understands of an error: of a status with its details, of the status of one request of a stream, and of one
//! item of a batch.

use std::time::Duration;

use api::error::{ATTACHED_MAP_BYTES_MAX, MESSAGE_BYTES_MAX, item_error};
use api::shard::v1::RequestError;
use api::v1::ItemResult;
use api::{ApiError, Outcome, Reason, admin, fuzzing};
use cluster::{Epoch, NodeId, ShardMap};
use prost::Message as _;

use super::requests::shard_map_seeds;
use super::{join, pieces, sure, tagged};
use crate::{Target, mend};

/// The longest delay that is passed on.
const DELAY_MAX: Duration = Duration::new(315_576_000_000, 999_999_999);

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "errors",
        run: errors,
        mend: mend::nothing,
        seeds,
        quick: 18_000,
    }]
}

fn errors(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind {
        0 => status(bytes),
        1 => {
            if let Ok(wire) = RequestError::decode(bytes) {
                request_error(wire);
            }
        }
        2 => {
            if let Ok(result) = ItemResult::decode(bytes) {
                item(&result);
            }
        }
        _ => {}
    }
}

/// All that an error says but the map and the delay.
fn said(error: &ApiError) -> impl PartialEq + std::fmt::Debug {
    assert!(error.message().len() <= MESSAGE_BYTES_MAX);
    let read = (error.leader(), error.epoch());
    let about = (error.field_name(), error.metadata());
    (
        error.reason(),
        error.outcome(),
        error.message(),
        about,
        read,
    )
}

/// Any status is an error, which is the same when it is passed on.
fn status(input: &[u8]) {
    let pieces = pieces(input);
    let [(code, message), rest @ ..] = pieces.as_slice() else {
        return;
    };
    let details = rest.first().map_or([].as_slice(), |(_, details)| details);
    let message = String::from_utf8_lossy(message);
    let once = fuzzing::understood((*code).into(), &message, details);
    let Some(twice) = fuzzing::passed_on(once.clone()) else {
        panic!("an error has a status: {once:?}");
    };
    assert_eq!(said(&twice), said(&once));
    let delay = once.retry_after().map(|delay| delay.min(DELAY_MAX));
    assert_eq!(twice.retry_after(), delay);
    let map = once.map();
    let is_small = |map: &&admin::v1::ShardMap| map.encoded_len() <= ATTACHED_MAP_BYTES_MAX;
    assert_eq!(twice.map(), map.filter(is_small));
    if let Some(map) = map {
        let _ = ShardMap::try_from(map.clone());
    }
}

fn request_error(wire: RequestError) {
    let once = ApiError::from(wire);
    let twice = ApiError::from(RequestError::from(once.clone()));
    assert_eq!(twice, once);
    assert!(once.message().len() <= MESSAGE_BYTES_MAX);
}

/// An item that failed says why, and whether it was applied follows from that.
fn item(result: &ItemResult) {
    let why = result.error();
    assert_eq!(why.is_none(), result.code == 0);
    let Some(reason) = why else {
        return;
    };
    assert_eq!(item_error(reason).error(), Some(reason));
    let unknown = ApiError::new(reason, "x").with_outcome(Outcome::Unknown);
    let shown = ItemResult::from(&unknown)
        .error()
        .map(Reason::outcome_of_write);
    assert_eq!(shown, Some(Outcome::Unknown));
}

fn seeds() -> Vec<Vec<u8>> {
    let error = ApiError::field(Reason::WrongShard, "term", "is owned by shard 3")
        .with_outcome(Outcome::NotApplied)
        .with_retry_after(Duration::from_millis(1_500))
        .with_leader(Some(NodeId(7)))
        .with_epoch(Epoch(12))
        .with_metadata("shard_id", "3");
    let map = shard_map_seeds();
    let map = map
        .first()
        .map(|bytes| sure(admin::v1::ShardMap::decode(bytes.as_slice())));
    let stale = ApiError::stale_epoch(Epoch(4), Epoch(5)).with_map(map.unwrap_or_default());
    let request = RequestError::from(error.clone());
    let failed = item_error(Reason::CountOverflow);
    let applied = ItemResult {
        count: 9,
        ..ItemResult::default()
    };
    let told = |error| {
        let (code, message, details) = fuzzing::told(error);
        encoded(code, &message, &details)
    };
    vec![
        told(error),
        told(stale),
        encoded(1, "Timeout expired", &[]),
        encoded(11, "Error, decoded message length too large: found 9", &[]),
        encoded(8, "busy", &lowest_delay()),
        tagged(1, &request.encode_to_vec()),
        tagged(2, &failed.encode_to_vec()),
        tagged(2, &applied.encode_to_vec()),
    ]
}

fn encoded(code: i32, message: &str, details: &[u8]) -> Vec<u8> {
    let code = u8::try_from(code).unwrap_or_default();
    tagged(0, &join([(code, message.as_bytes()), (0, details)]))
}

/// The details of a status whose caller is to come back before all times.
fn lowest_delay() -> Vec<u8> {
    let field = |key: u8, bytes: &[u8]| {
        let len = u8::try_from(bytes.len()).unwrap_or_default();
        [&[key, len], bytes].concat()
    };
    let seconds = [8, 128, 128, 128, 128, 128, 128, 128, 128, 128, 1];
    let name = field(10, b"type.googleapis.com/google.rpc.RetryInfo");
    let value = field(18, &field(10, &seconds));
    field(26, &[name, value].concat())
}
