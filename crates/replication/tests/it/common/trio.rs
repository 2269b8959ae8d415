//! Three replicas of a group, each on a node with a disk and a network of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use replication::{Group, GroupConfig, Host, HostDeps, HostOptions, Member, Start, Timing};
use runtime::{Clock, Runtime, TokioClock};
use vfs::{RealDisk, SimDisk, Vfs};

use super::net::Links;
use super::{Counters, Node, PATIENCE, config, deps, small_options, timing};

/// A replica of the group on a node of its own.
pub(crate) struct Replica {
    pub(crate) node: Node,
    pub(crate) group: Group<Counters>,
    pub(crate) machine: Arc<Counters>,
}

/// Three replicas that talk over gRPC.
pub(crate) struct Trio {
    pub(crate) world: World,
    pub(crate) replicas: BTreeMap<u64, Replica>,
    pub(crate) down: BTreeMap<u64, String>,
}

pub(crate) fn trio_config(start: Start) -> GroupConfig {
    GroupConfig {
        // Snapshots are taken when the tests say so.
        snapshots: replication::SnapshotPolicy {
            entries: u64::MAX,
            bytes: u64::MAX,
            interval: Duration::from_secs(3600),
            burst_bytes: u64::MAX,
            ..replication::SnapshotPolicy::default()
        },
        ..config(start)
    }
}

pub(crate) async fn begin(host: &Host, start: Start) -> (Group<Counters>, Arc<Counters>) {
    begin_with(host, trio_config(start)).await
}

async fn begin_with(host: &Host, config: GroupConfig) -> (Group<Counters>, Arc<Counters>) {
    let machine = Arc::new(Counters::default());
    let group = host.start_group(config, Arc::clone(&machine)).await;
    (group.unwrap(), machine)
}

/// What nodes live in.
pub(crate) struct World {
    dir: tempfile::TempDir,
    /// Nodes that do not use the real disk.
    pub(crate) disks: BTreeMap<u64, SimDisk>,
    pub(crate) links: Links,
    pub(crate) options: HostOptions,
    /// Nodes that are of an older version.
    pub(crate) older: BTreeSet<u64>,
    /// What the nodes take for the time.
    pub(crate) clock: Arc<dyn Clock>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            disks: BTreeMap::new(),
            links: Links::default(),
            options: small_options(),
            older: BTreeSet::new(),
            clock: Arc::new(TokioClock::new()),
        }
    }

    /// With simulated disks for the first three nodes.
    pub(crate) fn simulated(options: HostOptions) -> Self {
        Self {
            disks: (1..=3).map(|id| (id, SimDisk::new())).collect(),
            options,
            ..Self::new()
        }
    }

    pub(crate) async fn open(&self, id: u64, address: Option<String>) -> Node {
        let (vfs, dir): (Arc<dyn Vfs>, PathBuf) = match self.disks.get(&id) {
            Some(disk) => (Arc::new(disk.clone()), PathBuf::from("/data")),
            None => (
                Arc::new(RealDisk::new()),
                self.dir.path().join(id.to_string()),
            ),
        };
        let deps = HostDeps {
            runtime: self.links.runtime(id, Arc::clone(&self.clock)),
            ..deps(vfs, dir, id, self.options.clone())
        };
        let node = Node::open_with(deps, address, self.older.contains(&id)).await;
        self.links.place(id, &node.address);
        node
    }
}

impl World {
    /// A replica that waits to be taken into the group.
    pub(crate) async fn joining(&self, id: u64) -> Replica {
        let node = self.open(id, None).await;
        let (group, machine) = begin(&node.host, Start::Join).await;
        Replica {
            node,
            group,
            machine,
        }
    }
}

impl Trio {
    pub(crate) async fn new() -> Self {
        Self::within(World::new()).await
    }

    pub(crate) async fn within(world: World) -> Self {
        Self::of(world, 3).await
    }

    /// As many replicas as are asked for.
    pub(crate) async fn of(world: World, count: u64) -> Self {
        let mut nodes = Vec::new();
        for id in 1..=count {
            nodes.push(world.open(id, None).await);
        }
        let members: Vec<Member> = nodes.iter().map(Node::member).collect();
        let mut replicas = BTreeMap::new();
        for node in nodes {
            let start = match node.id.0 {
                1 => Start::Bootstrap {
                    members: members.clone(),
                },
                _ => Start::Join,
            };
            let (group, machine) = begin(&node.host, start).await;
            let id = node.id.0;
            replicas.insert(
                id,
                Replica {
                    node,
                    group,
                    machine,
                },
            );
        }
        Self::agreed(world, replicas).await
    }

    /// A majority leads without the last, which has nothing of the group on its disk until they agree.
    async fn agreed(world: World, replicas: BTreeMap<u64, Replica>) -> Self {
        let trio = Self {
            world,
            replicas,
            down: BTreeMap::new(),
        };
        trio.agree().await;
        trio
    }

    /// A group of one, and two more that are taken in, one after the other.
    pub(crate) async fn grown_from(world: World, first: Replica) -> Self {
        let mut replicas = BTreeMap::new();
        for id in 2..=3 {
            let replica = world.joining(id).await;
            let peer = replica.node.peer();
            first.group.add_learner(peer, PATIENCE).await.unwrap();
            first.group.promote(replica.node.id).await.unwrap();
            replicas.insert(id, replica);
        }
        replicas.insert(1, first);
        Self::agreed(world, replicas).await
    }

    /// The names of the replicas that do not lead, and which one does.
    pub(crate) async fn roles(&self) -> (u64, Vec<u64>) {
        let leads = self.leader().await.node.id.0;
        let others = self.replicas.keys().copied().filter(|id| *id != leads);
        (leads, others.collect())
    }

    pub(crate) async fn open(&self, id: u64, address: Option<String>) -> Node {
        self.world.open(id, address).await
    }

    /// The replica that leads and may answer reads, once there is one.
    pub(crate) async fn leader(&self) -> &Replica {
        let runtime = Runtime::real();
        let deadline = runtime.now() + PATIENCE;
        loop {
            let found = self
                .replicas
                .values()
                .find(|replica| replica.group.lease_check().is_ok());
            if let Some(found) = found {
                return found;
            }
            let seen: Vec<_> = self.replicas.values().map(|r| r.group.status()).collect();
            assert!(runtime.now() < deadline, "nobody leads: {seen:?}");
            runtime.sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn kill(&mut self, id: u64) {
        let replica = self.replicas.remove(&id).unwrap();
        let (_, _, address) = replica.node.kill().await;
        self.down.insert(id, address);
    }

    pub(crate) async fn revive(&mut self, id: u64) {
        self.revive_with(id, timing()).await;
    }

    pub(crate) async fn revive_with(&mut self, id: u64, timing: Timing) {
        let address = self.down.remove(&id);
        let node = self.open(id, address).await;
        let config = GroupConfig {
            timing,
            ..trio_config(Start::Resume)
        };
        let (group, machine) = begin_with(&node.host, config).await;
        self.replicas.insert(
            id,
            Replica {
                node,
                group,
                machine,
            },
        );
    }

    /// Waits until all replicas have applied what the leader has, and compares them.
    pub(crate) async fn agree(&self) {
        let confirmed = async {
            loop {
                let leader = self.leader().await;
                if let Ok(point) = leader.group.read_index(PATIENCE).await {
                    return (leader, point.applied.index);
                }
                Runtime::real().sleep(Duration::from_millis(5)).await;
            }
        };
        let confirmed = Runtime::real().timeout(PATIENCE, confirmed).await;
        let (leader, index) = confirmed.unwrap();
        for (id, replica) in &self.replicas {
            let waited = replica.group.wait_applied(index, PATIENCE).await;
            assert!(waited.is_ok(), "{id}: {:?}", replica.group.status());
        }
        let expected = leader.machine.state();
        for (id, replica) in &self.replicas {
            assert_eq!(replica.machine.state(), expected, "replica {id}");
        }
    }

    pub(crate) async fn end(self) {
        for replica in self.replicas.into_values() {
            replica.node.kill().await;
        }
    }
}
