//! Keeps the held snapshots fresh: when a shard reports a newer one than is held, it is fetched, one transfer at a time, with
//! growing pauses after failures.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::{NodeId, ShardId};
use runtime::{CancellationToken, Instant, Runtime};

use super::{Store, pull};
use crate::liveness::Liveness;
use crate::meta::Meta;
use crate::routing::Router;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Fetches snapshots in the background.
#[derive(Debug)]
pub(crate) struct Puller {
    pub(crate) runtime: Runtime,
    pub(crate) meta: Arc<Meta>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) router: Arc<Router>,
    pub(crate) store: Arc<Store>,
}

/// After a failure.
#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl Puller {
    /// Runs until it is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut pauses: HashMap<ShardId, Pause> = HashMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.runtime.sleep(LOOK_EVERY) => {}
            }
            for (shard, node) in self.wanted() {
                let now = self.runtime.now();
                if pauses.get(&shard).is_some_and(|pause| pause.until > now) {
                    continue;
                }
                let pulled = tokio::select! {
                    () = stop.cancelled() => return,
                    pulled = self.pull(shard, node) => pulled,
                };
                match pulled {
                    Ok(()) => {
                        pauses.remove(&shard);
                    }
                    Err(error) => {
                        let length = pauses
                            .get(&shard)
                            .map_or(PAUSE_FIRST, |pause| (pause.length * 2).min(PAUSE_MAX));
                        tracing::warn!(%shard, %node, %error, ?length, "a snapshot was not fetched");
                        let until = self.runtime.now() + self.runtime.jitter(length);
                        pauses.insert(shard, Pause { until, length });
                    }
                }
            }
        }
    }

    /// Shards that serve and have a newer snapshot than is held, with a node that has it.
    fn wanted(&self) -> Vec<(ShardId, NodeId)> {
        let heard = self.liveness.all();
        let reported = self.meta.read(|state| {
            let shards = state.shards.values();
            shards
                .flat_map(|record| {
                    let newest = crate::status::replicas(&heard, record)
                        .into_iter()
                        .filter(|replica| replica.serving && replica.snapshot_index > 0)
                        .max_by_key(|replica| replica.snapshot_index);
                    newest.map(|replica| (record.shard.clone(), replica.clone()))
                })
                .collect::<Vec<_>>()
        });
        reported
            .into_iter()
            .filter(|(shard, replica)| {
                let held = self.store.of(shard.id);
                let newest = held
                    .iter()
                    .filter(|held| held.incarnation == shard.incarnation)
                    .map(|held| held.index)
                    .max();
                newest < Some(replica.snapshot_index)
            })
            .map(|(shard, replica)| (shard.id, NodeId(replica.node_id)))
            .collect()
    }

    async fn pull(&self, shard: ShardId, node: NodeId) -> Result<(), api::ApiError> {
        let link = self.router.link(node)?;
        let held = pull(&self.runtime, &self.store, &link, shard).await?;
        tracing::info!(%shard, %node, index = held.index, bytes = held.bytes, "snapshot fetched");
        Ok(())
    }
}
