use std::sync::atomic::{AtomicUsize, Ordering};

use cluster::ShardId;

use super::*;
use crate::fleet::node;

#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl Restarter for Counting {
    fn restart<'a>(
        &'a self,
        _node: &'a NodeTarget,
    ) -> BoxFuture<'a, Result<Restart, RestartError>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(Restart::Begun)))
    }
}

#[derive(Debug)]
struct Stuck;

impl Restarter for Stuck {
    fn restart<'a>(
        &'a self,
        _node: &'a NodeTarget,
    ) -> BoxFuture<'a, Result<Restart, RestartError>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_restarted_once_for_all_its_shards() {
    let runtime = Runtime::real();
    let counting = Arc::new(Counting::default());
    let actions = Actions::of_a_test(&runtime);
    let half_a_minute = Duration::from_secs(30);
    let restarts = Restarts::new(
        runtime.clone(),
        counting.clone(),
        half_a_minute,
        actions.clone(),
    );
    assert_eq!(
        restarts.restart(&node(1), For::Reserve).await.unwrap(),
        Some(Restart::Begun)
    );
    assert_eq!(
        restarts.restart(&node(1), For::Reserve).await.unwrap(),
        None
    );
    assert_eq!(
        restarts
            .restart(&node(2), For::Shard(ShardId(3)))
            .await
            .unwrap(),
        Some(Restart::Begun)
    );
    assert_eq!(counting.0.load(Ordering::SeqCst), 2);
    let told = actions.told();
    let told: Vec<_> = told
        .iter()
        .map(|at| (at.reason.as_str(), at.node_id, at.shard_id))
        .collect();
    let expected = [
        ("silent_without_replicas", 1, None),
        ("shard_recovery", 2, Some(3)),
    ];
    assert_eq!(told, expected);
    runtime.sleep(half_a_minute).await;
    assert_eq!(
        restarts.restart(&node(1), For::Reserve).await.unwrap(),
        Some(Restart::Begun)
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_hangs_is_given_up() {
    let runtime = Runtime::real();
    let actions = Actions::of_a_test(&runtime);
    let half_a_minute = Duration::from_secs(30);
    let restarts = Restarts::new(runtime, Arc::new(Stuck), half_a_minute, actions.clone());
    let result = restarts.restart(&node(1), For::Reserve).await;
    assert!(
        matches!(result, Err(RestartError::TooSlow { limit }) if limit == Duration::from_secs(30))
    );
    let told = actions.told();
    let told: Vec<_> = told
        .iter()
        .map(|at| (at.kind.as_str(), at.error.as_str()))
        .collect();
    assert_eq!(told, [("restart", "no result within 30s")]);
}
