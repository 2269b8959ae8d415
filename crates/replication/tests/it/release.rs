//! What a node's log is held back by, and how it is let go of.

use std::sync::Arc;

use replication::{GroupConfig, GroupId, Start};
use runtime::Runtime;

use crate::common::trio::{Trio, World};
use crate::common::{Counters, PATIENCE, config, put, settle};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_group_lets_go_of_the_log_of_a_follower_that_has_another_to_do() {
    let mut world = World::new();
    world.options.log_bytes_max = 64 << 10;
    let trio = Trio::within(world).await;
    // Two generations of snapshots everywhere: what lies between them is held back.
    for number in 0..2 {
        let leader = trio.leader().await;
        put(&leader.group, &number.to_string(), 1).await.unwrap();
        trio.agree().await;
        for replica in trio.replicas.values() {
            replica.group.take_snapshot().await.unwrap();
        }
    }
    let (leads, others) = trio.roles().await;
    let follower = &trio.replicas[&others[0]];
    let host = &follower.node.host;
    let before = trio.replicas[&leads].group.status();
    let busy = GroupConfig {
        group: GroupId(8),
        ..config(Start::Bootstrap {
            members: vec![follower.node.member()],
        })
    };
    let machine = Arc::new(Counters::default());
    let busy = host.start_group(busy, machine).await.unwrap();
    settle(&busy).await;
    let held = host.wal().oldest_segment();
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    let mut number = 0;
    while follower.group.status().purged <= before.last_log || host.wal().oldest_segment() <= held {
        let seen = follower.group.status();
        assert!(runtime.now() < deadline, "{seen:?}");
        number += 1;
        put(&busy, &format!("{number:0300}"), 1).await.unwrap();
    }
    // Nobody else has anything to do with it: the leader wrote for the one that asked.
    let after = trio.replicas[&leads].group.status();
    assert!(after.last_log > before.last_log, "{after:?}");
    trio.agree().await;
    trio.end().await;
}
