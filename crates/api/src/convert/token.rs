//! Positions and session tokens.

use cluster::{Incarnation, Position, SessionToken, ShardId};

use crate::{ApiError, Reason, v1};

impl From<Position> for v1::Position {
    fn from(position: Position) -> Self {
        Self {
            shard_id: position.shard.0,
            incarnation: position.incarnation.0,
            index: position.index,
        }
    }
}

impl From<v1::Position> for Position {
    fn from(wire: v1::Position) -> Self {
        Self {
            shard: ShardId(wire.shard_id),
            incarnation: Incarnation(wire.incarnation),
            index: wire.index,
        }
    }
}

impl From<&SessionToken> for v1::SessionToken {
    fn from(token: &SessionToken) -> Self {
        Self {
            positions: token.iter().map(v1::Position::from).collect(),
        }
    }
}

impl From<SessionToken> for v1::SessionToken {
    fn from(token: SessionToken) -> Self {
        Self::from(&token)
    }
}

impl TryFrom<v1::SessionToken> for SessionToken {
    type Error = ApiError;

    /// Of several positions of one shard the highest counts.
    ///
    /// # Errors
    /// `BAD_TOKEN` for more positions than shards can exist.
    fn try_from(wire: v1::SessionToken) -> Result<Self, ApiError> {
        Self::new(wire.positions.into_iter().map(Position::from))
            .map_err(|error| ApiError::field(Reason::BadToken, "token.positions", error))
    }
}
