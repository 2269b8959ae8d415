//! Outcomes and entries to messages.

use api::shard::v1 as wire;
use api::v1::{ItemResult, Suggestion};
use api::{ApiError, Reason};
use trie_core::Entry;

use crate::state::{ItemOutcome, Refusal, WriteOutcome};

pub(super) fn write_result(outcome: &WriteOutcome) -> wire::WriteResult {
    match outcome {
        WriteOutcome::Recorded(items) => {
            let is_repeat = |item: &ItemOutcome| matches!(item, ItemOutcome::Repeated { .. });
            wire::WriteResult {
                repeated: !items.is_empty() && items.iter().all(is_repeat),
                results: items.iter().map(item_result).collect(),
                ..wire::WriteResult::default()
            }
        }
        WriteOutcome::Deleted { existed, repeated } => wire::WriteResult {
            existed: *existed,
            repeated: *repeated,
            ..wire::WriteResult::default()
        },
        WriteOutcome::Refused(refusal) => wire::WriteResult {
            error: Some(refusal_error(refusal).for_write().into()),
            ..wire::WriteResult::default()
        },
    }
}

pub(super) fn item_result(item: &ItemOutcome) -> ItemResult {
    let done = |count, repeated| ItemResult {
        count,
        repeated,
        ..ItemResult::default()
    };
    match item {
        ItemOutcome::Applied { count } => done(*count, false),
        ItemOutcome::Repeated { count } => done(*count, true),
        ItemOutcome::Overflow { count: _ } => api::error::item_error(Reason::CountOverflow),
        ItemOutcome::Unusable => api::error::item_error(Reason::BadTerm),
    }
}

pub(super) fn refusal_error(refusal: &Refusal) -> ApiError {
    match refusal {
        Refusal::OtherPayload => ApiError::field(
            Reason::RequestIdReused,
            "request_id",
            "was used before for another payload",
        ),
        Refusal::Expired { mark_ms } => {
            let message = match mark_ms {
                Some(mark) => format!("the request id was settled, or issued before {mark}"),
                None => "the request id was settled by its client".to_owned(),
            };
            ApiError::new(Reason::SessionExpired, message)
        }
        Refusal::IssuedAhead { ahead_ms } => ApiError::field(
            Reason::BadRequestId,
            "request_id.issued_at_ms",
            format_args!(
                "lies {ahead_ms} ms ahead, more than the limit of {}",
                cluster::limits::ISSUED_AHEAD_MAX.as_millis()
            ),
        ),
        Refusal::StaleGeneration { known } => {
            crate::node::stale_generation(crate::state::StaleGeneration { known: *known })
        }
    }
}

pub(super) fn suggestions(entries: Vec<Entry>) -> Vec<Suggestion> {
    entries
        .into_iter()
        .map(|entry| Suggestion {
            term: text(entry.term),
            count: entry.count,
            display: entry.display.map(text).unwrap_or_default(),
        })
        .collect()
}

/// What is in a dictionary came from checked strings, so nothing is ever replaced.
pub(super) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
