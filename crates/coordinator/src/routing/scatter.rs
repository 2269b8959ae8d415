//! GetTopK: every shard that owns part of the prefix, and their answers as one.

use std::collections::HashMap;

use api::shard::v1::{TopKRequest, TopKResponse};
use api::v1::{Consistency as WireConsistency, GetTopKResponse, Suggestion};
use api::validate::GetTopK;
use api::{ApiError, Reason};
use cluster::{KeyRange, Namespace, NodeId, Position, SessionToken, ShardId, ShardMap};
use futures::future::join_all;
use runtime::Instant;

use super::reads::min_index;
use super::rounds::{Failed, Kind, Rounds};
use super::{Ask, Router, Target};
use crate::gather;

/// What one shard answered for its part.
#[derive(Debug)]
struct Part {
    suggestions: Vec<Suggestion>,
    position: Option<Position>,
    age_ms: u64,
}

type Parts = HashMap<(KeyRange, ShardId), Result<Part, ApiError>>;

impl Router {
    /// GetTopK.
    pub(crate) async fn top_k(
        &self,
        ask: GetTopK,
        deadline: Instant,
    ) -> Result<GetTopKResponse, ApiError> {
        let mut rounds = Rounds::new(Kind::Read, deadline);
        let mut parts = Parts::new();
        loop {
            let (name, token) = (&ask.namespace, Some(&ask.token));
            let map = self.map_for(name, token, Some(ask.consistency)).await?;
            let Some(namespace) = map.namespaces.get(&ask.namespace) else {
                return Ok(nothing(&ask));
            };
            let cover = map.cover(&ask.namespace, ask.prefix.as_str());
            // What was answered by a map of before counts where the present one cuts the prefix the same way.
            parts.retain(|at, part| part.is_ok() && cover.contains(at));
            let missing = cover.iter().filter(|at| !parts.contains_key(at));
            let asked = missing.map(|at| {
                let (range, shard) = at;
                let part = self.part(&ask, &map, namespace, (range, *shard), &rounds);
                async move { (at.clone(), part.await) }
            });
            let mut again = false;
            for ((range, shard), part) in join_all(asked).await {
                let part = part.map_err(|failed| {
                    again |= rounds.may_follow(shard, &failed);
                    rounds.conclude(shard, failed)
                });
                parts.insert((range, shard), part);
            }
            if !again || !rounds.next(&self.runtime, &self.leaders).await {
                return assemble(&ask, &cover, parts);
            }
        }
    }

    /// One shard's part, once.
    async fn part(
        &self,
        ask: &GetTopK,
        map: &ShardMap,
        namespace: &Namespace,
        (range, shard): (&KeyRange, ShardId),
        rounds: &Rounds,
    ) -> Result<Part, Failed> {
        let min_index = min_index(map, &ask.token, shard)?;
        let to = Ask {
            map,
            shard,
            consistency: Some(ask.consistency),
            rounds,
        };
        let call = |target: Target| {
            let request = TopKRequest {
                correlation: 0,
                route: Some(target.route),
                namespace_id: namespace.id.0,
                generation: namespace.generation.0,
                prefix: ask.prefix.as_str().to_owned(),
                k: ask.k,
                consistency: WireConsistency::from(ask.consistency).into(),
                min_index,
                range: Some(range.into()),
            };
            async move {
                let answer = target.link.top_k(request, target.limit).await?;
                checked(ask, answer, (range, shard), target.node)
            }
        };
        let (_, part) = self.ask(to, call).await?;
        Ok(part)
    }
}

/// What a shard answered, if it is an answer to what it was asked.
fn checked(
    ask: &GetTopK,
    answer: TopKResponse,
    (range, shard): (&KeyRange, ShardId),
    node: NodeId,
) -> Result<Part, ApiError> {
    let searched = answer.range.map(KeyRange::try_from).transpose()?;
    if searched.as_ref() != Some(range) {
        let message = format!("node {node} searched another part of shard {shard}");
        return Err(ApiError::new(Reason::WrongShard, message));
    }
    let k = usize::try_from(ask.k).unwrap_or(usize::MAX);
    if !gather::is_plausible(&answer.suggestions, range, k) {
        tracing::error!(%shard, %node, "a shard answered with an impossible list");
        let message = format!("shard {shard} answered with an impossible list");
        return Err(ApiError::new(Reason::Internal, message));
    }
    Ok(Part {
        suggestions: answer.suggestions,
        position: answer.position.map(Position::from),
        age_ms: answer.age_ms,
    })
}

/// A namespace that does not exist has no terms, and nobody needs to be asked.
fn nothing(ask: &GetTopK) -> GetTopKResponse {
    GetTopKResponse {
        k_served: ask.k,
        completeness: Some(gather::completeness(&[], &[])),
        token: Some((&SessionToken::default()).into()),
        ..GetTopKResponse::default()
    }
}

fn assemble(
    ask: &GetTopK,
    cover: &[(KeyRange, ShardId)],
    mut parts: Parts,
) -> Result<GetTopKResponse, ApiError> {
    let mut lists = Vec::with_capacity(cover.len());
    let mut answered = Vec::with_capacity(cover.len());
    let mut seen = SessionToken::default();
    let mut age_ms = 0;
    let mut failures = Vec::new();
    for at in cover {
        match parts.remove(at) {
            Some(Ok(part)) => {
                part.position.into_iter().for_each(|at| seen.see(at));
                age_ms = age_ms.max(part.age_ms);
                lists.push(part.suggestions);
                answered.push(true);
            }
            failed => {
                answered.push(false);
                failures.push(failed.and_then(Result::err).unwrap_or_else(|| {
                    ApiError::new(Reason::ShardUnavailable, "a shard was not asked")
                }));
            }
        }
    }
    // A caller's own mistake is no hole in the answer, and neither is the want of any answer at all.
    let is_callers = |error: &ApiError| error.reason() == Reason::UnknownIncarnation;
    if let Some(error) = failures.iter().find(|error| is_callers(error)) {
        return Err(error.clone());
    }
    if lists.is_empty()
        && let Some(error) = worst(&failures)
    {
        return Err(error.clone());
    }
    let ranges: Vec<KeyRange> = cover.iter().map(|(range, _)| range.clone()).collect();
    let completeness = gather::completeness(&ranges, &answered);
    if let Some(error) = worst(&failures)
        && ask.require_complete
    {
        let message = format!(
            "{} of {} shards did not answer: {}",
            completeness.shards_failed,
            completeness.shards_attempted,
            error.message()
        );
        return Err(ApiError::new(Reason::Incomplete, message)
            .with_metadata("cause", error.reason().as_str()));
    }
    Ok(GetTopKResponse {
        suggestions: gather::merge(lists, usize::try_from(ask.k).unwrap_or(usize::MAX)),
        k_served: ask.k,
        completeness: Some(completeness),
        token: Some((&seen).into()),
        age_ms,
    })
}

/// The failure that a caller should hear of: lost data before everything else.
fn worst(failures: &[ApiError]) -> Option<&ApiError> {
    failures
        .iter()
        .find(|error| error.reason() == Reason::DataLoss)
        .or(failures.first())
}
