use cluster::{ClusterId, Epoch, Generation, Incarnation, Layout, NodeId, ShardId, limits};
use proptest::prelude::*;
use repeat_table::{ClientId, RequestId};

use super::*;

fn begun(shards: usize) -> State {
    let mut state = State::default();
    let init = Command::Init {
        cluster: ClusterId([7; 16]),
        template: Layout::for_english(shards).unwrap(),
        replicas: 1,
    };
    assert_eq!(state.apply(0, init), Response::Done);
    state
}

fn register(state: &mut State, name: &str, instance: u8) -> Response {
    state.apply(
        0,
        Command::RegisterNode(Registration {
            name: name.into(),
            address: format!("{name}:1"),
            region: String::new(),
            instance: [instance; 16],
        }),
    )
}

fn issued(id: u64) -> Response {
    Response::Node {
        id: NodeId(id),
        cluster: ClusterId([7; 16]),
    }
}

fn seed(incarnation: u64, index: u64) -> Seed {
    Seed {
        incarnation: Incarnation(incarnation),
        raft_term: 1,
        index,
        bytes: 10,
        hash: [3; 32],
        taken_at_ms: 5,
    }
}

fn create(name: &str) -> Command {
    Command::CreateNamespace {
        name: name.into(),
        normaliser_version: 1,
        unicode_version: "18.0.0".into(),
    }
}

fn clear(name: &str, request: Option<(RequestId, u64)>) -> Command {
    Command::RaiseGeneration {
        name: name.into(),
        request,
    }
}

#[test]
fn a_clear_may_be_issued_as_far_ahead_as_is_allowed() {
    let mut state = begun(1);
    state.apply(0, create("a"));
    let ahead = limits::ISSUED_AHEAD_MAX.as_millis() as i64;
    let id = RequestId {
        client: ClientId([1; 16]),
        sequence: 1,
        issued_at_ms: 100 + ahead,
        acked_below: 0,
    };
    let second = Response::Generation {
        generation: Generation(2),
    };
    assert_eq!(state.apply(100, clear("a", Some((id, 5)))), second);
}

#[test]
fn nothing_happens_before_the_cluster_has_begun_and_it_begins_once() {
    let mut state = State::default();
    assert_eq!(
        state.apply(0, create("a")),
        Response::Refused(Refusal::NotInitialised)
    );
    let mut state = begun(2);
    let again = Command::Init {
        cluster: ClusterId([9; 16]),
        template: Layout::for_english(5).unwrap(),
        replicas: 3,
    };
    let refused = Refusal::Initialised {
        cluster: ClusterId([7; 16]),
    };
    assert_eq!(state.apply(0, again), Response::Refused(refused));
    assert_eq!(state.shards.len(), 2);
}

#[test]
fn an_instance_keeps_its_identity_and_a_new_one_of_the_same_name_takes_its_place() {
    let mut state = begun(1);
    assert_eq!(register(&mut state, "one", 1), issued(1));
    assert_eq!(register(&mut state, "one", 1), issued(1), "a retry");
    assert_eq!(register(&mut state, "two", 2), issued(2));
    assert_eq!(
        register(&mut state, "one", 3),
        issued(3),
        "an empty disk is a new identity"
    );
    assert!(state.nodes[&NodeId(1)].node.lost);
    assert!(!state.nodes[&NodeId(2)].node.lost);
    let gone = Refusal::NodeLost { node: NodeId(1) };
    assert_eq!(register(&mut state, "one", 1), Response::Refused(gone));
}

#[test]
fn a_placed_shard_stays_where_it_is() {
    let mut state = begun(2);
    register(&mut state, "one", 1);
    register(&mut state, "two", 2);
    let place = |shard, node| Command::PlaceShards(vec![(ShardId(shard), vec![NodeId(node)])]);
    state.apply(0, place(1, 1));
    let epoch = state.epoch;
    state.apply(0, place(1, 2));
    assert_eq!(state.shards[&ShardId(1)].shard.replicas[0].node, NodeId(1));
    assert_eq!(state.epoch, epoch, "nothing changed");
    let unknown = Refusal::UnknownNode { node: NodeId(9) };
    assert_eq!(state.apply(0, place(2, 9)), Response::Refused(unknown));
}

#[test]
fn of_two_new_lives_that_race_one_is_refused() {
    let mut state = begun(1);
    register(&mut state, "one", 1);
    let life = || {
        Command::NewIncarnation(NewLife {
            shard: ShardId(1),
            from: Incarnation(1),
            node: NodeId(1),
            seed: Some(seed(1, 40)),
        })
    };
    state.apply(
        0,
        Command::NoteProgress(vec![ShardProgress {
            shard: ShardId(1),
            incarnation: Incarnation(1),
            index: 55,
        }]),
    );
    assert_eq!(
        state.apply(0, life()),
        Response::Incarnation {
            incarnation: Incarnation(2),
            last_known_index: 55
        }
    );
    let late = Refusal::StaleIncarnation {
        current: Incarnation(2),
    };
    assert_eq!(state.apply(0, life()), Response::Refused(late));
    assert!(!state.shards[&ShardId(1)].begun);
    assert_eq!(state.shards[&ShardId(1)].recoveries, 1);
}

#[test]
fn the_lineage_says_how_much_of_each_life_is_left() {
    let mut state = begun(1);
    register(&mut state, "one", 1);
    let mut live = |from, seed| {
        state.apply(
            0,
            Command::NewIncarnation(NewLife {
                shard: ShardId(1),
                from: Incarnation(from),
                node: NodeId(1),
                seed,
            }),
        );
        let lineage = &state.shards[&ShardId(1)].shard.lineage;
        lineage
            .iter()
            .map(|life| (life.incarnation.0, life.last_index))
            .collect::<Vec<_>>()
    };
    assert_eq!(live(1, Some(seed(1, 40))), [(1, 40)]);
    assert_eq!(live(2, Some(seed(2, 70))), [(1, 40), (2, 70)]);
    assert_eq!(
        live(3, Some(seed(1, 30))),
        [(1, 30), (2, 0), (3, 0)],
        "an old snapshot takes the later lives along"
    );
    assert_eq!(live(4, None), [(1, 0), (2, 0), (3, 0), (4, 0)]);
}

#[test]
fn a_repeated_clear_raises_the_generation_once() {
    let mut state = begun(1);
    state.apply(0, create("a"));
    let id = |sequence, issued_at_ms| RequestId {
        client: ClientId([1; 16]),
        sequence,
        issued_at_ms,
        acked_below: 0,
    };
    let second = Response::Generation {
        generation: Generation(2),
    };
    assert_eq!(state.apply(100, clear("a", Some((id(1, 100), 5)))), second);
    assert_eq!(state.apply(101, clear("a", Some((id(1, 100), 5)))), second);
    assert_eq!(
        state.apply(102, clear("a", Some((id(1, 100), 6)))),
        Response::Refused(Refusal::RequestIdReused)
    );
    let ahead = limits::ISSUED_AHEAD_MAX.as_millis() as i64 + 1;
    assert_eq!(
        state.apply(100, clear("a", Some((id(2, 100 + ahead), 5)))),
        Response::Refused(Refusal::IssuedAhead)
    );
    assert_eq!(
        state.apply(100, clear("nobody", None)),
        Response::Generation {
            generation: Generation(0)
        }
    );
}

#[test]
fn namespaces_have_an_end() {
    let mut state = begun(1);
    for number in 0..limits::NAMESPACES_MAX {
        assert_eq!(
            state.apply(0, create(&format!("n{number}"))),
            Response::Namespace
        );
    }
    assert_eq!(
        state.apply(0, create("one-more")),
        Response::Refused(Refusal::TooManyNamespaces)
    );
    assert_eq!(
        state.apply(0, create("n0")),
        Response::Namespace,
        "those that exist are found"
    );
}

fn member_steps() -> impl Strategy<Value = Command> {
    let node = || proptest::option::of((1..6u64).prop_map(NodeId));
    let replicas = proptest::collection::vec((1..6u64, any::<bool>()), 0..4);
    let intent = proptest::option::of((node(), any::<bool>(), node()));
    let settled = (0..4u64, 1..3u64, 0..6u64).prop_map(|(shard, life, expected)| {
        Command::SettleMembers(Settled {
            shard: ShardId(shard),
            incarnation: Incarnation(life),
            expected,
        })
    });
    let step = (0..4u64, 1..3u64, 0..6u64, replicas, intent, any::<bool>()).prop_map(
        |(shard, life, expected, replicas, intent, settled)| {
            let replica = |(node, voter)| cluster::Replica {
                node: NodeId(node),
                voter,
            };
            let intent = intent.map(|(add, votes, remove)| Intent {
                add,
                votes,
                remove,
                reason: "why".into(),
            });
            Command::ChangeReplicas(NewReplicas {
                shard: ShardId(shard),
                incarnation: Incarnation(life),
                expected,
                replicas: replicas.into_iter().map(replica).collect(),
                intent,
                settled,
            })
        },
    );
    prop_oneof![3 => step, 1 => settled]
}

fn turns() -> impl Strategy<Value = Command> {
    let outcome = prop_oneof![
        Just(TurnOutcome::Recovered),
        Just(TurnOutcome::TimedOut),
        Just(TurnOutcome::Expired)
    ];
    let begin = (0..4u64, 0..3u8, 0..4u64, 0..2_000u64, any::<bool>());
    let begin = begin.prop_map(|(shard, who, known, lease_ms, acts)| {
        Command::BeginRecovery(TurnRequest {
            shard: ShardId(shard),
            watchdog: format!("w{who}"),
            known,
            reason: "silent".into(),
            lease_ms,
            concurrent_percent: 50,
            acts,
        })
    });
    let end = (0..4u64, 0..3u8, 0..4u64, outcome);
    let end = end.prop_map(|(shard, who, attempt, outcome)| {
        Command::EndRecovery(TurnEnd {
            shard: ShardId(shard),
            watchdog: format!("w{who}"),
            attempt,
            outcome,
        })
    });
    prop_oneof![begin, end]
}

fn admissions() -> impl Strategy<Value = Command> {
    (1..5u64, 0..6u8, 0..4u64).prop_map(|(number, instance, begun)| {
        let begun = (1..begun).map(|id| (NodeId(id), [id as u8; 16]));
        Command::AdmitCoordinator(Admission {
            number: NodeId(number),
            instance: [instance; 16],
            begun: begun.collect(),
        })
    })
}

fn commands() -> impl Strategy<Value = Command> {
    let node = || (0..6u64).prop_map(NodeId);
    let shard = || (0..4u64).prop_map(ShardId);
    let name = || prop_oneof![Just("a"), Just("b"), Just("not allowed")];
    prop_oneof![
        (0..3usize, any::<[u8; 16]>()).prop_map(|(shards, id)| Command::Init {
            cluster: ClusterId(id),
            template: Layout::for_english(shards + 1).unwrap(),
            replicas: 1
        }),
        (0..3u8, 0..6u8).prop_map(|(name, instance)| Command::RegisterNode(Registration {
            name: format!("node-{name}"),
            address: format!("host-{instance}:1"),
            region: "r".into(),
            instance: [instance; 16],
        })),
        (node(), 0..3u8).prop_map(|(node, port)| Command::UpdateAddress {
            node,
            address: format!("moved:{port}")
        }),
        proptest::collection::vec((shard(), proptest::collection::vec(node(), 0..3)), 0..3)
            .prop_map(Command::PlaceShards),
        (shard(), 1..4u64).prop_map(|(shard, life)| Command::ShardBegun {
            shard,
            incarnation: Incarnation(life)
        }),
        node().prop_map(|node| Command::MarkNodeLost { node }),
        (node(), any::<bool>())
            .prop_map(|(node, draining)| Command::SetDraining { node, draining }),
        member_steps(),
        prop_oneof![turns(), admissions()],
        name().prop_map(create),
        (
            name(),
            proptest::option::of((0..3u8, 0..4u64, 0..9i64, 0..3u64, 0..2u64))
        )
            .prop_map(|(name, id)| {
                let request = id.map(|(client, sequence, issued_at_ms, acked_below, print)| {
                    let id = RequestId {
                        client: ClientId([client; 16]),
                        sequence,
                        issued_at_ms,
                        acked_below,
                    };
                    (id, print)
                });
                clear(name, request)
            }),
        (
            shard(),
            1..4u64,
            node(),
            proptest::option::of((1..4u64, 0..100u64))
        )
            .prop_map(|(shard, from, node, at)| {
                Command::NewIncarnation(NewLife {
                    shard,
                    from: Incarnation(from),
                    node,
                    seed: at.map(|(life, index)| seed(life, index)),
                })
            }),
        proptest::collection::vec((shard(), 1..4u64, 0..100u64), 0..3).prop_map(|list| {
            let progress = |(shard, life, index)| ShardProgress {
                shard,
                incarnation: Incarnation(life),
                index,
            };
            Command::NoteProgress(list.into_iter().map(progress).collect())
        }),
    ]
}

/// What only later versions know.
fn of_the_second_version() -> Vec<Command> {
    let step = NewReplicas {
        shard: ShardId(1),
        incarnation: Incarnation(1),
        expected: 1,
        replicas: [(2, true), (3, true), (4, false)]
            .map(|(node, voter)| cluster::Replica {
                node: NodeId(node),
                voter,
            })
            .to_vec(),
        intent: Some(Intent {
            add: Some(NodeId(4)),
            votes: true,
            remove: Some(NodeId(2)),
            reason: "node two drains".into(),
        }),
        settled: false,
    };
    let turn = |shard| {
        Command::BeginRecovery(TurnRequest {
            shard: ShardId(shard),
            watchdog: "watchdog-1".into(),
            known: 0,
            reason: "no answer".into(),
            lease_ms: 1_000,
            concurrent_percent: 100,
            acts: true,
        })
    };
    let over = TurnEnd {
        shard: ShardId(1),
        watchdog: "watchdog-1".into(),
        attempt: 1,
        outcome: TurnOutcome::Recovered,
    };
    vec![
        Command::ChangeReplicas(step),
        Command::SetDraining {
            node: NodeId(2),
            draining: true,
        },
        turn(1),
        turn(2),
        Command::EndRecovery(over),
    ]
}

/// What version 3 of the snapshot has more.
fn of_the_third_version() -> Vec<Command> {
    let begun = (1..=3).map(|id| (NodeId(id), [id as u8; 16])).collect();
    vec![Command::AdmitCoordinator(Admission {
        number: NodeId(2),
        instance: [22; 16],
        begun,
    })]
}

/// What version 4 of the snapshot has more: a node that set its data aside, a change that another one replaced, and one whose newcomer
/// has come.
fn of_the_fourth_version() -> Vec<Command> {
    let step = |expected, replicas: &[(u64, bool)], add: u64, remove, reason: &str| {
        let replica = |(node, voter): &(u64, bool)| cluster::Replica {
            node: NodeId(*node),
            voter: *voter,
        };
        Command::ChangeReplicas(NewReplicas {
            shard: ShardId(1),
            incarnation: Incarnation(1),
            expected,
            replicas: replicas.iter().map(replica).collect(),
            intent: Some(Intent {
                add: (add > 0).then_some(NodeId(add)),
                votes: true,
                remove: Some(NodeId(remove)),
                reason: reason.into(),
            }),
            settled: false,
        })
    };
    let both = [(2, true), (3, true), (4, true)];
    vec![
        step(2, &both, 0, 2, "node two drains"),
        step(3, &both, 0, 3, "node three is lost"),
        Command::MarkNodeLost { node: NodeId(3) },
    ]
}

/// As older versions tell it: nothing of why a node is lost, who has come, and what is over.
fn before_the_fourth(mut state: State) -> State {
    for record in state.nodes.values_mut() {
        record.loss = Loss::Unknown;
    }
    for record in state.shards.values_mut() {
        record.members.ended.clear();
        if let Some(change) = &mut record.members.change {
            change.came = None;
        }
    }
    state
}

/// A state with something of everything that a version of the snapshot knows.
fn full(version: u16) -> State {
    let mut state = begun(2);
    for (name, instance) in [("one", 1), ("two", 2), ("three", 3), ("one", 4)] {
        register(&mut state, name, instance);
    }
    let nodes = [2, 3].map(NodeId).to_vec();
    let mut commands = vec![
        Command::PlaceShards(vec![(ShardId(1), nodes)]),
        Command::ShardBegun {
            shard: ShardId(1),
            incarnation: Incarnation(1),
        },
        Command::NewIncarnation(NewLife {
            shard: ShardId(2),
            from: Incarnation(1),
            node: NodeId(2),
            seed: Some(seed(1, 40)),
        }),
        create("a"),
        clear("a", None),
    ];
    if version >= 2 {
        commands.extend(of_the_second_version());
    }
    if version >= 3 {
        commands.extend(of_the_third_version());
    }
    if version >= 4 {
        commands.extend(of_the_fourth_version());
    }
    for command in commands {
        let response = state.apply(50, command);
        assert!(!matches!(response, Response::Refused(_)), "{response:?}");
    }
    state
}

#[test]
fn snapshots_of_every_version_open_for_ever() {
    let first = include_bytes!("../../fixtures/metadata-v1.snapshot");
    let mut expected = before_the_fourth(full(1));
    for record in expected.shards.values_mut() {
        record.members = Members::default();
    }
    let state = snapshot::decode(&mut first.as_slice()).unwrap();
    assert_eq!(snapshot::encode(&state), snapshot::encode(&expected));
    let second = include_bytes!("../../fixtures/metadata-v2.snapshot");
    let state = snapshot::decode(&mut second.as_slice()).unwrap();
    let expected = before_the_fourth(full(2));
    assert_eq!(snapshot::encode(&state), snapshot::encode(&expected));
    let third = include_bytes!("../../fixtures/metadata-v3.snapshot");
    let state = snapshot::decode(&mut third.as_slice()).unwrap();
    let expected = before_the_fourth(full(3));
    assert_eq!(snapshot::encode(&state), snapshot::encode(&expected));
    let fourth = include_bytes!("../../fixtures/metadata-v4.snapshot");
    let state = snapshot::decode(&mut fourth.as_slice()).unwrap();
    assert_eq!(snapshot::encode(&state), fourth);
    assert_eq!(snapshot::encode(&full(4)), fourth);
}

proptest! {
    #[test]
    fn a_command_is_read_as_it_was_written(command in commands()) {
        let bytes = command.encode();
        prop_assert_eq!(Command::decode(command.kind(), &bytes).unwrap(), Some(command.clone()));
        let mut longer = bytes.clone();
        longer.push(0);
        prop_assert!(Command::decode(command.kind(), &longer).is_err());
        if let Some((_, shorter)) = bytes.split_last() {
            prop_assert!(Command::decode(command.kind(), shorter).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_but_never_panic(kind in 0u16..33, bytes: Vec<u8>) {
        let _ = Command::decode(kind, &bytes);
        prop_assert!(snapshot::decode(&mut bytes.as_slice()).is_err());
    }

    /// Whatever happens: identities are never reused, the epoch rises with each visible change and only then, refusals change
    /// nothing, lives only rise, and a snapshot in the middle makes no difference.
    #[test]
    fn the_rules_hold_in_every_history(list in proptest::collection::vec(commands(), 0..60), cut in 0usize..60) {
        let mut state = State::default();
        let mut restored = State::default();
        let mut instances = std::collections::BTreeMap::new();
        for (number, command) in list.into_iter().enumerate() {
            if number == cut {
                restored = snapshot::decode(&mut snapshot::encode(&state).as_slice()).unwrap();
            }
            let before = state.clone();
            let response = state.apply(1_000, command.clone());
            if number >= cut {
                prop_assert_eq!(&restored.apply(1_000, command), &response);
            }
            let visible = |state: &State| state.map().map(|map| cluster::ShardMap { epoch: Epoch(0), ..map });
            let changed = visible(&before) != visible(&state);
            prop_assert_eq!(changed, before.epoch != state.epoch);
            prop_assert!(state.epoch.0 - before.epoch.0 <= 1);
            if matches!(response, Response::Refused(_)) {
                prop_assert_eq!(snapshot::encode(&before), snapshot::encode(&state));
            }
            for (id, record) in &state.nodes {
                prop_assert_eq!(instances.entry(*id).or_insert(record.instance), &record.instance);
                prop_assert!(!before.nodes.get(id).is_some_and(|old| old.node.lost && !record.node.lost));
            }
            for (id, record) in &before.shards {
                let now = &state.shards[id];
                prop_assert!(now.shard.incarnation >= record.shard.incarnation);
                prop_assert!(now.begun || now.shard.incarnation > record.shard.incarnation || !record.begun);
            }
        }
        if cut < 60 {
            let bytes = snapshot::encode(&state);
            let again = snapshot::decode(&mut bytes.as_slice()).unwrap();
            prop_assert_eq!(snapshot::encode(&again), bytes);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_snapshot_is_noticed(at in 0usize..10_000, bit in 0u32..8) {
        let mut state = begun(3);
        register(&mut state, "one", 1);
        state.apply(0, create("a"));
        let mut bytes = snapshot::encode(&state);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(snapshot::decode(&mut bytes.as_slice()).is_err());
    }
}

#[test]
fn what_would_happen_twice_is_not_proposed_again() {
    let id = RequestId {
        client: ClientId([1; 16]),
        sequence: 1,
        issued_at_ms: 0,
        acked_below: 0,
    };
    assert!(clear("a", Some((id, 5))).is_idempotent());
    assert!(!clear("a", None).is_idempotent());
}

#[test]
fn progress_only_rises_and_is_that_of_the_present_life() {
    let mut state = begun(1);
    register(&mut state, "one", 1);
    let note = |state: &mut State, life, index| {
        let at = ShardProgress {
            shard: ShardId(1),
            incarnation: Incarnation(life),
            index,
        };
        state.apply(0, Command::NoteProgress(vec![at]));
        state.shards[&ShardId(1)].last_known_index
    };
    assert_eq!([note(&mut state, 1, 55), note(&mut state, 1, 40)], [55, 55]);
    let life = NewLife {
        shard: ShardId(1),
        from: Incarnation(1),
        node: NodeId(1),
        seed: Some(seed(1, 40)),
    };
    state.apply(0, Command::NewIncarnation(life));
    assert_eq!([note(&mut state, 1, 60), note(&mut state, 2, 45)], [40, 45]);
}
