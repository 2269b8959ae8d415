//! Waiting until the cluster serves.

use std::time::Duration;

use api::admin::v1::{GetStatusResponse, ShardState};
use client::Client;
use runtime::Runtime;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// When to say what is waited for, and how often.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Returns when every shard serves. A large log takes its time to be read, so there is no limit; what is waited for is told.
pub(super) async fn wait(runtime: &Runtime, client: &Client, shards: usize) {
    let mut tell_at = runtime.now() + TELL_EVERY;
    loop {
        let missing = match client.status().await {
            Ok(status) => match missing(&status, shards) {
                None => return,
                Some(missing) => missing,
            },
            Err(error) => format!("the coordinator ({error})"),
        };
        if runtime.now() >= tell_at {
            tracing::info!("waiting for {missing}");
            tell_at = runtime.now() + TELL_EVERY;
        }
        runtime.sleep(LOOK_EVERY).await;
    }
}

/// What does not serve yet.
fn missing(status: &GetStatusResponse, shards: usize) -> Option<String> {
    let is_serving = |state: i32| state == i32::from(ShardState::Serving);
    let waiting: Vec<_> = status
        .shards
        .iter()
        .filter(|shard| !is_serving(shard.state))
        .map(|shard| {
            let replayed: u64 = shard
                .replicas
                .iter()
                .map(|replica| replica.replayed_entries)
                .sum();
            let target: u64 = shard
                .replicas
                .iter()
                .map(|replica| replica.replay_target)
                .sum();
            if target > replayed {
                format!(
                    "shard {} ({replayed} of {target} entries read)",
                    shard.shard_id
                )
            } else if shard.reason.is_empty() {
                format!("shard {}", shard.shard_id)
            } else {
                format!("shard {} ({})", shard.shard_id, shard.reason)
            }
        })
        .collect();
    if status.shards.len() < shards {
        return Some(format!(
            "{} shards to be placed",
            shards - status.shards.len()
        ));
    }
    (!waiting.is_empty()).then(|| waiting.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::admin::v1::{ReplicaStatus, ShardStatus};

    #[test]
    fn everything_that_does_not_serve_is_named() {
        let shard = |shard_id, state: ShardState, replayed_entries, replay_target| ShardStatus {
            shard_id,
            state: state.into(),
            replicas: vec![ReplicaStatus {
                replayed_entries,
                replay_target,
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut status = GetStatusResponse::default();
        assert_eq!(
            missing(&status, 2).as_deref(),
            Some("2 shards to be placed")
        );
        status.shards = vec![
            shard(1, ShardState::Serving, 5, 5),
            shard(2, ShardState::Recovering, 3, 9),
        ];
        assert_eq!(
            missing(&status, 2).as_deref(),
            Some("shard 2 (3 of 9 entries read)")
        );
        status.shards[1] = shard(2, ShardState::Serving, 9, 9);
        assert_eq!(missing(&status, 2), None);
    }
}
