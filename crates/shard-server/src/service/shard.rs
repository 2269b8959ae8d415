//! `ShardService`: what coordinators ask of a shard.

use api::shard::v1 as wire;
use api::shard::v1::shard_service_server::ShardService;
use api::{ApiError, Consistency, Reason};
use cluster::{Generation, KeyRange, NamespaceId, limits};
use futures::stream::BoxStream;
use rpc::services::NearShard;
use rpc::{Deadline, Trace};
use tonic::{Request, Response, Status, Streaming};
use trie_core::Entry;

use super::route::Routed;
use super::streams::{Window, overtaking};
use super::{Services, convert, route, status, write_status, writes};
use crate::node::{Freshness, Replica, Seen};
use crate::state::{
    DictionaryState, ItemOutcome, Reading, Scope, StaleGeneration, WriteOutcome, command,
};

impl Services {
    /// Does a request as a part of the trace that its route names.
    fn traced<T, F>(
        &self,
        call: &str,
        route: Option<wire::Route>,
        work: F,
    ) -> impl Future<Output = Result<T, ApiError>> + use<T, F>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let trace = route.and_then(|route| Trace::from_halves(route.trace_high, route.trace_low));
        rpc::traced(&self.node.runtime, trace, call, work)
    }

    async fn write_one(
        &self,
        request: wire::WriteRequest,
        deadline: Deadline,
    ) -> Result<wire::WriteResponse, ApiError> {
        let routed = route::find(&self.node, request.route.as_ref())?;
        let decoded = writes::decode(&self.node, &routed, request.writes)?;
        let mut response = wire::WriteResponse {
            correlation: request.correlation,
            ..wire::WriteResponse::default()
        };
        let replica = &routed.replica;
        if decoded.is_empty() {
            return Ok(response);
        }
        self.node.check_budget(replica, &decoded)?;
        let answer = replica.write(decoded, deadline).await?;
        count(replica, &answer.outcomes);
        response.results = answer.outcomes.iter().map(convert::write_result).collect();
        response.position = Some(replica.position(answer.index).into());
        Ok(response)
    }

    /// What a request for the top of a prefix asks for, if it is sound and has come to the right place.
    fn top_k_asked(
        &self,
        request: wire::TopKRequest,
        deadline: Deadline,
    ) -> Result<TopKAsked, ApiError> {
        let routed = route::find(&self.node, request.route.as_ref())?;
        writes::check_prefix(&request.prefix)?;
        let scope = scope(request.namespace_id, request.generation)?;
        let wanted = request.range.map(KeyRange::try_from).transpose()?;
        let (part, is_narrowed) =
            routed.part(&self.node, scope.namespace, &request.prefix, wanted)?;
        let k = match request.k {
            0 => limits::K_DEFAULT,
            asked => asked.min(limits::K_MAX),
        };
        Ok(TopKAsked {
            fresh: Freshness {
                consistency: Consistency::parse(request.consistency)?,
                min_index: request.min_index,
                deadline,
            },
            routed,
            scope,
            part,
            is_narrowed,
            prefix: request.prefix,
            k: k as usize,
            correlation: request.correlation,
        })
    }

    async fn top_k_one(
        &self,
        request: wire::TopKRequest,
        deadline: Deadline,
    ) -> Result<wire::TopKResponse, ApiError> {
        let asked = self.top_k_asked(request, deadline)?;
        let look_up = |state: &DictionaryState| asked.look_up(state);
        let replica = &asked.routed.replica;
        let seen = replica.read_in(asked.scope, asked.fresh, look_up).await?;
        Ok(asked.answer(seen))
    }

    /// What a request for a count asks for, if it is sound and has come to the right place.
    fn count_asked(
        &self,
        request: wire::CountRequest,
        deadline: Deadline,
    ) -> Result<CountAsked, ApiError> {
        let routed = route::find(&self.node, request.route.as_ref())?;
        writes::check_term(&request.term)?;
        let scope = scope(request.namespace_id, request.generation)?;
        routed.check_term(&self.node, scope.namespace, &request.term)?;
        Ok(CountAsked {
            fresh: Freshness {
                consistency: Consistency::parse(request.consistency)?,
                min_index: request.min_index,
                deadline,
            },
            routed,
            scope,
            term: request.term,
        })
    }

    async fn count_one(
        &self,
        request: wire::CountRequest,
        deadline: Deadline,
    ) -> Result<wire::CountResponse, ApiError> {
        let asked = self.count_asked(request, deadline)?;
        let look_up = |state: &DictionaryState| asked.look_up(state);
        let replica = &asked.routed.replica;
        let seen = replica.read_in(asked.scope, asked.fresh, look_up).await?;
        Ok(asked.answer(seen))
    }

    async fn list_one(
        &self,
        request: wire::ListRequest,
        deadline: Deadline,
    ) -> Result<wire::ListResponse, ApiError> {
        let routed = route::find(&self.node, request.route.as_ref())?;
        writes::check_prefix(&request.prefix)?;
        writes::check_after(&request.after)?;
        let scope = scope(request.namespace_id, request.generation)?;
        let fresh = Freshness {
            consistency: Consistency::Leader,
            min_index: 0,
            deadline,
        };
        let limit = match request.limit {
            0 => limits::PAGE_TERMS_DEFAULT,
            asked => asked.min(limits::PAGE_TERMS_MAX),
        };
        let limit_bytes = match request.limit_bytes as usize {
            0 => limits::PAGE_BYTES_MAX,
            asked => asked.min(limits::PAGE_BYTES_MAX),
        };
        let (prefix, after) = (&request.prefix, &request.after);
        let seen = routed
            .replica
            .read_in(scope, fresh, |state| {
                state.list(scope, prefix, after, limit as usize, limit_bytes)
            })
            .await?;
        routed.replica.metrics().list.increment();
        Ok(wire::ListResponse {
            terms: convert::suggestions(seen.value.entries),
            more: seen.value.more,
        })
    }

    async fn clear_one(
        &self,
        request: wire::ClearRequest,
        deadline: Deadline,
    ) -> Result<wire::ClearResponse, ApiError> {
        let routed = route::find(&self.node, request.route.as_ref())?;
        let scope = scope(request.namespace_id, request.generation)?;
        let bytes = command::encode_clear(scope.namespace, scope.generation);
        let done = routed
            .replica
            .command(command::KIND_CLEAR, bytes, deadline)
            .await?;
        routed.replica.metrics().clear.increment();
        self.node.upkeep_now.notify_one();
        Ok(wire::ClearResponse {
            position: Some(routed.replica.position(done.index).into()),
        })
    }

    pub(super) fn window(&self) -> Window {
        Window {
            size: self.node.config.calls.stream_window,
            closing: self.node.closing.clone(),
        }
    }
}

/// A request for the top of a prefix, checked.
struct TopKAsked {
    routed: Routed,
    scope: Scope,
    fresh: Freshness,
    /// The part of the prefix to search.
    part: KeyRange,
    /// Whether terms beside the part must be left out.
    is_narrowed: bool,
    prefix: String,
    k: usize,
    correlation: u64,
}

impl TopKAsked {
    fn look_up(&self, state: &DictionaryState) -> Result<Reading<Vec<Entry>>, StaleGeneration> {
        let within = self.is_narrowed.then_some(&self.part);
        state.top_k(self.scope, &self.prefix, self.k, within)
    }

    fn answer(self, seen: Seen<Vec<Entry>>) -> wire::TopKResponse {
        self.routed.replica.metrics().top_k.increment();
        wire::TopKResponse {
            correlation: self.correlation,
            suggestions: convert::suggestions(seen.value),
            position: Some(seen.position.into()),
            age_ms: seen.age_ms,
            range: Some(self.part.into()),
            epoch: self.routed.view.epoch().0,
            error: None,
        }
    }
}

/// A request for the count of a term, checked.
struct CountAsked {
    routed: Routed,
    scope: Scope,
    fresh: Freshness,
    term: String,
}

impl CountAsked {
    fn look_up(&self, state: &DictionaryState) -> Result<Reading<Option<Entry>>, StaleGeneration> {
        state.get(self.scope, &self.term)
    }

    fn answer(&self, seen: Seen<Option<Entry>>) -> wire::CountResponse {
        self.routed.replica.metrics().count.increment();
        let (count, display) = seen
            .value
            .map_or((0, None), |entry| (entry.count, entry.display));
        wire::CountResponse {
            count,
            display: display.map(convert::text).unwrap_or_default(),
            position: Some(seen.position.into()),
        }
    }
}

impl NearShard for Services {
    fn top_k_at_once(&self, request: wire::TopKRequest) -> Option<wire::TopKResponse> {
        let asked = self.top_k_asked(request, self.message_deadline()).ok()?;
        let look_up = |state: &DictionaryState| asked.look_up(state);
        let replica = &asked.routed.replica;
        let seen = replica.read_at_once(asked.scope, asked.fresh, look_up)?;
        Some(asked.answer(seen))
    }

    fn count_at_once(&self, request: wire::CountRequest) -> Option<wire::CountResponse> {
        let asked = self.count_asked(request, self.message_deadline()).ok()?;
        let look_up = |state: &DictionaryState| asked.look_up(state);
        let replica = &asked.routed.replica;
        let seen = replica.read_at_once(asked.scope, asked.fresh, look_up)?;
        Some(asked.answer(seen))
    }
}

#[tonic::async_trait]
impl ShardService for Services {
    type WriteStreamStream = BoxStream<'static, Result<wire::WriteResponse, Status>>;
    type TopKStreamStream = BoxStream<'static, Result<wire::TopKResponse, Status>>;

    async fn write(
        &self,
        request: Request<wire::WriteRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let request = request.into_inner();
        let answer = self
            .traced("Write", request.route, self.write_one(request, deadline))
            .await;
        answer.map(Response::new).map_err(write_status)
    }

    async fn write_stream(
        &self,
        request: Request<Streaming<wire::WriteRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        let services = self.clone();
        let handle = move |request: wire::WriteRequest| {
            let services = services.clone();
            async move {
                let correlation = request.correlation;
                let deadline = services.message_deadline();
                let route = request.route;
                let work = services.write_one(request, deadline);
                let answer = services.traced("Write", route, work).await;
                Ok(answer.unwrap_or_else(|error| wire::WriteResponse {
                    correlation,
                    error: Some(error.for_write().into()),
                    ..wire::WriteResponse::default()
                }))
            }
        };
        let answers = overtaking(request.into_inner(), self.window(), handle);
        Ok(Response::new(answers))
    }

    async fn top_k(
        &self,
        request: Request<wire::TopKRequest>,
    ) -> Result<Response<wire::TopKResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let request = request.into_inner();
        let answer = self
            .traced("TopK", request.route, self.top_k_one(request, deadline))
            .await;
        answer.map(Response::new).map_err(status)
    }

    async fn top_k_stream(
        &self,
        request: Request<Streaming<wire::TopKRequest>>,
    ) -> Result<Response<Self::TopKStreamStream>, Status> {
        let services = self.clone();
        let handle = move |request: wire::TopKRequest| {
            let services = services.clone();
            async move {
                let correlation = request.correlation;
                let deadline = services.message_deadline();
                let route = request.route;
                let work = services.top_k_one(request, deadline);
                let answer = services.traced("TopK", route, work).await;
                Ok(answer.unwrap_or_else(|error| wire::TopKResponse {
                    correlation,
                    error: Some(error.into()),
                    ..wire::TopKResponse::default()
                }))
            }
        };
        let answers = overtaking(request.into_inner(), self.window(), handle);
        Ok(Response::new(answers))
    }

    async fn count(
        &self,
        request: Request<wire::CountRequest>,
    ) -> Result<Response<wire::CountResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let request = request.into_inner();
        let answer = self
            .traced("Count", request.route, self.count_one(request, deadline))
            .await;
        answer.map(Response::new).map_err(status)
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let request = request.into_inner();
        let answer = self
            .traced("List", request.route, self.list_one(request, deadline))
            .await;
        answer.map(Response::new).map_err(status)
    }

    async fn clear(
        &self,
        request: Request<wire::ClearRequest>,
    ) -> Result<Response<wire::ClearResponse>, Status> {
        let deadline = Deadline::of(&request, &self.node.runtime);
        let request = request.into_inner();
        let answer = self
            .traced("Clear", request.route, self.clear_one(request, deadline))
            .await;
        answer.map(Response::new).map_err(write_status)
    }
}

pub(crate) fn scope(namespace_id: u32, generation: u64) -> Result<Scope, ApiError> {
    let missing = |field| Err(ApiError::field(Reason::BadArgument, field, "must be set"));
    if namespace_id == 0 {
        return missing("namespace_id");
    }
    if generation == 0 {
        return missing("generation");
    }
    Ok(Scope {
        namespace: NamespaceId(namespace_id),
        generation: Generation(generation),
    })
}

/// Counts what writes did.
pub(super) fn count(replica: &Replica, outcomes: &[WriteOutcome]) {
    let metrics = replica.metrics();
    for outcome in outcomes {
        match outcome {
            WriteOutcome::Recorded(items) => {
                metrics.record.add(items.len() as u64);
                let of = |wanted: fn(&ItemOutcome) -> bool| {
                    items.iter().filter(|item| wanted(item)).count() as u64
                };
                metrics
                    .repeats
                    .add(of(|item| matches!(item, ItemOutcome::Repeated { .. })));
                metrics.refused.add(of(|item| {
                    matches!(item, ItemOutcome::Overflow { .. } | ItemOutcome::Unusable)
                }));
            }
            WriteOutcome::Deleted {
                existed: _,
                repeated,
            } => {
                metrics.delete.increment();
                metrics.repeats.add(u64::from(*repeated));
            }
            WriteOutcome::Refused(_) => metrics.refused.increment(),
        }
    }
}
