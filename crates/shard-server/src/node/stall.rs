//! What a node does while the disk of its log does not answer: it gives its leads to whoever keeps up.
//!
//! A leader whose syncs hang still lets itself be heard, so that nobody else is elected, although nothing that it proposes need wait for
//! its own disk: the others can acknowledge without it. So the lead goes to a voter that follows. The node does that by itself, for
//! a coordinator may be away; it tells them as well, so that no lead comes back while it lasts. The only voter of a shard keeps
//! its lead. The host ends the process when it lasts too long.

use std::sync::Arc;
use std::time::Duration;

use runtime::Instant;

use super::Node;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A lead that nobody took is offered again after this.
const AGAIN: Duration = Duration::from_secs(1);

impl Node {
    /// For how long the log's disk has not answered, where that is longer than it may.
    pub(super) fn stall(&self) -> Option<Duration> {
        let limit = self.config.log.stall_yield?;
        let stalled = self.host()?.stalled();
        (stalled >= limit).then_some(stalled)
    }
}

/// The task that watches the disk until the node stops.
pub(super) async fn run(node: Arc<Node>) {
    let mut offered: Option<Instant> = None;
    loop {
        tokio::select! {
            () = node.closing.cancelled() => return,
            () = node.runtime.sleep(LOOK_EVERY) => {}
        }
        let Some(host) = node.host() else {
            continue;
        };
        node.metrics.set_stall(host.stalled());
        let now = node.runtime.now();
        match (node.stall(), offered) {
            (Some(_), Some(at)) if now.saturating_since(at) < AGAIN => {}
            (Some(stalled), before) => {
                offered = Some(now);
                if before.is_none() {
                    tracing::error!(
                        ?stalled,
                        "the disk of the log does not answer, leads go to other nodes"
                    );
                    node.metrics.count_stall();
                    node.sync_now.notify_one();
                    node.refresh_health();
                }
                node.hand_over_leads("slow_disk").await;
            }
            (None, Some(_)) => {
                offered = None;
                tracing::warn!("the disk of the log answers again");
                node.sync_now.notify_one();
                node.refresh_health();
            }
            (None, None) => {}
        }
    }
}
