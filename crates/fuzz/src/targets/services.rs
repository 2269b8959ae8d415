//! Requests inside the cluster, of browsers, and of watchdogs: through the checks that each passes before anything is done.

use api::ApiError;
use api::admin::v1::{
    BeginRecoveryRequest, EndRecoveryRequest, ReplicaAudit, ReplicaStatus, SnapshotInfo, TurnState,
};
use api::meta::v1::{Coordinator, GreetResponse, ProposeRequest};
use api::registry::v1::{
    ClearNamespaceRequest, RegisterRequest, ResolveNamespaceRequest, SyncRequest,
};
use cluster::limits;
use coordinator::fuzzing;
use http::Uri;
use prost::Message;
use term::NamespaceName;

use super::requests::is_sound_item;
use super::{join, pieces, sure, tagged};
use crate::{Target, mend};

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "coordinator-requests",
            run: coordinator,
            mend: mend::nothing,
            seeds: coordinator_seeds,
            quick: 24_000,
        },
        Target {
            name: "http-requests",
            run: browser,
            mend: mend::nothing,
            seeds: browser_seeds,
            quick: 24_000,
        },
    ]
}

/// What passes; what is refused says why.
pub(super) fn passed<T>(checked: Result<T, ApiError>) -> Option<T> {
    if let Err(error) = &checked {
        assert!(!error.message().is_empty());
    }
    checked.ok()
}

/// What passes; what is refused says which field is at fault.
pub(super) fn sound<T>(checked: Result<T, ApiError>) -> Option<T> {
    if let Err(error) = &checked {
        assert!(error.field_name().is_some(), "{error:?}");
    }
    passed(checked)
}

pub(super) fn passes<M: Message + Default, T>(
    bytes: &[u8],
    check: fn(M) -> Result<T, ApiError>,
) -> Option<T> {
    passed(check(M::decode(bytes).ok()?))
}

// --- a coordinator --------------------------------------------------------------------------------------------------

/// A change that passes is a change that every coordinator can read.
fn coordinator(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let change = match kind {
        0 => passes(bytes, fuzzing::register),
        1 => passes(bytes, fuzzing::begin_recovery),
        2 => passes(bytes, fuzzing::end_recovery),
        3 => passes(bytes, |request| fuzzing::propose(&request)),
        _ => None,
    };
    if let Some(change) = change {
        let proposal = ProposeRequest {
            kind: change.kind().into(),
            command: change.encode().into(),
            ..ProposeRequest::default()
        };
        assert_eq!(fuzzing::propose(&proposal), Ok(change));
    }
    match kind {
        4 => {
            passes(bytes, fuzzing::clear);
        }
        5 => {
            if let Some(info) = passes(bytes, fuzzing::snapshot) {
                assert_eq!(fuzzing::snapshot(info.clone()), Ok(info));
            }
        }
        6 => {
            if let Ok(answer) = GreetResponse::decode(bytes)
                && let Err(problem) = fuzzing::greeting(&answer)
            {
                assert!(!problem.is_empty());
            }
        }
        7 => reports(bytes),
        8 => {
            if let Ok(asked) = ResolveNamespaceRequest::decode(bytes)
                && let Some(name) = sound(fuzzing::resolve(&asked))
            {
                assert_eq!(sure(NamespaceName::new(name.as_str())), name);
            }
        }
        _ => {}
    }
}

/// Whoever is refuted is refuted by a majority, and does not belong to it.
fn reports(input: &[u8]) {
    let decode = |(_, bytes): (u8, &[u8])| SyncRequest::decode(bytes).ok();
    let requests: Option<Vec<SyncRequest>> = pieces(input).into_iter().map(decode).collect();
    let Some(requests) = requests else {
        return;
    };
    let count = requests.len();
    let Some(Some(verdict)) = passed(fuzzing::reports(requests)) else {
        return;
    };
    assert_eq!(verdict.agreed.is_some(), verdict.agreeing.len() > count / 2);
    let both = |node| verdict.differing.contains(node);
    assert!(!verdict.agreeing.iter().any(both));
}

fn coordinator_seeds() -> Vec<Vec<u8>> {
    let register = RegisterRequest {
        node_name: "shard-1".to_owned(),
        address: "host-1:50051".to_owned(),
        region: "r".to_owned(),
        instance_id: vec![5; 16].into(),
    };
    let begin = BeginRecoveryRequest {
        shard_id: 2,
        watchdog: "w-1".to_owned(),
        known_attempt: 3,
        reason: "silent".to_owned(),
        lease_ms: 15_000,
        concurrent_percent: 20,
        watching: true,
    };
    let end = EndRecoveryRequest {
        shard_id: 2,
        watchdog: "w-1".to_owned(),
        attempt: 4,
        outcome: TurnState::TimedOut.into(),
    };
    let registered = sure(fuzzing::register(register.clone()));
    let propose = ProposeRequest {
        cluster_id: vec![9; 16].into(),
        to_coordinator_id: 1,
        kind: registered.kind().into(),
        command: registered.encode().into(),
    };
    let clear = ClearNamespaceRequest {
        name: "shop".to_owned(),
        client_id: vec![4; 16].into(),
        sequence: 9,
        issued_at_ms: 1_700_000,
        acked_below: 3,
    };
    let snapshot = SnapshotInfo {
        shard_id: 1,
        incarnation: 2,
        raft_term: 3,
        index: 400,
        bytes: 5_000,
        hash: vec![6; 32].into(),
        taken_at_ms: 1_700_000,
    };
    let member = |id: u8| Coordinator {
        coordinator_id: id.into(),
        instance_id: vec![id; 16].into(),
    };
    let greeting = GreetResponse {
        coordinator_id: 2,
        instance_id: vec![2; 16].into(),
        cluster_id: vec![9; 16].into(),
        members: vec![member(1), member(2), member(3)],
        configured_ids: vec![3, 1, 2],
    };
    vec![
        tagged(0, &register.encode_to_vec()),
        tagged(1, &begin.encode_to_vec()),
        tagged(2, &end.encode_to_vec()),
        tagged(3, &propose.encode_to_vec()),
        tagged(4, &clear.encode_to_vec()),
        tagged(5, &snapshot.encode_to_vec()),
        tagged(6, &greeting.encode_to_vec()),
        tagged(7, &three_reports()),
        tagged(8, &resolve("").encode_to_vec()),
        tagged(8, &resolve("shop").encode_to_vec()),
    ]
}

fn resolve(name: &str) -> ResolveNamespaceRequest {
    ResolveNamespaceRequest {
        name: name.to_owned(),
        create: true,
    }
}

/// Of three nodes, one of which differs.
fn three_reports() -> Vec<u8> {
    let report = |hash: u8| {
        let audit = |index| ReplicaAudit {
            index,
            version: 1,
            hash: vec![hash; 32].into(),
        };
        let replica = ReplicaStatus {
            shard_id: 1,
            incarnation: 1,
            audits: vec![audit(10), audit(20)],
            ..ReplicaStatus::default()
        };
        let request = SyncRequest {
            node_id: 1,
            replicas: vec![replica],
            ..SyncRequest::default()
        };
        request.encode_to_vec()
    };
    let reports = [report(1), report(2), report(1)];
    join(reports.iter().map(|report| (0, report.as_slice())))
}

// --- browsers -------------------------------------------------------------------------------------------------------

/// What passes is what gRPC would have let pass.
fn browser(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    if *kind == 0 {
        if let Some(record) = passed(fuzzing::record(bytes)) {
            assert!(is_sound_item(&record.item));
        }
    } else if let Ok(uri) = Uri::try_from(bytes)
        && let Some(asked) = passed(fuzzing::question(&uri))
    {
        assert!((1..=limits::K_MAX).contains(&asked.k));
        sure(api::validate::normalised_prefix("q", asked.prefix.as_str()));
    }
}

fn browser_seeds() -> Vec<Vec<u8>> {
    let record = r#"{"term":" New\tYork \u00dc","count":3,"namespace":"shop","request_id":{
"client_id":"000102030405060708090a0b0c0d0eff","sequence":9,"issued_at_ms":1700000,"acked_below":3}}"#;
    vec![
        tagged(0, record.as_bytes()),
        tagged(0, br#"{"term":"york"}"#),
        tagged(1, b"/v1/suggest?q=New%20Y%C3%BC+&k=7&namespace=shop"),
    ]
}
