//! What the metadata answers to a command.

use cluster::{ClusterId, Generation, Incarnation, NodeId, ShardId, limits};

use super::recoveries::TurnAnswer;

/// The outcome of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// It is so now, whether this command made it so or an earlier one had.
    Done,
    /// An identity.
    Node {
        /// The identity.
        id: NodeId,
        /// The cluster it belongs to.
        cluster: ClusterId,
    },
    /// A namespace that exists; look it up in the map.
    Namespace,
    /// The generation that is valid from now on.
    Generation {
        /// 0 for a namespace that does not exist.
        generation: Generation,
    },
    /// The shard's new life.
    Incarnation {
        /// Its number.
        incarnation: Incarnation,
        /// The highest index of the life before that was known to be applied.
        last_known_index: u64,
    },
    /// Whether a turn was granted.
    Turn(TurnAnswer),
    /// The rules do not allow it; nothing was changed.
    Refused(Refusal),
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The cluster has not begun.
    #[error("the cluster has not begun")]
    NotInitialised,
    /// The cluster has begun, with this id.
    #[error("the cluster has begun as {cluster}")]
    Initialised {
        /// Its id.
        cluster: ClusterId,
    },
    /// Nobody has this identity.
    #[error("node {node} is not known")]
    UnknownNode {
        /// The identity.
        node: NodeId,
    },
    /// The identity was given up.
    #[error("the identity {node} was given up")]
    NodeLost {
        /// The identity.
        node: NodeId,
    },
    /// More nodes than the metadata takes, lost ones included.
    #[error("at most {limit} node identities are issued", limit = super::NODES_MAX)]
    TooManyNodes,
    /// No such shard.
    #[error("shard {shard} is not known")]
    UnknownShard {
        /// The shard.
        shard: ShardId,
    },
    /// The shard has begun another life already.
    #[error("the shard is in its life {current}")]
    StaleIncarnation {
        /// Its present life.
        current: Incarnation,
    },
    /// The members of the shard have changed since.
    #[error("the members of the shard are at version {current} now")]
    StaleMembers {
        /// The present version.
        current: u64,
    },
    /// The members may not become so.
    #[error("the members may not become so: {problem}")]
    BadMembers {
        /// Why not.
        problem: &'static str,
    },
    /// The caller neither holds nor held this turn.
    #[error("the turn is not the caller's")]
    NotYourTurn,
    /// The snapshot does not belong to a life of this shard.
    #[error("the snapshot belongs to no life of the shard")]
    ForeignSeed,
    /// No room for another namespace.
    #[error("at most {limit} namespaces may exist", limit = limits::NAMESPACES_MAX)]
    TooManyNamespaces,
    /// The name is not one that the edge lets through.
    #[error("the name of the namespace is not allowed")]
    BadNamespace,
    /// The request id is older than what is remembered.
    #[error("the request id is too old to tell whether it was applied")]
    SessionExpired,
    /// The request id was used for another request.
    #[error("the request id was used for another request")]
    RequestIdReused,
    /// The request id was issued in the future.
    #[error("issued_at_ms lies more than {minutes} minutes ahead", minutes = limits::ISSUED_AHEAD_MAX.as_secs() / 60)]
    IssuedAhead,
}
