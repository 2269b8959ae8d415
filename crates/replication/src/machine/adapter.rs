//! openraft's view of a state machine and of its snapshots.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{Stream, TryStreamExt as _};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use runtime::{Instant, Runtime};

use super::{Applied, ApplyError, Progress, StateMachine};
use crate::raft::{
    Command, Entry, LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, term_of,
};
use crate::snapshot::{self, Header, SnapshotFile, SnapshotStore};
use crate::status::{Halt, StopCause, Tripwire};
use crate::{GroupId, SnapshotError, command};

/// What a replica of a state machine consists of, shared by openraft's worker and the group's handle.
#[derive(Debug)]
pub(crate) struct Shared<S> {
    pub(crate) group: GroupId,
    pub(crate) machine: Arc<S>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) halt: Arc<Halt>,
    pub(crate) runtime: Runtime,
    begun: Instant,
    /// When somebody who leads was last heard.
    heard: Mutex<Option<Instant>>,
    /// Held while the state changes: what openraft has handed out when the replica is shut down may be applied a moment later. True from
    /// when a change begins until it has succeeded.
    is_torn: Mutex<bool>,
    position: Mutex<Position>,
    /// Set when the newest snapshot on disk is to be made known to openraft instead of building another one.
    adopt: AtomicBool,
}

#[derive(Debug, Clone, Default)]
struct Position {
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl<S: StateMachine> Shared<S> {
    pub(crate) fn new(
        group: GroupId,
        machine: Arc<S>,
        snapshots: Arc<SnapshotStore>,
        halt: Arc<Halt>,
        runtime: Runtime,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            group,
            machine,
            progress,
            snapshots,
            halt,
            begun: runtime.now(),
            runtime,
            heard: Mutex::new(None),
            is_torn: Mutex::default(),
            position: Mutex::new(Position::default()),
            adopt: AtomicBool::new(false),
        }
    }

    /// Somebody who leads has sent something.
    pub(crate) fn hear_leader(&self) {
        *self.heard.lock() = Some(self.runtime.now());
    }

    pub(crate) fn leader_silence(&self) -> Option<Duration> {
        let heard = *self.heard.lock();
        heard.map(|at| self.runtime.now().saturating_since(at))
    }

    /// For how long nobody was heard who leads.
    pub(crate) fn leaderless(&self) -> Duration {
        let heard = *self.heard.lock();
        let since = heard.unwrap_or(self.begun);
        self.runtime.now().saturating_since(since)
    }

    pub(crate) fn applied(&self) -> Option<LogId> {
        self.position.lock().applied
    }

    pub(crate) fn membership(&self) -> StoredMembership {
        self.position.lock().membership.clone()
    }

    /// Applies one committed entry. Called by one task at a time.
    pub(crate) fn apply_entry(&self, entry: Entry) -> io::Result<Reply> {
        let mut is_torn = self.is_torn.lock();
        let was_torn = std::mem::replace(&mut *is_torn, true);
        let at = Applied {
            index: entry.log_id.index(),
            term: term_of(&entry.log_id),
        };
        let mut membership = None;
        let reply = match entry.payload {
            EntryPayload::Blank => Reply::default(),
            EntryPayload::Normal(Command(bytes)) => self.apply_command(at, &bytes)?,
            EntryPayload::Membership(found) => {
                membership = Some(StoredMembership::new(Some(entry.log_id), found));
                Reply::default()
            }
        };
        let mut position = self.position.lock();
        position.applied = Some(entry.log_id);
        if let Some(membership) = membership {
            position.membership = membership;
        }
        drop(position);
        *is_torn = was_torn;
        drop(is_torn);
        self.progress.set(at);
        Ok(reply)
    }

    fn apply_command(&self, at: Applied, bytes: &[u8]) -> io::Result<Reply> {
        let envelope = command::decode(bytes).map_err(|error| {
            self.stop(StopCause::Apply, &format!("entry {}: {error}", at.index))
        })?;
        let stamp_ms = self.progress.advance_stamp(envelope.stamp_ms);
        // A panic must stop the replica, not only the task that it happens in.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.machine
                .apply(at, stamp_ms, envelope.kind, envelope.command)
        }));
        let response = outcome
            .unwrap_or_else(|_| {
                Err(ApplyError::Invariant {
                    problem: "the state machine panicked".to_owned(),
                })
            })
            .map_err(|error| {
                self.stop(StopCause::Apply, &format!("entry {}: {error}", at.index))
            })?;
        self.progress.add_bytes(bytes.len());
        Ok(Reply(Some(Box::new(response))))
    }

    fn stop(&self, cause: StopCause, reason: &str) -> io::Error {
        self.halt.set(cause, reason);
        io::Error::other(reason.to_owned())
    }

    /// The state as it is now, between two entries, ready to be written elsewhere. Nothing where nothing was applied, or a change has failed
    /// half-way.
    pub(crate) fn capture(&self) -> Option<Capture<S::View>> {
        let is_torn = self.is_torn.lock();
        if *is_torn {
            return None;
        }
        let position = self.position.lock().clone();
        let header = Header {
            group: self.group,
            last: position.applied?,
            membership: position.membership,
            stamp_ms: self.progress.stamp_ms(),
            taken_at_ms: self.runtime.wall_ms(),
        };
        Some(Capture {
            header,
            view: self.machine.view(),
        })
    }

    /// Makes the next build hand out the newest snapshot on disk.
    pub(crate) fn adopt_newest(&self) {
        self.adopt.store(true, Ordering::Release);
    }

    /// Replaces the state by that of a verified snapshot. May block.
    pub(crate) fn restore(&self, file: &SnapshotFile) -> Result<(), SnapshotError> {
        let found = snapshot::verify(file.vfs().as_ref(), file.path())?;
        let mut body = found.body(file.vfs().as_ref(), file.path())?;
        let header = found.header;
        let mut is_torn = self.is_torn.lock();
        *is_torn = true;
        let at = Applied {
            index: header.last.index(),
            term: term_of(&header.last),
        };
        self.machine.restore(at, &mut body)?;
        *self.position.lock() = Position {
            applied: Some(header.last),
            membership: header.membership.clone(),
        };
        *is_torn = false;
        drop(is_torn);
        self.progress.set_stamp(header.stamp_ms);
        self.progress.set(at);
        self.progress.publish();
        Ok(())
    }

    /// Gives a received file its final name, or copies one that lies elsewhere. May block.
    pub(crate) fn keep(&self, file: &SnapshotFile) -> Result<SnapshotFile, SnapshotError> {
        let (header, info) = (file.header().clone(), file.info().clone());
        if file.is_temporary() {
            return self.snapshots.publish(file.path(), header, info);
        }
        let kept = self.snapshots.newest();
        if let Some(kept) = kept.filter(|kept| kept.info().hash == info.hash) {
            return Ok(kept);
        }
        let found = snapshot::verify(file.vfs().as_ref(), file.path())?;
        let mut body = found.body(file.vfs().as_ref(), file.path())?;
        self.snapshots.require_space(info.bytes)?;
        let temporary = self.snapshots.temporary();
        snapshot::copy(
            self.snapshots.vfs().as_ref(),
            &temporary,
            &header,
            &mut body,
        )
        .and_then(|info| self.snapshots.publish(&temporary, header, info))
        .inspect_err(|_| self.snapshots.discard(&temporary))
    }
}

/// A frozen state on its way to a file.
#[derive(Debug)]
pub(crate) struct Capture<V> {
    pub(crate) header: Header,
    pub(crate) view: V,
}

impl<V: super::SnapshotView> Capture<V> {
    /// Writes and publishes the snapshot. May block. On an error the temporary file is gone.
    pub(crate) fn write(self, store: &SnapshotStore) -> Result<SnapshotFile, SnapshotError> {
        store.require_space(store.expected_bytes())?;
        let temporary: PathBuf = store.temporary();
        snapshot::write(store.vfs().as_ref(), &temporary, &self.header, self.view)
            .and_then(|info| store.publish(&temporary, self.header, info))
            .inspect_err(|_| store.discard(&temporary))
    }
}

/// The state machine as openraft drives it.
#[derive(Debug)]
pub(crate) struct Machine<S>(
    pub(crate) Arc<Shared<S>>,
    #[expect(dead_code, reason = "held for its drop")] Tripwire,
);

impl<S> Machine<S> {
    /// For the one task that applies.
    pub(crate) fn new(shared: Arc<Shared<S>>) -> Self {
        let tripwire = Tripwire::new(Arc::clone(&shared.halt), "state-machine");
        Self(shared, tripwire)
    }
}

impl<S: StateMachine> RaftStateMachine<TypeConfig> for Machine<S> {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder<S::View>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let position = self.0.position.lock().clone();
        Ok((position.applied, position.membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        loop {
            let next = entries
                .try_next()
                .await
                .inspect_err(|error| self.0.halt.set(StopCause::Internal, &error.to_string()))?;
            let Some((entry, responder)) = next else {
                break;
            };
            let reply = self.0.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        self.0.progress.publish();
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder<S::View>> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder<S::View> {
        let adopted = self
            .0
            .adopt
            .swap(false, Ordering::AcqRel)
            .then(|| self.0.snapshots.newest())
            .flatten();
        let work = match adopted {
            Some(file) => Work::Adopt(file),
            None => self.0.capture().map_or(Work::Nothing, |capture| {
                Work::Write(Mutex::new(Some(Box::new(capture))))
            }),
        };
        Builder {
            work,
            store: Arc::clone(&self.0.snapshots),
            runtime: self.0.runtime.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        if snapshot.header().meta() != *meta {
            return Err(io::Error::other("the snapshot is not the announced one"));
        }
        let shared = Arc::clone(&self.0);
        let work = move || {
            shared
                .restore(&snapshot)
                .and_then(|()| shared.keep(&snapshot))
        };
        let kept = self.0.runtime.spawn_blocking("snapshot-install", work);
        let (cause, outcome) = match kept.await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) if error.is_disk_full() => (StopCause::DiskFull, error.to_string()),
            Ok(Err(error)) => (StopCause::Snapshot, error.to_string()),
            Err(error) => (StopCause::Snapshot, error.to_string()),
        };
        Err(self.0.stop(cause, &outcome))
    }

    /// Where all snapshots were found rotten, a new one is written now: without one a follower could not be helped.
    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let store = Arc::clone(&self.0.snapshots);
        if let Some(file) = store.newest() {
            return Ok(Some(to_raft(file)));
        }
        let rotten = store.newest_of_all();
        let (true, Some(capture)) = (rotten.is_some(), self.0.capture()) else {
            return Ok(None);
        };
        let work = move || capture.write(&store);
        match self.0.runtime.spawn_blocking("snapshot-write", work).await {
            Ok(Ok(file)) => Ok(Some(to_raft(file))),
            Ok(Err(error)) => {
                tracing::warn!(group = %self.0.group, %error, "a rotten snapshot could not be replaced yet");
                Ok(rotten.map(to_raft))
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

fn to_raft(file: SnapshotFile) -> Snapshot {
    Snapshot {
        meta: file.header().meta(),
        snapshot: file,
    }
}

/// Builds one snapshot when openraft asks for it.
#[derive(Debug)]
pub(crate) struct Builder<V> {
    work: Work<V>,
    store: Arc<SnapshotStore>,
    runtime: Runtime,
}

#[derive(Debug)]
enum Work<V> {
    Nothing,
    Adopt(SnapshotFile),
    // Behind a lock only because openraft wants builders to be shareable; nobody shares them.
    Write(Mutex<Option<Box<Capture<V>>>>),
}

impl<V> RaftSnapshotBuilder<TypeConfig> for Builder<V>
where
    V: super::SnapshotView,
{
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let capture = match &mut self.work {
            Work::Nothing => return Err(io::Error::other(SnapshotError::Empty)),
            Work::Adopt(file) => return Ok(to_raft(file.clone())),
            Work::Write(capture) => capture
                .get_mut()
                .take()
                .ok_or_else(|| io::Error::other(SnapshotError::Empty))?,
        };
        let store = Arc::clone(&self.store);
        self.runtime
            .spawn_blocking("snapshot-write", move || capture.write(&store))
            .await
            .map_err(io::Error::other)?
            .map(to_raft)
            .map_err(io::Error::other)
    }
}
