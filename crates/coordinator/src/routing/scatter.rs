//! GetTopK: every shard that owns part of the prefix, and their answers as one.

use api::shard::v1::{Route, TopKRequest, TopKResponse};
use api::v1::{Consistency as WireConsistency, GetTopKResponse, Suggestion};
use api::validate::GetTopK;
use api::{ApiError, Reason};
use cluster::{KeyRange, Namespace, NodeId, Position, SessionToken, ShardId, ShardMap};
use futures::future::join_all;
use runtime::Instant;

use super::hedges::Read;
use super::reads::min_index;
use super::rounds::{Failed, Kind, Rounds};
use super::{Ask, Router, Target};
use crate::gather;

/// What one shard answered for its part.
#[derive(Debug)]
pub(crate) struct Part {
    suggestions: Vec<Suggestion>,
    position: Option<Position>,
    age_ms: u64,
}

/// A part of the prefix as the map cuts it, and what was answered for it in the last round that asked.
#[derive(Debug)]
pub(crate) struct Slot {
    range: KeyRange,
    shard: ShardId,
    answer: Option<Result<Part, ApiError>>,
}

impl Slot {
    pub(crate) fn tried(range: KeyRange, shard: ShardId, answer: Result<Part, ApiError>) -> Self {
        Self {
            range,
            shard,
            answer: Some(answer),
        }
    }

    fn is_open(&self) -> bool {
        !matches!(self.answer, Some(Ok(_)))
    }
}

impl Router {
    /// GetTopK.
    pub(crate) async fn top_k(
        &self,
        ask: GetTopK,
        deadline: Instant,
    ) -> Result<GetTopKResponse, ApiError> {
        match self.top_k_at_once(&ask, deadline) {
            Some(answer) => Ok(answer),
            // In a box, so that whoever passes this future on moves a pointer instead of kilobytes.
            None => Box::pin(self.top_k_in_rounds(ask, deadline)).await,
        }
    }

    async fn top_k_in_rounds(
        &self,
        ask: GetTopK,
        deadline: Instant,
    ) -> Result<GetTopKResponse, ApiError> {
        let mut rounds = Rounds::new(Kind::Read, deadline);
        let mut slots = Vec::new();
        loop {
            let (name, token) = (&ask.namespace, Some(&ask.token));
            let map = self
                .map_for(name, token, Some(ask.consistency), deadline)
                .await?;
            let Some(namespace) = map.namespaces.get(&ask.namespace) else {
                return Ok(nothing(&ask));
            };
            slots = cut(slots, map.cover(&ask.namespace, ask.prefix.as_str()));
            let parts = self.parts(&ask, &map, namespace, &slots, &rounds).await;
            let mut again = false;
            for (slot, part) in slots.iter_mut().filter(|slot| slot.is_open()).zip(parts) {
                slot.answer = Some(part.map_err(|failed| {
                    again |= rounds.may_follow(slot.shard, &failed);
                    rounds.conclude(slot.shard, failed)
                }));
            }
            if !again || !rounds.next(&self.runtime, &self.leaders).await {
                return assemble(&ask, slots);
            }
        }
    }

    /// Asks for every part that is open, all at once, in their order.
    async fn parts(
        &self,
        ask: &GetTopK,
        map: &ShardMap,
        namespace: &Namespace,
        slots: &[Slot],
        rounds: &Rounds,
    ) -> Vec<Result<Part, Failed>> {
        // Nearly every prefix lies in one shard, which needs no list of things to wait for.
        if let [only] = slots {
            return vec![self.part(ask, map, namespace, only, rounds).await];
        }
        let open = slots.iter().filter(|slot| slot.is_open());
        join_all(open.map(|slot| self.part(ask, map, namespace, slot, rounds))).await
    }

    /// One shard's part, once.
    async fn part(
        &self,
        ask: &GetTopK,
        map: &ShardMap,
        namespace: &Namespace,
        slot: &Slot,
        rounds: &Rounds,
    ) -> Result<Part, Failed> {
        let shard = slot.shard;
        let min_index = min_index(map, &ask.token, shard)?;
        let to = Ask {
            map,
            shard,
            consistency: Some(ask.consistency),
            rounds,
        };
        let call = |target: Target| {
            let request = request(ask, namespace, &slot.range, min_index, target.route);
            async move {
                let answer = target.link.top_k(request, target.limit).await?;
                checked(ask, answer, (&slot.range, shard), target.node)
            }
        };
        self.read(Read::TopK, to, call).await
    }
}

/// What a shard is asked for its part.
pub(super) fn request(
    ask: &GetTopK,
    namespace: &Namespace,
    range: &KeyRange,
    min_index: u64,
    route: Route,
) -> TopKRequest {
    TopKRequest {
        correlation: 0,
        route: Some(route),
        namespace_id: namespace.id.0,
        generation: namespace.generation.0,
        prefix: ask.prefix.as_str().to_owned(),
        k: ask.k,
        consistency: WireConsistency::from(ask.consistency).into(),
        min_index,
        range: Some(range.into()),
    }
}

/// What a shard answered, if it is an answer to what it was asked.
pub(crate) fn checked(
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

/// The parts by a newer map. What was answered by the map of before counts where this one cuts the prefix the same way.
fn cut(before: Vec<Slot>, cover: Vec<(KeyRange, ShardId)>) -> Vec<Slot> {
    let mut answered: Vec<Slot> = before.into_iter().filter(|slot| !slot.is_open()).collect();
    let slots = cover.into_iter().map(|(range, shard)| {
        let is_this = |slot: &Slot| slot.range == range && slot.shard == shard;
        match answered.iter().position(is_this) {
            Some(place) => answered.swap_remove(place),
            None => Slot {
                range,
                shard,
                answer: None,
            },
        }
    });
    slots.collect()
}

/// A namespace that does not exist has no terms, and nobody needs to be asked.
fn nothing(ask: &GetTopK) -> GetTopKResponse {
    GetTopKResponse {
        k_served: ask.k,
        completeness: Some(gather::completeness([])),
        token: Some((&SessionToken::default()).into()),
        ..GetTopKResponse::default()
    }
}

pub(crate) fn assemble(ask: &GetTopK, slots: Vec<Slot>) -> Result<GetTopKResponse, ApiError> {
    let completeness =
        gather::completeness(slots.iter().map(|slot| (&slot.range, !slot.is_open())));
    let mut lists = Vec::with_capacity(slots.len());
    let mut seen = SessionToken::default();
    let mut age_ms = 0;
    let mut failures = Vec::new();
    for slot in slots {
        match slot.answer {
            Some(Ok(part)) => {
                part.position.into_iter().for_each(|at| seen.see(at));
                age_ms = age_ms.max(part.age_ms);
                lists.push(part.suggestions);
            }
            Some(Err(error)) => failures.push(error),
            None => failures.push(ApiError::new(
                Reason::ShardUnavailable,
                "a shard was not asked",
            )),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answers: [Result<u64, ApiError>; 3]) -> Result<GetTopKResponse, ApiError> {
        let ask = GetTopK::try_from(api::v1::GetTopKRequest::default()).unwrap();
        let part = |age_ms| Part {
            suggestions: Vec::new(),
            position: None,
            age_ms,
        };
        let slot = |answer: Result<u64, ApiError>| Slot {
            range: KeyRange::full(),
            shard: ShardId(1),
            answer: Some(answer.map(part)),
        };
        assemble(&ask, answers.map(slot).into())
    }

    #[test]
    fn an_answer_is_as_old_as_its_oldest_part() {
        for ages in [[7, 900, 0], [900, 0, 7], [0, 7, 900]] {
            assert_eq!(answered(ages.map(Ok)).unwrap().age_ms, 900);
        }
    }

    #[test]
    fn a_token_that_cannot_be_met_is_no_hole_in_the_answer() {
        let error = |reason| Err(ApiError::new(reason, "test"));
        let answers = [
            Ok(0),
            error(Reason::ShardUnavailable),
            error(Reason::UnknownIncarnation),
        ];
        let error = answered(answers).unwrap_err();
        assert_eq!(error.reason(), Reason::UnknownIncarnation);
    }
}
