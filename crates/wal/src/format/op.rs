//! A change of a group as it is written: every value resolved, nothing left to look up.
//!
//! A record that verifies and does not decode to a change is a bug or another program's, and recovery says so.

use bytes::Bytes;

use super::{Frame, FrameKind, GroupMeta, flag, payload_crc};
use crate::types::{GroupId, LogId, Vote};

/// A change of a group with everything resolved that the disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Entry {
        id: LogId,
        kind: u8,
        payload: Bytes,
        /// The logical chain after the entry.
        chain: u32,
        /// Names the payload in memory; not on disk.
        ticket: u64,
    },
    Vote {
        vote: Vote,
        number: u64,
    },
    Committed(LogId),
    Truncate {
        from: u64,
        /// What is last afterwards, and the chain there.
        last: Option<LogId>,
        chain: u32,
    },
    Purge {
        upto: LogId,
        /// The chain at `upto`.
        chain: u32,
        rebased: bool,
    },
    Remove,
    State(GroupMeta),
}

impl Op {
    /// The payload before compression.
    pub(crate) fn payload(&self) -> Bytes {
        match self {
            Self::Entry { payload, .. } => payload.clone(),
            Self::State(meta) => Bytes::from(meta.encode()),
            Self::Vote { .. }
            | Self::Committed(_)
            | Self::Truncate { .. }
            | Self::Purge { .. }
            | Self::Remove => Bytes::new(),
        }
    }

    /// The header for a payload as stored; `flags` tell how it was compressed.
    pub(crate) fn frame(&self, group: GroupId, raw_len: u32, stored: &[u8], flags: u8) -> Frame {
        let mut frame = Frame::bare(self.frame_kind(), group.0);
        frame.flags = flags;
        frame.raw_len = raw_len;
        frame.stored_len = u32::try_from(stored.len()).unwrap_or(u32::MAX);
        frame.payload_crc = payload_crc(stored);
        match self {
            Self::Entry {
                id, kind, chain, ..
            } => {
                frame.entry_kind = *kind;
                frame.logical_chain = *chain;
                place(&mut frame, id);
            }
            Self::Vote { vote, number } => {
                (frame.term, frame.node, frame.index) = (vote.term, vote.node, *number);
                frame.flags |= if vote.committed {
                    flag::VOTE_COMMITTED
                } else {
                    0
                };
            }
            Self::Committed(id) => place(&mut frame, id),
            Self::Truncate { from, last, chain } => {
                if let Some(last) = last {
                    place(&mut frame, last);
                    frame.flags |= flag::HAS_LAST;
                }
                frame.index = *from;
                frame.logical_chain = *chain;
            }
            Self::Purge {
                upto,
                chain,
                rebased,
            } => {
                place(&mut frame, upto);
                frame.logical_chain = *chain;
                frame.flags |= if *rebased { flag::REBASED } else { 0 };
            }
            Self::Remove | Self::State(_) => {}
        }
        frame
    }

    const fn frame_kind(&self) -> FrameKind {
        match self {
            Self::Entry { .. } => FrameKind::Entry,
            Self::Vote { .. } => FrameKind::Vote,
            Self::Committed(_) => FrameKind::Committed,
            Self::Truncate { .. } => FrameKind::Truncate,
            Self::Purge { .. } => FrameKind::Purge,
            Self::Remove => FrameKind::Remove,
            Self::State(_) => FrameKind::State,
        }
    }

    /// The change that a verified record and its decompressed payload mean. `None` for a marker and for
    /// what makes no sense.
    pub(crate) fn from_frame(frame: &Frame, payload: Bytes) -> Option<Self> {
        let id = LogId {
            term: frame.term,
            node: frame.node,
            index: frame.index,
        };
        let has = |bit: u8| frame.flags & bit != 0;
        // Something must be able to follow, for which each kind counts on by one.
        let is_last_number = frame.index == u64::MAX;
        let counts = matches!(
            frame.kind,
            FrameKind::Entry | FrameKind::Vote | FrameKind::Committed | FrameKind::Purge
        );
        if counts && is_last_number {
            return None;
        }
        Some(match frame.kind {
            FrameKind::Entry => Self::Entry {
                id,
                kind: frame.entry_kind,
                payload,
                chain: frame.logical_chain,
                ticket: 0,
            },
            FrameKind::Vote => Self::Vote {
                vote: Vote {
                    term: frame.term,
                    node: frame.node,
                    committed: has(flag::VOTE_COMMITTED),
                },
                number: frame.index,
            },
            FrameKind::Committed => Self::Committed(id),
            FrameKind::Truncate => {
                let last = match (has(flag::HAS_LAST), frame.index.checked_sub(1)) {
                    (true, Some(index)) => Some(LogId { index, ..id }),
                    (true, None) => return None,
                    (false, _) => None,
                };
                Self::Truncate {
                    from: frame.index,
                    last,
                    chain: frame.logical_chain,
                }
            }
            FrameKind::Purge => Self::Purge {
                upto: id,
                chain: frame.logical_chain,
                rebased: has(flag::REBASED),
            },
            FrameKind::Remove => Self::Remove,
            FrameKind::State => Self::State(GroupMeta::decode(&payload)?),
            FrameKind::Marker => return None,
        })
    }
}

const fn place(frame: &mut Frame, id: &LogId) {
    frame.term = id.term;
    frame.node = id.node;
    frame.index = id.index;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_leave_no_number_for_the_next_mean_nothing() {
        let kinds = [
            FrameKind::Entry,
            FrameKind::Vote,
            FrameKind::Committed,
            FrameKind::Purge,
        ];
        for kind in kinds {
            let mut frame = Frame::bare(kind, 1);
            frame.index = u64::MAX - 1;
            assert!(Op::from_frame(&frame, Bytes::new()).is_some(), "{kind:?}");
            frame.index = u64::MAX;
            assert_eq!(Op::from_frame(&frame, Bytes::new()), None, "{kind:?}");
        }
        let id = LogId {
            term: 1,
            node: 1,
            index: u64::MAX,
        };
        let last = GroupMeta {
            last: Some(id),
            ..GroupMeta::default()
        };
        let votes = GroupMeta {
            votes: u64::MAX,
            ..GroupMeta::default()
        };
        for meta in [last, votes] {
            assert_eq!(GroupMeta::decode(&meta.encode()), None);
        }
    }
}
