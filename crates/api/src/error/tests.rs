use std::time::Duration;

use cluster::{Epoch, NodeId};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::*;
use crate::admin::v1 as admin;
use crate::shard::v1::RequestError;
use crate::v1::ItemResult;

fn rich() -> ApiError {
    ApiError::field(Reason::WrongShard, "term", "is owned by shard 3")
        .with_outcome(Outcome::NotApplied)
        .with_retry_after(Duration::from_millis(1500))
        .with_leader(Some(NodeId(7)))
        .with_epoch(Epoch(12))
}

#[test]
fn a_status_and_back_is_the_same_error() {
    for &reason in Reason::ALL {
        let error = ApiError::new(reason, format!("because of {reason:?}"));
        let status = Status::from(error.clone());
        assert_eq!(status.code(), reason.code());
        assert_eq!(ApiError::from_status(&status), error);
    }
    let error = rich().with_metadata("shard_id", "3");
    assert_eq!(ApiError::from_status(&error.clone().into()), error);
}

#[test]
fn a_status_carries_what_other_stacks_look_for() {
    let status = Status::from(rich());
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "term: is owned by shard 3");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.reason, "WRONG_SHARD");
    assert_eq!(info.domain, "autocomplete");
    assert_eq!(info.metadata["outcome"], "NOT_APPLIED");
    assert_eq!(info.metadata["leader_node_id"], "7");
    assert_eq!(info.metadata["epoch"], "12");
    let delay = status.get_details_retry_info().unwrap().retry_delay;
    assert_eq!(delay, Some(Duration::from_millis(1500)));
    let pushback = |status: &Status| status.metadata().get("grpc-retry-pushback-ms").cloned();
    assert_eq!(pushback(&status).unwrap(), "1500");
    let in_doubt = rich().with_outcome(Outcome::Unknown).into();
    assert_eq!(pushback(&in_doubt), None);
    let bad = status.get_details_bad_request().unwrap();
    assert_eq!(bad.field_violations[0].field, "term");
}

#[test]
fn a_request_error_and_back_is_the_same_error() {
    assert_eq!(ApiError::from(RequestError::from(rich())), rich());
    for &reason in Reason::ALL {
        let error = ApiError::new(reason, "x").for_write();
        assert_eq!(ApiError::from(RequestError::from(error.clone())), error);
    }
}

#[test]
fn foreign_statuses_are_understood_by_their_code() {
    let refused = ApiError::from_status(&Status::unavailable("connection refused"));
    assert_eq!(refused.reason(), Reason::Disconnected);
    assert_eq!(refused.message(), "connection refused");
    assert_eq!(refused.outcome(), None);
    let garbage = Status::with_details(Code::DataLoss, "x", vec![0xff; 9].into());
    assert_eq!(ApiError::from_status(&garbage).reason(), Reason::DataLoss);
}

#[test]
fn a_delay_that_cannot_be_negated_is_ignored() {
    let delay = |seconds, nanos| {
        let info = tonic_types::pb::RetryInfo {
            retry_delay: Some(prost_types::Duration { seconds, nanos }),
        };
        let detail = prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: info.encode_to_vec(),
        };
        let rich = tonic_types::pb::Status {
            details: vec![detail],
            ..tonic_types::pb::Status::default()
        };
        let details = rich.encode_to_vec().into();
        let status = Status::with_details(Code::ResourceExhausted, "busy", details);
        let error = ApiError::from_status(&status);
        assert_eq!(error.reason(), Reason::Overloaded);
        error.retry_after()
    };
    assert_eq!(delay(i64::MIN, 0), None);
    assert_eq!(delay(i64::MIN, -1_500_000_000), None);
    assert_eq!(delay(-7, 0), Some(Duration::ZERO));
    assert_eq!(delay(7, 0), Some(Duration::from_secs(7)));
}

#[test]
fn a_connection_that_breaks_is_no_fault_of_either_side() {
    let broken = Status::from_error(Box::new(std::io::Error::other("reset by peer")));
    assert_eq!(broken.code(), Code::Unknown);
    let error = ApiError::from_status(&broken);
    assert_eq!(error.reason(), Reason::Disconnected);
    // The same codes from the wire mean what they say.
    let said = ApiError::from_status(&Status::internal("oops"));
    assert_eq!(said.reason(), Reason::Internal);
    let said = ApiError::from_status(&Status::cancelled("by the caller"));
    assert_eq!(said.reason(), Reason::Cancelled);
}

#[test]
fn a_reason_of_a_newer_server_falls_back_to_the_code() {
    let wire = RequestError {
        code: Code::Unavailable as i32,
        reason: "FROM_THE_FUTURE".into(),
        ..RequestError::default()
    };
    assert_eq!(ApiError::from(wire).reason(), Reason::Disconnected);
    // A reason under the wrong code is not believed either.
    let wire = RequestError {
        code: Code::Unavailable as i32,
        reason: "BAD_TERM".into(),
        ..RequestError::default()
    };
    assert_eq!(ApiError::from(wire).reason(), Reason::Disconnected);
}

#[test]
fn a_small_map_is_attached_and_a_large_one_is_left_out() {
    let mut map = admin::ShardMap {
        epoch: 5,
        ..admin::ShardMap::default()
    };
    let error = ApiError::new(Reason::StaleEpoch, "old").with_map(map.clone());
    let back = ApiError::from_status(&error.into());
    assert_eq!(back.map(), Some(&map));
    assert_eq!(back.epoch(), Some(Epoch(5)));

    map.nodes = vec![
        admin::NodeDescriptor {
            name: "n".repeat(100),
            ..admin::NodeDescriptor::default()
        };
        100
    ];
    assert!(map.encoded_len() > ATTACHED_MAP_BYTES_MAX);
    let status = Status::from(ApiError::new(Reason::StaleEpoch, "old").with_map(map));
    assert!(status.details().len() < 1024);
    let back = ApiError::from_status(&status);
    assert_eq!((back.map(), back.epoch()), (None, Some(Epoch(5))));
}

#[test]
fn the_outcome_of_a_write_is_said_once() {
    let known = ApiError::new(Reason::NoQuorum, "x").with_outcome(Outcome::NotApplied);
    assert_eq!(known.for_write().outcome(), Some(Outcome::NotApplied));
    let open = ApiError::new(Reason::NoQuorum, "x").for_write();
    assert_eq!(open.outcome(), Some(Outcome::Unknown));
}

#[test]
fn an_earlier_try_that_may_have_been_applied_is_told_once() {
    let refused = ApiError::new(Reason::DiskFull, "the disk is full").after_unknown();
    assert_eq!(refused.reason(), Reason::DiskFull);
    assert_eq!(refused.outcome(), Some(Outcome::Unknown));
    let message = "the disk is full, and an earlier try may have been applied";
    assert_eq!(refused.message(), message);
    assert_eq!(refused.clone().after_unknown(), refused);
    let open = ApiError::new(Reason::NoQuorum, "x").after_unknown();
    assert_eq!(open, ApiError::new(Reason::NoQuorum, "x").for_write());
    let long = ApiError::new(Reason::DiskFull, "é".repeat(2000)).after_unknown();
    assert!(long.message().len() <= MESSAGE_BYTES_MAX);
}

#[test]
fn places_are_named_from_the_outside_in() {
    let inner = ApiError::field(Reason::BadTerm, "term", "must not be empty");
    let error = inner.inside("items[3]");
    assert_eq!(error.message(), "items[3].term: must not be empty");
    assert_eq!(error.field_name(), Some("items[3].term"));
}

#[test]
fn long_messages_are_cut_between_characters() {
    let error = ApiError::internal("é".repeat(2000));
    assert!(error.message().len() <= MESSAGE_BYTES_MAX);
    assert!(error.message().chars().all(|c| c == 'é'));
}

#[test]
fn items_say_why_they_failed() {
    assert_eq!(ItemResult::default().error(), None);
    assert_eq!(
        item_error(Reason::CountOverflow).error(),
        Some(Reason::CountOverflow)
    );
    let bare = ItemResult {
        code: Code::Unavailable as i32,
        ..ItemResult::default()
    };
    assert_eq!(bare.error(), Some(Reason::Disconnected));
}

#[test]
fn an_item_that_may_have_been_applied_never_says_that_it_was_not() {
    for &reason in Reason::ALL {
        let error = ApiError::new(reason, "x");
        for known in [
            error.clone(),
            error.clone().with_outcome(Outcome::NotApplied),
        ] {
            assert_eq!(ItemResult::from(&known).error(), Some(reason));
        }
        let unknown = error.with_outcome(Outcome::Unknown);
        let shown = ItemResult::from(&unknown).error().unwrap();
        assert_eq!(shown.outcome_of_write(), Outcome::Unknown, "{reason:?}");
        let says_so = reason.outcome_of_write() == Outcome::Unknown;
        assert_eq!(shown == reason, says_so, "{reason:?}");
    }
}

#[test]
fn an_error_fits_a_result_without_a_box() {
    assert!(size_of::<ApiError>() <= 96, "{}", size_of::<ApiError>());
}
