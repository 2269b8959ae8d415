use std::time::Duration;

use api::admin::v1::{ReplicaRole, ReplicaStatus, ShardState};
use cluster::{ClusterId, Layout};
use proptest::prelude::*;

use super::super::{Command, NewLife, Registration};
use super::*;
use crate::liveness::{Heard, Report};

/// Nodes, and whether they vote.
type Listed = [(u64, bool)];

const SHARD: ShardId = ShardId(1);

impl State {
    /// A shard that was given nodes 1 to 3 of so many, of which the first is to begin it.
    pub(crate) fn placed(nodes: u8) -> Self {
        let mut state = Self::default();
        let init = Command::Init {
            cluster: ClusterId([7; 16]),
            template: Layout::for_english(1).unwrap(),
            replicas: 3,
        };
        state.apply(0, init);
        for node in 1..=nodes {
            let registration = Registration {
                name: format!("n{node}"),
                address: format!("n{node}:1"),
                region: String::new(),
                instance: [node; 16],
            };
            state.apply(0, Command::RegisterNode(registration));
        }
        let nodes = [1, 2, 3].map(NodeId).to_vec();
        state.apply(0, Command::PlaceShards(vec![(SHARD, nodes)]));
        state
    }

    /// The same, once it has begun it.
    pub(crate) fn founded(nodes: u8) -> Self {
        let mut state = Self::placed(nodes);
        let (shard, incarnation) = (SHARD, Incarnation(1));
        state.apply(0, Command::ShardBegun { shard, incarnation });
        state
    }
}

fn replicas(list: &Listed) -> Vec<Replica> {
    let replica = |(node, voter): &(u64, bool)| Replica {
        node: NodeId(*node),
        voter: *voter,
    };
    list.iter().map(replica).collect()
}

fn intent(add: u64, remove: u64) -> Option<Intent> {
    let node = |id: u64| (id > 0).then_some(NodeId(id));
    Some(Intent {
        add: node(add),
        votes: true,
        remove: node(remove),
        reason: "a test".into(),
    })
}

fn step(state: &State, list: &Listed, intent: Option<Intent>) -> NewReplicas {
    let record = &state.shards[&SHARD];
    NewReplicas {
        shard: SHARD,
        incarnation: record.shard.incarnation,
        expected: record.members.version,
        replicas: replicas(list),
        intent,
        settled: false,
    }
}

fn take(state: &mut State, list: &Listed, intent: Option<Intent>) -> Response {
    let step = step(state, list, intent);
    state.apply(5, Command::ChangeReplicas(step))
}

const OLD: [(u64, bool); 3] = [(1, true), (2, true), (3, true)];
const COMING: [(u64, bool); 4] = [(1, true), (2, true), (3, true), (4, false)];
const BOTH: [(u64, bool); 4] = [(1, true), (2, true), (3, true), (4, true)];
const NEW: [(u64, bool); 3] = [(1, true), (3, true), (4, true)];

#[test]
fn a_replica_is_replaced_step_by_step_and_each_step_may_be_repeated() {
    let mut state = State::founded(5);
    let steps: [(&Listed, Option<Intent>); 3] =
        [(&COMING, intent(4, 2)), (&BOTH, intent(0, 2)), (&NEW, None)];
    for (list, intent) in steps {
        let step = step(&state, list, intent.clone());
        let before = state.epoch;
        for _ in 0..2 {
            let command = Command::ChangeReplicas(step.clone());
            assert_eq!(state.apply(5, command), Response::Done);
        }
        assert_eq!(state.epoch.0, before.0 + 1);
        let record = &state.shards[&SHARD];
        assert_eq!(record.shard.replicas, replicas(list));
        let change = record.members.change.clone();
        assert_eq!(change.map(|change| change.intent), intent);
    }
    let members = &state.shards[&SHARD].members;
    assert_eq!(members.former, [NodeId(2)]);
    assert_eq!(members.ended, [ended(4, 2, "a test", (5, 5))]);
}

fn ended(add: u64, remove: u64, reason: &str, (began_ms, ended_ms): (i64, i64)) -> EndedChange {
    let node = |id: u64| (id > 0).then_some(NodeId(id));
    EndedChange {
        add: node(add),
        remove: node(remove),
        reason: reason.to_owned(),
        began_ms,
        ended_ms,
    }
}

#[test]
fn what_was_done_is_remembered_with_its_reason_and_not_for_ever() {
    let mut state = State::founded(5);
    let mut at = 10;
    let mut take = |state: &mut State, list: &Listed, intent: Option<Intent>| {
        at += 1;
        let step = step(state, list, intent);
        let taken = state.apply(at, Command::ChangeReplicas(step));
        assert_eq!(taken, Response::Done);
    };
    take(&mut state, &COMING, intent(4, 2));
    let failed = Intent {
        reason: "it came and failed".into(),
        ..intent(0, 4).unwrap()
    };
    take(&mut state, &COMING, Some(failed));
    take(&mut state, &OLD, None);
    let both = [
        ended(4, 2, "a test", (11, 12)),
        ended(0, 4, "it came and failed", (11, 13)),
    ];
    assert_eq!(state.shards[&SHARD].members.ended, both);
    settle(&mut state);
    let with_five = [OLD.as_slice(), &[(5, false)]].concat();
    for _ in 0..ENDED_MAX {
        take(&mut state, &with_five, intent(5, 0));
        take(&mut state, &with_five, intent(0, 5));
        take(&mut state, &OLD, None);
        settle(&mut state);
    }
    let members = &state.shards[&SHARD].members;
    assert_eq!(members.ended.len(), ENDED_MAX);
    assert!(members.ended.iter().all(|at| at.reason == "a test"));
    // A new life ends what was under way, and forgets nothing.
    take(&mut state, &with_five, intent(5, 1));
    let life = NewLife {
        shard: SHARD,
        from: Incarnation(1),
        node: NodeId(3),
        seed: None,
    };
    state.apply(99, Command::NewIncarnation(life));
    let members = &state.shards[&SHARD].members;
    assert_eq!(members.change, None);
    let last = members.ended.back().unwrap();
    assert_eq!((last.add, last.ended_ms), (Some(NodeId(5)), 99));
}

#[test]
fn what_is_no_step_is_refused() {
    let mut state = State::founded(5);
    let bad = |state: &mut State, list: &Listed, intent: Option<Intent>| {
        let answer = take(state, list, intent);
        assert!(
            matches!(answer, Response::Refused(Refusal::BadMembers { .. })),
            "{answer:?}"
        );
    };
    bad(&mut state, &BOTH, intent(4, 2));
    bad(&mut state, &COMING, intent(5, 2));
    bad(&mut state, &COMING, None);
    bad(&mut state, &NEW[..2], None);
    bad(&mut state, &OLD, intent(0, 9));
    bad(&mut state, &OLD, intent(0, 0));
    bad(&mut state, &OLD, intent(1, 1));
    bad(&mut state, &[(1, true), (1, true)], None);
    bad(&mut state, &[(1, true), (2, false), (3, true)], None);
    bad(&mut state, &[], None);
    let mut late = step(&state, &COMING, intent(4, 2));
    assert_eq!(take(&mut state, &COMING, intent(4, 3)), Response::Done);
    let stale = Refusal::StaleMembers { current: 2 };
    let answer = state.apply(6, Command::ChangeReplicas(late.clone()));
    assert_eq!(answer, Response::Refused(stale));
    bad(&mut state, &NEW, None);
    bad(&mut state, &[(1, true), (2, true), (4, true)], intent(5, 3));
    late.incarnation = Incarnation(9);
    assert!(matches!(
        state.apply(6, Command::ChangeReplicas(late)),
        Response::Refused(Refusal::StaleIncarnation { .. })
    ));
    let lost = Command::MarkNodeLost { node: NodeId(5) };
    state.apply(6, lost);
    take(&mut state, &OLD.map(|at| at), None);
    let mut state = State::founded(5);
    state.apply(6, Command::MarkNodeLost { node: NodeId(4) });
    assert_eq!(
        take(&mut state, &COMING, intent(4, 2)),
        Response::Refused(Refusal::NodeLost { node: NodeId(4) })
    );
}

#[test]
fn a_learner_that_is_meant_to_stay_one_gets_no_vote() {
    let mut state = State::founded(5);
    let stays = intent(4, 0).map(|intent| Intent {
        votes: false,
        ..intent
    });
    assert_eq!(take(&mut state, &COMING, stays), Response::Done);
    let refused = take(&mut state, &BOTH, None);
    assert!(matches!(refused, Response::Refused(_)), "{refused:?}");
    assert_eq!(take(&mut state, &COMING, None), Response::Done);
}

#[test]
fn a_newcomer_that_fails_is_taken_back() {
    let mut state = State::founded(5);
    take(&mut state, &COMING, intent(4, 2));
    assert_eq!(take(&mut state, &COMING, intent(0, 4)), Response::Done);
    assert_eq!(take(&mut state, &OLD, None), Response::Done);
}

/// Everybody has heard of who has left.
fn settle(state: &mut State) {
    let members = &state.shards[&SHARD].members;
    let command = Command::SettleMembers(Settled {
        shard: SHARD,
        incarnation: Incarnation(1),
        expected: members.version,
    });
    let (version, had_left) = (members.version, !members.former.is_empty());
    // Said twice, it is done once.
    for _ in 0..2 {
        assert_eq!(state.apply(6, command.clone()), Response::Done);
    }
    let members = &state.shards[&SHARD].members;
    let after = version + u64::from(had_left);
    assert_eq!((members.former.len(), members.version), (0, after));
}

#[test]
fn who_left_is_not_let_in_again_before_everybody_knows_or_a_new_life() {
    let mut state = State::founded(5);
    take(&mut state, &OLD, intent(0, 2));
    take(&mut state, &[(1, true), (3, true)], None);
    let again = [(1, true), (3, true), (2, false)];
    let refused = take(&mut state, &again, intent(2, 0));
    assert!(matches!(refused, Response::Refused(_)), "{refused:?}");
    // Nor is who leaves after it: somebody who knows of neither would take both for voters.
    take(&mut state, &[(1, true), (3, true)], intent(0, 3));
    take(&mut state, &[(1, true)], None);
    let both = [NodeId(2), NodeId(3)];
    assert_eq!(state.shards[&SHARD].members.former, both);
    // What was found before somebody else left says nothing of that one.
    let stale = Command::SettleMembers(Settled {
        shard: SHARD,
        incarnation: Incarnation(1),
        expected: state.shards[&SHARD].members.version - 1,
    });
    let refused = state.apply(6, stale);
    assert!(matches!(refused, Response::Refused(_)), "{refused:?}");
    settle(&mut state);
    let answer = take(&mut state, &[(1, true), (3, false)], intent(3, 0));
    assert_eq!(answer, Response::Done);
    take(&mut state, &[(1, true), (3, false)], intent(0, 3));
    take(&mut state, &[(1, true)], None);
    assert_eq!(state.shards[&SHARD].members.former, [NodeId(3)]);
    state.apply(
        7,
        Command::NewIncarnation(NewLife {
            shard: SHARD,
            from: Incarnation(1),
            node: NodeId(1),
            seed: None,
        }),
    );
    let members = &state.shards[&SHARD].members;
    assert_eq!((&members.change, members.former.len()), (&None, 0));
}

/// Members, who comes and who leaves, and whether that is known to all.
type AnyStep = (Vec<(u64, bool)>, Option<(u64, u64)>, bool);

fn any_step() -> impl Strategy<Value = AnyStep> {
    let list = proptest::collection::vec((1u64..6, any::<bool>()), 0..5);
    (
        list,
        proptest::option::of((0u64..6, 0u64..6)),
        any::<bool>(),
    )
}

proptest! {
    /// From whatever is asked for: somebody votes, nobody gets a vote at once, and at most one comes or goes at a time.
    #[test]
    fn members_change_one_at_a_time(steps in proptest::collection::vec(any_step(), 0..60)) {
        let mut state = State::founded(5);
        for (list, wanted, settled) in steps {
            let before = state.shards[&SHARD].clone();
            let mut step = step(&state, &list, wanted.and_then(|(add, remove)| intent(add, remove)));
            step.settled = settled;
            let answer = state.apply(9, Command::ChangeReplicas(step));
            let after = &state.shards[&SHARD];
            if answer != Response::Done {
                prop_assert_eq!(&before, after);
                continue;
            }
            let find = |list: &[Replica], node| list.iter().find(|at| at.node == node).copied();
            let (old, new) = (&before.shard.replicas, &after.shard.replicas);
            let came = new.iter().filter(|at| find(old, at.node).is_none()).count();
            let left = old.iter().filter(|at| find(new, at.node).is_none()).count();
            prop_assert!(came <= 1 && left <= 1);
            prop_assert!(new.iter().any(|at| at.voter));
            for at in new.iter().filter(|at| at.voter) {
                let known = find(old, at.node);
                prop_assert!(known.is_some());
                if known.is_some_and(|old| !old.voter) {
                    let intent = before.members.change.as_ref().map(|change| &change.intent);
                    prop_assert_eq!(intent.and_then(|intent| intent.add), Some(at.node));
                }
            }
        }
    }
}

#[test]
fn a_learner_that_is_lost_makes_no_shard_hopeless() {
    let mut state = State::founded(5);
    let coming = [(1, true), (2, true), (3, true), (4, false)];
    assert_eq!(take(&mut state, &coming, intent(4, 0)), Response::Done);
    let judged = |state: &State| {
        let record = &state.shards[&SHARD];
        crate::status::judge(state, &BTreeMap::new(), record).0
    };
    let lose = |state: &mut State, node| {
        state.apply(6, Command::MarkNodeLost { node: NodeId(node) });
    };
    lose(&mut state, 3);
    lose(&mut state, 4);
    assert_eq!(judged(&state), ShardState::Unreachable);
    lose(&mut state, 2);
    assert_eq!(judged(&state), ShardState::DataLoss);
}

#[test]
fn only_of_a_replica_that_neither_runs_nor_is_lost_nothing_is_known_yet() {
    let mut state = State::founded(5);
    state.apply(6, Command::MarkNodeLost { node: NodeId(3) });
    let open = |replica: Option<(ReplicaRole, bool)>| {
        let replica = replica.map(|(role, data_loss)| ReplicaStatus {
            shard_id: SHARD.0,
            incarnation: 1,
            role: role.into(),
            data_loss,
            ..ReplicaStatus::default()
        });
        let heard = Heard {
            silent: Duration::ZERO,
            alive: true,
            report: Report {
                replicas: replica.into_iter().collect(),
                ..Report::default()
            },
            rates: BTreeMap::new(),
            damage_is_news: false,
        };
        // The second node is silent: whoever accepts a loss was told so.
        let heard = BTreeMap::from([(NodeId(1), heard.clone()), (NodeId(3), heard)]);
        let record = &state.shards[&SHARD];
        let replicas = record.shard.replicas.iter();
        let unknown = replicas
            .filter(|at| crate::status::not_heard_out(&state, &heard, record, at).is_some())
            .map(|at| at.node.0);
        unknown.collect::<Vec<u64>>()
    };
    assert_eq!(open(None), [1], "its node has just come");
    assert_eq!(open(Some((ReplicaRole::Unspecified, false))), [1]);
    assert_eq!(open(Some((ReplicaRole::Stopped, false))), [1]);
    assert!(open(Some((ReplicaRole::Stopped, true))).is_empty());
    assert!(open(Some((ReplicaRole::Follower, false))).is_empty());
}
