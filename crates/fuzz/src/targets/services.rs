//! Requests inside the cluster, of browsers, and of operators: through the checks that each passes before anything is done.

use api::admin::v1::{
    BeginRecoveryRequest, EndRecoveryRequest, ReplicaAudit, ReplicaStatus, SnapshotInfo, TurnState,
};
use api::meta::v1::{Coordinator, GreetResponse, ProposeRequest};
use api::registry::v1::{ClearNamespaceRequest, RegisterRequest, SyncRequest};
use api::shard::v1 as shard;
use api::{ApiError, v1};
use cluster::{Generation, KeyRange, NamespaceId, limits};
use coordinator::fuzzing;
use http::Uri;
use prost::Message;
use replication::{Applied, StateMachine as _};
use shard_server::state::command::{KIND_WRITES, encode_writes};
use shard_server::state::{DictionaryState, Item, Operation, Scope, Write};
use trie_core::Options;

use super::requests::{is_sound_item, request_id};
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
            name: "shard-requests",
            run: shard_server,
            mend: mend::nothing,
            seeds: shard_seeds,
            quick: 12_000,
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
fn passed<T>(checked: Result<T, ApiError>) -> Option<T> {
    if let Err(error) = &checked {
        assert!(!error.message().is_empty());
    }
    checked.ok()
}

fn passes<M: Message + Default, T>(bytes: &[u8], check: fn(M) -> Result<T, ApiError>) -> Option<T> {
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
    ]
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

// --- a shard server -------------------------------------------------------------------------------------------------

const NAMESPACE: NamespaceId = NamespaceId(1);
const GENERATION: Generation = Generation(1);

fn shard_server(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind {
        0 => {
            if let Some(writes) = passes(bytes, shard_server::fuzzing::writes) {
                written(&writes);
            }
        }
        1 => {
            passes(bytes, shard_server::fuzzing::change_members);
        }
        2 => {
            if let Ok(asked) = shard::TopKRequest::decode(bytes) {
                top_k(asked);
            }
        }
        3 => {
            if let Ok(asked) = shard::ListRequest::decode(bytes) {
                listed(&asked);
            }
        }
        _ => {}
    }
}

/// What passes is within the limits, and a state machine takes it.
fn written(writes: &[Write]) {
    let items: usize = writes.iter().map(Write::items).sum();
    assert!(writes.len().max(items) <= limits::BATCH_ITEMS_MAX);
    for write in writes {
        assert!(write.namespace.0 > 0 && write.generation.0 > 0);
        if let Operation::Record(items) = &write.operation {
            assert!(items.is_sorted_by(|one, next| one.number < next.number));
        }
    }
    let state = DictionaryState::new(Options::default());
    let applied = Applied { index: 1, term: 1 };
    sure(state.apply(applied, 1, KIND_WRITES, &encode_writes(writes)));
}

fn terms() -> [&'static str; 6] {
    [
        "new delhi",
        "new york",
        "newcastle",
        "york",
        "zebra",
        "zürich",
    ]
}

fn filled() -> DictionaryState {
    let item = |(number, term): (u32, &&str)| Item {
        number,
        term: (*term).to_owned(),
        count: u64::from(number) + 1,
        display: None,
    };
    let write = Write {
        namespace: NAMESPACE,
        generation: GENERATION,
        identity: None,
        operation: Operation::Record((0..).zip(&terms()).map(item).collect()),
    };
    let state = DictionaryState::new(Options::default());
    let applied = Applied { index: 1, term: 1 };
    sure(state.apply(applied, 1, KIND_WRITES, &encode_writes(&[write])));
    state
}

const SCOPE: Scope = Scope {
    namespace: NAMESPACE,
    generation: GENERATION,
};

fn texts(entries: &[trie_core::Entry]) -> Vec<String> {
    let text = |entry: &trie_core::Entry| String::from_utf8_lossy(&entry.term).into_owned();
    entries.iter().map(text).collect()
}

/// What a list of all terms has, in the order of their counts.
fn top_k(asked: shard::TopKRequest) {
    let range = asked.range.map(KeyRange::try_from).transpose();
    let Some(range) = passed(range) else {
        return;
    };
    let k = usize::try_from(asked.k.min(limits::K_MAX)).unwrap_or_default();
    let within = range.as_ref();
    let found = sure(filled().top_k(SCOPE, &asked.prefix, k, within)).value;
    let is_asked = |term: &&str| {
        term.starts_with(&asked.prefix) && within.is_none_or(|range| range.contains(term))
    };
    let expected = terms().into_iter().rev().filter(is_asked).take(k);
    assert_eq!(texts(&found), expected.collect::<Vec<_>>());
}

/// The terms behind the one that is named, page by page.
fn listed(asked: &shard::ListRequest) {
    let state = filled();
    let limit = usize::try_from(asked.limit.clamp(1, 10)).unwrap_or(1);
    let limit_bytes = usize::try_from(asked.limit_bytes).unwrap_or(usize::MAX);
    let mut after = asked.after.clone();
    let mut found = Vec::new();
    loop {
        let page = sure(state.list(SCOPE, &asked.prefix, &after, limit, limit_bytes)).value;
        let part = texts(&page.entries);
        assert!(part.len() <= limit);
        let last = part.last().cloned();
        found.extend(part);
        match last {
            Some(last) if page.more => after = last,
            Some(_) | None => break,
        }
    }
    let is_asked = |term: &&str| term.starts_with(&asked.prefix) && *term > asked.after.as_str();
    let expected: Vec<&str> = terms().into_iter().filter(is_asked).collect();
    assert_eq!(found, expected);
}

fn shard_seeds() -> Vec<Vec<u8>> {
    let route = Some(shard::Route {
        shard_id: 1,
        incarnation: 1,
        epoch: 5,
        trace_high: 0,
        trace_low: 0,
    });
    let item = |number, term: &str, display: &str| shard::NumberedItem {
        number,
        term: term.to_owned(),
        count: 3,
        display: display.to_owned(),
    };
    let write = |request_id: Option<v1::RequestId>, operation| shard::Write {
        namespace_id: 1,
        generation: 1,
        request_id,
        fingerprint: 77,
        operation: Some(operation),
    };
    let record = shard::write::Operation::Record(shard::RecordItems {
        items: vec![item(0, "new york", "New York"), item(4, "york", "")],
    });
    let delete = shard::write::Operation::Delete(shard::DeleteTerm {
        term: "york".to_owned(),
    });
    let writes = shard::WriteRequest {
        correlation: 1,
        route,
        writes: vec![write(request_id(), record), write(None, delete)],
    };
    let change = shard::ChangeMembersRequest {
        shard_id: 1,
        incarnation: 1,
        step: shard::MemberStep::Promote.into(),
        node_id: 4,
        address: "host-4:1".to_owned(),
        lost_node_ids: vec![2],
    };
    let top = shard::TopKRequest {
        correlation: 1,
        route,
        namespace_id: 1,
        generation: 1,
        prefix: "new".to_owned(),
        k: 2,
        range: Some(v1::TermRange {
            start: "new d".to_owned(),
            end: "newc".to_owned(),
        }),
        ..shard::TopKRequest::default()
    };
    let list = shard::ListRequest {
        route,
        namespace_id: 1,
        generation: 1,
        prefix: "new".to_owned(),
        after: "new e".to_owned(),
        limit: 1,
        limit_bytes: 100,
    };
    vec![
        tagged(0, &writes.encode_to_vec()),
        tagged(1, &change.encode_to_vec()),
        tagged(2, &top.encode_to_vec()),
        tagged(3, &list.encode_to_vec()),
    ]
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
