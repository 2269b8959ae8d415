//! The one place that says which of openraft's types this crate is built from.
//!
//! Standard Raft is chosen (one leader a term), so that `(term, index)` alone names an entry, as the log on disk and
//! the repair between peers assume. The asynchronous runtime is [`AsyncRuntime`]: replacing tokio by a simulated
//! one is a change of this alias.

use std::any::Any;
use std::fmt;

use bytes::Bytes;

pub(crate) use openraft::impls::TokioRuntime as AsyncRuntime;

/// The types of every group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Reply;
    type NodeId = u64;
    type Node = openraft::BasicNode;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Self::D, Self::NodeId, Self::Node>;
    type Entry = openraft::Entry<CommittedLeader, Self::Payload>;
    type AsyncRuntime = AsyncRuntime;
    type Responder<T>
        = Answer<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type Vote = openraft::Vote<<TypeConfig as openraft::RaftTypeConfig>::LeaderId>;
pub(crate) type CommittedLeader =
    <<TypeConfig as openraft::RaftTypeConfig>::LeaderId as openraft::vote::RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<CommittedLeader>;
pub(crate) type Membership = openraft::Membership<u64, openraft::BasicNode>;
pub(crate) type StoredMembership =
    openraft::StoredMembership<CommittedLeader, u64, openraft::BasicNode>;
pub(crate) type Entry = <TypeConfig as openraft::RaftTypeConfig>::Entry;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeader, u64, openraft::BasicNode>;
pub(crate) type Snapshot =
    openraft::Snapshot<CommittedLeader, u64, openraft::BasicNode, crate::snapshot::SnapshotFile>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub(crate) type AppendResult = openraft::raft::StreamAppendResult<TypeConfig>;
pub(crate) type RpcError = openraft::errors::RPCError<TypeConfig>;

/// A command in its envelope (see [`crate::command`]), as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Display for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.0.len())
    }
}

/// What a state machine answered to one entry; `None` for entries that are not commands.
#[derive(Default)]
pub(crate) struct Reply(pub(crate) Option<Box<dyn Any + Send + Sync>>);

impl fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Reply")
            .field(&self.0.is_some())
            .finish()
    }
}

/// Hands the outcome of a proposal over, by the task that applied it: whoever waits need not be woken by another task in between.
pub(crate) struct Answer<T>(pub(crate) Box<dyn FnOnce(T) + Send>);

impl<T> openraft::raft::responder::Responder<TypeConfig, T> for Answer<T>
where
    T: openraft::OptionalSend + 'static,
{
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// The term of the leader that wrote an entry.
pub(crate) fn term_of(log_id: &LogId) -> u64 {
    log_id.committed_leader_id().term
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// A vote, with `node` as the one voted for.
pub(crate) fn vote(term: u64, node: u64, committed: bool) -> Vote {
    if committed {
        Vote::new_committed(term, node)
    } else {
        Vote::new(term, node)
    }
}

type Watch = <AsyncRuntime as openraft::AsyncRuntime>::Watch;
pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;
/// What of it does not change with every entry.
pub(crate) type ServerMetrics = openraft::metrics::RaftServerMetrics<TypeConfig>;
pub(crate) type MetricsReceiver =
    <Watch as openraft::async_runtime::watch::Watch>::Receiver<Metrics>;
