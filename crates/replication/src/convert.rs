//! Between openraft's types and those of the wire and the disk, both of which are ours.

use std::collections::{BTreeMap, BTreeSet};

use api::raft::v1 as wire;
use bytes::Bytes;
use cluster::NodeId;
use openraft::EntryPayload;
use openraft::raft::StreamAppendError;
use prost::Message as _;

use crate::raft::{
    AppendRequest, AppendResult, Command, Entry, LogId, Membership, Vote, log_id, term_of, vote,
};
use crate::{Member, Peer};

/// Nodes of a group, learners included. More would be a mistake.
pub(crate) const NODES_MAX: usize = 64;
/// Bytes of a node's address.
const ADDRESS_BYTES_MAX: usize = 512;

/// A message or a stored entry that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConvertError {
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("membership: {problem}")]
    Membership { problem: String },
    #[error("entry of unknown kind {kind}")]
    Kind { kind: u8 },
    #[error("a term or an index is {}, which nothing can follow", u64::MAX)]
    Overflow,
    #[error("{field} is of term {term}, later than term {vote} of the leader that sends it")]
    Later {
        field: &'static str,
        term: u64,
        vote: u64,
    },
    #[error("the vote of a leader must have been granted")]
    NotALeader,
    #[error("the vote that is asked for cannot have been granted")]
    NotACandidate,
}

pub(crate) fn log_id_to_wire(id: &LogId) -> wire::LogId {
    wire::LogId {
        term: term_of(id),
        node_id: 0,
        index: id.index(),
    }
}

/// Terms and indexes are counted on from what peers say; the last number of all leaves no room for that.
pub(crate) fn log_id_from_wire(id: &wire::LogId) -> Result<LogId, ConvertError> {
    if id.term == u64::MAX || id.index == u64::MAX {
        return Err(ConvertError::Overflow);
    }
    Ok(log_id(id.term, id.index))
}

pub(crate) fn optional_log_id(id: Option<&wire::LogId>) -> Result<Option<LogId>, ConvertError> {
    id.map(log_id_from_wire).transpose()
}

pub(crate) fn vote_to_wire(from: &Vote) -> wire::Vote {
    wire::Vote {
        term: from.leader_id.term,
        node_id: from.leader_id.voted_for,
        committed: from.committed,
    }
}

pub(crate) fn vote_from_wire(from: Option<wire::Vote>) -> Result<Vote, ConvertError> {
    let found = from.ok_or(ConvertError::Missing { field: "vote" })?;
    if found.term == u64::MAX {
        return Err(ConvertError::Overflow);
    }
    Ok(vote(found.term, found.node_id, found.committed))
}

/// The vote of who leads. One that was not granted would be followed like one that was.
pub(crate) fn leader_from_wire(from: Option<wire::Vote>) -> Result<Vote, ConvertError> {
    let vote = vote_from_wire(from)?;
    if vote.committed {
        Ok(vote)
    } else {
        Err(ConvertError::NotALeader)
    }
}

/// The vote that a candidate asks for. By one that says it was granted the receiver would believe that somebody leads, itself even.
pub(crate) fn candidate_from_wire(from: Option<wire::Vote>) -> Result<Vote, ConvertError> {
    let vote = vote_from_wire(from)?;
    if vote.committed {
        Err(ConvertError::NotACandidate)
    } else {
        Ok(vote)
    }
}

/// A leader knows of nothing later than its own term, and openraft counts on it.
pub(crate) fn check_not_later(
    field: &'static str,
    id: Option<&LogId>,
    vote: &Vote,
) -> Result<(), ConvertError> {
    let (term, vote) = (id.map_or(0, term_of), vote.leader_id.term);
    if term > vote {
        return Err(ConvertError::Later { field, term, vote });
    }
    Ok(())
}

pub(crate) fn membership_to_wire(from: &Membership) -> wire::Membership {
    wire::Membership {
        configs: from
            .get_joint_config()
            .iter()
            .map(|voters| wire::VoterSet {
                node_ids: voters.iter().copied().collect(),
            })
            .collect(),
        nodes: from
            .nodes()
            .map(|(id, node)| wire::Member {
                node_id: *id,
                address: node.addr.clone(),
            })
            .collect(),
    }
}

pub(crate) fn membership_from_wire(from: wire::Membership) -> Result<Membership, ConvertError> {
    let refuse = |problem: &str| ConvertError::Membership {
        problem: problem.to_owned(),
    };
    if from.configs.len() > 2 || from.nodes.len() > NODES_MAX {
        return Err(refuse("it has too many sets or nodes"));
    }
    let mut nodes = BTreeMap::new();
    for member in from.nodes {
        if member.address.len() > ADDRESS_BYTES_MAX {
            return Err(refuse("an address is too long"));
        }
        nodes.insert(member.node_id, openraft::BasicNode::new(member.address));
    }
    let configs: Vec<BTreeSet<u64>> = from
        .configs
        .into_iter()
        .map(|set| set.node_ids.into_iter().collect())
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| refuse(&error.to_string()))
}

/// The members of a group, voters of either set of a joint configuration included.
pub(crate) fn members(from: &Membership) -> Vec<Member> {
    let voters: BTreeSet<u64> = from.voter_ids().collect();
    from.nodes()
        .map(|(id, node)| Member {
            node: NodeId(*id),
            address: node.addr.clone(),
            voter: voters.contains(id),
        })
        .collect()
}

/// Whether a group may have these members: the limits that every reader of a membership keeps.
pub(crate) fn check_members(members: &[Member]) -> Result<(), ConvertError> {
    let refuse = |problem: String| Err(ConvertError::Membership { problem });
    if members.len() > NODES_MAX {
        let count = members.len();
        return refuse(format!("{count} nodes, at most {NODES_MAX} are allowed"));
    }
    for Member { node, address, .. } in members {
        let bytes = address.len();
        if bytes > ADDRESS_BYTES_MAX {
            return refuse(format!(
                "the address of node {node} has {bytes} bytes, at most {ADDRESS_BYTES_MAX} are allowed"
            ));
        }
    }
    Ok(())
}

/// Whether anybody but `node` votes.
pub(crate) fn has_others(members: &Membership, node: u64) -> bool {
    members.voter_ids().any(|voter| voter != node)
}

pub(crate) fn peer(node: Option<u64>, address: Option<&openraft::BasicNode>) -> Option<Peer> {
    Some(Peer {
        node: NodeId(node?),
        address: address.map(|node| node.addr.clone()).unwrap_or_default(),
    })
}

// --- entries on disk ------------------------------------------------------------------------------------------------

const KIND_BLANK: u8 = 0;
const KIND_COMMAND: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

pub(crate) fn log_id_to_wal(id: &LogId) -> wal::LogId {
    wal::LogId {
        term: term_of(id),
        node: 0,
        index: id.index(),
    }
}

pub(crate) fn log_id_from_wal(id: &wal::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn entry_to_wal(entry: Entry) -> wal::Entry {
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Bytes::new()),
        EntryPayload::Normal(Command(bytes)) => (KIND_COMMAND, bytes),
        EntryPayload::Membership(members) => (
            KIND_MEMBERSHIP,
            membership_to_wire(&members).encode_to_vec().into(),
        ),
    };
    wal::Entry {
        id: log_id_to_wal(&entry.log_id),
        kind,
        payload,
    }
}

pub(crate) fn entry_from_wal(entry: wal::Entry) -> Result<Entry, ConvertError> {
    let payload = match entry.kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_COMMAND => EntryPayload::Normal(Command(entry.payload)),
        KIND_MEMBERSHIP => {
            let found = wire::Membership::decode(entry.payload).map_err(|error| {
                ConvertError::Membership {
                    problem: error.to_string(),
                }
            })?;
            EntryPayload::Membership(membership_from_wire(found)?)
        }
        kind => return Err(ConvertError::Kind { kind }),
    };
    Ok(Entry {
        log_id: log_id_from_wal(&entry.id),
        payload,
    })
}

/// The sets of voters that a stored entry names, of its kind and with its payload: one, or two while they change. `None` for an entry that names
/// nobody, and for one that nobody reads. For who reads along in logs.
#[must_use]
pub fn voters_of(kind: u8, payload: &[u8]) -> Option<Vec<BTreeSet<NodeId>>> {
    if kind != KIND_MEMBERSHIP {
        return None;
    }
    let found = wire::Membership::decode(payload).ok()?;
    let set = |set: wire::VoterSet| set.node_ids.into_iter().map(NodeId).collect();
    Some(found.configs.into_iter().map(set).collect())
}

// --- messages -------------------------------------------------------------------------------------------------------

pub(crate) fn entry_to_wire(entry: Entry) -> wire::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => wire::entry::Payload::Blank(true),
        EntryPayload::Normal(Command(bytes)) => wire::entry::Payload::Command(bytes),
        EntryPayload::Membership(members) => {
            wire::entry::Payload::Membership(membership_to_wire(&members))
        }
    };
    wire::Entry {
        log_id: Some(log_id_to_wire(&entry.log_id)),
        payload: Some(payload),
    }
}

fn entry_from_wire(entry: wire::Entry) -> Result<Entry, ConvertError> {
    let id = entry
        .log_id
        .ok_or(ConvertError::Missing { field: "log_id" })?;
    let payload = match entry
        .payload
        .ok_or(ConvertError::Missing { field: "payload" })?
    {
        wire::entry::Payload::Blank(_) => EntryPayload::Blank,
        wire::entry::Payload::Command(bytes) => EntryPayload::Normal(Command(bytes)),
        wire::entry::Payload::Membership(found) => {
            EntryPayload::Membership(membership_from_wire(found)?)
        }
    };
    Ok(Entry {
        log_id: log_id_from_wire(&id)?,
        payload,
    })
}

pub(crate) fn append_to_wire(
    request: AppendRequest,
    envelope: wire::Envelope,
) -> wire::AppendRequest {
    wire::AppendRequest {
        envelope: Some(envelope),
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request.entries.into_iter().map(entry_to_wire).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
        block: None,
        standings: Vec::new(),
    }
}

/// What a leader sends, if it can be what one leader knows.
///
/// A leader knows of nothing later than its own term. A sender that is not yet told that its lead is over may see
/// what the next leader has committed, and sends it under its own vote; a follower that has not heard of the next
/// leader either would take its own entries for the committed ones.
pub(crate) fn append_from_wire(
    request: wire::AppendRequest,
) -> Result<AppendRequest, ConvertError> {
    let entries: Vec<Entry> = request
        .entries
        .into_iter()
        .map(entry_from_wire)
        .collect::<Result<_, _>>()?;
    let prev_log_id = optional_log_id(request.prev_log_id.as_ref())?;
    // A hole would be taken for a log without one.
    let mut due = Some(prev_log_id.as_ref().map_or(0, |id| id.index() + 1));
    for entry in &entries {
        if due != Some(entry.log_id.index()) {
            return Err(ConvertError::Missing {
                field: "an entry between others",
            });
        }
        due = due.and_then(|index| index.checked_add(1));
    }
    let vote = leader_from_wire(request.vote)?;
    let leader_commit = optional_log_id(request.leader_commit.as_ref())?;
    let last = entries.iter().map(|entry| &entry.log_id).max();
    let claims = [
        ("prev_log_id", prev_log_id.as_ref()),
        ("entries", last),
        ("leader_commit", leader_commit.as_ref()),
    ];
    for (field, id) in claims {
        check_not_later(field, id, &vote)?;
    }
    Ok(AppendRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    })
}

pub(crate) fn append_result_to_wire(
    result: &AppendResult,
    granted_lease_ms: u32,
    standing: wire::Standing,
) -> wire::AppendResponse {
    use wire::append_response::Result as Answer;
    let answer = match result {
        Ok(None) => Answer::Success(true),
        Ok(Some(id)) => Answer::PartialSuccess(log_id_to_wire(id)),
        Err(StreamAppendError::Conflict(_)) => Answer::Conflict(true),
        Err(StreamAppendError::HigherVote(vote)) => Answer::HigherVote(vote_to_wire(vote)),
    };
    wire::AppendResponse {
        result: Some(answer),
        granted_lease_ms,
        takes_blocks: true,
        standing: Some(standing),
        wants_entry: false,
    }
}

/// `prev` and `last` are those of the request that is answered.
pub(crate) fn append_result_from_wire(
    response: wire::AppendResponse,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> Result<AppendResult, ConvertError> {
    use wire::append_response::Result as Answer;
    let answer = response
        .result
        .ok_or(ConvertError::Missing { field: "result" })?;
    Ok(match answer {
        Answer::Success(_) => Ok(last),
        Answer::PartialSuccess(id) => Ok(Some(log_id_from_wire(&id)?)),
        Answer::Conflict(_) => Err(StreamAppendError::Conflict(prev.ok_or(
            ConvertError::Missing {
                field: "the entry that conflicts",
            },
        )?)),
        Answer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from_wire(Some(vote))?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let nodes = [1, 2, 3].map(|id| (id, openraft::BasicNode::new(format!("host-{id}:1"))));
        let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2])];
        Membership::new(configs, BTreeMap::from(nodes)).unwrap()
    }

    fn entries() -> Vec<Entry> {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Command(Bytes::from_static(b"a command"))),
            EntryPayload::Membership(membership()),
        ];
        payloads
            .into_iter()
            .zip(7..)
            .map(|(payload, index)| Entry {
                log_id: log_id(3, index),
                payload,
            })
            .collect()
    }

    #[test]
    fn entries_survive_the_disk_and_the_wire() {
        for entry in entries() {
            let back = entry_from_wal(entry_to_wal(entry.clone())).unwrap();
            assert_eq!(format!("{back:?}"), format!("{entry:?}"));
            let back = entry_from_wire(entry_to_wire(entry.clone())).unwrap();
            assert_eq!(format!("{back:?}"), format!("{entry:?}"));
        }
    }

    #[test]
    fn of_a_stored_entry_its_voters_can_be_told() {
        let told = entries().into_iter().map(|entry| {
            let stored = entry_to_wal(entry);
            voters_of(stored.kind, &stored.payload)
        });
        let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let sets = vec![set(&[1, 2]), set(&[2])];
        assert_eq!(told.collect::<Vec<_>>(), [None, None, Some(sets)]);
        assert_eq!(voters_of(KIND_MEMBERSHIP, b"\xff"), None);
    }

    #[test]
    fn requests_with_holes_are_refused() {
        let request = |prev| AppendRequest {
            vote: vote(3, 1, true),
            prev_log_id: prev,
            entries: entries(),
            leader_commit: Some(log_id(3, 8)),
        };
        let envelope = wire::Envelope::default();
        let right = append_to_wire(request(Some(log_id(3, 6))), envelope.clone());
        let back = append_from_wire(right).unwrap();
        assert_eq!(back.entries.len(), 3);
        assert_eq!(back.leader_commit, Some(log_id(3, 8)));
        for prev in [None, Some(log_id(3, 5)), Some(log_id(3, 7))] {
            let wrong = append_to_wire(request(prev), envelope.clone());
            assert!(append_from_wire(wrong).is_err(), "{prev:?}");
        }
    }

    #[test]
    fn what_is_later_than_the_leader_that_sends_it_is_refused() {
        let request = |term, prev, commit| {
            let request = AppendRequest {
                vote: vote(term, 1, true),
                prev_log_id: Some(log_id(prev, 6)),
                entries: entries(),
                leader_commit: Some(log_id(commit, 8)),
            };
            append_from_wire(append_to_wire(request, wire::Envelope::default()))
        };
        let refused = |term, prev, commit| match request(term, prev, commit) {
            Err(ConvertError::Later { field, .. }) => Some(field),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        };
        // The entries are of term 3.
        assert_eq!(refused(3, 3, 3), None);
        assert_eq!(refused(4, 2, 3), None);
        assert_eq!(refused(2, 2, 2), Some("entries"));
        assert_eq!(refused(3, 4, 3), Some("prev_log_id"));
        assert_eq!(refused(3, 3, 4), Some("leader_commit"));
    }

    #[test]
    fn who_leads_has_been_granted_it_and_who_asks_has_not() {
        let told = |committed| Some(vote_to_wire(&vote(3, 1, committed)));
        assert!(leader_from_wire(told(true)).is_ok() && leader_from_wire(told(false)).is_err());
        assert!(candidate_from_wire(told(false)).is_ok());
        assert!(candidate_from_wire(told(true)).is_err());
        let request = AppendRequest {
            vote: vote(3, 1, false),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let message = append_to_wire(request, wire::Envelope::default());
        let refused = append_from_wire(message).unwrap_err();
        assert!(matches!(refused, ConvertError::NotALeader), "{refused}");
        let check = |term| check_not_later("snapshot", Some(&log_id(term, 9)), &vote(3, 1, true));
        check(3).unwrap();
        assert!(check(4).is_err());
    }

    #[test]
    fn numbers_that_nothing_can_follow_are_refused() {
        let request = |prev: u64, index: u64, commit: u64, term: u64| {
            let entry = Entry {
                log_id: log_id(3, index),
                payload: EntryPayload::Blank,
            };
            let request = AppendRequest {
                vote: vote(term, 1, true),
                prev_log_id: Some(log_id(3, prev)),
                entries: vec![entry],
                leader_commit: Some(log_id(3, commit)),
            };
            append_from_wire(append_to_wire(request, wire::Envelope::default()))
        };
        let top = u64::MAX;
        assert!(request(top - 2, top - 1, 0, 3).is_ok());
        assert!(request(top, 0, 0, 3).is_err());
        assert!(request(top - 1, top, 0, 3).is_err());
        assert!(request(5, 6, top, 3).is_err());
        assert!(request(5, 6, 6, top).is_err());
        // Behind the highest index there is room for nothing, and that is no reason to panic.
        assert!(request(top - 1, 5, 0, 3).is_err());
    }

    #[test]
    fn members_beyond_the_limits_are_refused_before_they_are_written() {
        let node = |id: u64| Member::voter(NodeId(id), format!("host-{id}:1"));
        let most: Vec<Member> = (0..NODES_MAX as u64).map(node).collect();
        check_members(&most).unwrap();
        let many: Vec<Member> = (0..=NODES_MAX as u64).map(node).collect();
        assert!(check_members(&many).is_err());
        let far = Member::voter(NodeId(1), "x".repeat(ADDRESS_BYTES_MAX + 1));
        assert!(check_members(&[far]).is_err());
    }

    #[test]
    fn answers_survive_the_wire() {
        let (prev, last) = (Some(log_id(2, 5)), Some(log_id(3, 9)));
        let results: [AppendResult; 4] = [
            Ok(None),
            Ok(Some(log_id(3, 7))),
            Err(StreamAppendError::Conflict(log_id(2, 5))),
            Err(StreamAppendError::HigherVote(vote(9, 2, false))),
        ];
        for result in results {
            let back = append_result_from_wire(
                append_result_to_wire(&result, 0, wire::Standing::default()),
                prev,
                last,
            );
            let expected = match result {
                Ok(None) => Ok(last),
                other => other,
            };
            assert_eq!(back.unwrap(), expected);
        }
    }

    #[test]
    fn members_that_contradict_themselves_are_refused() {
        let mut found = membership_to_wire(&membership());
        assert_eq!(membership_from_wire(found.clone()).unwrap(), membership());
        found.nodes.remove(0);
        assert!(membership_from_wire(found).is_err());
    }
}
