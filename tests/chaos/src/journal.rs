//! Asks the cluster, and notes in the history what was asked and answered.
//!
//! What always holds: a write is noted before it is sent. A read is noted with the positions that it demanded and no others: the token that
//! a client collects by itself is not sent along.

use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::GetStatusResponse;
use api::v1;
use client::{Client, ClientError};
use parking_lot::Mutex;
use runtime::{Instant, Runtime};

use crate::history::{Answer, History, Level, Outcome, Position, Question, Read};

/// Who is asked, where it is no single server.
pub const COORDINATORS: &str = "coordinators";

/// Which shard a term is of: where each begins, in order, and its id. A batch is answered with a position of every shard that took part.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shards(Vec<(String, u64)>);

impl Shards {
    pub(crate) fn of(status: &GetStatusResponse) -> Self {
        let shards = status.shards.iter();
        let begins = shards.map(|shard| (shard.shard_key.clone(), shard.shard_id));
        let mut begins: Vec<(String, u64)> = begins.collect();
        begins.sort();
        Self(begins)
    }

    /// That of the positions which is of the shard of a term.
    fn choose(&self, term: &str, positions: &[Position]) -> Option<Position> {
        let behind = self.0.partition_point(|(begin, _)| begin.as_str() <= term);
        let (_, shard) = self.0.get(behind.checked_sub(1)?)?;
        let mut positions = positions.iter();
        positions.find(|at| at.shard == *shard).copied()
    }
}

/// The history of a run that goes on. Cheap to clone; all clones are one history.
#[derive(Debug, Clone)]
pub struct Journal {
    history: Arc<Mutex<History>>,
    runtime: Runtime,
    begun: Instant,
}

impl Journal {
    /// An empty history, whose clock begins now.
    #[must_use]
    pub fn begin(runtime: &Runtime) -> Self {
        Self {
            history: Arc::default(),
            runtime: runtime.clone(),
            begun: runtime.now(),
        }
    }

    /// The time now by the clock of the history.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        micros(self.runtime.now().saturating_since(self.begun))
    }

    /// What has happened so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.history.lock().clone()
    }

    /// Adds to a term.
    ///
    /// # Errors
    /// What the client was told; the history has it, too.
    pub async fn record(
        &self,
        client: &Client,
        via: &str,
        term: &str,
        add: u64,
    ) -> Result<(), ClientError> {
        let began_us = self.now_us();
        let id = {
            let mut history = self.history.lock();
            history.begin(via.to_owned(), term.to_owned(), add, began_us)
        };
        let request = v1::RecordRequest {
            term: term.to_owned(),
            count: add,
            ..v1::RecordRequest::default()
        };
        let answer = client.record(request).await;
        let outcome = match &answer {
            Ok(response) => Outcome::Acknowledged {
                count: response.count,
                repeated: response.repeated,
                position: Position::all(response.token.as_ref()).first().copied(),
            },
            Err(error) => failed(error.outcome()),
        };
        let ended_us = self.now_us();
        self.history.lock().end(id, outcome, ended_us);
        answer.map(drop)
    }

    /// Adds to several terms at once. Whether all of them were acknowledged.
    ///
    /// # Errors
    /// As [`Journal::record`].
    pub(crate) async fn record_batch(
        &self,
        client: &Client,
        via: &str,
        request: v1::RecordBatchRequest,
        shards: &Shards,
    ) -> Result<bool, ClientError> {
        let items = request.items.clone();
        let began_us = self.now_us();
        let ids = self.history.lock().begin_batch(via, &items, began_us);
        let answer = client.record_batch(request).await;
        let outcomes: Vec<Outcome> = match &answer {
            Ok(response) => {
                let positions = Position::all(response.token.as_ref());
                let answered = items.iter().zip(&response.results);
                answered
                    .map(|(item, result)| {
                        item_outcome(result, shards.choose(&item.term, &positions))
                    })
                    .collect()
            }
            Err(error) => vec![failed(error.outcome()); items.len()],
        };
        let ended_us = self.now_us();
        let are_acknowledged = outcomes.iter().all(|at| at.is_acknowledged());
        {
            let mut history = self.history.lock();
            for (id, outcome) in ids.into_iter().zip(outcomes) {
                history.end(id, outcome, ended_us);
            }
        }
        answer.map(|_| are_acknowledged)
    }

    /// Takes a term away.
    ///
    /// # Errors
    /// As [`Journal::record`].
    pub(crate) async fn delete(
        &self,
        client: &Client,
        via: &str,
        term: &str,
    ) -> Result<(), ClientError> {
        let began_us = self.now_us();
        let id = {
            let mut history = self.history.lock();
            history.begin_delete(via.to_owned(), term.to_owned(), began_us)
        };
        let request = v1::DeleteRequest {
            term: term.to_owned(),
            ..v1::DeleteRequest::default()
        };
        let answer = client.delete(request).await;
        let outcome = match &answer {
            Ok(response) => Outcome::Deleted {
                existed: response.existed,
                position: Position::all(response.token.as_ref()).first().copied(),
            },
            Err(error) => failed(error.outcome()),
        };
        let ended_us = self.now_us();
        self.history.lock().end(id, outcome, ended_us);
        answer.map(drop)
    }

    /// Asks for a count or a list.
    ///
    /// # Errors
    /// As [`Journal::record`].
    pub async fn read(
        &self,
        client: &Client,
        via: &str,
        question: Question,
        level: Level,
        token: Option<v1::SessionToken>,
    ) -> Result<(), ClientError> {
        let demanded = Position::all(token.as_ref());
        // Without one, the client would send its own.
        let token = Some(token.unwrap_or_default());
        let began_us = self.now_us();
        let answer = match &question {
            Question::Count { term } => count(client, term, level, token).await,
            Question::TopK { prefix, k } => top_k(client, (prefix, *k), level, token).await,
        };
        let ended_us = self.now_us();
        let (answer, error) = match answer {
            Ok(answer) => (answer, None),
            Err(error) => {
                let reason = error.reason().map_or("", api::Reason::as_str).to_owned();
                (Answer::Failed { reason }, Some(error))
            }
        };
        self.history.lock().read(Read {
            via: via.to_owned(),
            level,
            question,
            token: demanded,
            began_us,
            ended_us,
            answer,
        });
        error.map_or(Ok(()), Err)
    }
}

/// How a write ended that failed.
fn failed(outcome: api::Outcome) -> Outcome {
    match outcome {
        api::Outcome::NotApplied => Outcome::Refused,
        api::Outcome::Unknown => Outcome::Open,
    }
}

/// How an item of a batch ended.
fn item_outcome(result: &v1::ItemResult, position: Option<Position>) -> Outcome {
    match result.error() {
        None => Outcome::Acknowledged {
            count: result.count,
            repeated: result.repeated,
            position,
        },
        Some(reason) => failed(reason.outcome_of_write()),
    }
}

async fn count(
    client: &Client,
    term: &str,
    level: Level,
    token: Option<v1::SessionToken>,
) -> Result<Answer, ClientError> {
    let request = v1::GetCountRequest {
        term: term.to_owned(),
        consistency: v1::Consistency::from(level).into(),
        token,
        ..v1::GetCountRequest::default()
    };
    let response = client.count(request).await?;
    let count = response.count;
    Ok(Answer::Count { count })
}

async fn top_k(
    client: &Client,
    (prefix, k): (&str, u32),
    level: Level,
    token: Option<v1::SessionToken>,
) -> Result<Answer, ClientError> {
    let request = v1::GetTopKRequest {
        prefix: prefix.to_owned(),
        k,
        consistency: v1::Consistency::from(level).into(),
        token,
        ..v1::GetTopKRequest::default()
    };
    let response = client.top_k(request).await?;
    let listed = response.suggestions.into_iter();
    let ranges = response.completeness.into_iter().flat_map(|of| of.missing);
    Ok(Answer::TopK {
        list: listed.map(|at| (at.term, at.count)).collect(),
        missing: ranges.map(|range| (range.start, range.end)).collect(),
        positions: Position::all(response.token.as_ref()),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use api::Reason;
    use api::admin::v1::ShardStatus;
    use api::error::item_error;

    use super::*;

    #[test]
    fn an_item_is_settled_by_its_own_answer() {
        let applied = v1::ItemResult {
            count: 7,
            repeated: true,
            ..v1::ItemResult::default()
        };
        let expected = Outcome::Acknowledged {
            count: 7,
            repeated: true,
            position: None,
        };
        assert_eq!(item_outcome(&applied, None), expected);
        let of = |reason| item_outcome(&item_error(reason), None);
        assert_eq!(of(Reason::DiskFull), Outcome::Refused);
        assert_eq!(of(Reason::ShardUnavailable), Outcome::Open);
    }

    #[test]
    fn an_item_is_at_the_place_that_its_shard_named() {
        let shard = |shard_id, shard_key: &str| ShardStatus {
            shard_id,
            shard_key: shard_key.to_owned(),
            ..ShardStatus::default()
        };
        let status = GetStatusResponse {
            shards: vec![shard(3, "p"), shard(1, ""), shard(2, "g")],
            ..GetStatusResponse::default()
        };
        let position = |shard| Position {
            shard,
            incarnation: 1,
            index: 10 * shard,
        };
        let positions = [1, 3].map(position);
        let shards = Shards::of(&status);
        let of = |term| shards.choose(term, &positions);
        assert_eq!(of("a=0"), Some(position(1)));
        assert_eq!(of("fz"), Some(position(1)));
        assert_eq!(of("g"), None);
        assert_eq!(of("p=0"), Some(position(3)));
        assert_eq!(of("z"), Some(position(3)));
        assert_eq!(Shards::default().choose("a", &positions), None);
    }
}
