//! Raft's own promises, checked with every record that reaches a disk.
//!
//! A [`Witness`] stands between each server's log and its disk, below whatever bug the server may have, and tells [`Logs`] of every
//! write and every sync. So what is judged is what the disks hold, whoever believes what; the servers are asked nothing. Checked
//! at once, with the time at which it went wrong:
//!
//! - *Election safety*: a term has one leader.
//! - *Votes*: a log never goes back to an earlier term, nor from one candidate to another of the same term, unless that one has won; nor
//!   does a node that has left a group and comes back. Who wins a term has votes that a majority of the voters have synced.
//! - *Log matching*: what has the same group, index and term is the same.
//! - *Commits*: what a log says is committed has been synced by a majority of the voters, and is the same everywhere for ever.
//! - *Leader completeness*: a leader has all that was committed in earlier terms.
//! - Nobody cuts off what it knows to be committed, or purges what it does not.
//!
//! Who votes is what the logs themselves say ([`voters`]): while the voters change, what is committed and who wins is judged by both sets, or by
//! either where no more can be said.
//!
//! A disk that was lost is no copy any more, and neither is one that was set back to what it was.
//!
//! How far a log is committed is known from its hints, which are written a moment after the fact.

mod lives;
mod voters;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster::NodeId;
use parking_lot::Mutex;
use vfs::{Result, SimDisk, Vfs as _, VfsFile};
use wal::inspect::{RecordInfo, RecordKind, SegmentFollower, Verdict};
use wal::{GroupId, Vote};

use crate::cast::Shape;
use crate::net::HostId;
use crate::tap::{self, Tap};
use crate::trace;
use lives::{Life, Lives, Promises};
use voters::Memberships;

/// Problems that are told; one mostly brings many others.
const PROBLEMS_MAX: usize = 20;

/// The shard servers, or the coordinators: each have groups of their own, with numbers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cluster {
    of_shards: bool,
    /// Of the replicas that a group begins with: where nothing is known of its voters.
    majority: usize,
}

type Key = (Cluster, GroupId);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    term: u64,
    node: u64,
    digest: [u8; 16],
}

/// What was said of a committed entry first.
#[derive(Debug)]
struct Commit {
    held: Held,
    /// Who said so.
    name: String,
    /// It was committed in this term at the latest.
    term: u64,
}

/// What one disk's log says of one group.
#[derive(Debug, Default)]
struct GroupLog {
    entries: BTreeMap<u64, Held>,
    committed: u64,
    /// Entries below this index are gone, for a snapshot has them.
    floor: u64,
    /// Of those, the index and the term of the last one that it had itself.
    purged: Option<(u64, u64)>,
    vote: Option<Vote>,
}

/// One disk's log.
#[derive(Debug)]
struct Disk {
    name: String,
    cluster: Cluster,
    /// The number of the node that it belongs to, once known.
    node: u64,
    segments: BTreeMap<u64, Segment>,
    groups: BTreeMap<GroupId, GroupLog>,
    /// Read at a start, where what is told was done long before.
    is_old: bool,
}

/// A segment, and what was written to it and not synced.
#[derive(Debug)]
struct Segment {
    follower: SegmentFollower,
    unsynced: Vec<Unsynced>,
}

/// What others rely on once it is synced.
#[derive(Debug, Clone, Copy)]
enum Unsynced {
    Entry {
        group: GroupId,
        index: u64,
        term: u64,
    },
    /// For a candidate, or for one that has won.
    Vote {
        group: GroupId,
        term: u64,
        node: u64,
    },
}

impl Unsynced {
    fn of(record: &RecordKind) -> Option<Self> {
        let for_candidate = |group, vote: Vote| Self::Vote {
            group,
            term: vote.term,
            node: vote.node,
        };
        match *record {
            RecordKind::Entry {
                group, term, index, ..
            } => Some(Self::Entry { group, index, term }),
            RecordKind::Vote { group, vote } => Some(for_candidate(group, vote)),
            RecordKind::State { group, vote, .. } => vote.map(|vote| for_candidate(group, vote)),
            RecordKind::Segment { .. }
            | RecordKind::Committed { .. }
            | RecordKind::Truncate { .. }
            | RecordKind::Purge { .. }
            | RecordKind::Remove { .. }
            | RecordKind::Marker { .. }
            | RecordKind::Damage { .. } => None,
        }
    }
}

/// What was found on all disks so far.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    disks: BTreeMap<HostId, Disk>,
    leaders: BTreeMap<(Key, u64), u64>,
    /// What an entry was when it was first seen, by index and term.
    first: BTreeMap<(Key, u64, u64), [u8; 16]>,
    /// The disks that ever synced an entry, by index and term.
    synced: BTreeMap<(Key, u64, u64), BTreeSet<Life>>,
    /// The disks that ever synced a vote, by term and candidate.
    voted: BTreeMap<(Key, u64, u64), BTreeSet<Life>>,
    lives: Lives,
    promises: Promises,
    memberships: Memberships,
    committed: BTreeMap<Key, BTreeMap<u64, Commit>>,
    pub(crate) problems: Vec<String>,
    /// Committed entries that were compared.
    pub(crate) entries: u64,
}

impl Logs {
    /// A server starts: its log is what its disk holds now.
    fn start(&mut self, host: HostId, name: &str, cluster: Cluster, disk: &SimDisk) {
        let known = Disk {
            name: name.to_owned(),
            cluster,
            node: 0,
            segments: BTreeMap::new(),
            groups: BTreeMap::new(),
            is_old: true,
        };
        self.disks.insert(host, known);
        let folder = Path::new(tap::LOG);
        // Its server refuses it. What stands behind the damage means nothing without what it followed.
        let judged = wal::inspect::verify(&disk.restart(), folder, None);
        if judged.is_ok_and(|report| matches!(report.verdict, Verdict::Rotten { .. })) {
            return;
        }
        let mut names: Vec<_> = disk
            .list_dir(folder)
            .unwrap_or_default()
            .into_iter()
            .map(|entry| folder.join(entry.name))
            .filter(|path| tap::is_segment(path))
            .collect();
        names.sort();
        for path in newest_run(names) {
            self.open(host, &path);
            let bytes = disk.contents(&path).unwrap_or_default();
            self.write(host, &path, 0, &bytes);
        }
        if let Some(disk) = self.disks.get_mut(&host) {
            disk.is_old = false;
        }
    }

    fn open(&mut self, host: HostId, path: &Path) {
        let Some(disk) = self.disks.get_mut(&host) else {
            return;
        };
        if let Some(follower) = SegmentFollower::of(path) {
            disk.segments.entry(follower.number()).or_insert(Segment {
                follower,
                unsynced: Vec::new(),
            });
        }
    }

    fn segment(&mut self, host: HostId, path: &Path) -> Option<&mut Segment> {
        let number = SegmentFollower::of(path)?.number();
        self.disks.get_mut(&host)?.segments.get_mut(&number)
    }

    fn write(&mut self, host: HostId, path: &Path, offset: u64, bytes: &[u8]) {
        let mut records = Vec::new();
        if let Some(segment) = self.segment(host, path) {
            let mut keep = |record: &RecordInfo| records.push(record.kind.clone());
            segment.follower.written(offset, bytes, &mut keep);
            segment
                .unsynced
                .extend(records.iter().filter_map(Unsynced::of));
        }
        let Some(mut disk) = self.disks.remove(&host) else {
            return;
        };
        for record in records {
            self.record(&mut disk, record);
        }
        self.disks.insert(host, disk);
    }

    fn sync(&mut self, host: HostId, path: &Path) {
        let Some(segment) = self.segment(host, path) else {
            return;
        };
        let synced = std::mem::take(&mut segment.unsynced);
        let Some(disk) = self.disks.get(&host) else {
            return;
        };
        let (cluster, node, life) = (disk.cluster, disk.node, self.lives.of(host));
        self.lives.belongs(life, node);
        for synced in synced {
            let lives = match synced {
                Unsynced::Entry { group, index, term } => {
                    self.synced.entry(((cluster, group), index, term))
                }
                Unsynced::Vote {
                    group,
                    term,
                    node: candidate,
                } => {
                    let group = (cluster, group);
                    self.promises.keep(group, node, term, candidate);
                    self.voted.entry((group, term, candidate))
                }
            };
            lives.or_default().insert(life);
        }
    }

    fn record(&mut self, disk: &mut Disk, record: RecordKind) {
        match record {
            RecordKind::Segment { identity, .. } => disk.node = identity.node_id,
            RecordKind::Entry {
                group,
                term,
                node,
                index,
                kind,
                payload,
                ..
            } => {
                let held = Held {
                    term,
                    node,
                    digest: digest(kind, &payload),
                };
                let named = replication::voters_of(kind, &payload);
                self.entry(disk, group, index, held, named);
            }
            RecordKind::Vote { group, vote } => self.vote(disk, group, vote),
            RecordKind::Committed { group, index } => self.commit(disk, group, index),
            RecordKind::Truncate { group, from_index } => {
                let log = disk.groups.entry(group).or_default();
                let known = log.committed;
                log.entries.split_off(&from_index);
                if from_index <= known && known > 0 {
                    let text = format!("cut group {group} from {from_index}, committed to {known}");
                    self.tell(disk, &text);
                }
            }
            RecordKind::Purge { group, upto_index } => disk.purge(group, upto_index + 1),
            RecordKind::Remove { group } => {
                disk.groups.remove(&group);
            }
            RecordKind::State {
                group,
                purged_index,
                last_index,
                vote,
            } => {
                // Of the segment's beginning: a start writes the last segment anew, and all that it holds follows once more.
                disk.purge(group, purged_index.map_or(0, |index| index + 1));
                let log = disk.groups.entry(group).or_default();
                let end = last_index.map_or(0, |index| index + 1);
                log.entries.split_off(&end);
                log.committed = log.committed.min(last_index.unwrap_or(0));
                log.vote = vote;
            }
            RecordKind::Marker { .. } | RecordKind::Damage { .. } => {}
        }
    }

    fn entry(
        &mut self,
        disk: &mut Disk,
        group: GroupId,
        index: u64,
        held: Held,
        named: Option<Vec<BTreeSet<NodeId>>>,
    ) {
        let key = (disk.cluster, group);
        self.lead(disk, group, held.term, held.node);
        let first = *self
            .first
            .entry((key, index, held.term))
            .or_insert(held.digest);
        if first != held.digest {
            let term = held.term;
            let text = format!("group {group}, entry {index} of term {term} is not what it was");
            self.tell(disk, &text);
        }
        let log = disk.groups.entry(group).or_default();
        let before = log.term_before(index);
        let entry = (key, index, held.term);
        self.memberships.note(entry, before, named);
        log.entries.insert(index, held);
    }

    fn vote(&mut self, disk: &mut Disk, group: GroupId, vote: Vote) {
        let log = disk.groups.entry(group).or_default();
        let before = log.vote.replace(vote);
        if let Some(before) = before {
            // Whoever voted for one that lost follows the one that won.
            let is_same = vote.node == before.node && vote.committed >= before.committed;
            let follows = vote.committed && !before.committed;
            let goes_back =
                vote.term < before.term || vote.term == before.term && !(is_same || follows);
            if goes_back {
                let text = format!("group {group}: {vote:?} after {before:?}");
                self.tell(disk, &text);
            }
        }
        let broken = self.promises.broken((disk.cluster, group), disk.node, vote);
        if let Some((term, candidate)) = broken.filter(|_| !disk.is_old) {
            let text = format!("group {group}: {vote:?} after {candidate} in term {term}");
            self.tell(disk, &text);
        }
        if vote.committed {
            self.lead(disk, group, vote.term, vote.node);
            if vote.node == disk.node && before != Some(vote) && !disk.is_old {
                self.complete(disk, group, vote.term);
                self.elected(disk, group, vote);
            }
        }
    }

    /// A term has one leader. Entries do not always name theirs.
    fn lead(&mut self, disk: &Disk, group: GroupId, term: u64, node: u64) {
        if node == 0 {
            return;
        }
        let key = (disk.cluster, group);
        let leader = *self.leaders.entry((key, term)).or_insert(node);
        if leader != node {
            let text = format!("group {group}, term {term} is led by {leader} and {node}");
            self.tell(disk, &text);
        }
    }

    /// Who wins has the votes of a majority.
    fn elected(&mut self, disk: &Disk, group: GroupId, vote: Vote) {
        let key = (disk.cluster, group);
        let voted = self.voted.get(&(key, vote.term, vote.node));
        let (votes, nodes) = (self.lives.hosts(voted), self.lives.nodes(voted));
        let last = disk.groups.get(&group).and_then(GroupLog::last);
        let may = last.and_then(|(index, term)| {
            let last = (key, index, term);
            self.memberships.may_elect(last, &nodes)
        });
        if !may.unwrap_or(votes >= disk.cluster.majority) {
            let term = vote.term;
            let text = format!("group {group}: leads term {term} with {votes} votes, {nodes:?}");
            self.tell(disk, &text);
        }
    }

    /// A leader has what was committed in earlier terms.
    fn complete(&mut self, disk: &Disk, group: GroupId, term: u64) {
        let committed = self.committed.get(&(disk.cluster, group));
        // An entry of an earlier term may be committed in a later one.
        let earlier = |(_, commit): &(&u64, &Commit)| commit.term < term;
        let newest = committed.and_then(|all| all.iter().rev().find(earlier));
        let (Some((index, commit)), Some(log)) = (newest, disk.groups.get(&group)) else {
            return;
        };
        let own = log.entries.get(index);
        if *index >= log.floor && own.is_none_or(|own| own.term != commit.held.term) {
            let text = format!("group {group}: leads term {term} without entry {index}");
            self.tell(disk, &text);
        }
    }

    /// What is committed is the same everywhere, for ever, and on the disks of a majority.
    fn commit(&mut self, disk: &mut Disk, group: GroupId, index: u64) {
        let key = (disk.cluster, group);
        let log = disk.groups.entry(group).or_default();
        let from = if log.committed == 0 {
            0
        } else {
            log.committed + 1
        };
        log.committed = log.committed.max(index);
        let term = log.vote.map_or(u64::MAX, |vote| vote.term);
        let mut problems = Vec::new();
        for (index, held) in log.entries.range(from..=index.max(from)) {
            if *index > log.committed {
                break;
            }
            self.entries += 1;
            let all = self.committed.entry(key).or_default();
            let Some(known) = all.get(index) else {
                let (held, name) = (*held, disk.name.clone());
                all.insert(*index, Commit { held, name, term });
                let synced = self.synced.get(&(key, *index, held.term));
                let (copies, nodes) = (self.lives.hosts(synced), self.lives.nodes(synced));
                let voters = self.memberships.of(key, *index, held.term);
                let may = voters.map(|voters| voters.may_commit(*index, &nodes));
                if !may.unwrap_or(copies >= disk.cluster.majority) {
                    problems.push(format!(
                        "group {group}, entry {index} is committed with {copies} copies, {nodes:?}"
                    ));
                }
                continue;
            };
            if known.held != *held {
                problems.push(format!(
                    "group {group}, entry {index}: {held:?}, {:?} on {}",
                    known.held, known.name
                ));
            }
        }
        for problem in problems {
            self.tell(disk, &problem);
        }
    }

    /// The groups that a server leads by its own log, or wants to, in a term after which another one has won.
    pub(crate) fn outlived(&self, host: HostId) -> Vec<GroupId> {
        let Some(disk) = self.disks.get(&host) else {
            return Vec::new();
        };
        let is_outlived = |group: GroupId, vote: Vote| {
            let key = (disk.cluster, group);
            let later = (key, vote.term.saturating_add(1))..=(key, u64::MAX);
            vote.node == disk.node && self.leaders.range(later).next().is_some()
        };
        let votes = disk.groups.iter();
        let votes = votes.filter_map(|(group, log)| Some((*group, log.vote?)));
        let outlived = votes.filter(|(group, vote)| is_outlived(*group, *vote));
        outlived.map(|(group, _)| group).collect()
    }

    fn tell(&mut self, disk: &Disk, text: &str) {
        if self.problems.len() < PROBLEMS_MAX {
            let now = trace::now().as_secs_f64();
            self.problems
                .push(format!("the log of {} at {now:.3}: {text}", disk.name));
        }
    }
}

impl Disk {
    fn purge(&mut self, group: GroupId, floor: u64) {
        let log = self.groups.entry(group).or_default();
        log.floor = log.floor.max(floor);
        let kept = log.entries.split_off(&log.floor);
        let purged = std::mem::replace(&mut log.entries, kept);
        if let Some((index, held)) = purged.last_key_value() {
            log.purged = Some((*index, held.term));
        }
    }
}

/// The segments that follow each other without a gap, to the newest. Those that nobody needs are removed without a sync: after a crash
/// an old one may be there again, and its successors not.
fn newest_run(mut sorted: Vec<PathBuf>) -> Vec<PathBuf> {
    let number = |path: &Path| SegmentFollower::of(path).map_or(0, |follower| follower.number());
    let is_gap = |pair: &[PathBuf]| matches!(pair, [one, next] if number(one) + 1 != number(next));
    let gap = sorted.windows(2).rposition(is_gap);
    sorted.split_off(gap.map_or(0, |gap| gap + 1))
}

fn digest(kind: u8, payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(payload);
    let mut digest = [0; 16];
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// Tells of one server's log.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    logs: Arc<Mutex<Logs>>,
    host: HostId,
    cluster: Cluster,
}

impl Witness {
    /// For the servers that have a log; `None` for others.
    pub(crate) fn of(logs: &Arc<Mutex<Logs>>, host: HostId, shape: Shape) -> Option<Self> {
        let of_shards = crate::cast::serves_shards(host);
        let voters = match of_shards {
            true => crate::cast::SHARD_SERVERS.len(),
            false if shape.coordinators().contains(&host) => shape.coordinators().len(),
            false => return None,
        };
        Some(Self {
            logs: Arc::clone(logs),
            host,
            cluster: Cluster {
                of_shards,
                majority: voters / 2 + 1,
            },
        })
    }

    /// The server starts with what is on a disk.
    pub(crate) fn start(&self, name: &str, disk: &SimDisk) {
        self.logs.lock().start(self.host, name, self.cluster, disk);
    }

    /// The server's disk is gone, or comes back as it was before.
    pub(crate) fn lose(&self, comes_back: bool) {
        self.logs.lock().lose(self.host, comes_back);
    }
}

impl Tap for Witness {
    fn opened(&self, path: &Path) {
        if tap::is_segment(path) {
            self.logs.lock().open(self.host, path);
        }
    }

    fn write(&self, file: &dyn VfsFile, buf: &[u8], offset: u64) -> Result<usize> {
        let written = file.write_at(buf, offset)?;
        if tap::is_segment(file.path()) {
            let bytes = buf.get(..written).unwrap_or_default();
            self.logs
                .lock()
                .write(self.host, file.path(), offset, bytes);
        }
        Ok(written)
    }

    fn truncate(&self, file: &dyn VfsFile, len: u64) -> Result<()> {
        file.truncate(len)?;
        if let Some(segment) = self.logs.lock().segment(self.host, file.path()) {
            segment.follower.truncated(len);
        }
        Ok(())
    }

    fn sync(&self, file: &dyn VfsFile, sync: &dyn Fn() -> Result<()>) -> Result<()> {
        sync()?;
        if tap::is_segment(file.path()) {
            self.logs.lock().sync(self.host, file.path());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
