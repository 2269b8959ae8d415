//! What a coordinator asks of a shard server, and answers to one: through the checks that each passes before anything is done.
//!
//! Some is asked for by numbers and ids alone, which are looked up or compared with those of the node, and nothing else is in it: to
//! take and read a snapshot, to give up the data, and to hand a lead over.

use api::admin::v1::{Layout, LayoutRange, NamespaceDescriptor};
use api::registry::v1::{RegisterResponse, ResolveNamespaceResponse};
use api::shard::v1 as shard;
use api::v1;
use cluster::{Generation, KeyRange, NamespaceId, NodeId, limits};
use prost::Message as _;
use replication::{Applied, StateMachine as _};
use shard_server::state::command::{KIND_CLEAR, KIND_WRITES, encode_clear, encode_writes};
use shard_server::state::{DictionaryState, Item, Operation, Scope, Write};
use trie_core::Options;

use super::requests::request_id;
use super::services::{passed, passes, sound};
use super::{sure, tagged};
use crate::{Target, mend};

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "shard-requests",
        run: shard_server,
        mend: mend::nothing,
        seeds: shard_seeds,
        quick: 18_000,
    }]
}

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
            if let Ok(asked) = shard::ChangeMembersRequest::decode(bytes)
                && let Some(change) = sound(shard_server::fuzzing::change_members(asked.clone()))
            {
                let lost = asked.lost_node_ids.into_iter().map(NodeId).collect();
                assert_eq!(change, (NodeId(asked.node_id), lost));
                assert!(change.0.0 > 0);
            }
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
        4 => {
            if let Ok(asked) = shard::CountRequest::decode(bytes) {
                counted(&asked);
            }
        }
        5 => {
            if let Ok(asked) = shard::ClearRequest::decode(bytes) {
                cleared(&asked);
            }
        }
        _ => told(*kind, bytes),
    }
}

/// What a coordinator answers to a node that registers, or asks for a namespace.
fn told(kind: u8, bytes: &[u8]) {
    if kind == 6
        && let Ok(answer) = RegisterResponse::decode(bytes)
        && let Some(file) = passed(shard_server::fuzzing::registered(&answer))
    {
        let reread = shard_server::fuzzing::identity(&file);
        assert_eq!(reread, Some(file), "the next start knows who it is");
    }
    if kind == 7
        && let Ok(answer) = ResolveNamespaceResponse::decode(bytes)
        && let Some(Some(found)) = passed(shard_server::fuzzing::resolved(answer))
    {
        let again = ResolveNamespaceResponse {
            namespace: Some((&found).into()),
            epoch: 1,
        };
        assert_eq!(shard_server::fuzzing::resolved(again), Ok(Some(found)));
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

/// What was recorded of a term, in the dictionary that is named.
fn counted(asked: &shard::CountRequest) {
    let Some(scope) = sound(shard_server::fuzzing::count(asked)) else {
        return;
    };
    let found = sure(filled().get(scope, &asked.term)).value;
    let mut known = (1..).zip(terms());
    let known = known.find(|(_, term)| scope == SCOPE && *term == asked.term);
    assert_eq!(
        found.map(|entry| entry.count),
        known.map(|(count, _)| count)
    );
}

/// A dictionary of a later generation is empty, and who asks for an older one is told.
fn cleared(asked: &shard::ClearRequest) {
    let Some(scope) = sound(shard_server::fuzzing::clear(asked)) else {
        return;
    };
    let state = filled();
    let command = encode_clear(scope.namespace, scope.generation);
    let applied = Applied { index: 2, term: 1 };
    sure(state.apply(applied, 2, KIND_CLEAR, &command));
    let is_gone = scope.namespace == NAMESPACE && scope.generation > GENERATION;
    assert_eq!(state.top_k(SCOPE, "", 10, None).is_err(), is_gone);
    let left = sure(state.top_k(scope, "", 10, None)).value;
    assert_eq!(left.is_empty(), scope != SCOPE);
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
        tagged(0, &writes(route).encode_to_vec()),
        tagged(1, &change().encode_to_vec()),
        tagged(2, &top.encode_to_vec()),
        tagged(3, &list.encode_to_vec()),
        tagged(4, &count(route, "york").encode_to_vec()),
        tagged(4, &count(route, "zurich").encode_to_vec()),
        tagged(5, &clear(route, 1).encode_to_vec()),
        tagged(5, &clear(route, 2).encode_to_vec()),
        tagged(6, &registered().encode_to_vec()),
        tagged(7, &resolved().encode_to_vec()),
    ]
}

fn writes(route: Option<shard::Route>) -> shard::WriteRequest {
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
    shard::WriteRequest {
        correlation: 1,
        route,
        writes: vec![write(request_id(), record), write(None, delete)],
    }
}

fn change() -> shard::ChangeMembersRequest {
    shard::ChangeMembersRequest {
        shard_id: 1,
        incarnation: 1,
        step: shard::MemberStep::Promote.into(),
        node_id: 4,
        address: "host-4:1".to_owned(),
        lost_node_ids: vec![2],
        epoch: 7,
    }
}

fn count(route: Option<shard::Route>, term: &str) -> shard::CountRequest {
    shard::CountRequest {
        route,
        namespace_id: 1,
        generation: 1,
        term: term.to_owned(),
        ..shard::CountRequest::default()
    }
}

fn clear(route: Option<shard::Route>, generation: u64) -> shard::ClearRequest {
    shard::ClearRequest {
        route,
        namespace_id: 1,
        generation,
    }
}

fn registered() -> RegisterResponse {
    RegisterResponse {
        node_id: 3,
        cluster_id: vec![9; 16].into(),
    }
}

fn resolved() -> ResolveNamespaceResponse {
    let range = |start: &str, shard_id| LayoutRange {
        start: start.to_owned(),
        shard_id,
    };
    ResolveNamespaceResponse {
        namespace: Some(NamespaceDescriptor {
            namespace_id: 2,
            name: "shop".to_owned(),
            generation: 4,
            normaliser_version: 1,
            layout: Some(Layout {
                ranges: vec![range("", 1), range("m", 2)],
            }),
        }),
        epoch: 5,
    }
}
