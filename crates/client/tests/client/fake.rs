//! A server that does what it is told, and otherwise what the contract says.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::admin::v1 as admin;
use api::admin::v1::cluster_admin_service_server::{
    ClusterAdminService, ClusterAdminServiceServer,
};
use api::error::item_error;
use api::v1;
use api::v1::autocomplete_service_server::{AutocompleteService, AutocompleteServiceServer};
use api::{ApiError, Reason};
use client::{Client, ClientOptions};
use cluster::{ShardMap, limits};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use runtime::Runtime;
use tonic::{Request, Response, Status, Streaming};

/// What to do with the next call.
#[derive(Debug, Clone)]
pub(crate) enum Play {
    /// What is done without a script.
    Serve,
    /// Refuse without effect.
    Refuse(ApiError),
    /// Apply, then fail all the same.
    ApplyThenFail(ApiError),
    /// Apply, then never answer.
    ApplyThenHang,
    /// Of a batch: leave these items out for this reason.
    LeaveOut(Vec<usize>, Reason),
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Play>,
    counts: HashMap<String, u64>,
    applied: HashSet<(Vec<u8>, u64, usize)>,
    ids: Vec<v1::RequestId>,
    read_tokens: Vec<Option<v1::SessionToken>>,
    timeouts: Vec<Option<String>>,
    reads: usize,
    index: u64,
    map: Option<ShardMap>,
    maps_served: usize,
}

/// The server. Clones share their state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

impl Fake {
    /// Starts serving on a free port; returns its address.
    pub(crate) async fn serve(&self) -> String {
        let listener = Runtime::real()
            .bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = listener.local_addr().to_string();
        let server = tonic::transport::Server::builder()
            .add_service(AutocompleteServiceServer::new(self.clone()))
            .add_service(ClusterAdminServiceServer::new(self.clone()))
            .serve_with_incoming(listener);
        drop(Runtime::real().spawn("fake", server));
        address
    }

    pub(crate) fn script(&self, plays: impl IntoIterator<Item = Play>) {
        self.0.lock().script.extend(plays);
    }

    pub(crate) fn script_left(&self) -> usize {
        self.0.lock().script.len()
    }

    pub(crate) fn set_map(&self, map: ShardMap) {
        self.0.lock().map = Some(map);
    }

    pub(crate) fn maps_served(&self) -> usize {
        self.0.lock().maps_served
    }

    /// Ids of all writes that arrived, retries included.
    pub(crate) fn ids(&self) -> Vec<v1::RequestId> {
        self.0.lock().ids.clone()
    }

    pub(crate) fn read_tokens(&self) -> Vec<Option<v1::SessionToken>> {
        self.0.lock().read_tokens.clone()
    }

    pub(crate) fn timeouts(&self) -> Vec<Option<String>> {
        self.0.lock().timeouts.clone()
    }

    pub(crate) fn reads(&self) -> usize {
        self.0.lock().reads
    }

    pub(crate) fn count(&self, term: &str) -> u64 {
        self.0.lock().counts.get(term).copied().unwrap_or(0)
    }

    async fn write(
        &self,
        items: Vec<v1::RecordItem>,
        id: Option<v1::RequestId>,
    ) -> Result<v1::RecordBatchResponse, Status> {
        let id = id.ok_or_else(|| Status::internal("the client sent a write without an id"))?;
        let (play, response) = {
            let mut state = self.0.lock();
            state.ids.push(id.clone());
            let play = state.script.pop_front();
            if let Some(Play::Refuse(error)) = play {
                return Err(error.for_write().into());
            }
            let response = apply(&mut state, items, &id, play.as_ref());
            (play, response)
        };
        match play {
            Some(Play::ApplyThenFail(error)) => Err(error.for_write().into()),
            Some(Play::ApplyThenHang) => std::future::pending().await,
            _ => Ok(response),
        }
    }

    fn read(&self, request: &v1::GetTopKRequest) -> Result<v1::GetTopKResponse, Status> {
        let mut state = self.0.lock();
        state.reads += 1;
        state.read_tokens.push(request.token.clone());
        if let Some(Play::Refuse(error)) = state.script.pop_front() {
            return Err(error.into());
        }
        let mut suggestions: Vec<_> = state
            .counts
            .iter()
            .filter(|(term, _)| term.starts_with(&request.prefix))
            .map(|(term, count)| v1::Suggestion {
                term: term.clone(),
                count: *count,
                display: String::new(),
            })
            .collect();
        suggestions.sort_by(|a, b| b.count.cmp(&a.count).then(a.term.cmp(&b.term)));
        Ok(v1::GetTopKResponse {
            suggestions,
            k_served: 10,
            token: state.token(),
            ..Default::default()
        })
    }
}

fn apply(
    state: &mut State,
    items: Vec<v1::RecordItem>,
    id: &v1::RequestId,
    play: Option<&Play>,
) -> v1::RecordBatchResponse {
    state.index += 1;
    let left_out = |number: usize| match play {
        Some(Play::LeaveOut(numbers, reason)) if numbers.contains(&number) => Some(*reason),
        _ => None,
    };
    let mut results = Vec::new();
    for (number, item) in items.into_iter().enumerate() {
        if let Some(reason) = left_out(number) {
            results.push(item_error(reason));
            continue;
        }
        let is_new = state
            .applied
            .insert((id.client_id.to_vec(), id.sequence, number));
        let count = state.counts.entry(item.term).or_default();
        *count += if is_new { item.count.max(1) } else { 0 };
        results.push(v1::ItemResult {
            count: *count,
            repeated: !is_new,
            ..Default::default()
        });
    }
    v1::RecordBatchResponse {
        results,
        token: state.token(),
    }
}

impl State {
    /// Where the one shard is.
    fn token(&self) -> Option<v1::SessionToken> {
        let position = v1::Position {
            shard_id: 1,
            incarnation: 1,
            index: self.index,
        };
        let positions = vec![position];
        (self.index > 0).then_some(v1::SessionToken { positions })
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AutocompleteService for Fake {
    type RecordStreamStream = Answers<v1::RecordBatchResponse>;
    type TopKStreamStream = Answers<v1::GetTopKResponse>;

    async fn record(
        &self,
        request: Request<v1::RecordRequest>,
    ) -> Result<Response<v1::RecordResponse>, Status> {
        let timeout = request.metadata().get("grpc-timeout").cloned();
        let timeout = timeout.map(|value| value.to_str().unwrap().to_owned());
        self.0.lock().timeouts.push(timeout);
        let request = request.into_inner();
        let item = v1::RecordItem {
            term: request.term,
            count: request.count,
        };
        let response = self.write(vec![item], request.request_id).await?;
        Ok(Response::new(v1::RecordResponse {
            count: response.results[0].count,
            repeated: response.results[0].repeated,
            token: response.token,
        }))
    }

    async fn record_batch(
        &self,
        request: Request<v1::RecordBatchRequest>,
    ) -> Result<Response<v1::RecordBatchResponse>, Status> {
        let request = request.into_inner();
        let response = self.write(request.items, request.request_id).await?;
        Ok(Response::new(response))
    }

    async fn record_stream(
        &self,
        request: Request<Streaming<v1::RecordBatchRequest>>,
    ) -> Result<Response<Self::RecordStreamStream>, Status> {
        let fake = self.clone();
        let answers = request.into_inner().then(move |message| {
            let fake = fake.clone();
            async move {
                let message = message?;
                fake.write(message.items, message.request_id).await
            }
        });
        Ok(Response::new(Box::pin(until_error(answers))))
    }

    async fn get_top_k(
        &self,
        request: Request<v1::GetTopKRequest>,
    ) -> Result<Response<v1::GetTopKResponse>, Status> {
        self.read(request.get_ref()).map(Response::new)
    }

    async fn top_k_stream(
        &self,
        request: Request<Streaming<v1::GetTopKRequest>>,
    ) -> Result<Response<Self::TopKStreamStream>, Status> {
        let fake = self.clone();
        let answers = request
            .into_inner()
            .map(move |message| fake.read(&message?));
        Ok(Response::new(Box::pin(until_error(answers))))
    }

    async fn get_count(
        &self,
        request: Request<v1::GetCountRequest>,
    ) -> Result<Response<v1::GetCountResponse>, Status> {
        let request = request.into_inner();
        self.0.lock().read_tokens.push(request.token);
        Ok(Response::new(v1::GetCountResponse {
            count: self.count(&request.term),
            display: String::new(),
        }))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let mut state = self.0.lock();
        state.ids.extend(request.get_ref().request_id.clone());
        state.index += 1;
        let existed = state.counts.remove(&request.get_ref().term);
        Ok(Response::new(v1::DeleteResponse {
            existed: existed.is_some(),
            token: state.token(),
        }))
    }

    async fn clear_namespace(
        &self,
        _request: Request<v1::ClearNamespaceRequest>,
    ) -> Result<Response<v1::ClearNamespaceResponse>, Status> {
        self.0.lock().counts.clear();
        Ok(Response::new(v1::ClearNamespaceResponse { generation: 2 }))
    }

    async fn list_terms(
        &self,
        request: Request<v1::ListTermsRequest>,
    ) -> Result<Response<v1::ListTermsResponse>, Status> {
        let mut terms: Vec<_> = self.0.lock().counts.clone().into_iter().collect();
        terms.sort();
        let after = request.into_inner().page_token;
        let mut rest = terms.into_iter().filter(|(term, _)| *term > after);
        let page: Vec<_> = rest.by_ref().take(2).collect();
        let next_page_token = match rest.next() {
            Some(_) => page.last().unwrap().0.clone(),
            None => String::new(),
        };
        let terms = page
            .into_iter()
            .map(|(term, count)| v1::Suggestion {
                term,
                count,
                display: String::new(),
            })
            .collect();
        Ok(Response::new(v1::ListTermsResponse {
            terms,
            next_page_token,
        }))
    }
}

/// The contract: an error ends the stream.
fn until_error<T: Send>(
    answers: impl Stream<Item = Result<T, Status>> + Send,
) -> impl Stream<Item = Result<T, Status>> + Send {
    answers.scan(false, |ended, answer| {
        let item = (!*ended).then_some(answer);
        *ended |= item.as_ref().is_some_and(Result::is_err);
        std::future::ready(item)
    })
}

#[tonic::async_trait]
impl ClusterAdminService for Fake {
    async fn get_status(
        &self,
        _request: Request<admin::GetStatusRequest>,
    ) -> Result<Response<admin::GetStatusResponse>, Status> {
        Ok(Response::new(admin::GetStatusResponse {
            epoch: 7,
            ..Default::default()
        }))
    }

    async fn get_map(
        &self,
        _request: Request<admin::GetMapRequest>,
    ) -> Result<Response<admin::GetMapResponse>, Status> {
        let mut state = self.0.lock();
        state.maps_served += 1;
        Ok(Response::new(admin::GetMapResponse {
            map: state.map.as_ref().map(Into::into),
        }))
    }

    async fn recover_shard(
        &self,
        _request: Request<admin::RecoverShardRequest>,
    ) -> Result<Response<admin::RecoverShardResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn begin_recovery(
        &self,
        _request: Request<admin::BeginRecoveryRequest>,
    ) -> Result<Response<admin::BeginRecoveryResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn end_recovery(
        &self,
        _request: Request<admin::EndRecoveryRequest>,
    ) -> Result<Response<admin::EndRecoveryResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn drain_node(
        &self,
        _request: Request<admin::DrainNodeRequest>,
    ) -> Result<Response<admin::DrainNodeResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn promote_replica(
        &self,
        _request: Request<admin::PromoteReplicaRequest>,
    ) -> Result<Response<admin::PromoteReplicaResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn replace_replica(
        &self,
        _request: Request<admin::ReplaceReplicaRequest>,
    ) -> Result<Response<admin::ReplaceReplicaResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn list_snapshots(
        &self,
        _request: Request<admin::ListSnapshotsRequest>,
    ) -> Result<Response<admin::ListSnapshotsResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn pull_snapshot(
        &self,
        _request: Request<admin::PullSnapshotRequest>,
    ) -> Result<Response<admin::PullSnapshotResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn push_snapshot(
        &self,
        _request: Request<admin::PushSnapshotRequest>,
    ) -> Result<Response<admin::PushSnapshotResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn transfer_leader(
        &self,
        _request: Request<admin::TransferLeaderRequest>,
    ) -> Result<Response<admin::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("not part of these tests"))
    }
}

/// Options that keep tests quick. However long it takes a server to answer, it is not asked again meanwhile.
pub(crate) fn options(endpoints: &[&str]) -> ClientOptions {
    ClientOptions {
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        attempt_timeout: limits::DEADLINE_MAX,
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(5),
        ..ClientOptions::default()
    }
}

/// A fresh server and a client of it.
pub(crate) async fn pair() -> (Fake, Client) {
    pair_with(|_| ()).await
}

/// For a try of a server that does not answer all of them.
pub(crate) const IMPATIENCE: Duration = Duration::from_millis(500);

/// With tries that end soon.
pub(crate) async fn impatient_pair() -> (Fake, Client) {
    pair_with(|options| options.attempt_timeout = IMPATIENCE).await
}

/// With options that are changed.
pub(crate) async fn pair_with(change: impl FnOnce(&mut ClientOptions)) -> (Fake, Client) {
    let fake = Fake::default();
    let address = fake.serve().await;
    let mut options = options(&[&address]);
    change(&mut options);
    let client = Client::connect(Runtime::real(), options).unwrap();
    (fake, client)
}

pub(crate) fn record(term: &str) -> v1::RecordRequest {
    v1::RecordRequest {
        term: term.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn batch(terms: &[&str]) -> v1::RecordBatchRequest {
    let item = |term: &&str| v1::RecordItem {
        term: (*term).to_owned(),
        count: 1,
    };
    v1::RecordBatchRequest {
        items: terms.iter().map(item).collect(),
        ..Default::default()
    }
}

pub(crate) fn prefix(prefix: &str) -> v1::GetTopKRequest {
    v1::GetTopKRequest {
        prefix: prefix.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn error(reason: Reason) -> ApiError {
    ApiError::new(reason, "scripted")
}
