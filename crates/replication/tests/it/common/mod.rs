//! What the tests of this crate share: a small state machine, and nodes that hold it.

pub(crate) mod net;
pub(crate) mod older;
pub(crate) mod trio;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::raft::v1 as wire;
use api::raft::v1::raft_service_client::RaftServiceClient;
use api::raft::v1::raft_service_server::RaftService;
use bytes::Bytes;
use cluster::ClusterId;
use parking_lot::RwLock;
use replication::{
    Applied, ApplyError, Committed, Group, GroupConfig, GroupId, GroupStatus, Host, HostDeps,
    HostOptions, Identity, Member, NodeId, Peer, ProposeError, RecoveryReport, RestoreError,
    SnapshotView, Start, StateMachine, Timing, WalOptions,
};
use rpc::{Server, ServerConfig};
use runtime::{CancellationToken, Runtime, Task};
use tonic::transport::Channel;
use vfs::Vfs;

/// Longer than anything here may take on a starved machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const GROUP: GroupId = GroupId(7);
pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);
/// Adds to a counter; answers with its new value.
pub(crate) const ADD: u16 = 1;
/// Makes the machine say that going on is impossible.
pub(crate) const BREAK: u16 = 2;
/// Makes the machine panic.
pub(crate) const PANIC: u16 = 3;

/// Named counters. Also remembers where and when it applied last, so that tests can compare replicas.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    state: RwLock<Arc<State>>,
    is_broken: AtomicBool,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) applied: u64,
    pub(crate) stamp_ms: i64,
}

pub(crate) struct Frozen(Arc<State>);

impl Counters {
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.state.read().counts.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn state(&self) -> State {
        State::clone(&self.state.read())
    }

    /// From now on taking a view panics.
    pub(crate) fn break_views(&self) {
        self.is_broken.store(true, Ordering::Release);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.state.read().counts.values().sum()
    }
}

impl StateMachine for Counters {
    type Response = u64;
    type View = Frozen;

    fn apply(
        &self,
        at: Applied,
        stamp_ms: i64,
        kind: u16,
        command: &[u8],
    ) -> Result<u64, ApplyError> {
        match kind {
            ADD => {}
            BREAK => {
                let problem = "told to".to_owned();
                return Err(ApplyError::Invariant { problem });
            }
            PANIC => panic!("told to"),
            kind => return Err(ApplyError::UnknownKind { kind }),
        }
        let malformed = || ApplyError::Malformed {
            kind,
            problem: "no counter".to_owned(),
        };
        let (number, name) = command.split_first_chunk::<8>().ok_or_else(malformed)?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| malformed())?;
        let mut state = self.state.write();
        assert!(stamp_ms >= state.stamp_ms, "time went back");
        assert!(
            at.index > state.applied || state.applied == 0,
            "applied twice"
        );
        let state = Arc::make_mut(&mut state);
        state.applied = at.index;
        state.stamp_ms = stamp_ms;
        let count = state.counts.entry(name).or_default();
        *count += u64::from_le_bytes(*number);
        Ok(*count)
    }

    fn view(&self) -> Frozen {
        assert!(!self.is_broken.load(Ordering::Acquire), "told to");
        Frozen(Arc::clone(&self.state.read()))
    }

    fn restore(&self, at: Applied, input: &mut dyn Read) -> Result<(), RestoreError> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        let malformed = || RestoreError::Malformed {
            problem: "not counters".to_owned(),
        };
        let mut rest = bytes.as_slice();
        let mut state = State {
            applied: take(&mut rest).ok_or_else(malformed)?,
            stamp_ms: take(&mut rest).ok_or_else(malformed)?.cast_signed(),
            ..State::default()
        };
        while !rest.is_empty() {
            let count = take(&mut rest).ok_or_else(malformed)?;
            let length = take(&mut rest).ok_or_else(malformed)? as usize;
            let name = rest.split_off(..length).ok_or_else(malformed)?;
            let name = String::from_utf8(name.to_vec()).map_err(|_| malformed())?;
            state.counts.insert(name, count);
        }
        assert!(at.index >= state.applied, "{at:?} of {state:?}");
        *self.state.write() = Arc::new(state);
        Ok(())
    }
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let (number, left) = rest.split_first_chunk::<8>()?;
    *rest = left;
    Some(u64::from_le_bytes(*number))
}

impl SnapshotView for Frozen {
    fn encode(self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.0.applied.to_le_bytes())?;
        out.write_all(&self.0.stamp_ms.to_le_bytes())?;
        for (name, count) in &self.0.counts {
            out.write_all(&count.to_le_bytes())?;
            out.write_all(&(name.len() as u64).to_le_bytes())?;
            out.write_all(name.as_bytes())?;
        }
        Ok(())
    }
}

pub(crate) fn add(name: &str, count: u64) -> Bytes {
    let mut bytes = count.to_le_bytes().to_vec();
    bytes.extend(name.as_bytes());
    bytes.into()
}

pub(crate) fn small_options() -> HostOptions {
    HostOptions {
        wal: WalOptions::small(),
        ..HostOptions::default()
    }
}

/// With a reserve and marks that a disk of a megabyte has room for.
pub(crate) fn reserved_options() -> HostOptions {
    HostOptions {
        wal: WalOptions {
            reserve_bytes: 256 << 10,
            low_water_bytes: 64 << 10,
            high_water_bytes: 128 << 10,
            ..WalOptions::small()
        },
        ..small_options()
    }
}

pub(crate) fn deps(vfs: Arc<dyn Vfs>, dir: PathBuf, node: u64, options: HostOptions) -> HostDeps {
    HostDeps {
        runtime: Runtime::real(),
        vfs,
        dir,
        identity: Identity {
            cluster: CLUSTER,
            node: NodeId(node),
        },
        options,
    }
}

/// Election times that a starved machine still keeps.
pub(crate) fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(800),
    }
}

pub(crate) fn config(start: Start) -> GroupConfig {
    GroupConfig {
        timing: timing(),
        ..GroupConfig::new(GROUP, start)
    }
}

pub(crate) fn alone() -> Start {
    Start::Bootstrap {
        members: vec![Member::voter(NodeId(1), "127.0.0.1:1")],
    }
}

pub(crate) async fn open(vfs: Arc<dyn Vfs>, options: HostOptions) -> (Host, RecoveryReport) {
    Host::open(deps(vfs, PathBuf::from("/data"), 1, options))
        .await
        .unwrap()
}

pub(crate) async fn start(host: &Host, start: Start) -> (Group<Counters>, Arc<Counters>) {
    let machine = Arc::new(Counters::default());
    let group = host
        .start_group(config(start), Arc::clone(&machine))
        .await
        .unwrap();
    (group, machine)
}

/// Waits until a replica says so of itself.
pub(crate) async fn until_status(
    group: &Group<Counters>,
    reached: impl Fn(&GroupStatus) -> bool,
) -> GroupStatus {
    let mut status = group.watch_status();
    let reached = status.wait_for(|status| reached(status));
    let reached = Runtime::real().timeout(PATIENCE, reached).await;
    reached.unwrap().unwrap().clone()
}

/// Waits until this replica leads and has applied what its predecessors committed.
pub(crate) async fn settle(group: &Group<Counters>) {
    until_status(group, |status| status.role == replication::Role::Leader).await;
    let runtime = Runtime::real();
    let read = async {
        while group.read_index(PATIENCE).await.is_err() && group.status().stopped.is_none() {
            runtime.sleep(Duration::from_millis(5)).await;
        }
    };
    let read = runtime.timeout(PATIENCE, read).await;
    let status = group.status();
    assert!(read.is_ok() && status.stopped.is_none(), "{status:?}");
}

/// Proposes; again where a leader was held up for so long that it does not know for a moment whether it leads: nothing of that was taken.
pub(crate) async fn put(
    group: &Group<Counters>,
    name: &str,
    count: u64,
) -> Result<Committed<u64>, ProposeError> {
    let runtime = Runtime::real();
    let deadline = runtime.now() + PATIENCE;
    loop {
        let answer = group.propose(ADD, add(name, count)).await;
        let is_unsure = matches!(
            answer,
            Err(ProposeError::NotLeader { leader: None } | ProposeError::LeaseExpired)
        ) && group.status().role == replication::Role::Leader;
        if !is_unsure || runtime.now() > deadline {
            return answer;
        }
        runtime.sleep(Duration::from_millis(5)).await;
    }
}

/// Who talks to a node as its peers do.
pub(crate) fn client_of(node: &Node) -> RaftServiceClient<Channel> {
    let config = rpc::channel::PoolConfig::default();
    let channel = rpc::channel::connect(&Runtime::real(), &node.address, &config);
    RaftServiceClient::new(channel.unwrap())
}

/// Serves what stands before a node, for as long as it is not stopped; gives the address.
pub(crate) async fn serve(service: impl RaftService, stop: &CancellationToken) -> String {
    let runtime = Runtime::real();
    let listener = runtime.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().to_string();
    let config = ServerConfig {
        drain: Duration::ZERO,
        ..ServerConfig::internal()
    };
    let server = Server::new(&runtime, config).with_service(rpc::services::raft(service));
    let stop = stop.clone();
    let serve = async move { server.serve(listener, stop).await };
    drop(runtime.spawn("test-server", serve));
    address
}

/// What stands before a message about [`GROUP`] from one node to another.
pub(crate) fn envelope(from_node: u64, to_node: u64) -> wire::Envelope {
    wire::Envelope {
        cluster_id: CLUSTER.0.to_vec().into(),
        group_id: GROUP.0,
        from_node,
        to_node,
    }
}

/// A node with a server that its peers reach.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) address: String,
    pub(crate) host: Host,
    pub(crate) dir: PathBuf,
    pub(crate) vfs: Arc<dyn Vfs>,
    stop: CancellationToken,
    server: Task<()>,
}

impl Node {
    /// Opens a node and serves on `address`, or on a free port; as a program of an older version does, where it `is_older`.
    pub(crate) async fn open_with(deps: HostDeps, address: Option<String>, is_older: bool) -> Self {
        let runtime = deps.runtime.clone();
        let (vfs, dir) = (Arc::clone(&deps.vfs), deps.dir.clone());
        let id = deps.identity.node;
        let (host, _) = Host::open(deps).await.unwrap();
        let address = address.unwrap_or_else(|| "127.0.0.1:0".to_owned());
        let listener = runtime.bind(address.parse().unwrap()).await.unwrap();
        let address = listener.local_addr().to_string();
        let stop = CancellationToken::new();
        let config = ServerConfig {
            drain: Duration::ZERO,
            ..ServerConfig::internal()
        };
        let server = Server::new(&runtime, config).with_service(older::Older {
            inner: host.raft_service(),
            is_older,
        });
        let serving = stop.clone();
        let server = runtime.spawn("test-server", async move {
            server.serve(listener, serving).await;
        });
        Self {
            id,
            address,
            host,
            dir,
            vfs,
            stop,
            server,
        }
    }

    pub(crate) fn member(&self) -> Member {
        Member::voter(self.id, &self.address)
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer {
            node: self.id,
            address: self.address.clone(),
        }
    }

    /// Takes the node off the network at once, then lets it stop.
    pub(crate) async fn kill(self) -> (Arc<dyn Vfs>, PathBuf, String) {
        self.stop.cancel();
        self.server.await.unwrap();
        drop(self.host.shutdown().await);
        (self.vfs, self.dir, self.address)
    }
}
