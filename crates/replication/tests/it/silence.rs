//! A node that has failed is heard no more, also where its process, its network and its server go on: its followers elect
//! another leader.

use std::sync::Arc;
use std::time::Duration;

use replication::{Group, GroupConfig, GroupId, Member, Role, Start};
use runtime::Runtime;

use crate::common::trio::{World, trio_config};
use crate::common::{Counters, Node, PATIENCE, put, small_options, timing};

/// What a server waits for a node whose disk has failed.
const HURRY: Duration = Duration::from_millis(50);
const GROUPS: [u64; 4] = [21, 22, 23, 24];

/// Three nodes, several groups on each, all led by the first node.
struct Nodes {
    world: World,
    nodes: Vec<Node>,
    groups: Vec<Vec<Group<Counters>>>,
}

impl Nodes {
    async fn new() -> Self {
        let world = World::simulated(small_options());
        let mut nodes = Vec::new();
        for id in 1..=3 {
            nodes.push(world.open(id, None).await);
        }
        let members: Vec<Member> = nodes.iter().map(Node::member).collect();
        let mut groups = Vec::new();
        for node in &nodes {
            let mut here = Vec::new();
            for group in GROUPS {
                let start = match node.id.0 {
                    1 => Start::Bootstrap {
                        members: members.clone(),
                    },
                    _ => Start::Join,
                };
                let config = GroupConfig {
                    group: GroupId(group),
                    ..trio_config(start)
                };
                let started = node.host.start_group(config, Arc::default()).await;
                here.push(started.unwrap());
            }
            groups.push(here);
        }
        let nodes = Self {
            world,
            nodes,
            groups,
        };
        nodes.led_by_the_first().await;
        nodes
    }

    async fn led_by_the_first(&self) {
        for place in 0..GROUPS.len() {
            let leader = self.leader(place, &[0, 1, 2], PATIENCE).await;
            if leader != 0 {
                let to = self.nodes[0].id;
                let group = &self.groups[leader][place];
                group.transfer_leader(to, PATIENCE).await.unwrap();
            }
            self.leader(place, &[0], PATIENCE).await;
            put(&self.groups[0][place], "before", 1).await.unwrap();
        }
    }

    /// Which of some nodes leads a group and holds its lease.
    async fn leader(&self, place: usize, among: &[usize], limit: Duration) -> usize {
        let runtime = Runtime::real();
        let deadline = runtime.now() + limit;
        loop {
            let leads = |node: &&usize| self.groups[**node][place].lease_check().is_ok();
            if let Some(found) = among.iter().find(leads) {
                return *found;
            }
            let seen: Vec<_> = among
                .iter()
                .map(|node| self.groups[*node][place].status())
                .collect();
            assert!(runtime.now() < deadline, "nobody leads: {seen:?}");
            runtime.sleep(Duration::from_millis(5)).await;
        }
    }

    /// The others elect leaders of all groups, and these work.
    async fn go_on_without_the_first(&self) {
        for place in 0..GROUPS.len() {
            let leader = self.leader(place, &[1, 2], timing().election_max * 12);
            let leader = &self.groups[leader.await][place];
            put(leader, "after", 1).await.unwrap();
            assert_eq!(leader.machine().get("before"), 1);
        }
    }

    /// Halts the disk of the first node under a write to its first group; the other groups write nothing.
    async fn break_the_disk(&self) {
        let first = &self.nodes[0];
        let mut poisoned = first.host.poisoned();
        self.world.disks[&1].halt_after(Some(0));
        // The others may commit it all the same.
        drop(put(&self.groups[0][0], "last", 1).await);
        let told = poisoned.wait_for(Option::is_some);
        let told = Runtime::real().timeout(PATIENCE, told).await;
        drop(told.unwrap().unwrap());
    }

    async fn end(self) {
        for node in self.nodes {
            node.kill().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_disk_fails_lets_others_lead_all_its_groups() {
    let nodes = Nodes::new().await;
    nodes.break_the_disk().await;
    let closing = nodes.nodes[0].host.shutdown();
    // As a server does: the log may not be closed in time, and nobody waits for it.
    drop(Runtime::real().timeout(HURRY, closing).await);
    nodes.go_on_without_the_first().await;
    for group in &nodes.groups[0] {
        assert_eq!(group.status().role, Role::Stopped);
    }
    nodes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_disk_fails_is_silent_before_anybody_stops_it() {
    let nodes = Nodes::new().await;
    nodes.break_the_disk().await;
    nodes.go_on_without_the_first().await;
    nodes.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_given_up_while_it_stops_is_silent() {
    let nodes = Nodes::new().await;
    // Begun, and left at once.
    let closing = nodes.nodes[0].host.shutdown();
    drop(Runtime::real().timeout(Duration::ZERO, closing).await);
    nodes.go_on_without_the_first().await;
    nodes.end().await;
}
