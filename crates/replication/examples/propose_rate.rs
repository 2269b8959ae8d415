//! How many proposals a second a group of one takes on a real disk.
//!
//! `cargo run --release -p replication --example propose_rate -- DIRECTORY` founds a group in an empty directory and
//! proposes small commands for a few seconds, first one at a time, then 64 at a time.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster::ClusterId;
use replication::{
    Applied, ApplyError, Group, GroupConfig, GroupId, Host, HostDeps, HostOptions, Identity,
    Member, NodeId, RestoreError, Role, SnapshotView, Start, StateMachine,
};
use runtime::Runtime;
use vfs::RealDisk;

const MEASURED: Duration = Duration::from_secs(3);
const COMMAND: &[u8] = &[b'c'; 40];

/// Counts what it is given.
#[derive(Debug, Default)]
struct Count(AtomicU64);

struct Frozen(u64);

impl StateMachine for Count {
    type Response = u64;
    type View = Frozen;

    fn apply(&self, _: Applied, _: i64, _: u16, _: &[u8]) -> Result<u64, ApplyError> {
        Ok(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn view(&self) -> Frozen {
        Frozen(self.0.load(Ordering::Relaxed))
    }

    fn restore(&self, _: Applied, input: &mut dyn Read) -> Result<(), RestoreError> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        self.0.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        Ok(())
    }
}

impl SnapshotView for Frozen {
    fn encode(self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.0.to_le_bytes())
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let dir = std::env::args().nth(1).ok_or("name an empty directory")?;
    let deps = HostDeps {
        runtime: Runtime::real(),
        vfs: Arc::new(RealDisk::new()),
        dir: PathBuf::from(dir),
        identity: Identity {
            cluster: ClusterId([1; 16]),
            node: NodeId(1),
        },
        options: HostOptions::default(),
    };
    let runtime = deps.runtime.clone();
    let (host, _) = Host::open(deps).await?;
    let members = vec![Member::voter(NodeId(1), "127.0.0.1:1")];
    let config = GroupConfig::new(GroupId(1), Start::Bootstrap { members });
    let group = host.start_group(config, Arc::new(Count::default())).await?;
    let mut status = group.watch_status();
    status
        .wait_for(|status| status.role == Role::Leader)
        .await?;
    for in_flight in [1, 64] {
        measure(&runtime, &group, in_flight).await?;
    }
    host.shutdown().await?;
    Ok(())
}

async fn measure(runtime: &Runtime, group: &Group<Count>, in_flight: usize) -> Result<(), Failure> {
    let begun = runtime.now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (clock, group) = (runtime.clone(), group.clone());
            runtime.spawn("proposer", async move {
                let mut took = Vec::new();
                while clock.now().saturating_since(begun) < MEASURED {
                    let sent = clock.now();
                    group.propose(1, Bytes::from_static(COMMAND)).await?;
                    took.push(clock.now().saturating_since(sent));
                }
                Ok::<_, Failure>(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let seconds = runtime.now().saturating_since(begun).as_secs_f64();
    took.sort_unstable();
    let at = |share: usize| {
        took.get(took.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    writeln!(
        io::stdout(),
        "{in_flight} in flight: {:.0} proposals a second, p50 {:?}, p99 {:?}",
        took.len() as f64 / seconds,
        at(50),
        at(99),
    )?;
    Ok(())
}
