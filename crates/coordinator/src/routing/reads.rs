//! GetCount, and what reads have in common.

use api::shard::v1::{CountRequest, CountResponse, Route};
use api::v1::{Consistency as WireConsistency, GetCountResponse};
use api::validate::GetCount;
use api::{ApiError, Reason};
use cluster::{Namespace, SessionToken, ShardId, ShardMap};
use runtime::Instant;

use super::hedges::Read;
use super::rounds::{Failed, Kind, Rounds};
use super::{Ask, Router, Target};

impl Router {
    /// GetCount.
    pub(crate) async fn count(
        &self,
        ask: GetCount,
        deadline: Instant,
    ) -> Result<GetCountResponse, ApiError> {
        match self.count_at_once(&ask, deadline) {
            Some(answer) => Ok(answer),
            // In a box for the reason that a completion has.
            None => Box::pin(self.count_in_rounds(ask, deadline)).await,
        }
    }

    async fn count_in_rounds(
        &self,
        ask: GetCount,
        deadline: Instant,
    ) -> Result<GetCountResponse, ApiError> {
        let mut rounds = Rounds::new(Kind::Read, deadline);
        loop {
            let (name, token) = (&ask.namespace, Some(&ask.token));
            let map = self
                .map_for(name, token, Some(ask.consistency), deadline)
                .await?;
            let shard = map.owner(&ask.namespace, ask.term.as_str());
            match self.count_once(&ask, &map, shard, &rounds).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => {
                    let again = rounds.may_follow(shard, &failed);
                    if !again || !rounds.next(&self.runtime, &self.leaders).await {
                        return Err(rounds.conclude(shard, failed));
                    }
                }
            }
        }
    }

    async fn count_once(
        &self,
        ask: &GetCount,
        map: &ShardMap,
        shard: ShardId,
        rounds: &Rounds,
    ) -> Result<GetCountResponse, Failed> {
        let min_index = min_index(map, &ask.token, shard)?;
        let Some(namespace) = map.namespaces.get(&ask.namespace) else {
            return Ok(GetCountResponse::default());
        };
        let to = Ask {
            map,
            shard,
            consistency: Some(ask.consistency),
            rounds,
        };
        let call = |target: Target| {
            let request = request(ask, namespace, min_index, target.route);
            async move { target.link.count(request, target.limit).await }
        };
        self.read(Read::Count, to, call).await.map(counted)
    }
}

/// What a shard is asked for a count.
pub(super) fn request(
    ask: &GetCount,
    namespace: &Namespace,
    min_index: u64,
    route: Route,
) -> CountRequest {
    CountRequest {
        route: Some(route),
        namespace_id: namespace.id.0,
        generation: namespace.generation.0,
        term: ask.term.as_str().to_owned(),
        consistency: WireConsistency::from(ask.consistency).into(),
        min_index,
    }
}

/// The answer to GetCount, by the shard's.
pub(super) fn counted(answer: CountResponse) -> GetCountResponse {
    GetCountResponse {
        count: answer.count,
        display: answer.display,
    }
}

/// The index that a shard must have applied before it answers to the holder of a token.
///
/// A position of an earlier life is satisfied when the present one contains it; one that was lost, or of a life or shard that nobody
/// knows, cannot be: the caller would see the past.
pub(super) fn min_index(
    map: &ShardMap,
    token: &SessionToken,
    shard: ShardId,
) -> Result<u64, ApiError> {
    let mut index = 0;
    for position in token.iter() {
        let concerns = position.shard == shard || !map.shards.contains_key(&position.shard);
        if !concerns {
            continue;
        }
        match map.translate(position) {
            Some(Some(here)) => index = index.max(here.index),
            Some(None) => {}
            None => {
                let problem = format!(
                    "names index {} of life {} of shard {}, which is not known or was lost",
                    position.index, position.incarnation, position.shard
                );
                return Err(ApiError::field(
                    Reason::UnknownIncarnation,
                    "token",
                    problem,
                ));
            }
        }
    }
    Ok(index)
}
