use proptest::prelude::*;

use super::*;

/// Three voters anywhere, one change at a time.
fn rules() -> Rules {
    Rules {
        replicas: 3,
        home: None,
        replace_after: Some(Duration::from_secs(600)),
        changes_max: 1,
    }
}

fn node(id: u64) -> NodeView {
    NodeView {
        id: NodeId(id),
        name: format!("n{id}"),
        region: String::new(),
        lost: false,
        draining: false,
        damaged: false,
        damage_is_news: false,
        full: false,
        stalled: false,
        silent: None,
    }
}

fn nodes(count: u64) -> Vec<NodeView> {
    (1..=count).map(node).collect()
}

fn member(id: u64) -> MemberView {
    MemberView {
        node: NodeId(id),
        voter: true,
        serves: true,
        leads: false,
        follows: None,
        reached: 0,
    }
}

/// A shard whose first member leads.
fn shard(id: u64, members: &[u64]) -> ShardView {
    let mut members: Vec<MemberView> = members.iter().map(|id| member(*id)).collect();
    members[0].leads = true;
    ShardView {
        id: ShardId(id),
        members,
        pending: None,
        standstill: Duration::ZERO,
        without_majority: Duration::ZERO,
        former: Vec::new(),
        former_have_gone: true,
    }
}

fn begin(shard: u64, add: u64, remove: u64, cause: Cause) -> Step {
    let node = |id: u64| (id > 0).then_some(NodeId(id));
    Step::Begin {
        shard: ShardId(shard),
        change: Pending {
            add: node(add),
            votes: add > 0,
            remove: node(remove),
        },
        cause,
    }
}

fn steps(nodes: &[NodeView], shards: &[ShardView]) -> Vec<Step> {
    plan(nodes, shards, rules()).steps
}

#[test]
fn a_whole_cluster_is_left_alone() {
    assert_eq!(
        plan(&nodes(4), &[shard(1, &[1, 2, 3])], rules()),
        Plan::default()
    );
}

#[test]
fn a_lost_disk_is_replaced_by_the_node_of_its_name() {
    let mut nodes = nodes(5);
    nodes[1].lost = true;
    let mut shards = [shard(1, &[1, 2, 3])];
    shards[0].members[1].serves = false;
    assert_eq!(steps(&nodes, &shards), [begin(1, 4, 2, Cause::Lost)]);
    nodes[4].name = "n2".into();
    assert_eq!(steps(&nodes, &shards), [begin(1, 5, 2, Cause::Lost)]);
    nodes[4].name = "n3".into();
    nodes[3].draining = true;
    assert_eq!(steps(&nodes, &shards), [], "n3 has a replica already");
}

#[test]
fn below_a_majority_nothing_is_touched() {
    let mut nodes = nodes(5);
    nodes[1].lost = true;
    let mut shards = [shard(1, &[1, 2, 3])];
    shards[0].members[1].serves = false;
    shards[0].members[2].serves = false;
    assert_eq!(steps(&nodes, &shards), []);
    shards[0].members[2].serves = true;
    shards[0].members[0].leads = false;
    assert_eq!(steps(&nodes, &shards), [], "nobody leads");
    // The only replica of a shard waits for an operator's word.
    let mut alone = [shard(1, &[2])];
    alone[0].members[0].serves = false;
    assert_eq!(
        plan(
            &nodes,
            &alone,
            Rules {
                replicas: 1,
                ..rules()
            }
        ),
        Plan::default()
    );
}

#[test]
fn a_node_that_is_away_is_waited_for_and_then_replaced_where_a_spare_is() {
    let mut nodes = nodes(4);
    let mut shards = [shard(1, &[1, 2, 3])];
    shards[0].members[2].serves = false;
    nodes[2].silent = Some(Duration::from_secs(599));
    assert_eq!(steps(&nodes, &shards), []);
    nodes[2].silent = Some(Duration::from_secs(600));
    assert_eq!(steps(&nodes, &shards), [begin(1, 4, 3, Cause::Gone)]);
    assert_eq!(steps(&nodes[..3], &shards), [], "no spare");
    let never = Rules {
        replace_after: None,
        ..rules()
    };
    assert_eq!(plan(&nodes, &shards, never), Plan::default());
}

#[test]
fn a_draining_node_gives_its_replicas_away_also_the_only_one() {
    let mut nodes = nodes(4);
    nodes[0].draining = true;
    let three = [shard(1, &[1, 2, 3])];
    assert_eq!(steps(&nodes, &three), [begin(1, 4, 1, Cause::Draining)]);
    let alone = [shard(1, &[1])];
    let plan = plan(
        &nodes,
        &alone,
        Rules {
            replicas: 1,
            ..rules()
        },
    );
    assert_eq!(plan.steps, [begin(1, 2, 1, Cause::Draining)]);
}

#[test]
fn replicas_that_lack_are_added_and_those_too_many_go_first() {
    assert_eq!(
        steps(&nodes(4), &[shard(1, &[1])]),
        [begin(1, 2, 0, Cause::TooFew)]
    );
    let mut nodes = nodes(5);
    nodes[3].lost = true;
    let mut four = [shard(1, &[1, 2, 3, 4])];
    four[0].members[3].serves = false;
    assert_eq!(steps(&nodes, &four), [begin(1, 0, 4, Cause::Lost)]);
    let mut stray = [shard(1, &[1, 2, 3, 5])];
    stray[0].members[3].voter = false;
    assert_eq!(steps(&nodes, &stray), [begin(1, 0, 5, Cause::LeftOver)]);
}

#[test]
fn a_change_goes_on_unless_its_newcomer_has_failed() {
    let mut nodes = nodes(5);
    let mut shards = [shard(1, &[1, 2, 3, 4]), shard(2, &[1, 2])];
    shards[0].members[3].voter = false;
    shards[0].pending = Some(Pending {
        add: Some(NodeId(4)),
        votes: true,
        remove: Some(NodeId(2)),
    });
    let on = Step::GoOn { shard: ShardId(1) };
    assert_eq!(steps(&nodes, &shards), [on], "one change at a time");
    let two = Rules {
        changes_max: 2,
        ..rules()
    };
    let both = [on, begin(2, 5, 0, Cause::TooFew)];
    assert_eq!(plan(&nodes, &shards, two).steps, both);
    nodes[3].silent = Some(Duration::from_secs(60));
    assert_eq!(steps(&nodes, &shards), [on], "it may come back");
    let back = Step::TakeBack {
        shard: ShardId(1),
        newcomer: NodeId(4),
    };
    nodes[3].stalled = true;
    assert_eq!(steps(&nodes, &shards), [on], "that may pass");
    nodes[3].full = true;
    assert_eq!(steps(&nodes, &shards), [back], "it takes no entries");
    nodes[3].full = false;
    nodes[3].lost = true;
    assert_eq!(steps(&nodes, &shards), [back]);
}

/// A shard on nodes 1 to 3, of which 4 is to replace 2, and one that lacks a voter.
fn one_changes_and_one_lacks() -> [ShardView; 2] {
    let mut shards = [shard(1, &[1, 2, 3, 4]), shard(2, &[1, 2])];
    shards[0].members[3].voter = false;
    shards[0].members[3].serves = false;
    shards[0].pending = Some(Pending {
        add: Some(NodeId(4)),
        votes: true,
        remove: Some(NodeId(2)),
    });
    shards
}

#[test]
fn a_change_without_a_majority_holds_up_no_other_shard() {
    let nodes = nodes(5);
    let mut shards = one_changes_and_one_lacks();
    let on = Step::GoOn { shard: ShardId(1) };
    shards[0].without_majority = Duration::from_secs(30);
    shards[0].members[1].serves = false;
    assert_eq!(steps(&nodes, &shards), [on], "it can still go on");
    shards[0].members[2].serves = false;
    let both = [on, begin(2, 5, 0, Cause::TooFew)];
    assert_eq!(steps(&nodes, &shards), both);
    shards[0].members[2].serves = true;
    shards[0].members[0].leads = false;
    assert_eq!(steps(&nodes, &shards), both, "nobody leads");
}

#[test]
fn an_election_makes_no_room_for_another_change() {
    let nodes = nodes(5);
    let mut shards = one_changes_and_one_lacks();
    let on = Step::GoOn { shard: ShardId(1) };
    shards[0].members[0].leads = false;
    for seconds in [0, 29] {
        shards[0].without_majority = Duration::from_secs(seconds);
        assert_eq!(steps(&nodes, &shards), [on], "{seconds} s");
    }
    shards[0].without_majority = Duration::from_secs(30);
    let both = [on, begin(2, 5, 0, Cause::TooFew)];
    assert_eq!(steps(&nodes, &shards), both);
}

#[test]
fn a_newcomer_that_stands_still_for_long_makes_room_for_another_one() {
    let nodes = nodes(5);
    let mut shards = one_changes_and_one_lacks();
    let on = Step::GoOn { shard: ShardId(1) };
    let back = Step::TakeBack {
        shard: ShardId(1),
        newcomer: NodeId(4),
    };
    shards[0].standstill = Duration::from_secs(599);
    assert_eq!(steps(&nodes, &shards), [on]);
    shards[0].standstill = Duration::from_secs(600);
    let both = [back, begin(2, 5, 0, Cause::TooFew)];
    assert_eq!(steps(&nodes, &shards), both);
    let alone = [on, begin(2, 3, 0, Cause::TooFew)];
    assert_eq!(steps(&nodes[..4], &shards), alone, "nobody else could come");
    // Nodes may be replaced sooner or later than that, or never.
    let due = |replace_after: Option<Duration>| {
        let rules = Rules {
            replace_after,
            ..rules()
        };
        plan(&nodes, &shards, rules).steps
    };
    assert_eq!(due(Some(Duration::from_secs(4))), both);
    assert_eq!(due(Some(Duration::from_secs(601))), [on]);
    assert_eq!(due(None), [on]);
    shards[0].pending = shards[0].pending.map(|pending| Pending {
        votes: false,
        ..pending
    });
    assert_eq!(steps(&nodes, &shards)[0], on, "its region has nobody else");
}

#[test]
fn a_node_without_room_is_no_spare() {
    let mut nodes = nodes(5);
    nodes[1].lost = true;
    nodes[3].full = true;
    let mut shards = [shard(1, &[1, 2, 3])];
    shards[0].members[1].serves = false;
    assert_eq!(steps(&nodes, &shards), [begin(1, 5, 2, Cause::Lost)]);
    (nodes[3].full, nodes[3].stalled) = (false, true);
    assert_eq!(steps(&nodes, &shards), [begin(1, 5, 2, Cause::Lost)]);
    assert_eq!(steps(&nodes[..4], &shards), []);
}

#[test]
fn damaged_data_is_given_up_only_where_a_majority_does_without() {
    let mut nodes = nodes(5);
    nodes[1].damaged = true;
    let mut shards = vec![shard(1, &[1, 2, 3]), shard(2, &[3, 2, 4])];
    for at in &mut shards {
        at.members[1].serves = false;
    }
    let given_up = |nodes: &[NodeView], shards: &[ShardView]| plan(nodes, shards, rules()).give_up;
    assert_eq!(given_up(&nodes, &shards), Some(NodeId(2)));
    nodes[1].damage_is_news = true;
    assert_eq!(given_up(&nodes, &shards), None, "the others may be, too");
    nodes[1].damage_is_news = false;
    shards.push(shard(3, &[2]));
    assert_eq!(given_up(&nodes, &shards), None, "the only one of shard 3");
    shards.pop();
    nodes[3].damaged = true;
    assert_eq!(given_up(&nodes, &shards), None, "shard 2 has one left");
    nodes[3].damaged = false;
    shards[0].members[0].serves = false;
    assert_eq!(given_up(&nodes, &shards), None);
    nodes[4].damaged = true;
    assert_eq!(given_up(&nodes, &shards), Some(NodeId(5)), "a spare");
}

#[test]
fn voters_stand_at_home_and_every_other_region_has_a_learner() {
    let mut nodes = nodes(6);
    for (node, region) in nodes.iter_mut().zip(["a", "a", "b", "a", "b", "c"]) {
        node.region = region.into();
    }
    let rules = || Rules {
        home: Some("a".into()),
        ..rules()
    };
    let mut shards = [shard(1, &[1, 2, 3])];
    let due = |nodes: &[NodeView], shards: &[ShardView]| plan(nodes, shards, rules()).steps;
    assert_eq!(due(&nodes, &shards), [begin(1, 4, 3, Cause::Abroad)]);
    shards[0] = shard(1, &[1, 2, 4]);
    let learner = |node| Step::Begin {
        shard: ShardId(1),
        change: Pending {
            add: Some(NodeId(node)),
            votes: false,
            remove: None,
        },
        cause: Cause::RegionLacks,
    };
    assert_eq!(due(&nodes, &shards), [learner(3)]);
    for node in [3, 6] {
        shards[0].members.push(MemberView {
            voter: false,
            ..member(node)
        });
    }
    assert_eq!(due(&nodes, &shards), [], "each region has one");
    nodes[2].draining = true;
    assert_eq!(due(&nodes, &shards), [begin(1, 0, 3, Cause::Draining)]);
    shards[0].members.retain(|at| at.node != NodeId(3));
    assert_eq!(due(&nodes, &shards), [learner(5)]);
    // Nobody votes from afar, not even when asked for.
    let asked = newcomer(&nodes, &shards, rules(), &shards[0], None, Some(NodeId(5)));
    assert_eq!(asked, Err("stands outside the home region"));
    // Without regions a learner belongs nowhere.
    shards[0]
        .members
        .retain(|at| at.voter || at.node == NodeId(6));
    let due = plan(&nodes, &shards, super::tests::rules()).steps;
    assert_eq!(due, [begin(1, 0, 6, Cause::LeftOver)]);
}

#[test]
fn an_operator_is_told_why_a_node_does_not_fit() {
    let mut nodes = nodes(5);
    nodes[3].draining = true;
    let shards = [shard(1, &[1, 2, 3])];
    let ask = |leaving: Option<u64>, asked: Option<u64>| {
        newcomer(
            &nodes,
            &shards,
            rules(),
            &shards[0],
            leaving.map(NodeId),
            asked.map(NodeId),
        )
    };
    assert_eq!(ask(Some(2), None), Ok(NodeId(5)));
    assert_eq!(ask(Some(2), Some(5)), Ok(NodeId(5)));
    assert_eq!(ask(Some(2), Some(4)), Err("is being drained"));
    assert_eq!(ask(None, Some(1)), Err("holds a replica of the shard"));
    assert_eq!(ask(None, Some(9)), Err("is not known"));
}

/// A cluster as it really is.
#[derive(Debug, Clone)]
struct World {
    nodes: Vec<NodeView>,
    shards: Vec<ShardView>,
}

impl World {
    /// What the shards look like once nodes have changed: who is away serves nothing, and who is left elects a leader.
    fn settle(&mut self) {
        for shard in &mut self.shards {
            for member in &mut shard.members {
                let node = self.nodes.iter().find(|at| at.id == member.node).unwrap();
                // Where there is no room, nobody catches up.
                let has_all = member.voter || !node.full;
                member.serves = !node.lost && !node.damaged && node.silent.is_none() && has_all;
                member.leads = false;
            }
            let voters = shard.members.iter().filter(|at| at.voter).count();
            let at_work = |at: &&mut MemberView| at.voter && at.serves;
            let working = shard
                .members
                .iter()
                .filter(|at| at.voter && at.serves)
                .count();
            if working > voters / 2
                && let Some(leader) = shard.members.iter_mut().find(at_work)
            {
                leader.leads = true;
            }
        }
    }

    fn take(&mut self, step: Step) {
        let id = match step {
            Step::Begin { shard, .. }
            | Step::GoOn { shard }
            | Step::TakeBack { shard, .. }
            | Step::Settle { shard } => shard,
        };
        let majority = has_majority(self.shards.iter().find(|at| at.id == id).unwrap());
        let shard = self.shards.iter_mut().find(|at| at.id == id).unwrap();
        match step {
            Step::Begin { change, .. } => {
                assert!(majority && shard.pending.is_none());
                if let Some(add) = change.add {
                    assert!(shard.members.iter().all(|at| at.node != add));
                    shard.members.push(MemberView {
                        voter: false,
                        ..member(add.0)
                    });
                }
                shard.pending = Some(change);
            }
            Step::TakeBack { newcomer, .. } => {
                shard.pending = Some(Pending {
                    add: None,
                    votes: false,
                    remove: Some(newcomer),
                });
            }
            Step::Settle { .. } => shard.former.clear(),
            // A group without a majority changes nothing.
            Step::GoOn { .. } if !majority => {}
            Step::GoOn { .. } => {
                let pending = shard.pending.unwrap();
                if let Some(add) = pending.add {
                    let newcomer = shard.members.iter_mut().find(|at| at.node == add).unwrap();
                    if newcomer.serves {
                        newcomer.voter = pending.votes;
                        let rest = Pending {
                            add: None,
                            ..pending
                        };
                        shard.pending = rest.remove.is_some().then_some(rest);
                    }
                } else {
                    shard.members.retain(|at| Some(at.node) != pending.remove);
                    shard.pending = None;
                }
            }
        }
        self.settle();
    }

    fn give_up(&mut self, id: NodeId) {
        let next = self.nodes.len() as u64 + 1;
        let node = self.nodes.iter_mut().find(|at| at.id == id).unwrap();
        node.lost = true;
        let name = node.name.clone();
        self.nodes.push(NodeView {
            name,
            ..super::tests::node(next)
        });
        self.settle();
    }

    fn is_healthy(&self, id: NodeId) -> bool {
        let node = self.nodes.iter().find(|at| at.id == id).unwrap();
        !node.lost && !node.damaged && !node.draining && !node.full && node.silent.is_none()
    }
}

fn worlds() -> impl Strategy<Value = World> {
    let fates = proptest::collection::vec(0u8..10, 3..8);
    let places = proptest::collection::vec((any::<u64>(), 1usize..4), 1..6);
    (fates, places).prop_map(|(fates, places)| {
        let count = fates.len() as u64;
        let mut nodes = nodes(count);
        let mut news = Vec::new();
        for (node, fate) in nodes.iter_mut().zip(fates) {
            match fate {
                0 => node.lost = true,
                1 => {
                    node.lost = true;
                    news.push(node.name.clone());
                }
                2 => node.silent = Some(Duration::from_secs(601)),
                3 => node.draining = true,
                4 => node.damaged = true,
                5 => node.full = true,
                _ => {}
            }
        }
        for (id, name) in (count + 1..).zip(news) {
            nodes.push(NodeView { name, ..node(id) });
        }
        let shards = (1..).zip(places).map(|(id, (start, replicas))| {
            let members: Vec<u64> = (0..replicas as u64)
                .map(|at| (start % count + at) % count + 1)
                .collect();
            shard(id, &members)
        });
        let mut world = World {
            shards: shards.collect(),
            nodes,
        };
        world.settle();
        world
    })
}

proptest! {
    /// Whatever has happened to the nodes: what can be mended is mended, nothing is done twice, and then there is peace.
    #[test]
    fn what_has_a_majority_is_mended_and_what_has_none_is_left(mut world in worlds(), changes_max in 1usize..4) {
        let rules = Rules { changes_max, ..rules() };
        let hopeless: Vec<ShardId> = world.shards.iter().filter(|at| !has_majority(at)).map(|at| at.id).collect();
        let before = world.clone();
        for round in 0..200 {
            let due = plan(&world.nodes, &world.shards, rules.clone());
            if due == Plan::default() {
                break;
            }
            prop_assert!(round < 199, "it goes on for ever: {:?}", due);
            let mut seen = std::collections::BTreeSet::new();
            for step in &due.steps {
                let (Step::Begin { shard, .. } | Step::GoOn { shard } | Step::TakeBack { shard, .. } | Step::Settle { shard }) = step;
                prop_assert!(seen.insert(*shard));
            }
            for step in due.steps {
                if let Step::Begin { change: Pending { add: Some(add), .. }, .. } = step {
                    prop_assert!(world.is_healthy(add));
                }
                world.take(step);
            }
            let under_way = world.shards.iter().filter(|at| at.pending.is_some()).count();
            prop_assert!(under_way <= changes_max);
            if let Some(node) = due.give_up {
                let had: Vec<bool> = world.shards.iter().map(has_majority).collect();
                world.give_up(node);
                let has: Vec<bool> = world.shards.iter().map(has_majority).collect();
                prop_assert_eq!(had, has, "nobody lost its majority by it");
            }
        }
        let names: std::collections::BTreeSet<&str> = world.nodes.iter()
            .filter(|node| world.is_healthy(node.id)).map(|node| node.name.as_str()).collect();
        for (shard, old) in world.shards.iter().zip(&before.shards) {
            if hopeless.contains(&shard.id) {
                prop_assert_eq!(&shard.members, &old.members);
                continue;
            }
            prop_assert!(has_majority(shard) && shard.pending.is_none());
            if names.len() >= rules.replicas {
                prop_assert_eq!(shard.members.len(), rules.replicas);
                let on_healthy = shard.members.iter().all(|at| world.is_healthy(at.node)
                    || world.nodes.iter().any(|node| node.id == at.node && (node.damaged || node.full)));
                prop_assert!(on_healthy, "{:?}", shard);
            }
        }
    }
}

#[test]
fn learners_make_no_majority() {
    let mut nodes = nodes(5);
    let mut shards = [shard(1, &[1, 2, 3, 4, 5])];
    for place in [3, 4] {
        shards[0].members[place].voter = false;
    }
    for place in [1, 2] {
        shards[0].members[place].serves = false;
    }
    nodes[1].damaged = true;
    assert!(!has_majority(&shards[0]));
    assert_eq!(plan(&nodes, &shards, rules()), Plan::default());
}

/// A node that left a group under its present identity cannot come back to it.
#[test]
fn who_was_a_member_before_is_no_spare() {
    let mut nodes = nodes(5);
    nodes[1].lost = true;
    let mut shards = [shard(1, &[1, 2, 3])];
    shards[0].members[1].serves = false;
    shards[0].former = vec![NodeId(4)];
    assert_eq!(steps(&nodes, &shards), [begin(1, 5, 2, Cause::Lost)]);
}

#[test]
fn former_members_may_come_again_once_they_and_all_voters_are_there() {
    let nodes = nodes(4);
    let mut shards = [shard(1, &[1, 2, 3])];
    shards[0].former = vec![NodeId(4)];
    let settle = [Step::Settle { shard: ShardId(1) }];
    assert_eq!(steps(&nodes, &shards), settle);
    shards[0].former_have_gone = false;
    assert_eq!(steps(&nodes, &shards), [], "it may take others for voters");
    shards[0].former_have_gone = true;
    shards[0].members[2].serves = false;
    assert_eq!(steps(&nodes, &shards), [], "a voter may not know");
    let mut without = nodes.clone();
    without[2].lost = true;
    assert_eq!(steps(&without, &shards), settle, "it will never vote");
    shards[0].members[2].serves = true;
    shards[0].members[0].leads = false;
    assert_eq!(steps(&nodes, &shards), [], "nobody can be asked");
}
