use std::sync::atomic::{AtomicUsize, Ordering};

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
    let restarts = Restarts::new(runtime.clone(), counting.clone(), Duration::from_secs(30));
    assert_eq!(
        restarts.restart(&node(1)).await.unwrap(),
        Some(Restart::Begun)
    );
    assert_eq!(restarts.restart(&node(1)).await.unwrap(), None);
    assert_eq!(
        restarts.restart(&node(2)).await.unwrap(),
        Some(Restart::Begun)
    );
    assert_eq!(counting.0.load(Ordering::SeqCst), 2);
    runtime.sleep(Duration::from_secs(30)).await;
    assert_eq!(
        restarts.restart(&node(1)).await.unwrap(),
        Some(Restart::Begun)
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_hangs_is_given_up() {
    let restarts = Restarts::new(Runtime::real(), Arc::new(Stuck), Duration::from_secs(30));
    let result = restarts.restart(&node(1)).await;
    assert!(
        matches!(result, Err(RestartError::TooSlow { limit }) if limit == Duration::from_secs(30))
    );
}
