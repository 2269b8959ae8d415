//! What this client has seen of each shard.

use api::v1;
use cluster::SessionToken;
use parking_lot::Mutex;

/// The positions seen so far. It grows with the number of shards only; a full one takes no new shards.
#[derive(Debug, Default)]
pub(crate) struct Session(Mutex<SessionToken>);

impl Session {
    /// Adds what an answer has shown.
    pub(crate) fn see(&self, token: Option<&v1::SessionToken>) {
        let Some(token) = token.filter(|token| !token.positions.is_empty()) else {
            return;
        };
        // A token of more positions than shards can exist is no promise that a server gave.
        let Ok(other) = SessionToken::try_from(token.clone()) else {
            return;
        };
        let mut session = self.0.lock();
        let mut merged = session.clone();
        merged.merge(&other);
        if let Ok(bounded) = SessionToken::new(merged.iter()) {
            *session = bounded;
        }
    }

    /// The token to send; `None` while nothing was seen.
    pub(crate) fn token(&self) -> Option<v1::SessionToken> {
        let session = self.0.lock();
        if session.is_empty() {
            return None;
        }
        Some(v1::SessionToken::from(&*session))
    }

    pub(crate) fn forget(&self) {
        *self.0.lock() = SessionToken::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(positions: &[(u64, u64, u64)]) -> v1::SessionToken {
        let position = |&(shard_id, incarnation, index)| v1::Position {
            shard_id,
            incarnation,
            index,
        };
        v1::SessionToken {
            positions: positions.iter().map(position).collect(),
        }
    }

    #[test]
    fn the_highest_index_of_each_shard_and_life_stays() {
        let session = Session::default();
        assert_eq!(session.token(), None);
        session.see(Some(&token(&[(1, 1, 5), (2, 1, 9)])));
        session.see(None);
        session.see(Some(&token(&[(2, 1, 4), (1, 1, 7), (1, 2, 1)])));
        assert_eq!(
            session.token(),
            Some(token(&[(1, 1, 7), (1, 2, 1), (2, 1, 9)]))
        );
        session.forget();
        assert_eq!(session.token(), None);
    }

    #[test]
    fn a_token_beyond_reason_is_not_taken() {
        let session = Session::default();
        session.see(Some(&token(&[(1, 1, 5)])));
        let huge: Vec<_> = (0..2_000).map(|shard| (shard, 1, 9)).collect();
        session.see(Some(&token(&huge)));
        assert_eq!(session.token(), Some(token(&[(1, 1, 5)])));
    }
}
