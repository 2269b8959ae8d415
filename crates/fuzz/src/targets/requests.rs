//! Public requests through validation, and the messages that carry what a client keeps.

use api::validate::{
    ClearNamespace, Delete, GetCount, GetTopK, ListTerms, Record, RecordBatch, normalised_prefix,
    normalised_term,
};
use api::{ApiError, admin, v1};
use cluster::{SessionToken, ShardMap, limits};
use prost::Message;

use super::{sure, tagged};
use crate::{Target, mend};

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "requests",
            run: requests,
            mend: mend::nothing,
            seeds: request_seeds,
            quick: 24_000,
        },
        Target {
            name: "session-token",
            run: token,
            mend: mend::nothing,
            seeds: token_seeds,
            quick: 24_000,
        },
        Target {
            name: "shard-map",
            run: shard_map,
            mend: mend::nothing,
            seeds: shard_map_seeds,
            quick: 18_000,
        },
    ]
}

/// A request of a type, if it decodes and is sound; a refusal says why.
fn sound<M: Message + Default, T: TryFrom<M, Error = ApiError>>(bytes: &[u8]) -> Option<T> {
    let parsed = T::try_from(M::decode(bytes).ok()?);
    if let Err(error) = &parsed {
        assert!(!error.message().is_empty());
    }
    parsed.ok()
}

pub(super) fn is_sound_item(item: &api::validate::Item) -> bool {
    let known = normalised_term("term", item.term.as_str());
    known.is_ok() && (1..=limits::RECORD_COUNT_MAX).contains(&item.count)
}

/// What passes breaks no limit, and its text is as normalising leaves it.
fn requests(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind {
        0 => {
            if let Some(record) = sound::<v1::RecordRequest, Record>(bytes) {
                assert!(is_sound_item(&record.item));
            }
        }
        1 => {
            if let Some(batch) = sound::<v1::RecordBatchRequest, RecordBatch>(bytes) {
                assert!(batch.items.len() <= limits::BATCH_ITEMS_MAX);
                assert!(batch.items.iter().all(is_sound_item));
            }
        }
        2 => {
            if let Some(asked) = sound::<v1::GetTopKRequest, GetTopK>(bytes) {
                assert!((1..=limits::K_MAX).contains(&asked.k));
                sure(normalised_prefix("prefix", asked.prefix.as_str()));
            }
        }
        3 => {
            if let Some(asked) = sound::<v1::GetCountRequest, GetCount>(bytes) {
                sure(normalised_term("term", asked.term.as_str()));
            }
        }
        4 => {
            if let Some(asked) = sound::<v1::DeleteRequest, Delete>(bytes) {
                sure(normalised_term("term", asked.term.as_str()));
            }
        }
        5 => {
            let _ = sound::<v1::ClearNamespaceRequest, ClearNamespace>(bytes);
        }
        6 => list_terms(bytes),
        _ => {}
    }
}

/// A page's token means the same when it comes back.
fn list_terms(bytes: &[u8]) {
    let Some(asked) = sound::<v1::ListTermsRequest, ListTerms>(bytes) else {
        return;
    };
    assert!((1..=limits::PAGE_TERMS_MAX).contains(&asked.page_size));
    let token = asked.page_token.as_ref();
    let again = v1::ListTermsRequest {
        namespace: asked.namespace.as_str().to_owned(),
        prefix: asked.prefix.as_str().to_owned(),
        page_size: asked.page_size,
        page_token: token.map_or_else(String::new, api::validate::PageToken::encode),
    };
    assert_eq!(sure(ListTerms::try_from(again)), asked);
}

fn request_seeds() -> Vec<Vec<u8>> {
    let encoded = writes().into_iter().chain(reads());
    (0..)
        .zip(encoded)
        .map(|(kind, bytes)| tagged(kind, &bytes))
        .collect()
}

fn namespace() -> String {
    "shop".to_owned()
}

/// By kind: a record, and a batch.
fn writes() -> [Vec<u8>; 2] {
    let item = |term: &str, count| v1::RecordItem {
        term: term.to_owned(),
        count,
    };
    let record = v1::RecordRequest {
        term: "  New  York ".to_owned(),
        count: 3,
        namespace: namespace(),
        request_id: request_id(),
    };
    let batch = v1::RecordBatchRequest {
        items: vec![item("Zürich", 1), item("o\u{308}l", 0), item("İ", 7)],
        namespace: namespace(),
        request_id: request_id(),
    };
    [record.encode_to_vec(), batch.encode_to_vec()]
}

/// By kind: what follows the writes of items.
fn reads() -> [Vec<u8>; 5] {
    let top = v1::GetTopKRequest {
        prefix: "New ".to_owned(),
        k: 20,
        namespace: namespace(),
        token: Some(session_token()),
        ..v1::GetTopKRequest::default()
    };
    let count = v1::GetCountRequest {
        term: "new york".to_owned(),
        namespace: namespace(),
        token: Some(session_token()),
        ..v1::GetCountRequest::default()
    };
    let delete = v1::DeleteRequest {
        term: "new york".to_owned(),
        namespace: namespace(),
        request_id: request_id(),
    };
    let clear = v1::ClearNamespaceRequest {
        namespace: namespace(),
        request_id: request_id(),
    };
    let list = v1::ListTermsRequest {
        namespace: namespace(),
        prefix: "n".to_owned(),
        page_size: 10,
        page_token: "1:new york".to_owned(),
    };
    [
        top.encode_to_vec(),
        count.encode_to_vec(),
        delete.encode_to_vec(),
        clear.encode_to_vec(),
        list.encode_to_vec(),
    ]
}

pub(super) fn request_id() -> Option<v1::RequestId> {
    Some(v1::RequestId {
        client_id: vec![4; 16].into(),
        sequence: 9,
        issued_at_ms: 1_700_000,
        acked_below: 3,
    })
}

fn session_token() -> v1::SessionToken {
    let position = |shard_id| v1::Position {
        shard_id,
        incarnation: 1,
        index: shard_id * 1000,
    };
    v1::SessionToken {
        positions: vec![position(1), position(2)],
    }
}

/// A token that is taken is small, comes back as it went, and gains nothing from itself.
fn token(input: &[u8]) {
    let Ok(wire) = v1::SessionToken::decode(input) else {
        return;
    };
    let Ok(token) = SessionToken::try_from(wire) else {
        return;
    };
    assert!(token.iter().count() <= limits::TOKEN_POSITIONS_MAX);
    let again = sure(SessionToken::try_from(v1::SessionToken::from(&token)));
    assert_eq!(again, token);
    let mut merged = again;
    merged.merge(&token);
    assert_eq!(merged, token);
}

fn token_seeds() -> Vec<Vec<u8>> {
    vec![session_token().encode_to_vec()]
}

/// A map that a client takes from a coordinator is the same when it is passed on.
fn shard_map(input: &[u8]) {
    let Ok(wire) = admin::v1::ShardMap::decode(input) else {
        return;
    };
    let Ok(map) = ShardMap::try_from(wire) else {
        return;
    };
    let again = ShardMap::try_from(admin::v1::ShardMap::from(&map));
    assert_eq!(sure(again), map);
    for namespace in map.namespaces.values() {
        let layout = namespace.layout.as_ref().unwrap_or(&map.template);
        // Every term has an owner, and every prefix somebody to ask.
        let _ = layout.owner("new york");
        assert!(!layout.cover("n").is_empty());
    }
}

pub(super) fn shard_map_seeds() -> Vec<Vec<u8>> {
    use admin::v1::{
        Layout, LayoutRange, NamespaceDescriptor, NodeDescriptor, ReplicaDescriptor,
        ShardDescriptor, ShardMap,
    };
    let layout = || {
        let range = |start: &str, shard_id| LayoutRange {
            start: start.to_owned(),
            shard_id,
        };
        Layout {
            ranges: vec![range("", 1), range("m", 2)],
        }
    };
    let namespace = |namespace_id, name: &str, layout| NamespaceDescriptor {
        namespace_id,
        name: name.to_owned(),
        generation: 1,
        normaliser_version: 1,
        layout,
    };
    let map = ShardMap {
        epoch: 5,
        template: Some(layout()),
        shards: (1..=2)
            .map(|shard_id| ShardDescriptor {
                shard_id,
                incarnation: 1,
                replicas: vec![ReplicaDescriptor {
                    node_id: shard_id,
                    voter: true,
                }],
                ..ShardDescriptor::default()
            })
            .collect(),
        nodes: (1..=2)
            .map(|node_id| NodeDescriptor {
                node_id,
                name: format!("node-{node_id}"),
                address: format!("host-{node_id}:1"),
                ..NodeDescriptor::default()
            })
            .collect(),
        namespaces: vec![
            namespace(1, "default", None),
            namespace(2, "shop", Some(layout())),
        ],
    };
    vec![map.encode_to_vec()]
}
