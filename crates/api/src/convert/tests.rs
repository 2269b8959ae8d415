use std::sync::Arc;

use cluster::{
    Ancestor, Epoch, Generation, Incarnation, KeyRange, Layout, MapError, Namespace, NamespaceId,
    Node, NodeId, Position, Replica, SessionToken, Shard, ShardId, ShardMap, limits,
};
use term::NamespaceName;
use tonic::Code;

use super::*;
use crate::{Reason, admin::v1 as admin, v1};

fn map() -> ShardMap {
    let shard = Shard {
        id: ShardId(1),
        incarnation: Incarnation(2),
        replicas: vec![Replica {
            node: NodeId(4),
            voter: true,
        }],
        lineage: vec![Ancestor {
            shard: ShardId(1),
            incarnation: Incarnation(1),
            last_index: 77,
        }],
    };
    let node = Node {
        id: NodeId(4),
        name: "shard-1".into(),
        address: "shard-1:50051".into(),
        region: "eu".into(),
        lost: false,
    };
    let namespace = Namespace {
        id: NamespaceId(9),
        name: NamespaceName::new("users").unwrap(),
        generation: Generation(3),
        normaliser_version: 1,
        layout: Some(Arc::new(
            Layout::new(vec![("".into(), ShardId(1)), ("m".into(), ShardId(2))]).unwrap(),
        )),
    };
    ShardMap {
        epoch: Epoch(12),
        template: Arc::new(Layout::for_english(3).unwrap()),
        shards: [(shard.id, shard)].into(),
        nodes: [(node.id, node)].into(),
        namespaces: [(namespace.name.clone(), namespace)].into(),
    }
}

#[test]
fn a_map_and_back_is_the_same_map() {
    assert_eq!(ShardMap::try_from(admin::ShardMap::from(&map())), Ok(map()));
}

#[test]
fn broken_maps_are_refused_with_the_field() {
    let good = admin::ShardMap::from(&map());
    let broken = |change: &dyn Fn(&mut admin::ShardMap)| {
        let mut wire = good.clone();
        change(&mut wire);
        ShardMap::try_from(wire).unwrap_err()
    };
    let field = |error: &MapError| {
        let MapError::Malformed { field, .. } = error else {
            panic!("{error}");
        };
        (*field).to_owned()
    };
    assert_eq!(field(&broken(&|map| map.template = None)), "template");
    assert_eq!(
        field(&broken(&|map| map.shards.push(map.shards[0].clone()))),
        "shards"
    );
    assert_eq!(
        field(&broken(&|map| map.nodes.push(map.nodes[0].clone()))),
        "nodes"
    );
    assert_eq!(
        field(&broken(&|map| map
            .namespaces
            .push(map.namespaces[0].clone()))),
        "namespaces"
    );
    for name in ["", "Not Allowed"] {
        assert_eq!(
            field(&broken(&|map| map.namespaces[0].name = name.into())),
            "namespaces.name"
        );
    }
    assert_eq!(
        broken(&|map| map.template = Some(admin::Layout::default())),
        MapError::NoRanges
    );
}

#[test]
fn ranges_go_both_ways_and_empty_ones_are_refused() {
    for range in [
        KeyRange::full(),
        KeyRange::of_prefix("ab"),
        KeyRange::new("a".into(), None).unwrap(),
    ] {
        assert_eq!(KeyRange::try_from(v1::TermRange::from(&range)), Ok(range));
    }
    let empty = v1::TermRange {
        start: "b".into(),
        end: "a".into(),
    };
    let error = KeyRange::try_from(empty).unwrap_err();
    assert_eq!(error.reason(), Reason::BadArgument);
}

#[test]
fn tokens_keep_the_highest_position_and_are_bounded() {
    let at = |index| Position {
        shard: ShardId(1),
        incarnation: Incarnation(2),
        index,
    };
    let wire = v1::SessionToken {
        positions: vec![at(5).into(), at(9).into(), at(7).into()],
    };
    let token = SessionToken::try_from(wire).unwrap();
    assert_eq!(token.iter().collect::<Vec<_>>(), [at(9)]);
    assert_eq!(
        SessionToken::try_from(v1::SessionToken::from(&token)),
        Ok(token)
    );

    let positions = (0..=limits::TOKEN_POSITIONS_MAX as u64)
        .map(|shard_id| v1::Position {
            shard_id,
            incarnation: 1,
            index: 1,
        })
        .collect();
    let error = SessionToken::try_from(v1::SessionToken { positions }).unwrap_err();
    assert_eq!(error.reason(), Reason::BadToken);
}

#[test]
fn request_ids_are_checked() {
    let good = RequestId {
        client: [7; 16],
        sequence: 3,
        issued_at_ms: 1_700_000_000_000,
        acked_below: 3,
    };
    let wire = v1::RequestId::from(good);
    assert_eq!(RequestId::try_from(&wire), Ok(good));

    let refused = |change: &dyn Fn(&mut v1::RequestId)| {
        let mut wire = wire.clone();
        change(&mut wire);
        let error = RequestId::try_from(&wire).unwrap_err();
        assert_eq!(error.reason(), Reason::BadRequestId);
        assert_eq!(error.code(), Code::InvalidArgument);
        error.field_name().unwrap().to_owned()
    };
    for length in [0, 15, 17] {
        let client_id = vec![1; length];
        assert_eq!(
            refused(&|id| id.client_id = client_id.clone().into()),
            "request_id.client_id"
        );
    }
    assert_eq!(
        refused(&|id| id.issued_at_ms = -1),
        "request_id.issued_at_ms"
    );
    assert_eq!(refused(&|id| id.acked_below = 4), "request_id.acked_below");
}

#[test]
fn levels_of_consistency_are_closed() {
    for level in [
        Consistency::Leader,
        Consistency::Linearizable,
        Consistency::Stale,
    ] {
        let number = v1::Consistency::from(level) as i32;
        assert_eq!(Consistency::parse(number), Ok(level));
    }
    assert_eq!(Consistency::parse(0), Ok(Consistency::Leader));
    assert_eq!(
        Consistency::parse(4).unwrap_err().reason(),
        Reason::BadArgument
    );
}
