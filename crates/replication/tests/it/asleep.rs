//! Machines that sleep, which their wall clocks count and their monotonic clocks do not, and wall clocks that are set.

use std::sync::Arc;

use runtime::{Clock, TestClock};

use crate::common::put;
use crate::common::trio::{Trio, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_machine_has_slept_has_no_lease_until_it_is_followed_again() {
    let clock = Arc::new(TestClock::default());
    let mut world = World::new();
    world.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    let trio = Trio::within(world).await;
    // It wakes from a sleep; its wall clock is set ahead, and back to where it was before.
    for by_ms in [10_000, 3_600_000, -7_200_000] {
        let (leads, others) = trio.roles().await;
        let leader = &trio.replicas[&leads].group;
        put(leader, "a", 1).await.unwrap();
        // What it asks from here on is not answered before the links are whole again.
        for other in &others {
            trio.world.links.cut(leads, *other);
        }
        clock.move_wall(by_ms);
        let read = leader.lease_check();
        assert!(read.is_err() || by_ms < 0, "{read:?}");
        trio.world.links.heal();
        trio.leader().await;
        trio.agree().await;
    }
    trio.end().await;
}
