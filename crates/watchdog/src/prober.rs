//! Asks the processes of a shard whether they serve it, and those without a shard whether they live.
//!
//! `grpc.health.v1` for `shard/<id>/write` tells two things: whether the replica serves, and, by any answer at all, that the
//! process lives. A process without replicas is asked for liveness (`""`) alone. Where it takes no writes, `shard/<id>/read` tells whether it still answers reads.
//! One that does not serve is asked, by `NodeService.GetNode`, whether it opens its log, and how far it is: until that is open it reports to no
//! coordinator.
//!
//! On failure: no answer in time is an observation, not an error.

use std::collections::BTreeMap;
use std::time::Duration;

use api::shard::v1::GetNodeRequest;
use api::shard::v1::node_service_client::NodeServiceClient;
use cluster::{NodeId, ShardId};
use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use rpc::channel::{Pool, PoolConfig};
use rpc::health::{shard_read, shard_write};
use runtime::Runtime;
use tonic::{Code, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::detector::Observation;
use crate::fleet::{Fleet, NodeTarget, Target};

/// Shards, and processes without any, asked at the same time.
const CONCURRENT_MAX: usize = 64;

/// What one process answered about one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Serving,
    /// It answers reads, and takes no writes for now: its disk is full, or no quorum is there.
    ReadsOnly,
    NotServing,
    /// It opens its log, and has read and written so many bytes for that.
    Opening(u64),
    Silent,
}

/// What was seen of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) observation: Observation,
    /// Processes that did not answer.
    pub(crate) silent: Vec<NodeTarget>,
}

#[derive(Debug)]
pub(crate) struct Prober {
    runtime: Runtime,
    timeout: Duration,
    peers: Pool,
}

impl Prober {
    pub(crate) fn new(runtime: Runtime, timeout: Duration) -> Self {
        let config = PoolConfig {
            connections_per_peer: 1,
            connect_timeout: timeout,
            ..PoolConfig::default()
        };
        let peers = Pool::new(&runtime, config);
        Self {
            runtime,
            timeout,
            peers,
        }
    }

    /// Looks at every shard at the same time.
    pub(crate) async fn look_at_all(&self, fleet: &Fleet) -> BTreeMap<ShardId, Sighting> {
        let mut looks: Vec<BoxFuture<'_, (ShardId, Sighting)>> =
            Vec::with_capacity(fleet.shards.len());
        for target in fleet.shards.values() {
            looks.push(Box::pin(
                async move { (target.id, self.look_at(target).await) },
            ));
        }
        futures::stream::iter(looks)
            .buffer_unordered(CONCURRENT_MAX)
            .collect()
            .await
    }

    /// Asks every process without replicas whether it lives, at the same time.
    pub(crate) async fn look_at_idle(&self, fleet: &Fleet) -> BTreeMap<NodeId, bool> {
        let idle = fleet.nodes.values().filter(|node| !node.has_replicas);
        let mut looks: Vec<BoxFuture<'_, (NodeId, bool)>> = Vec::new();
        for node in idle {
            let target = &node.target;
            looks.push(Box::pin(async move {
                (target.id, self.answers(&target.address).await)
            }));
        }
        futures::stream::iter(looks)
            .buffer_unordered(CONCURRENT_MAX)
            .collect()
            .await
    }

    /// Whether a process lives: any answer will do.
    pub(crate) async fn answers(&self, address: &str) -> bool {
        let liveness = String::new();
        self.check(address, liveness).await.is_some()
    }

    /// Looks at one shard.
    pub(crate) async fn look_at(&self, target: &Target) -> Sighting {
        let nodes: Vec<&NodeTarget> = target.nodes.iter().filter(|node| !node.replaced).collect();
        let mut questions: Vec<BoxFuture<'_, Answer>> = Vec::with_capacity(nodes.len());
        for node in &nodes {
            questions.push(Box::pin(self.ask(&node.address, target.id)));
        }
        let answers = join_all(questions).await;
        let of = |wanted| answers.iter().filter(|&&answer| answer == wanted).count();
        let silent = nodes
            .iter()
            .zip(&answers)
            .filter(|&(_, &answer)| answer == Answer::Silent);
        let silent: Vec<NodeTarget> = silent.map(|(&node, _)| node.clone()).collect();
        let observation = if !silent.is_empty() && of(Answer::Serving) > 0 {
            Observation::Short
        } else if !silent.is_empty() {
            Observation::Silent
        } else if of(Answer::Serving) > 0 {
            Observation::Serving
        } else if target.report.stopped || nodes.is_empty() {
            Observation::Stopped
        } else if of(Answer::ReadsOnly) > 0 {
            // A restart would take the reads away too, and bring no room on a disk.
            Observation::Starting { progress: None }
        } else {
            Observation::Starting {
                progress: progress(target.report.progress, &answers),
            }
        };
        Sighting {
            observation,
            silent,
        }
    }

    async fn ask(&self, address: &str, shard: ShardId) -> Answer {
        match self.check(address, shard_write(shard)).await {
            Some(true) => Answer::Serving,
            Some(false) => match self.check(address, shard_read(shard)).await {
                Some(true) => Answer::ReadsOnly,
                Some(false) => self.opening(address).await,
                None => Answer::Silent,
            },
            None => Answer::Silent,
        }
    }

    /// Why a process that lives does not serve. One of before does not tell.
    async fn opening(&self, address: &str) -> Answer {
        let opening = async {
            let mut node = NodeServiceClient::new(self.peers.get(address).ok()?);
            let told = node.get_node(GetNodeRequest {}).await.ok()?;
            told.into_inner().opening_bytes
        };
        let opening = self.runtime.timeout(self.timeout, opening).await;
        match opening {
            Ok(Some(bytes)) => Answer::Opening(bytes),
            Ok(None) | Err(_) => Answer::NotServing,
        }
    }

    /// Whether a process says that a service serves; none if it says nothing.
    async fn check(&self, address: &str, service: String) -> Option<bool> {
        let mut client = HealthClient::new(self.peers.get(address).ok()?);
        let question = client.check(HealthCheckRequest { service });
        let answer = self.runtime.timeout(self.timeout, question).await.ok()?;
        served(answer.map(Response::into_inner))
    }
}

/// Whether a service serves, by what its process answers; none if that says nothing.
pub(crate) fn served(answer: Result<HealthCheckResponse, Status>) -> Option<bool> {
    match answer {
        Ok(answer) => Some(answer.status() == ServingStatus::Serving),
        // A process that refuses is one that lives.
        Err(status) => {
            let refuses = matches!(
                status.code(),
                Code::NotFound | Code::ResourceExhausted | Code::Unimplemented
            );
            refuses.then_some(false)
        }
    }
}

/// A number that moves while any process of a shard gets on. Of those that open their logs only they themselves tell; of the others the
/// coordinators, where any of it is fresh.
pub(crate) fn progress(told: Option<u64>, answers: &[Answer]) -> Option<u64> {
    let opening = answers.iter().filter_map(|answer| match answer {
        Answer::Opening(bytes) => Some(*bytes),
        Answer::Serving | Answer::ReadsOnly | Answer::NotServing | Answer::Silent => None,
    });
    let opening: Vec<u64> = opening.collect();
    if told.is_none() && opening.len() < answers.len() {
        return None;
    }
    let all = opening.into_iter().chain(told);
    all.reduce(u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_moves_with_any_process_that_opens_its_log_and_stands_still_with_all() {
        use Answer::{NotServing, Opening};
        assert_eq!(progress(Some(7), &[NotServing]), Some(7));
        assert_eq!(
            progress(Some(7), &[NotServing, Opening(3), Opening(4)]),
            Some(14)
        );
        // Nobody hears of them, and nobody needs to.
        assert_eq!(progress(None, &[Opening(3), Opening(0)]), Some(3));
        // What the one does that is open nobody knows.
        assert_eq!(progress(None, &[NotServing, Opening(3)]), None);
        assert_eq!(progress(None, &[NotServing]), None);
    }
}
