//! Asking the coordinators: the first that answers is asked first the next time too.
//!
//! One that is cut off from the others goes on answering what it knew. What it says of the cluster is believed only if none of the others
//! has a quorum.
//!
//! On failure: every coordinator is tried once; the last one's error is the answer.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::ApiError;
use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::admin::v1::{
    BeginRecoveryRequest, BeginRecoveryResponse, EndRecoveryRequest, GetMapRequest,
    GetStatusRequest, RecoverShardRequest, RecoverShardResponse, WatchdogReport,
};
use cluster::ShardId;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rpc::channel::{PoolConfig, connect};
use runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::fleet::Fleet;

/// Bytes of an answer: a map with all shards and nodes of the largest cluster is well within.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a repair may take to be ordered: it may have to pass a vote.
const RECOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a turn may take to be granted or given back: it has to pass a vote.
const TURN_TIMEOUT: Duration = Duration::from_secs(3);

type Client = ClusterAdminServiceClient<Channel>;

#[derive(Debug)]
pub(crate) struct Coordinators {
    runtime: Runtime,
    clients: Vec<Client>,
    /// Who answered last.
    preferred: AtomicUsize,
    timeout: Duration,
}

/// What a coordinator says, and whether it can know.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) fleet: Fleet,
    pub(crate) has_quorum: bool,
}

impl Coordinators {
    pub(crate) fn new(
        runtime: Runtime,
        addresses: &[String],
        timeout: Duration,
    ) -> Result<Self, ApiError> {
        let config = PoolConfig {
            connect_timeout: timeout,
            ..PoolConfig::default()
        };
        let connect = |address: &String| {
            let client = Client::new(connect(&runtime, address, &config)?);
            Ok(client.max_decoding_message_size(ANSWER_BYTES_MAX))
        };
        let clients = addresses
            .iter()
            .map(connect)
            .collect::<Result<_, ApiError>>()?;
        Ok(Self {
            runtime,
            clients,
            preferred: AtomicUsize::new(0),
            timeout,
        })
    }

    /// The map and the states of all shards, from one coordinator: from one with a quorum, if any answers that has one. Whoever is asked is told
    /// what this watchdog did.
    pub(crate) async fn view(&self, report: &WatchdogReport) -> Result<View, Status> {
        let look = |client| view_of(client, report);
        let (asked, view) = self.ask_any(self.timeout, look).await?;
        if view.has_quorum {
            return Ok(view);
        }
        let better = self.view_with_quorum(asked, report).await;
        Ok(better.unwrap_or(view))
    }

    /// What one of the others says that has a quorum. They are asked at the same time, so that those that are away hold up the poll for one
    /// timeout only.
    async fn view_with_quorum(&self, asked: usize, report: &WatchdogReport) -> Option<View> {
        let mut views: FuturesUnordered<BoxFuture<'_, (usize, Option<View>)>> =
            FuturesUnordered::new();
        for (at, client) in self.clients.iter().enumerate() {
            if at == asked {
                continue;
            }
            let look = view_of(client.clone(), report);
            views.push(Box::pin(async move {
                let answer = self.runtime.timeout(self.timeout, look).await;
                (at, answer.ok().and_then(Result::ok))
            }));
        }
        while let Some((at, answer)) = views.next().await {
            if let Some(view) = answer.filter(|view| view.has_quorum) {
                self.preferred.store(at, Ordering::Relaxed);
                return Some(view);
            }
        }
        None
    }

    /// Has a shard diagnosed, and repaired as far as nothing acknowledged is given up for it.
    pub(crate) async fn recover(&self, shard: ShardId) -> Result<RecoverShardResponse, Status> {
        self.ask(RECOVER_TIMEOUT, |mut client| async move {
            let request = RecoverShardRequest {
                shard_id: shard.0,
                ..RecoverShardRequest::default()
            };
            client
                .recover_shard(request)
                .await
                .map(tonic::Response::into_inner)
        })
        .await
    }

    /// Asks for the turn at a shard's recovery, or for more time of it.
    pub(crate) async fn begin_turn(
        &self,
        request: &BeginRecoveryRequest,
    ) -> Result<BeginRecoveryResponse, Status> {
        self.ask(TURN_TIMEOUT, |mut client| async move {
            let answer = client.begin_recovery(request.clone()).await;
            answer.map(tonic::Response::into_inner)
        })
        .await
    }

    /// Gives a turn back.
    pub(crate) async fn end_turn(&self, request: &EndRecoveryRequest) -> Result<(), Status> {
        self.ask(TURN_TIMEOUT, |mut client| async move {
            client.end_recovery(request.clone()).await.map(drop)
        })
        .await
    }

    async fn ask<T, F>(&self, limit: Duration, call: impl Fn(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let (_, answer) = self.ask_any(limit, call).await?;
        Ok(answer)
    }

    /// The first answer, and which coordinator's it is.
    async fn ask_any<T, F>(
        &self,
        limit: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<(usize, T), Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failure = Status::unavailable("no coordinator is configured");
        for at in 0..self.clients.len() {
            let at = (first + at) % self.clients.len();
            let Some(client) = self.clients.get(at).cloned() else {
                continue;
            };
            let answer = self.runtime.timeout(limit, call(client)).await;
            match answer
                .unwrap_or_else(|elapsed| Err(Status::deadline_exceeded(elapsed.to_string())))
            {
                Ok(answer) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok((at, answer));
                }
                // Another one would say the same.
                Err(status)
                    if matches!(
                        status.code(),
                        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition
                    ) =>
                {
                    return Err(status);
                }
                Err(status) => failure = status,
            }
        }
        Err(failure)
    }
}

async fn view_of(mut client: Client, report: &WatchdogReport) -> Result<View, Status> {
    let request = GetStatusRequest {
        ask_others: false,
        watchdog: Some(report.clone()),
    };
    let status = client.get_status(request).await?.into_inner();
    let map = client
        .get_map(GetMapRequest {})
        .await?
        .into_inner()
        .map
        .unwrap_or_default();
    Ok(View {
        fleet: Fleet::new(&status, &map),
        has_quorum: status.metadata_available,
    })
}

#[cfg(test)]
pub(crate) mod tests;
