//! Session tokens: what a client has seen of each shard's log.

use std::collections::BTreeMap;

use crate::{Incarnation, ShardId, limits};

/// A position in one shard's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The shard.
    pub shard: ShardId,
    /// The life of the shard that `index` counts in.
    pub incarnation: Incarnation,
    /// Index of the newest entry seen.
    pub index: u64,
}

/// A token that cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More positions than shards can exist.
    #[error("{positions} positions, at most {limit} are allowed", limit = limits::TOKEN_POSITIONS_MAX)]
    TooManyPositions {
        /// How many the token has.
        positions: usize,
    },
}

/// Positions of several shards, at most one for each incarnation of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionToken {
    positions: BTreeMap<(ShardId, Incarnation), u64>,
}

impl SessionToken {
    /// A token of the given positions; of several for the same shard the highest counts.
    ///
    /// # Errors
    /// When there are more than [`limits::TOKEN_POSITIONS_MAX`].
    pub fn new(positions: impl IntoIterator<Item = Position>) -> Result<Self, TokenError> {
        let mut token = Self::default();
        for position in positions {
            token.see(position);
            if token.positions.len() > limits::TOKEN_POSITIONS_MAX {
                return Err(TokenError::TooManyPositions {
                    positions: token.positions.len(),
                });
            }
        }
        Ok(token)
    }

    /// Adds what was seen.
    pub fn see(&mut self, position: Position) {
        let index = self
            .positions
            .entry((position.shard, position.incarnation))
            .or_default();
        *index = (*index).max(position.index);
    }

    /// Adds what another token has seen: the maximum of each position.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|position| self.see(position));
    }

    /// The positions, by shard and incarnation.
    pub fn iter(&self) -> impl Iterator<Item = Position> + '_ {
        self.positions
            .iter()
            .map(|((shard, incarnation), index)| Position {
                shard: *shard,
                incarnation: *incarnation,
                index: *index,
            })
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(shard: u64, index: u64) -> Position {
        Position {
            shard: ShardId(shard),
            incarnation: Incarnation::FIRST,
            index,
        }
    }

    #[test]
    fn merging_takes_the_maximum_of_each_shard() {
        let mut one = SessionToken::new([at(1, 5), at(2, 9)]).unwrap();
        let two = SessionToken::new([at(1, 7), at(3, 1), at(2, 3)]).unwrap();
        one.merge(&two);
        assert_eq!(
            one,
            SessionToken::new([at(1, 7), at(2, 9), at(3, 1)]).unwrap()
        );
    }

    #[test]
    fn more_positions_than_shards_are_refused() {
        let many = (0..=limits::TOKEN_POSITIONS_MAX as u64).map(|shard| at(shard, 1));
        assert_eq!(
            SessionToken::new(many),
            Err(TokenError::TooManyPositions {
                positions: limits::TOKEN_POSITIONS_MAX + 1
            })
        );
    }
}
