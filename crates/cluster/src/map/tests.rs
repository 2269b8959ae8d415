use super::*;

fn map() -> ShardMap {
    let shard = |id, incarnation, lineage| {
        (
            ShardId(id),
            Shard {
                id: ShardId(id),
                incarnation: Incarnation(incarnation),
                replicas: vec![Replica {
                    node: NodeId(id),
                    voter: true,
                }],
                lineage,
            },
        )
    };
    let ancestor = Ancestor {
        shard: ShardId(2),
        incarnation: Incarnation(1),
        last_index: 100,
    };
    ShardMap {
        epoch: Epoch(4),
        template: Arc::new(Layout::for_english(2).unwrap()),
        shards: BTreeMap::from([shard(1, 1, vec![]), shard(2, 2, vec![ancestor])]),
        nodes: BTreeMap::new(),
        namespaces: BTreeMap::new(),
    }
}

fn at(shard: u64, incarnation: u64, index: u64) -> Position {
    Position {
        shard: ShardId(shard),
        incarnation: Incarnation(incarnation),
        index,
    }
}

#[test]
fn positions_translate_through_the_lineage() {
    let map = map();
    assert_eq!(map.translate(at(1, 1, 7)), Some(Some(at(1, 1, 7))));
    assert_eq!(
        map.translate(at(2, 1, 100)),
        Some(None),
        "contained in the descendant"
    );
    assert_eq!(map.translate(at(2, 1, 101)), None, "was lost");
    assert_eq!(map.translate(at(2, 3, 1)), None, "a life nobody knows");
    assert_eq!(map.translate(at(9, 1, 1)), None, "a shard nobody knows");
}

#[test]
fn the_shard_key_is_the_first_term_in_the_template() {
    let map = map();
    assert_eq!(map.shard_key(ShardId(1)), "");
    assert_eq!(map.shard_key(ShardId(2)), map.template.starts()[1].0);
}
