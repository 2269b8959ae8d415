//! Raft's own promises, read from the logs on the machines' disks.
//!
//! Seen there without asking the servers: which votes were granted by a quorum, which entries each replica holds, and how
//! far it knew them to be committed.

use std::collections::BTreeMap;
use std::path::Path;

use vfs::SimDisk;
use wal::GroupId;
use wal::inspect::{RecordKind, dump};

/// What one disk's log says of one group.
#[derive(Debug, Default)]
struct GroupLog {
    /// Term, leader and digest of each entry by index.
    entries: BTreeMap<u64, Held>,
    committed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    term: u64,
    node: u64,
    digest: [u8; 16],
}

/// What was found on all disks so far.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    leaders: BTreeMap<(GroupId, u64), u64>,
    /// The committed entries, by group and index, and the machine that held each first.
    committed: BTreeMap<(GroupId, u64), (Held, String)>,
    pub(crate) problems: Vec<String>,
    pub(crate) entries: u64,
}

impl Logs {
    /// Looks at the log in `/data` of one machine.
    pub(crate) fn look(&mut self, name: &str, disk: &SimDisk) {
        let mut groups: BTreeMap<GroupId, GroupLog> = BTreeMap::new();
        let read = dump(
            disk,
            Path::new("/data/wal"),
            &mut |record| match &record.kind {
                RecordKind::Entry {
                    group,
                    term,
                    node,
                    index,
                    kind,
                    stored_bytes: _,
                    compression: _,
                    chain: _,
                    payload,
                } => {
                    let mut hasher = blake3::Hasher::new();
                    hasher.update(&[*kind]);
                    hasher.update(payload);
                    let mut digest = [0; 16];
                    hasher.finalize_xof().fill(&mut digest);
                    let (term, node) = (*term, *node);
                    self.lead(name, *group, term, node);
                    let held = Held { term, node, digest };
                    groups
                        .entry(*group)
                        .or_default()
                        .entries
                        .insert(*index, held);
                }
                RecordKind::Vote { group, vote } if vote.committed => {
                    self.lead(name, *group, vote.term, vote.node);
                }
                RecordKind::Committed { group, index } => {
                    let log = groups.entry(*group).or_default();
                    log.committed = log.committed.max(*index);
                }
                RecordKind::Truncate { group, from_index } => {
                    let log = groups.entry(*group).or_default();
                    if *from_index <= log.committed {
                        let known = log.committed;
                        let text = format!(
                            "{name} cut group {group} from {from_index}, committed up to {known}"
                        );
                        self.problems.push(text);
                    }
                    log.entries.split_off(from_index);
                }
                RecordKind::Remove { group } => {
                    groups.remove(group);
                }
                RecordKind::Segment { .. }
                | RecordKind::Vote { .. }
                | RecordKind::Purge { .. }
                | RecordKind::State { .. }
                | RecordKind::Marker { .. }
                | RecordKind::Damage { .. } => {}
            },
        );
        if let Err(error) = read {
            self.problems
                .push(format!("the log of {name} cannot be read: {error}"));
        }
        for (group, log) in groups {
            self.compare(name, group, &log);
        }
    }

    /// A term has one leader. Entries do not always name theirs.
    fn lead(&mut self, name: &str, group: GroupId, term: u64, node: u64) {
        if node == 0 {
            return;
        }
        let leader = *self.leaders.entry((group, term)).or_insert(node);
        if leader != node {
            let text = format!(
                "group {group} has two leaders in term {term}: {leader} and {node} ({name})"
            );
            self.problems.push(text);
        }
    }

    /// A committed entry is the same everywhere, for ever.
    fn compare(&mut self, name: &str, group: GroupId, log: &GroupLog) {
        for (index, held) in log.entries.range(..=log.committed) {
            self.entries += 1;
            let key = (group, *index);
            let (known, other) = self
                .committed
                .entry(key)
                .or_insert_with(|| (*held, name.to_owned()));
            if known != held {
                let text = format!(
                    "group {group}, entry {index}: {held:?} on {name}, {known:?} on {other}"
                );
                self.problems.push(text);
            }
        }
    }
}
