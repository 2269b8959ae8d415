//! Starting a group: found, resume, join or seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::BasicNode;
use vfs::Traffic;
use wal::GroupId;

use super::{Host, Inner, recover};
use crate::config::{GroupConfig, Start, Timing};
use crate::group::{Group, Parts};
use crate::lease::Grants;
use crate::log::{LogParts, LogStore, vote_record};
use crate::machine::{Machine, Progress, Shared};
use crate::network::{Factory, Limits, Standings};
use crate::raft::{Membership, StoredMembership};
use crate::snapshot::{self, Header, SnapshotStore};
use crate::status::{Halt, Tripwire};
use crate::{Applied, Member, SnapshotFile, StartError, StateMachine, convert};

/// A peer's answer is not overdue before this, however short the election timeout: its disk may be busy.
const ANSWER_MIN: Duration = Duration::from_millis(1200);

impl Host {
    /// Starts a replica of a group. When this returns, the state is back as far as it was known to be committed, and Raft
    /// runs; a group of one has a leader a few milliseconds later. Bringing the state back may take long: see
    /// [`Host::start_group_watched`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_group<S: StateMachine>(
        &self,
        config: GroupConfig,
        machine: Arc<S>,
    ) -> Result<Group<S>, StartError> {
        self.start_group_watched(config, machine, |_| {}).await
    }

    /// As [`Host::start_group`], and hands out a handle by which is seen how it gets on, before it reads anything.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_group_watched<S: StateMachine>(
        &self,
        config: GroupConfig,
        machine: Arc<S>,
        begun: impl FnOnce(ReplayWatch) + Send,
    ) -> Result<Group<S>, StartError> {
        let raft_config = config.to_raft()?;
        let group = config.group;
        self.inner.check_sound(group)?;
        let _claim = self.inner.claim_soon(group).await?;
        self.inner.retired.lock().remove(&group);
        let progress = Arc::new(Progress::new());
        begun(ReplayWatch(Arc::clone(&progress)));
        let inner = Arc::clone(&self.inner);
        let (start, traffic) = (config.start.clone(), progress.traffic().clone());
        let stored = self
            .blocking(group, move || inner.prepare(group, &start, &traffic))
            .await?;
        let runtime = self.inner.runtime.clone();
        let snapshots = Arc::clone(&stored.snapshots);
        let halt = Arc::new(Halt::new(self.inner.fault.silence()));
        let shared = Shared::new(group, machine, snapshots, halt, runtime, progress);
        let shared = Arc::new(shared);
        let voters = {
            let (shared, inner) = (Arc::clone(&shared), Arc::clone(&self.inner));
            let start = config.start.clone();
            self.blocking(group, move || {
                recover::load(&shared, &inner.wal, &stored.state)?;
                let voters = recover::voters(&shared, &inner.wal, &stored.state)?;
                inner.note_voters(group, &start, &voters)?;
                Ok(voters)
            })
            .await?
        };
        self.run(&config, raft_config, shared, &voters).await
    }

    /// The snapshot as of an entry that a group which does not run has on this node's disk; nothing where there is none, or one that does
    /// not verify.
    ///
    /// # Errors
    /// [`StartError::Running`] where it runs, or is being started or removed; and those of the disk.
    pub async fn snapshot_of(
        &self,
        group: GroupId,
        applied: Applied,
    ) -> Result<Option<SnapshotFile>, StartError> {
        let _claim = self.inner.claim_soon(group).await?;
        let inner = Arc::clone(&self.inner);
        self.blocking(group, move || {
            let found = SnapshotStore::find(&inner.vfs, &inner.snapshot_root, group, applied);
            Ok(found?)
        })
        .await
    }

    async fn run<S: StateMachine>(
        &self,
        config: &GroupConfig,
        raft_config: openraft::Config,
        shared: Arc<Shared<S>>,
        voters: &[u64],
    ) -> Result<Group<S>, StartError> {
        let inner = &self.inner;
        let group = config.group;
        let node = inner.node().0;
        let resumed = matches!(config.start, Start::Resume);
        let silent = resumed && voters.iter().any(|voter| *voter != node);
        let raft_config = openraft::Config {
            enable_elect: !silent,
            ..raft_config
        };
        let log = LogStore::new(LogParts {
            wal: inner.wal.clone(),
            group,
            node,
            voters: Arc::clone(&inner.voters),
            fault: inner.fault.clone(),
            halt: Arc::clone(&shared.halt),
            runtime: inner.runtime.clone(),
            room_turn: Arc::clone(&inner.room_turn),
        });
        let network = inner.network(config, &shared.halt);
        let stopped = |reason: String| StartError::Stopped { group, reason };
        let machine = Machine::new(Arc::clone(&shared));
        let raft = openraft::Raft::new(node, Arc::new(raft_config), network.clone(), log, machine)
            .await
            .map_err(|fatal| stopped(fatal.to_string()))?;
        if let Start::Bootstrap { members } = &config.start {
            if let Err(error) = raft.initialize(nodes(members)).await {
                drop(raft.shutdown().await);
                return Err(stopped(error.to_string()));
            }
        } else if voters == [node] {
            // Nobody else can lead, so there is nothing to wait for.
            let asked = raft.trigger().elect(false).await;
            asked.map_err(|fatal| stopped(fatal.to_string()))?;
        }
        let started = Group::new(Parts {
            raft,
            shared,
            wal: inner.wal.clone(),
            clock: Arc::clone(&inner.clock),
            node,
            network,
            policy: config.snapshots,
            log_bytes_max: inner.options.log_bytes_max,
            lag_entries_max: config.lag_entries_max,
            command_bytes_max: config.command_bytes_max,
            silent_until: silent.then(|| inner.runtime.now() + Timing::longest_lease()),
            snapshot_turn: Arc::clone(&inner.snapshot_turn),
        });
        inner.registry.insert(
            group,
            Arc::clone(started.inner()) as Arc<dyn super::registry::Running>,
        );
        // Found out while it started: whoever stops all groups may have come before this one was among them.
        if let Some(problem) = inner.fault.damaged() {
            let cause = crate::StopCause::DataLoss;
            started.inner().halt_for(cause, &problem).await;
            return Err(StartError::DataLoss { group, problem });
        }
        if inner.fault.silence().is_cancelled() {
            started.shutdown().await;
            return Err(stopped("the node has ended".to_owned()));
        }
        Ok(started)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        group: GroupId,
        work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
    ) -> Result<T, StartError> {
        self.inner
            .runtime
            .spawn_blocking("group-start", work)
            .await
            .map_err(|error| StartError::Stopped {
                group,
                reason: error.to_string(),
            })?
    }
}

/// How far a group that is being started has come.
#[derive(Debug, Clone)]
pub struct ReplayWatch(Arc<crate::machine::Progress>);

impl ReplayWatch {
    /// The entries that are part of the state, and those that have to be.
    #[must_use]
    pub fn get(&self) -> crate::Replay {
        let (done, target) = self.0.replay();
        crate::Replay { done, target }
    }

    /// Bytes of its snapshots that were read and written so far: they move while a large one is verified and taken over, before any
    /// entry is part of the state.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.traffic().bytes()
    }
}

impl Inner {
    /// Checks that the start suits what is on disk, and writes what a seeded group begins with. May block.
    fn prepare(
        &self,
        group: GroupId,
        start: &Start,
        traffic: &Traffic,
    ) -> Result<recover::Stored, StartError> {
        // What an earlier life of the group in this process left in the queue is now on the disk, or taken back.
        self.wal.flush()?;
        let exists = self.exists(group)?;
        let stored = self.stored(group, traffic)?;
        match start {
            Start::Resume if !exists => Err(StartError::NotFound { group }),
            Start::Resume => Ok(stored),
            Start::Bootstrap { .. } | Start::Join | Start::Seed { .. } if !stored.is_empty() => {
                Err(StartError::Exists { group })
            }
            Start::Join => Ok(stored),
            Start::Bootstrap { members } => {
                self.check_member(group, members)?;
                Ok(stored)
            }
            Start::Seed { snapshot, member } => {
                self.check_member(group, std::slice::from_ref(member))?;
                self.seed(group, &stored.snapshots, snapshot, member, traffic)?;
                self.stored(group, traffic)
            }
        }
    }

    fn stored(&self, group: GroupId, traffic: &Traffic) -> Result<recover::Stored, StartError> {
        let vfs = traffic.through(Arc::clone(&self.vfs));
        let (store, found) = SnapshotStore::open(vfs, &self.snapshot_root, group)?;
        let damaged = found.damaged.len();
        let opened = (store.in_life(self.registry.next_number()), found);
        let stored = recover::Stored::open(&self.wal, opened, group)?;
        for _ in 0..damaged {
            self.note_found(super::Rotten::Started(group));
        }
        Ok(stored)
    }

    /// To the other members of a group.
    fn network(&self, config: &GroupConfig, halt: &Arc<Halt>) -> Factory {
        Factory {
            context: Arc::clone(&self.context),
            group: config.group,
            silence: halt.silence().clone(),
            tripwire: Tripwire::new(Arc::clone(halt), "replication"),
            limits: Limits {
                answer: (config.timing.election_max * 2).max(ANSWER_MIN),
            },
            grants: Arc::new(Grants::new(config.timing.lease())),
            standings: self.standings(config.group),
            entry_wanted: Arc::default(),
            sendings: Arc::default(),
            streams: Arc::default(),
        }
    }

    /// What the members of a group have told this node, since it started.
    fn standings(&self, group: GroupId) -> Arc<Standings> {
        let mut all = self.standings.lock();
        let of_group = all.entry(group);
        Arc::clone(of_group.or_insert_with(|| Standings::of(&self.own)))
    }

    /// Nothing is served from a log that is known to be rotten.
    fn check_sound(&self, group: GroupId) -> Result<(), StartError> {
        let damaged = self.fault.damaged();
        damaged.map_or(Ok(()), |problem| {
            Err(StartError::DataLoss { group, problem })
        })
    }

    /// Says in the node's note whether others vote, before anything of the group is written.
    fn note_voters(&self, group: GroupId, start: &Start, voters: &[u64]) -> Result<(), StartError> {
        let node = self.node();
        let shared = match start {
            Start::Resume | Start::Seed { .. } => voters != [node.0],
            // Whoever adds it votes.
            Start::Join => true,
            Start::Bootstrap { members } => members.iter().any(|member| member.node != node),
        };
        if shared {
            self.voters.share(group)?;
        } else {
            self.voters.unshare(group)?;
        }
        Ok(())
    }

    fn check_member(&self, group: GroupId, members: &[Member]) -> Result<(), StartError> {
        let node = self.node();
        if let Some(learner) = members.iter().find(|member| !member.voter) {
            return Err(StartError::Options {
                option: "members",
                problem: format!("node {} of a new group has no vote", learner.node),
            });
        }
        convert::check_members(members).map_err(|error| StartError::Options {
            option: "members",
            problem: error.to_string(),
        })?;
        if members.iter().any(|member| member.node == node) {
            Ok(())
        } else {
            Err(StartError::NotAMember { group, node })
        }
    }

    /// Writes a snapshot of another group as the beginning of this one. The vote goes first: a snapshot without one
    /// would be taken for a lost log.
    fn seed(
        &self,
        group: GroupId,
        store: &SnapshotStore,
        snapshot: &SnapshotFile,
        member: &Member,
        traffic: &Traffic,
    ) -> Result<(), StartError> {
        let elsewhere = traffic.through(Arc::clone(snapshot.vfs()));
        let found = snapshot::verify(elsewhere.as_ref(), snapshot.path())?;
        let mut body = found.body(elsewhere.as_ref(), snapshot.path())?;
        let last = found.header.last;
        let voter = std::collections::BTreeSet::from([member.node.0]);
        let membership = Membership::new(vec![voter], nodes(std::slice::from_ref(member)))
            .map_err(|error| StartError::Options {
                option: "member",
                problem: error.to_string(),
            })?;
        let header = Header {
            group,
            membership: StoredMembership::new(Some(last), membership),
            ..found.header
        };
        let vote = recover::vote_for(&last, self.node().0);
        self.wal.append_sync(group, vec![vote_record(&vote)])?;
        let temporary = store.temporary();
        let written = snapshot::copy(store.vfs().as_ref(), &temporary, &header, &mut body);
        written
            .and_then(|info| store.publish(&temporary, header, info))
            .inspect_err(|_| store.discard(&temporary))?;
        Ok(())
    }
}

fn nodes(members: &[Member]) -> BTreeMap<u64, BasicNode> {
    members
        .iter()
        .map(|member| (member.node.0, BasicNode::new(&member.address)))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use cluster::ClusterId;
    use runtime::Runtime;
    use vfs::SimDisk;
    use vfs::sim::every_mishap;

    use super::*;
    use crate::snapshot::tests as snapshots;
    use crate::{HostDeps, HostOptions, Identity, NodeId, OpenError, WalOptions};

    /// For the first node, whose log is written by whoever appends.
    pub(crate) fn deps(disk: &SimDisk) -> HostDeps {
        HostDeps {
            runtime: Runtime::real(),
            vfs: Arc::new(disk.clone()),
            dir: PathBuf::from("/data"),
            identity: Identity {
                cluster: ClusterId([7; 16]),
                node: NodeId(1),
            },
            options: HostOptions {
                wal: WalOptions::small(),
                writer_thread: false,
                ..HostOptions::default()
            },
        }
    }

    fn open(disk: &SimDisk) -> Result<Inner, OpenError> {
        Inner::open(deps(disk)).map(|(inner, _)| inner)
    }

    #[test]
    fn whatever_goes_wrong_while_a_group_is_seeded_it_is_there_or_can_be_seeded_again() {
        const GROUP: GroupId = GroupId(8);
        let prepare = |node: &Inner, start: &Start| node.prepare(GROUP, start, &Traffic::default());
        let (elsewhere, _) = snapshots::disk();
        let (store, _) = snapshots::store(&elsewhere);
        let snapshot = snapshots::take(&store, 20, b"what is left");
        let held = snapshot.info().applied;
        let seed = Start::Seed {
            snapshot,
            member: Member::voter(NodeId(1), "127.0.0.1:1"),
        };
        let disk = SimDisk::new();
        drop(open(&disk).unwrap());
        let runs = every_mishap(&disk, |disk| {
            open(disk).is_ok_and(|node| prepare(&node, &seed).is_ok())
        });
        let (mut there, mut anew) = (0, 0);
        for run in runs {
            let (seeded, what) = (run.outcome, run.mishap);
            assert!(seeded || !what.is_harmless(), "{what:?}");
            for image in run.images() {
                let node = open(&image).unwrap();
                match prepare(&node, &seed) {
                    Ok(_) if seeded => panic!("{what:?}: what was seeded is not there"),
                    Ok(_) => anew += 1,
                    Err(StartError::Exists { .. }) => there += 1,
                    Err(error) => panic!("{what:?}: {error}"),
                }
                drop(node);
                let node = open(&image.crash_losing_all()).unwrap();
                let stored = prepare(&node, &Start::Resume).unwrap();
                assert!(stored.state.vote.is_some(), "{what:?}");
                let newest = stored.snapshots.newest().unwrap();
                assert_eq!((newest.info().group, newest.info().applied), (GROUP, held));
            }
        }
        assert!(there > 0 && anew > 0, "{there} were there, {anew} not");
    }
}
