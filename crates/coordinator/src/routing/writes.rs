//! Records and deletions.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::shard::v1::write::Operation;
use api::shard::v1::{
    DeleteTerm, NumberedItem, RecordItems, Write, WriteRequest, WriteResponse, WriteResult,
};
use api::v1::{
    ClearNamespaceResponse, DeleteResponse, ItemResult, RecordBatchResponse, RecordResponse,
};
use api::validate::{ClearNamespace, Delete, Item, Record, RecordBatch};
use api::{ApiError, Outcome, Reason, RequestId};
use cluster::{Generation, Namespace, Position, SessionToken, ShardId, ShardMap};
use futures::future::join_all;
use repeat_table::{ClientId, clear_fingerprint, delete_fingerprint, record_fingerprint};
use runtime::Instant;
use term::NamespaceName;

use super::rounds::{Failed, Kind, Rounds};
use super::{Ask, Router, Target};
use crate::lanes::Ticket;
use crate::meta::unexpected;
use crate::metadata::{Command, Response};

/// The id that a write travels under.
#[derive(Debug)]
struct Identity {
    id: RequestId,
    fingerprint: u64,
    /// Held until the write is settled, where the id is one of ours.
    ticket: Option<Ticket>,
}

/// What a shard answered to one write.
#[derive(Debug)]
pub(crate) struct Written {
    result: WriteResult,
    position: Option<Position>,
}

/// The items of a batch while they are on their way.
pub(crate) struct Progress<'a> {
    items: &'a [Item],
    results: Vec<Option<Result<ItemResult, ApiError>>>,
    open: Vec<usize>,
    seen: SessionToken,
    /// The request id is the caller's. Where it is one of ours, a repeat is our own second try of what the caller asked once.
    is_callers_id: bool,
}

impl Router {
    /// Record.
    pub(crate) async fn record(
        &self,
        record: Record,
        deadline: Instant,
    ) -> Result<RecordResponse, ApiError> {
        let batch = RecordBatch {
            namespace: record.namespace,
            items: vec![record.item],
            request_id: record.request_id,
        };
        let mut progress = Progress::new(&batch);
        self.write_batch(&batch, &mut progress, deadline).await?;
        let token = (&progress.seen).into();
        let result = match progress.results.pop().flatten() {
            Some(result) => result?,
            None => return Err(unanswered()),
        };
        if let Some(reason) = result.error() {
            let message = format!("the shard refused the record: {}", reason.as_str());
            return Err(ApiError::new(reason, message).for_write());
        }
        Ok(RecordResponse {
            count: result.count,
            token: Some(token),
            repeated: result.repeated,
        })
    }

    /// RecordBatch.
    pub(crate) async fn record_batch(
        &self,
        batch: RecordBatch,
        deadline: Instant,
    ) -> Result<RecordBatchResponse, ApiError> {
        let mut progress = Progress::new(&batch);
        self.write_batch(&batch, &mut progress, deadline).await?;
        progress.into_response()
    }

    async fn write_batch(
        &self,
        batch: &RecordBatch,
        progress: &mut Progress<'_>,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let items = batch.items.iter().map(|at| (at.term.as_str(), at.count));
        let fingerprint = record_fingerprint(batch.namespace.as_str(), items);
        let identity = self.identity(batch.request_id, fingerprint);
        let mut rounds = Rounds::new(Kind::Write, deadline);
        while !progress.open.is_empty() {
            let (map, namespace) = match self.namespace_of_write(&batch.namespace, deadline).await {
                Ok(found) => found,
                Err(error) => {
                    progress.fail_open(&error);
                    return Ok(());
                }
            };
            let parts = progress.split(&map, &batch.namespace);
            let sent = parts.into_iter().map(|(shard, numbers)| {
                let write = record_write(&namespace, &identity, progress.items, &numbers);
                let (map, router, rounds) = (&map, self, &rounds);
                async move {
                    let written = router.write(map, shard, write, rounds).await;
                    (shard, numbers, written)
                }
            });
            for (shard, numbers, written) in join_all(sent).await {
                let taken = written.and_then(|at| Ok(progress.take(&numbers, at)?));
                if let Err(failed) = taken {
                    let again = rounds.may_follow(shard, &failed);
                    let error = identity.told(rounds.conclude(shard, failed));
                    progress.fail(&numbers, &error, again);
                }
            }
            if !progress.open.is_empty() && !rounds.next(&self.runtime, &self.leaders).await {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Delete.
    pub(crate) async fn delete(
        &self,
        delete: Delete,
        deadline: Instant,
    ) -> Result<DeleteResponse, ApiError> {
        let name = &delete.namespace;
        let fingerprint = delete_fingerprint(name.as_str(), delete.term.as_str());
        let identity = self.identity(delete.request_id, fingerprint);
        let mut rounds = Rounds::new(Kind::Write, deadline);
        let mut outcome = Outcome::NotApplied;
        loop {
            let (map, namespace) = match self.namespace_of_delete(&delete, deadline).await {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(DeleteResponse::default()),
                Err(error) => return Err(error.with_outcome(outcome)),
            };
            let shard = map.owner(name, delete.term.as_str());
            let operation = Operation::Delete(DeleteTerm {
                term: delete.term.as_str().to_owned(),
            });
            let write = write_of(&namespace, &identity, operation);
            match self.write(&map, shard, write, &rounds).await {
                Ok(written) => {
                    return Ok(DeleteResponse {
                        existed: written.result.existed,
                        token: Some(
                            (&SessionToken::new(written.position).unwrap_or_default()).into(),
                        ),
                    });
                }
                Err(failed) => {
                    let again = rounds.may_follow(shard, &failed);
                    let error = identity.told(rounds.conclude(shard, failed)).for_write();
                    if error.outcome() == Some(Outcome::Unknown) {
                        outcome = Outcome::Unknown;
                    }
                    if !again || !rounds.next(&self.runtime, &self.leaders).await {
                        return Err(error.with_outcome(outcome));
                    }
                }
            }
        }
    }

    /// Where to delete; `None` where there is no such namespace. One that comes with a request id has to be remembered by a shard
    /// even so: sent again, it must not take away what was recorded since it was answered.
    async fn namespace_of_delete(
        &self,
        delete: &Delete,
        deadline: Instant,
    ) -> Result<Option<(Arc<ShardMap>, Namespace)>, ApiError> {
        let name = &delete.namespace;
        if delete.request_id.is_some() {
            let found = self.namespace_of_write(name, deadline).await;
            return found.map(Some);
        }
        let map = self.map_for(name, None, None, deadline).await?;
        let found = map.namespaces.get(name).cloned();
        Ok(found.map(|namespace| (map, namespace)))
    }

    /// ClearNamespace: the metadata first, then every shard. Once the metadata has the new generation, no read that is
    /// routed by it sees an older term.
    pub(crate) async fn clear(
        &self,
        clear: ClearNamespace,
        deadline: Instant,
    ) -> Result<ClearNamespaceResponse, ApiError> {
        let fingerprint = clear_fingerprint(clear.namespace.as_str());
        let request = clear.request_id.map(|id| (to_table(id), fingerprint));
        let command = Command::RaiseGeneration {
            name: clear.namespace.as_str().to_owned(),
            request,
        };
        let response = self.meta.propose(&command).await?;
        let Response::Generation { generation } = response else {
            return Err(unexpected(&response));
        };
        if generation > Generation(0) {
            self.clear_shards(&clear.namespace, deadline).await?;
        }
        Ok(ClearNamespaceResponse {
            generation: generation.0,
        })
    }

    async fn clear_shards(&self, name: &NamespaceName, deadline: Instant) -> Result<(), ApiError> {
        let map = self.map()?;
        let placed = map
            .layout(name)
            .iter()
            .map(|(_, shard)| shard)
            .filter(|shard| {
                // A shard that was never placed holds nothing.
                map.shards
                    .get(shard)
                    .is_some_and(|shard| !shard.replicas.is_empty())
            });
        let cleared = join_all(placed.map(|shard| self.clear_shard(name, shard, deadline))).await;
        // The generation was raised whatever the shards say, and a shard that was not reached follows when it is.
        cleared
            .into_iter()
            .collect::<Result<(), ApiError>>()
            .map_err(|error| error.with_outcome(Outcome::Unknown))
    }

    async fn clear_shard(
        &self,
        name: &NamespaceName,
        shard: ShardId,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let mut rounds = Rounds::new(Kind::Read, deadline);
        loop {
            let map = self.map()?;
            let Some(namespace) = map.namespaces.get(name) else {
                return Ok(());
            };
            let to = Ask {
                map: &map,
                shard,
                consistency: None,
                rounds: &rounds,
            };
            let call = |target: Target| {
                let request = api::shard::v1::ClearRequest {
                    route: Some(target.route),
                    namespace_id: namespace.id.0,
                    generation: namespace.generation.0,
                };
                async move { target.link.clear(request, target.limit).await }
            };
            let Err(failed) = self.ask(to, call).await else {
                return Ok(());
            };
            // Clearing up to a generation is idempotent, so that it may follow its own tracks as a read may.
            let again = rounds.may_follow(shard, &failed);
            if !again || !rounds.next(&self.runtime, &self.leaders).await {
                return Err(rounds.conclude(shard, failed));
            }
        }
    }

    fn identity(&self, own: Option<RequestId>, fingerprint: u64) -> Identity {
        let ticket = own.is_none().then(|| self.lanes.draw());
        let drawn = ticket.as_ref().map(Ticket::id);
        Identity {
            // One of the two is there.
            id: own.or(drawn).unwrap_or(RequestId {
                client: [0; 16],
                sequence: 0,
                issued_at_ms: 0,
                acked_below: 0,
            }),
            fingerprint,
            ticket,
        }
    }

    /// Sends one write to one shard, once.
    async fn write(
        &self,
        map: &ShardMap,
        shard: ShardId,
        write: Write,
        rounds: &Rounds,
    ) -> Result<Written, Failed> {
        let to = Ask {
            map,
            shard,
            consistency: None,
            rounds,
        };
        let call = |target: Target| {
            let request = WriteRequest {
                correlation: 0,
                route: Some(target.route),
                writes: vec![write],
            };
            async move { target.link.write(request, target.limit).await }
        };
        let (_, response) = self.ask(to, call).await?;
        Ok(written(response)?)
    }
}

/// What a shard answered to the one write that it was sent.
pub(crate) fn written(mut response: WriteResponse) -> Result<Written, ApiError> {
    let position = response.position.take().map(Position::from);
    let result = match (response.results.pop(), response.results.is_empty()) {
        (Some(result), true) => result,
        _ => return Err(unanswered()),
    };
    match result.error {
        Some(error) => Err(error.into()),
        None => Ok(Written { result, position }),
    }
}

impl Identity {
    /// What the caller hears. An id that we drew is none of its, so that one which a shard refuses says that our clock is off:
    /// another coordinator may do better.
    fn told(&self, error: ApiError) -> ApiError {
        let is_of_the_id = matches!(
            error.reason(),
            Reason::BadRequestId | Reason::SessionExpired
        );
        if self.ticket.is_none() || !is_of_the_id {
            return error;
        }
        let error = error.for_write();
        let message = format!("the clock of this coordinator is off: {}", error.message());
        let told = ApiError::new(Reason::ShardUnavailable, message);
        told.with_outcome(error.outcome().unwrap_or(Outcome::Unknown))
    }
}

impl<'a> Progress<'a> {
    pub(crate) fn new(batch: &'a RecordBatch) -> Self {
        let items = batch.items.as_slice();
        Self {
            items,
            results: vec![None; items.len()],
            open: (0..items.len()).collect(),
            seen: SessionToken::default(),
            is_callers_id: batch.request_id.is_some(),
        }
    }

    /// What is open, by owner; nothing is open then.
    fn split(&mut self, map: &ShardMap, name: &NamespaceName) -> BTreeMap<ShardId, Vec<usize>> {
        let mut parts: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
        let layout = map.layout(name);
        // Parts that came back stand in any order; a shard wants ascending numbers.
        self.open.sort_unstable();
        for number in self.open.drain(..) {
            if let Some(item) = self.items.get(number) {
                let owner = layout.owner(item.term.as_str());
                parts.entry(owner).or_default().push(number);
            }
        }
        parts
    }

    /// Keeps what a shard answered for its part.
    pub(crate) fn take(&mut self, numbers: &[usize], written: Written) -> Result<(), ApiError> {
        if written.result.results.len() != numbers.len() {
            return Err(unanswered());
        }
        if let Some(position) = written.position {
            self.seen.see(position);
        }
        for (number, mut result) in numbers.iter().zip(written.result.results) {
            result.repeated &= self.is_callers_id;
            if let Some(slot) = self.results.get_mut(*number) {
                *slot = Some(Ok(result));
            }
        }
        Ok(())
    }

    pub(crate) fn fail(&mut self, numbers: &[usize], error: &ApiError, again: bool) {
        let error = error.clone().for_write();
        for number in numbers {
            if let Some(slot) = self.results.get_mut(*number) {
                let mut error = error.clone();
                // What an earlier try may have done, a later one does not undo.
                if matches!(slot, Some(Err(before)) if before.outcome() == Some(Outcome::Unknown)) {
                    error = error.after_unknown();
                }
                *slot = Some(Err(error));
            }
            if again {
                self.open.push(*number);
            }
        }
    }

    fn fail_open(&mut self, error: &ApiError) {
        let open = std::mem::take(&mut self.open);
        self.fail(&open, error, false);
    }

    /// Item by item, unless all failed for the same cause: then the call fails.
    pub(crate) fn into_response(self) -> Result<RecordBatchResponse, ApiError> {
        let results: Vec<Result<ItemResult, ApiError>> = self
            .results
            .into_iter()
            .map(|result| result.unwrap_or_else(|| Err(unanswered())))
            .collect();
        let first = results.first().and_then(|result| result.as_ref().err());
        if let Some(first) = first {
            let same = |other: &Result<ItemResult, ApiError>| matches!(other, Err(error) if error.reason() == first.reason());
            if results.iter().all(same) {
                let unknown = results.iter().any(
                    |at| matches!(at, Err(error) if error.outcome() != Some(Outcome::NotApplied)),
                );
                let outcome = if unknown {
                    Outcome::Unknown
                } else {
                    Outcome::NotApplied
                };
                return Err(first.clone().with_outcome(outcome));
            }
        }
        let results = results
            .into_iter()
            .map(|result| result.unwrap_or_else(|error| ItemResult::from(&error)))
            .collect();
        Ok(RecordBatchResponse {
            results,
            token: Some((&self.seen).into()),
        })
    }
}

fn record_write(
    namespace: &Namespace,
    identity: &Identity,
    items: &[Item],
    numbers: &[usize],
) -> Write {
    let numbered = numbers.iter().filter_map(|number| {
        let item = items.get(*number)?;
        Some(NumberedItem {
            number: u32::try_from(*number).ok()?,
            term: item.term.as_str().to_owned(),
            count: item.count,
            display: item.display.as_deref().unwrap_or_default().to_owned(),
        })
    });
    let items = numbered.collect();
    write_of(
        namespace,
        identity,
        Operation::Record(RecordItems { items }),
    )
}

fn write_of(namespace: &Namespace, identity: &Identity, operation: Operation) -> Write {
    Write {
        namespace_id: namespace.id.0,
        generation: namespace.generation.0,
        request_id: Some(identity.id.into()),
        fingerprint: identity.fingerprint,
        operation: Some(operation),
    }
}

fn to_table(id: RequestId) -> repeat_table::RequestId {
    repeat_table::RequestId {
        client: ClientId(id.client),
        sequence: id.sequence,
        issued_at_ms: id.issued_at_ms,
        acked_below: id.acked_below,
    }
}

fn unanswered() -> ApiError {
    ApiError::new(
        Reason::Internal,
        "the shard answered another number of items than it was sent",
    )
    .with_outcome(Outcome::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::v1::{RecordBatchRequest, RecordItem};

    fn batch(terms: &[&str]) -> RecordBatch {
        let item = |term: &&str| RecordItem {
            term: (*term).to_owned(),
            count: 1,
        };
        let request = RecordBatchRequest {
            items: terms.iter().map(item).collect(),
            ..RecordBatchRequest::default()
        };
        RecordBatch::try_from(request).unwrap()
    }

    fn applied() -> Written {
        let item = ItemResult {
            count: 1,
            ..ItemResult::default()
        };
        let result = WriteResult {
            results: vec![item],
            ..WriteResult::default()
        };
        Written {
            result,
            position: None,
        }
    }

    fn gone() -> ApiError {
        ApiError::new(Reason::Disconnected, "the leader died")
    }

    #[test]
    fn an_item_that_an_earlier_round_may_have_applied_is_never_called_refused() {
        for reason in [
            Reason::Overloaded,
            Reason::DiskFull,
            Reason::MemoryBudget,
            Reason::NotLeader,
            Reason::Starting,
        ] {
            let batch = batch(&["ant", "kiwi", "zoo"]);
            let mut progress = Progress::new(&batch);
            progress.fail(&[0], &gone(), true);
            progress.take(&[1], applied()).unwrap();
            progress.fail(&[0, 2], &ApiError::new(reason, "refused"), false);
            let response = progress.into_response().unwrap();
            let errors: Vec<_> = response.results.iter().map(ItemResult::error).collect();
            assert_eq!(
                errors,
                [Some(Reason::ShardUnavailable), None, Some(reason)],
                "{reason:?}"
            );
        }
    }

    #[test]
    fn a_batch_that_failed_as_a_whole_tells_of_its_earlier_rounds() {
        let batch = batch(&["ant", "zoo"]);
        let mut progress = Progress::new(&batch);
        progress.fail(&[1], &gone(), true);
        let full = ApiError::new(Reason::DiskFull, "the disk is full");
        progress.fail(&[0], &full, false);
        progress.fail(&[1], &full, false);
        let error = progress.into_response().unwrap_err();
        assert_eq!(error.reason(), Reason::DiskFull);
        assert_eq!(error.outcome(), Some(Outcome::Unknown));
    }

    #[test]
    fn an_id_of_our_own_that_is_refused_is_not_held_against_the_caller() {
        let refused = ApiError::field(Reason::BadRequestId, "request_id.issued_at_ms", "ahead");
        let identity = |ticket: Option<Ticket>| Identity {
            id: RequestId {
                client: [1; 16],
                sequence: 1,
                issued_at_ms: 0,
                acked_below: 0,
            },
            fingerprint: 0,
            ticket,
        };
        let lanes = crate::lanes::Lanes::new(runtime::Runtime::real());
        let ours = identity(Some(lanes.draw())).told(refused.clone());
        assert_eq!(ours.reason(), Reason::ShardUnavailable);
        assert_eq!(ours.outcome(), Some(Outcome::NotApplied));
        assert_eq!(ours.field_name(), None);
        let theirs = identity(None).told(refused);
        assert_eq!(theirs.reason(), Reason::BadRequestId);
    }

    #[test]
    fn a_second_try_of_our_own_is_no_repeat_of_the_callers() {
        let id = RequestId {
            client: [1; 16],
            sequence: 1,
            issued_at_ms: 0,
            acked_below: 0,
        };
        for (request_id, expected) in [(None, false), (Some(id), true)] {
            let batch = RecordBatch {
                request_id,
                ..batch(&["ant"])
            };
            let mut progress = Progress::new(&batch);
            progress.fail(&[0], &gone(), true);
            let mut again = applied();
            again.result.results[0].repeated = true;
            progress.take(&[0], again).unwrap();
            let response = progress.into_response().unwrap();
            assert_eq!(response.results[0].repeated, expected);
        }
    }
}
