//! `grpc.health.v1`: what is true now, for probes and load balancers.
//!
//! A [`Health`] is a table of named states that the server's parts set and the service answers from. `""` is liveness: it
//! serves from the beginning. Everything else begins as what its owner sets; a name that nobody set is
//! `NOT_FOUND` for `Check` and `SERVICE_UNKNOWN` for `Watch`, as the protocol asks.
//!
//! Watchers wait on one version number of the whole table, so that asking for names that do not exist costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};
use parking_lot::RwLock;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The name under which a server says that it is ready for users.
pub const READY_SERVICE: &str = "autocomplete.v1.AutocompleteService";

/// The name under which the replica of a shard says that it answers reads.
#[must_use]
pub fn shard_read(shard: cluster::ShardId) -> String {
    format!("shard/{shard}/read")
}

/// The name under which the replica of a shard says that it takes writes.
#[must_use]
pub fn shard_write(shard: cluster::ShardId) -> String {
    format!("shard/{shard}/write")
}

/// A handle to the table; clones share it.
#[derive(Debug, Clone)]
pub struct Health {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    serving: RwLock<BTreeMap<String, bool>>,
    version: watch::Sender<u64>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// A table that says: alive, and not ready.
    #[must_use]
    pub fn new() -> Self {
        let serving = BTreeMap::from([(String::new(), true), (READY_SERVICE.to_owned(), false)]);
        Self {
            table: Arc::new(Table {
                serving: RwLock::new(serving),
                version: watch::Sender::new(0),
            }),
        }
    }

    /// Sets the state of a name.
    pub fn set(&self, service: &str, serving: bool) {
        let mut table = self.table.serving.write();
        let before = table.insert(service.to_owned(), serving);
        drop(table);
        if before != Some(serving) {
            self.changed();
        }
    }

    /// Forgets a name, as when a replica is no longer hosted here.
    pub fn remove(&self, service: &str) {
        if self.table.serving.write().remove(service).is_some() {
            self.changed();
        }
    }

    /// Everything but liveness stops serving; the first step of a stop.
    pub fn stop_serving(&self) {
        for (service, serving) in self.table.serving.write().iter_mut() {
            if !service.is_empty() {
                *serving = false;
            }
        }
        self.changed();
    }

    /// The state of a name; `None` when nobody set it.
    #[must_use]
    pub fn get(&self, service: &str) -> Option<bool> {
        self.table.serving.read().get(service).copied()
    }

    /// The service that answers from this table.
    #[must_use]
    pub fn service(&self) -> HealthServer<impl HealthService + use<>> {
        HealthServer::new(Answers(self.clone()))
    }

    fn changed(&self) {
        self.table.version.send_modify(|version| *version += 1);
    }
}

fn status_of(serving: Option<bool>) -> ServingStatus {
    match serving {
        Some(true) => ServingStatus::Serving,
        Some(false) => ServingStatus::NotServing,
        None => ServingStatus::ServiceUnknown,
    }
}

struct Answers(Health);

#[tonic::async_trait]
impl HealthService for Answers {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.0.get(&service) {
            Some(serving) => Ok(Response::new(HealthCheckResponse {
                status: status_of(Some(serving)).into(),
            })),
            None => Err(Status::not_found(format!(
                "service: no health is known of {service:?}"
            ))),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let health = self.0.clone();
        let version = health.table.version.subscribe();
        let first = (health, version, service, None::<ServingStatus>);
        let states = stream::unfold(first, |(health, mut version, service, told)| async move {
            loop {
                version.mark_unchanged();
                let now = status_of(health.get(&service));
                if told != Some(now) {
                    let answer = HealthCheckResponse { status: now.into() };
                    return Some((Ok(answer), (health, version, service, Some(now))));
                }
                version.changed().await.ok()?;
            }
        });
        Ok(Response::new(states.boxed()))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    async fn check(health: &Health, service: &str) -> Result<i32, Code> {
        let request = Request::new(HealthCheckRequest {
            service: service.into(),
        });
        Answers(health.clone())
            .check(request)
            .await
            .map(|response| response.into_inner().status)
            .map_err(|status| status.code())
    }

    #[tokio::test]
    async fn names_answer_what_was_set() {
        let health = Health::new();
        let name = shard_read(cluster::ShardId(3));
        assert_eq!(name, "shard/3/read");
        assert_eq!(check(&health, "").await, Ok(1));
        assert_eq!(check(&health, READY_SERVICE).await, Ok(2));
        assert_eq!(check(&health, &name).await, Err(Code::NotFound));
        health.set(&name, true);
        assert_eq!(check(&health, &name).await, Ok(1));
        health.stop_serving();
        assert_eq!(check(&health, &name).await, Ok(2));
        assert_eq!(check(&health, "").await, Ok(1), "still alive");
        health.remove(&name);
        assert_eq!(check(&health, &name).await, Err(Code::NotFound));
    }

    #[tokio::test]
    async fn watchers_see_every_state_they_are_quick_enough_for_and_the_last_one() {
        let health = Health::new();
        let request = Request::new(HealthCheckRequest {
            service: "x".into(),
        });
        let response = Answers(health.clone()).watch(request).await.unwrap();
        let mut states = response.into_inner().map(|state| state.unwrap().status());
        assert_eq!(states.next().await, Some(ServingStatus::ServiceUnknown));
        health.set("x", false);
        assert_eq!(states.next().await, Some(ServingStatus::NotServing));
        health.set("y", true);
        health.set("x", true);
        assert_eq!(states.next().await, Some(ServingStatus::Serving));
        health.remove("x");
        assert_eq!(states.next().await, Some(ServingStatus::ServiceUnknown));
    }
}
