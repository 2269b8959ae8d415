//! Records, deletes and clears of clients that come directly.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::registry::v1 as registry;
use api::v1::{self as wire, ItemResult};
use api::{ApiError, Reason, RequestId, validate};
use bytes::Bytes;
use cluster::{Position, SessionToken, ShardId};
use futures::future::join_all;
use repeat_table::{delete_fingerprint, record_fingerprint};
use rpc::Deadline;
use term::NamespaceName;

use crate::node::Replica;
use crate::queue::{Answer, Ticket};
use crate::service::{Services, convert, shard, writes};
use crate::state::{Identity, Item, Operation, Refusal, Scope, Write, WriteOutcome};

/// A write of one shard.
struct Part {
    replica: Arc<Replica>,
    identity: Option<Identity>,
    operation: Operation,
}

/// A part that was put into its shard's queue, or refused there.
struct Queued {
    part: Part,
    ticket: Result<Ticket, ApiError>,
}

/// A batch whose parts stand in the queues of their shards.
pub(super) struct QueuedBatch {
    namespace: NamespaceName,
    deadline: Deadline,
    items: usize,
    parts: Vec<Queued>,
}

impl Services {
    pub(super) async fn record(
        &self,
        record: validate::Record,
        deadline: Deadline,
    ) -> Result<wire::RecordResponse, ApiError> {
        let batch = validate::RecordBatch {
            namespace: record.namespace,
            items: vec![record.item],
            request_id: record.request_id,
        };
        let queued = self.queue_batch(batch, deadline).await?;
        let response = self.settle_batch(queued).await?;
        let result = response.results.into_iter().next().unwrap_or_default();
        match result.error() {
            None => Ok(wire::RecordResponse {
                count: result.count,
                token: response.token,
                repeated: result.repeated,
            }),
            Some(reason) => Err(ApiError::new(reason, "the record was refused")),
        }
    }

    /// Puts the parts of a batch into the queues of their shards. Batches of one caller that are queued one after another are applied
    /// in that order.
    pub(super) async fn queue_batch(
        &self,
        batch: validate::RecordBatch,
        deadline: Deadline,
    ) -> Result<QueuedBatch, ApiError> {
        let namespace = batch.namespace;
        let identity = batch.request_id.as_ref().map(|id| {
            let items = batch
                .items
                .iter()
                .map(|item| (item.term.as_str(), item.count));
            writes::identity(id, record_fingerprint(namespace.as_str(), items))
        });
        let count = batch.items.len();
        let mut of_shards: BTreeMap<ShardId, Vec<Item>> = BTreeMap::new();
        for (number, item) in (0..).zip(batch.items) {
            let shard = self.owner(&namespace, item.term.as_str())?;
            of_shards.entry(shard).or_default().push(Item {
                number,
                term: item.term.into_string(),
                count: item.count,
                display: item.display.map(String::from),
            });
        }
        let mut parts = Vec::with_capacity(of_shards.len());
        for (shard, items) in of_shards {
            parts.push(Part {
                // Nothing is applied unless all of it is owned here.
                replica: self.node.replica(shard)?,
                identity,
                operation: Operation::Record(items),
            });
        }
        Ok(QueuedBatch {
            parts: self.queue_parts(&namespace, parts, deadline).await?,
            items: count,
            namespace,
            deadline,
        })
    }

    /// Waits for what becomes of a batch.
    pub(super) async fn settle_batch(
        &self,
        batch: QueuedBatch,
    ) -> Result<wire::RecordBatchResponse, ApiError> {
        let QueuedBatch {
            namespace,
            deadline,
            items,
            parts,
        } = batch;
        let numbers: Vec<Vec<u32>> = parts.iter().map(|queued| queued.part.numbers()).collect();
        let settling = parts
            .into_iter()
            .map(|queued| self.settle_part(&namespace, queued, deadline));
        let answers = join_all(settling).await;
        if let [Err(error)] = answers.as_slice() {
            return Err(error.clone());
        }
        let mut results = vec![ItemResult::default(); items];
        let mut token = SessionToken::default();
        for (numbers, answer) in numbers.into_iter().zip(answers) {
            let of_items = match answer {
                Ok((position, WriteOutcome::Recorded(items))) => {
                    token.see(position);
                    items.iter().map(convert::item_result).collect()
                }
                Ok((_, WriteOutcome::Deleted { .. } | WriteOutcome::Refused(_))) => {
                    vec![api::error::item_error(Reason::Internal); numbers.len()]
                }
                Err(error) => vec![ItemResult::from(&error); numbers.len()],
            };
            for (number, result) in numbers.into_iter().zip(of_items) {
                if let Some(place) = results.get_mut(number as usize) {
                    *place = result;
                }
            }
        }
        Ok(wire::RecordBatchResponse {
            results,
            token: Some(token.into()),
        })
    }

    pub(super) async fn delete(
        &self,
        delete: validate::Delete,
        deadline: Deadline,
    ) -> Result<wire::DeleteResponse, ApiError> {
        let namespace = &delete.namespace;
        let term = delete.term.as_str();
        let print = delete_fingerprint(namespace.as_str(), term);
        let identity = delete
            .request_id
            .as_ref()
            .map(|id| writes::identity(id, print));
        let part = Part {
            replica: self.node.replica(self.owner(namespace, term)?)?,
            identity,
            operation: Operation::Delete {
                term: term.to_owned(),
            },
        };
        let mut queued = self.queue_parts(namespace, vec![part], deadline).await?;
        let queued = queued
            .pop()
            .ok_or_else(|| ApiError::internal("a delete was not queued"))?;
        let (position, outcome) = self.settle_part(namespace, queued, deadline).await?;
        match outcome {
            WriteOutcome::Deleted {
                existed,
                repeated: _,
            } => {
                let mut token = SessionToken::default();
                token.see(position);
                Ok(wire::DeleteResponse {
                    existed,
                    token: Some(token.into()),
                })
            }
            WriteOutcome::Recorded(_) | WriteOutcome::Refused(_) => Err(ApiError::internal(
                "a delete was answered as something else",
            )),
        }
    }

    pub(super) async fn clear_namespace(
        &self,
        clear: validate::ClearNamespace,
        deadline: Deadline,
    ) -> Result<wire::ClearNamespaceResponse, ApiError> {
        let mut message = registry::ClearNamespaceRequest {
            name: clear.namespace.as_str().to_owned(),
            ..registry::ClearNamespaceRequest::default()
        };
        // More than one coordinator may be asked, and one that does not answer may act all the same: also without an id of the caller's
        // the namespace is cleared once.
        let runtime = &self.node.runtime;
        let id = clear.request_id.unwrap_or_else(|| RequestId {
            client: runtime.random_id(),
            sequence: 1,
            issued_at_ms: runtime.wall_ms().max(0),
            acked_below: 1,
        });
        message.client_id = Bytes::copy_from_slice(&id.client);
        message.sequence = id.sequence;
        message.issued_at_ms = id.issued_at_ms;
        message.acked_below = id.acked_below;
        let answer: registry::ClearNamespaceResponse = self
            .node
            .registry
            .call(deadline, message, |mut client, request| async move {
                client.clear_namespace(request).await
            })
            .await?;
        self.node.sync_now.notify_one();
        Ok(wire::ClearNamespaceResponse {
            generation: answer.generation,
        })
    }

    /// The shard that owns a term of a namespace.
    pub(super) fn owner(&self, namespace: &NamespaceName, term: &str) -> Result<ShardId, ApiError> {
        let view = self.node.view();
        let map = view
            .map()
            .ok_or_else(|| ApiError::new(Reason::Starting, "this node has no map yet"))?;
        Ok(map.owner(namespace, term))
    }

    async fn queue_parts(
        &self,
        namespace: &NamespaceName,
        parts: Vec<Part>,
        deadline: Deadline,
    ) -> Result<Vec<Queued>, ApiError> {
        let scope = self.node.resolve(namespace, true, deadline).await?;
        let scope = scope.ok_or_else(|| ApiError::internal("the namespace was not created"))?;
        let queue = |part: Part| Queued {
            ticket: self.put(&part, scope, deadline),
            part,
        };
        Ok(parts.into_iter().map(queue).collect())
    }

    fn put(&self, part: &Part, scope: Scope, deadline: Deadline) -> Result<Ticket, ApiError> {
        let writes = vec![Write {
            namespace: scope.namespace,
            generation: scope.generation,
            identity: part.identity,
            operation: part.operation.clone(),
        }];
        self.node.check_budget(&part.replica, &writes)?;
        part.replica.put(writes, deadline)
    }

    /// Waits for one part. When the namespace was cleared since it was looked up, it is looked up again, once.
    async fn settle_part(
        &self,
        namespace: &NamespaceName,
        queued: Queued,
        deadline: Deadline,
    ) -> Result<(Position, WriteOutcome), ApiError> {
        let Queued { part, ticket } = queued;
        let (index, outcome) = match part.settled(ticket?, deadline).await? {
            (_, WriteOutcome::Refused(Refusal::StaleGeneration { known })) => {
                let scope = self.node.resolve_again(namespace, known, deadline).await?;
                let scope = scope.ok_or_else(|| ApiError::internal("the namespace is gone"))?;
                let ticket = self.put(&part, scope, deadline)?;
                part.settled(ticket, deadline).await?
            }
            other => other,
        };
        match outcome {
            WriteOutcome::Refused(refusal) => Err(convert::refusal_error(&refusal)),
            done @ (WriteOutcome::Recorded(_) | WriteOutcome::Deleted { .. }) => {
                Ok((part.replica.position(index), done))
            }
        }
    }
}

impl Part {
    fn numbers(&self) -> Vec<u32> {
        match &self.operation {
            Operation::Record(items) => items.iter().map(|item| item.number).collect(),
            Operation::Delete { term: _ } => Vec::new(),
        }
    }

    async fn settled(
        &self,
        ticket: Ticket,
        deadline: Deadline,
    ) -> Result<(u64, WriteOutcome), ApiError> {
        let Answer { outcomes, index } = self.replica.settled(ticket, deadline).await?;
        shard::count(&self.replica, &outcomes);
        let outcome = outcomes.into_iter().next();
        let outcome = outcome.ok_or_else(|| ApiError::internal("a write without an outcome"))?;
        Ok((index, outcome))
    }
}
