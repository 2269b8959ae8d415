//! Shard servers that answer as the test tells them: what real ones do only in rare moments.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::admin::v1::ReplicaStatus;
use api::registry::v1::registry_service_client::RegistryServiceClient;
use api::registry::v1::{RegisterRequest, SyncRequest};
use api::shard::v1::shard_service_server::ShardService;
use api::shard::v1::{
    ClearRequest, ClearResponse, CountRequest, CountResponse, ListRequest, ListResponse,
    RequestError, TopKRequest, TopKResponse, WriteRequest, WriteResponse, WriteResult,
    write::Operation,
};
use api::v1::{
    DeleteRequest, GetTopKRequest, ItemResult, RecordBatchRequest, RecordItem, RecordRequest,
    Suggestion,
};
use api::{ApiError, Outcome, Reason};
use coordinator::LimitsConfig;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rpc::{Server, ServerConfig};
use runtime::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::harness::{Cluster, Shape, listed, reason};

type Script<Q, A> = Arc<dyn Fn(&Q) -> A + Send + Sync>;

/// A server that plays a node.
#[derive(Clone)]
pub(super) struct Actor {
    pub(super) write: Script<WriteRequest, WriteResponse>,
    /// Nothing means that no answer is ever given.
    pub(super) top_k: Script<TopKRequest, Option<TopKResponse>>,
    pub(super) count: Script<CountRequest, Option<CountResponse>>,
}

#[tonic::async_trait]
impl ShardService for Actor {
    async fn write(&self, _: Request<WriteRequest>) -> Result<Response<WriteResponse>, Status> {
        Err(Status::unimplemented("streams are used"))
    }

    type WriteStreamStream = BoxStream<'static, Result<WriteResponse, Status>>;

    async fn write_stream(
        &self,
        requests: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        let script = Arc::clone(&self.write);
        let answers = requests.into_inner().map(move |request| {
            let request = request?;
            Ok(WriteResponse {
                correlation: request.correlation,
                ..script(&request)
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn top_k(&self, _: Request<TopKRequest>) -> Result<Response<TopKResponse>, Status> {
        Err(Status::unimplemented("streams are used"))
    }

    type TopKStreamStream = BoxStream<'static, Result<TopKResponse, Status>>;

    async fn top_k_stream(
        &self,
        requests: Request<Streaming<TopKRequest>>,
    ) -> Result<Response<Self::TopKStreamStream>, Status> {
        let script = Arc::clone(&self.top_k);
        let answers = requests.into_inner().filter_map(move |request| {
            let answer = request.map(|request| {
                script(&request).map(|answer| TopKResponse {
                    correlation: request.correlation,
                    ..answer
                })
            });
            std::future::ready(answer.transpose())
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<CountResponse>, Status> {
        match (self.count)(request.get_ref()) {
            Some(answer) => Ok(Response::new(answer)),
            None => std::future::pending().await,
        }
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Err(Status::unimplemented("not in this play"))
    }

    async fn clear(&self, _: Request<ClearRequest>) -> Result<Response<ClearResponse>, Status> {
        Ok(Response::new(ClearResponse::default()))
    }
}

/// Applies everything, and finds nothing.
fn agreeable() -> Actor {
    Actor {
        write: Arc::new(applied),
        top_k: Arc::new(|ask| Some(found(ask, Vec::new()))),
        count: Arc::new(|_| Some(CountResponse::default())),
    }
}

pub(super) fn applied(request: &WriteRequest) -> WriteResponse {
    let result = |write: &api::shard::v1::Write| {
        let items = match &write.operation {
            Some(Operation::Record(record)) => record.items.len(),
            Some(Operation::Delete(_)) | None => 0,
        };
        let item = ItemResult {
            count: 1,
            ..ItemResult::default()
        };
        WriteResult {
            results: vec![item; items],
            ..WriteResult::default()
        }
    };
    WriteResponse {
        results: request.writes.iter().map(result).collect(),
        ..WriteResponse::default()
    }
}

pub(super) fn found(ask: &TopKRequest, terms: Vec<(&str, u64)>) -> TopKResponse {
    let suggestions = terms.into_iter().map(|(term, count)| Suggestion {
        term: term.to_owned(),
        count,
        display: String::new(),
    });
    TopKResponse {
        suggestions: suggestions.collect(),
        range: ask.range.clone(),
        ..TopKResponse::default()
    }
}

pub(super) fn refused(error: ApiError) -> Option<RequestError> {
    Some(error.into())
}

/// A cluster whose three nodes are all played alike. The token ends it.
async fn stage(actor: Actor) -> (Cluster, CancellationToken) {
    stage_with(actor, LimitsConfig::default()).await
}

async fn stage_with(actor: Actor, limits: LimitsConfig) -> (Cluster, CancellationToken) {
    let shape = Shape {
        limits,
        ..Shape::default()
    };
    stage_of([actor.clone(), actor.clone(), actor], shape).await
}

/// A cluster whose nodes are played by an actor each. The token ends it.
pub(super) async fn stage_of(actors: [Actor; 3], shape: Shape) -> (Cluster, CancellationToken) {
    let cluster = Cluster::of(shape).await;
    let stop = CancellationToken::new();
    for (number, actor) in (1..=3u8).zip(actors) {
        let listener = cluster
            .runtime
            .bind(([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        let address = listener.local_addr().to_string();
        let server = Server::new(&cluster.runtime, ServerConfig::internal())
            .with_service(rpc::services::shard(actor));
        let serving = server.serve(listener, stop.clone());
        cluster.runtime.spawn("actor", async move {
            serving.await;
        });
        let mut registry = RegistryServiceClient::new(cluster.channel(0));
        let request = RegisterRequest {
            node_name: format!("shard-{number}"),
            address: address.clone(),
            region: String::new(),
            instance_id: vec![number; 16].into(),
        };
        let identity = registry.register(request).await.unwrap().into_inner();
        let (runtime, stop) = (cluster.runtime.clone(), stop.clone());
        cluster.runtime.spawn("actor-sync", async move {
            let mut replicas: Vec<ReplicaStatus> = Vec::new();
            while !stop.is_cancelled() {
                let request = SyncRequest {
                    node_id: identity.node_id,
                    cluster_id: identity.cluster_id.clone(),
                    address: address.clone(),
                    replicas: replicas.clone(),
                    ..SyncRequest::default()
                };
                let orders = registry.sync(request).await.unwrap().into_inner();
                let play = |at: &api::registry::v1::Assignment| ReplicaStatus {
                    shard_id: at.shard_id,
                    incarnation: at.incarnation,
                    node_id: identity.node_id,
                    serving: true,
                    ..ReplicaStatus::default()
                };
                replicas = orders.assignments.iter().map(play).collect();
                runtime.sleep(Duration::from_millis(50)).await;
            }
        });
    }
    cluster.until_serving().await;
    (cluster, stop)
}

fn record(term: &str) -> RecordRequest {
    RecordRequest {
        term: term.into(),
        ..RecordRequest::default()
    }
}

/// Fails the first few calls, and counts all.
fn failing(
    times: usize,
    error: impl Fn() -> ApiError + Send + Sync + 'static,
) -> (Actor, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let write = move |request: &WriteRequest| {
        if counted.fetch_add(1, Ordering::SeqCst) < times {
            WriteResponse {
                error: refused(error()),
                ..WriteResponse::default()
            }
        } else {
            applied(request)
        }
    };
    let actor = Actor {
        write: Arc::new(write),
        ..agreeable()
    };
    (actor, calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_applied_is_routed_again_by_the_newest_map() {
    for reason in [
        Reason::StaleEpoch,
        Reason::WrongShard,
        Reason::StaleGeneration,
        Reason::StaleIncarnation,
        Reason::NotLeader,
    ] {
        let (actor, calls) = failing(2, move || ApiError::new(reason, "look again"));
        let (cluster, stop) = stage(actor).await;
        let answer = cluster
            .client()
            .record(record("ant"))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.count, 1, "{reason:?}");
        assert_eq!(calls.load(Ordering::SeqCst), 3, "{reason:?}");
        stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_applied_is_left_to_the_caller() {
    for (reason, outcome) in [
        (Reason::NoQuorum, Outcome::Unknown),
        (Reason::Stopped, Outcome::Unknown),
        (Reason::DataLoss, Outcome::Unknown),
        (Reason::Overloaded, Outcome::NotApplied),
        (Reason::DiskFull, Outcome::NotApplied),
        (Reason::CountOverflow, Outcome::NotApplied),
    ] {
        let (actor, calls) = failing(usize::MAX, move || ApiError::new(reason, "no"));
        let (cluster, stop) = stage(actor).await;
        let status = cluster.client().record(record("ant")).await.unwrap_err();
        let error = ApiError::from_status(&status);
        assert_eq!(error.reason(), reason);
        assert_eq!(status.code(), reason.code());
        assert_eq!(error.outcome(), Some(outcome), "{reason:?}");
        assert_eq!(calls.load(Ordering::SeqCst), 1, "{reason:?} is sent once");
        stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sent_no_id_is_not_blamed_for_the_coordinators() {
    for (reason, outcome) in [
        (Reason::BadRequestId, Outcome::NotApplied),
        (Reason::SessionExpired, Outcome::Unknown),
    ] {
        let (actor, _) = failing(usize::MAX, move || ApiError::new(reason, "no"));
        let (cluster, stop) = stage(actor).await;
        let status = cluster.client().record(record("ant")).await.unwrap_err();
        let error = ApiError::from_status(&status);
        assert_eq!(error.reason(), Reason::ShardUnavailable, "{reason:?}");
        assert_eq!(error.outcome(), Some(outcome), "{reason:?}");
        stop.cancel();
    }
}

/// The replica that is asked first may have applied a write, and the next one refuses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_first_replica_may_have_done_no_later_refusal_undoes() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let write = move |_: &WriteRequest| {
        let reason = match counted.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => Reason::NoQuorum,
            _ => Reason::DiskFull,
        };
        WriteResponse {
            error: refused(ApiError::new(reason, "no").for_write()),
            ..WriteResponse::default()
        }
    };
    let actor = Actor {
        write: Arc::new(write),
        ..agreeable()
    };
    let shape = Shape {
        replicas: 3,
        ..Shape::default()
    };
    let (cluster, stop) = stage_of([actor.clone(), actor.clone(), actor], shape).await;
    let said = |status: &Status| {
        let error = ApiError::from_status(status);
        (error.reason(), error.outcome())
    };
    let recorded = cluster.client().record(record("ant")).await.unwrap_err();
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2);
    assert_eq!(said(&recorded).1, Some(Outcome::Unknown), "{recorded:?}");
    let delete = DeleteRequest {
        term: "ant".into(),
        ..DeleteRequest::default()
    };
    let deleted = cluster.client().delete(delete).await.unwrap_err();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let expected = (Reason::DiskFull, Some(Outcome::Unknown));
    assert_eq!(said(&deleted), expected, "{deleted:?}");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overflow_is_the_items_own() {
    let overflow = |request: &WriteRequest| {
        let mut response = applied(request);
        response.results[0].results[0] = api::error::item_error(Reason::CountOverflow);
        response
    };
    let actor = Actor {
        write: Arc::new(overflow),
        ..agreeable()
    };
    let (cluster, stop) = stage(actor).await;
    let status = cluster.client().record(record("ant")).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status)),
        (Code::OutOfRange, Reason::CountOverflow)
    );
    let item = |term: &str| RecordItem {
        term: term.into(),
        count: 1,
    };
    let batch = RecordBatchRequest {
        items: vec![item("ant"), item("apple")],
        ..RecordBatchRequest::default()
    };
    let answer = cluster
        .client()
        .record_batch(batch)
        .await
        .unwrap()
        .into_inner();
    let codes: Vec<i32> = answer.results.iter().map(|at| at.code).collect();
    assert_eq!(codes, [Code::OutOfRange as i32, 0]);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_was_not_asked_for_is_asked_again_and_a_false_list_is_left_out() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let top_k = move |ask: &TopKRequest| {
        let shard = ask.route.as_ref().map_or(0, |route| route.shard_id);
        Some(match (shard, counted.fetch_add(1, Ordering::SeqCst)) {
            // The first answer of the first shard is of another part.
            (1, 0..3) => TopKResponse {
                range: Some(api::v1::TermRange::default()),
                ..found(ask, vec![("ant", 5)])
            },
            (1, _) => found(ask, vec![("ant", 5)]),
            // Not in order, and not its own.
            (2, _) => found(ask, vec![("zebra", 1), ("kiwi", 2)]),
            (_, _) => found(ask, vec![("zoo", 4)]),
        })
    };
    let actor = Actor {
        top_k: Arc::new(top_k),
        ..agreeable()
    };
    let (cluster, stop) = stage(actor).await;
    cluster.record("ant", 1).await;
    let answer = cluster.top("", 10).await;
    assert_eq!(listed(&answer), [("ant", 5), ("zoo", 4)]);
    let completeness = answer.completeness.unwrap();
    assert_eq!(
        (completeness.shards_attempted, completeness.shards_failed),
        (3, 1)
    );
    assert_eq!(completeness.missing[0].start, "g");
    assert!(
        calls.load(Ordering::SeqCst) >= 4,
        "the first part was asked for again"
    );
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_never_answers_costs_its_part_and_not_the_whole() {
    let top_k = |ask: &TopKRequest| match ask.route.as_ref().map_or(0, |route| route.shard_id) {
        1 => Some(found(ask, vec![("ant", 1)])),
        2 => None,
        _ => Some(found(ask, vec![("zoo", 1)])),
    };
    let silent = Actor {
        top_k: Arc::new(top_k),
        ..agreeable()
    };
    let (cluster, stop) = stage(silent).await;
    cluster.record("ant", 1).await;
    // By the deadline that the server gives them: a caller's own would race with the answer.
    let ask = |require_complete| GetTopKRequest {
        require_complete,
        ..GetTopKRequest::default()
    };
    let answer = cluster
        .client()
        .get_top_k(ask(false))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed(&answer), [("ant", 1), ("zoo", 1)]);
    assert_eq!(answer.completeness.unwrap().missing[0].start, "g");
    let status = cluster.client().get_top_k(ask(true)).await.unwrap_err();
    assert_eq!(reason(&status), Reason::Incomplete);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_can_be_worked_on_is_refused_at_once() {
    let silent = Actor {
        top_k: Arc::new(|_| None),
        ..agreeable()
    };
    let limits = LimitsConfig {
        node_queue_max: 8,
        node_streams: 1,
        ..LimitsConfig::default()
    };
    let (cluster, stop) = stage_with(silent, limits).await;
    cluster.record("ant", 1).await;
    let ask = || {
        let mut request = Request::new(GetTopKRequest {
            prefix: "a".into(),
            ..GetTopKRequest::default()
        });
        request.set_timeout(Duration::from_secs(5));
        let mut client = cluster.client();
        async move { client.get_top_k(request).await.unwrap_err() }
    };
    let mut answers: futures::stream::FuturesUnordered<_> = (0..20).map(|_| ask()).collect();
    let mut refused = 0;
    while refused < 12 {
        let status = answers.next().await.unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        let error = ApiError::from_status(&status);
        assert_eq!(error.reason(), Reason::Overloaded);
        assert!(error.retry_after().is_some(), "it says when to come back");
        refused += 1;
    }
    assert_eq!(answers.len(), 8, "those that fit are still waited for");
    stop.cancel();
}
