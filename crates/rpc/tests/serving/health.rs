use std::time::Duration;

use api::Reason;
use cluster::ShardId;
use rpc::health::{READY_SERVICE, shard_read, shard_write};
use rpc::{HealthcheckError, ServerConfig, healthcheck};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{PATIENCE, start};

#[tokio::test]
async fn health_is_what_was_set() {
    let server = start(ServerConfig::default()).await;
    let check = |service: String| {
        let mut client = HealthClient::new(server.channel());
        async move {
            let request = HealthCheckRequest { service };
            client
                .check(request)
                .await
                .map(|answer| answer.into_inner().status())
                .map_err(|status| status.code())
        }
    };
    let (read, write) = (shard_read(ShardId(2)), shard_write(ShardId(2)));
    assert_eq!(check(String::new()).await, Ok(ServingStatus::Serving));
    assert_eq!(
        check(READY_SERVICE.into()).await,
        Ok(ServingStatus::NotServing)
    );
    assert_eq!(check(read.clone()).await, Err(Code::NotFound));
    server.health.set(&read, true);
    server.health.set(&write, false);
    assert_eq!(check(read).await, Ok(ServingStatus::Serving));
    assert_eq!(check(write).await, Ok(ServingStatus::NotServing));
}

#[tokio::test]
async fn a_watcher_is_told_and_a_stop_ends_it() {
    let server = start(ServerConfig {
        drain: Duration::from_millis(50),
        ..ServerConfig::default()
    })
    .await;
    let mut client = HealthClient::new(server.channel());
    let request = HealthCheckRequest {
        service: READY_SERVICE.into(),
    };
    let mut states = client.watch(request).await.unwrap().into_inner();
    let first = states.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::NotServing);
    server.health.set(READY_SERVICE, true);
    let next = states.message().await.unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::Serving);
    let runtime = server.runtime.clone();
    let stopped = runtime.spawn("stop", server.stopped());
    assert_eq!(
        states.message().await.unwrap_err().code(),
        Code::Unavailable
    );
    stopped.await.unwrap();
}

#[tokio::test]
async fn the_command_lines_check_says_why_not() {
    let server = start(ServerConfig::default()).await;
    let (runtime, address) = (server.runtime.clone(), server.address.clone());
    healthcheck(&runtime, &address, "", PATIENCE).await.unwrap();
    let not_ready = healthcheck(&runtime, &address, READY_SERVICE, PATIENCE).await;
    assert!(matches!(
        not_ready,
        Err(HealthcheckError::NotServing { .. })
    ));
    let reason = |result| match result {
        Err(HealthcheckError::NoAnswer { error, .. }) => Some(error.reason()),
        Ok(()) | Err(HealthcheckError::NotServing { .. }) => None,
    };
    let unknown = healthcheck(&runtime, &address, "shard/9/read", PATIENCE).await;
    assert_eq!(reason(unknown), Some(Reason::NotFound));
    server.stopped().await;
    let gone = healthcheck(&runtime, &address, "", PATIENCE).await;
    assert_eq!(reason(gone), Some(Reason::Disconnected));
}
