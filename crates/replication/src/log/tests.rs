//! openraft's own suite, on the store that servers run.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use openraft::storage::{
    EntryResponder, RaftLogReader as _, RaftLogStorage as _, RaftLogStorageExt as _,
    RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, StorageError};
use runtime::{CancellationToken, Runtime};
use tempfile::TempDir;
use vfs::sim::{Effect, Fault};
use vfs::{Op, RealDisk, SimDisk, Vfs};
use wal::{GroupId, Identity, Record, Wal, WalOptions, Writer};

use super::{LogParts, LogStore, NodeFault};
use crate::host::VotersNote;
use crate::machine::{Builder, Machine, Progress, Shared};
use crate::raft::{
    Command, CommittedLeader, Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig,
    log_id,
};
use crate::snapshot::{SnapshotFile, SnapshotStore};
use crate::status::Halt;
use crate::{Applied, ApplyError, RestoreError, SnapshotView, StateMachine, StopCause};

/// The suite's entries carry no commands.
#[derive(Debug)]
pub(crate) struct Nothing;

impl StateMachine for Nothing {
    type Response = ();
    type View = Nothing;

    fn apply(&self, _: Applied, _: i64, kind: u16, _: &[u8]) -> Result<(), ApplyError> {
        Err(ApplyError::UnknownKind { kind })
    }

    fn view(&self) -> Nothing {
        Nothing
    }

    fn restore(&self, _: Applied, input: &mut dyn Read) -> Result<(), RestoreError> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        if bytes == b"nothing" {
            Ok(())
        } else {
            let problem = "something".to_owned();
            Err(RestoreError::Malformed { problem })
        }
    }
}

impl SnapshotView for Nothing {
    fn encode(self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"nothing")
    }
}

/// The machine that servers run, but for one thing: the suite purges logs under a machine that has applied nothing, and
/// then wants a snapshot of it. A server never gets there, for such a replica is refused before Raft is created.
struct Patient(Machine<Nothing>);

enum PatientBuilder {
    Real(Builder<Nothing>),
    Empty,
}

impl RaftSnapshotBuilder<TypeConfig> for PatientBuilder {
    type SnapshotData = Option<SnapshotFile>;

    async fn build_snapshot(&mut self) -> io::Result<PatientSnapshot> {
        match self {
            Self::Real(builder) => builder.build_snapshot().await.map(patient),
            Self::Empty => Ok(openraft::Snapshot {
                meta: SnapshotMeta::default(),
                snapshot: None,
            }),
        }
    }
}

type PatientSnapshot =
    openraft::Snapshot<CommittedLeader, u64, openraft::BasicNode, Option<SnapshotFile>>;

fn patient(snapshot: Snapshot) -> PatientSnapshot {
    openraft::Snapshot {
        meta: snapshot.meta,
        snapshot: Some(snapshot.snapshot),
    }
}

impl RaftStateMachine<TypeConfig> for Patient {
    type SnapshotData = Option<SnapshotFile>;
    type SnapshotBuilder = PatientBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.0.applied_state().await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.0.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> PatientBuilder {
        if self.0.0.applied().is_none() {
            return PatientBuilder::Empty;
        }
        PatientBuilder::Real(self.0.get_snapshot_builder().await)
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Option<SnapshotFile>,
    ) -> io::Result<()> {
        self.0.install_snapshot(meta, snapshot.unwrap()).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<PatientSnapshot>> {
        Ok(self.0.get_current_snapshot().await?.map(patient))
    }
}

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, Patient, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, Patient), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine) = store_in(Arc::new(RealDisk::new()), dir.path());
        Ok((dir, log, machine))
    }
}

fn store_in(vfs: Arc<dyn Vfs>, dir: &Path) -> (LogStore, Patient) {
    let runtime = Runtime::real();
    let identity = Identity {
        cluster_id: [1; 16],
        node_id: 1,
    };
    let threads = runtime.clone();
    let writer = Writer::Thread(Box::new(move |name, work| threads.spawn_thread(name, work)));
    let (wal, _) = Wal::open(
        Arc::clone(&vfs),
        &dir.join("wal"),
        identity,
        WalOptions::small(),
        writer,
    )
    .unwrap();
    let group = GroupId(5);
    let root = dir.join("snapshots");
    let (snapshots, _) = SnapshotStore::open(Arc::clone(&vfs), &root, group).unwrap();
    let machine = Arc::new(Nothing);
    let halt = Arc::new(Halt::new(&CancellationToken::new()));
    let shared = Shared::new(
        group,
        machine,
        Arc::new(snapshots),
        Arc::clone(&halt),
        runtime.clone(),
        Arc::new(Progress::new()),
    );
    let fault = NodeFault::new();
    let voters = VotersNote::create(vfs.as_ref(), dir, fault.clone()).unwrap();
    let log = LogStore::new(LogParts {
        wal,
        group,
        node: 1,
        voters: Arc::new(voters),
        fault,
        halt,
        runtime,
        room_turn: Arc::default(),
    });
    (log, Patient(Machine::new(Arc::new(shared))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_openraft_passes() {
    Suite::test_all(OnDisk).await.unwrap();
}

#[tokio::test]
async fn a_hole_in_the_log_is_no_end_of_it() {
    let (_dir, mut log, machine) = OnDisk.build().await.unwrap();
    let entry = |index| {
        Record::Entry(wal::Entry {
            id: wal::LogId {
                term: 1,
                node: 0,
                index,
            },
            kind: 0,
            payload: bytes::Bytes::new(),
        })
    };
    let purge = Record::Purge {
        upto: wal::LogId {
            term: 1,
            node: 0,
            index: 4,
        },
        chain: None,
    };
    let mut batch: Vec<Record> = (0..10).map(entry).collect();
    batch.push(purge);
    log.wal.append_sync(log.group, batch).unwrap();
    let mut reader = log.get_log_reader().await;
    let read: Vec<_> = reader.entries_stream(5..10).await.collect().await;
    assert_eq!(read.len(), 5);
    assert!(read.iter().all(Result::is_ok), "{read:?}");
    let read: Vec<_> = reader.entries_stream(9..12).await.collect().await;
    assert!(matches!(read.as_slice(), [Ok(_)]), "the log ends: {read:?}");
    assert!(machine.0.0.halt.get().is_none());
    let read: Vec<_> = reader.entries_stream(3..8).await.collect().await;
    assert!(matches!(read.as_slice(), [Err(_)]), "{read:?}");
    let stopped = machine.0.0.halt.get().unwrap();
    assert_eq!(stopped.cause, StopCause::DataLoss);
    // What others have committed may now be what this log refused.
    let read: Vec<_> = reader.entries_stream(9..12).await.collect().await;
    assert!(matches!(read.as_slice(), [Ok(_), Err(_)]), "{read:?}");
}

/// Entries that are more than the log takes at once.
fn too_much() -> Vec<Entry> {
    let payload = bytes::Bytes::from(vec![0; 1 << 20]);
    let count = wal::BATCH_BYTES_MAX as u64 / payload.len() as u64 + 6;
    (0..count)
        .map(|index| Entry {
            log_id: log_id(1, index),
            payload: EntryPayload::Normal(Command(payload.clone())),
        })
        .collect()
}

#[tokio::test]
async fn what_is_more_than_the_log_takes_at_once_goes_to_it_piece_by_piece() {
    let (_dir, mut log, machine) = OnDisk.build().await.unwrap();
    let entries = too_much();
    let last = entries.last().map(|entry| entry.log_id.index());
    log.blocking_append(entries).await.unwrap();
    assert!(machine.0.0.halt.get().is_none());
    let state = log.wal.group(log.group);
    assert_eq!(state.first_index, 0);
    assert_eq!(state.last.map(|last| last.index), last);
}

#[tokio::test]
async fn behind_a_piece_that_finds_no_room_nothing_is_written() {
    let disk = SimDisk::new();
    let (mut log, machine) = store_in(Arc::new(disk.clone()), Path::new("/"));
    disk.inject(Fault::next(Op::Write, Effect::NoSpace).on_path(".wal"));
    log.blocking_append(too_much()).await.unwrap_err();
    assert_eq!(disk.faults_waiting(), 0);
    let stopped = machine.0.0.halt.get().unwrap();
    assert_eq!(stopped.cause, StopCause::DiskFull);
    assert_eq!(log.wal.group(log.group).last, None);
}
