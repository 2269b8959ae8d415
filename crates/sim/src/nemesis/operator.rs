//! An operator who changes the cluster in the middle of everything.
//!
//! What he asks for may be refused, fail or be forgotten half-way; no promise may break over it. He never gives data up. What he has drained
//! he takes back in the end, as nobody else would.

use std::sync::Arc;
use std::time::Duration;

use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::admin::v1::{
    DrainNodeRequest, GetStatusRequest, GetStatusResponse, PromoteReplicaRequest,
    PullSnapshotRequest, PushSnapshotRequest, RecoverShardRequest, ReplaceReplicaRequest,
    TransferLeaderRequest,
};
use parking_lot::Mutex;
use rpc::channel::{PoolConfig, connect};
use runtime::Runtime;
use tonic::transport::Channel;

use super::Nemesis;
use super::effect::Effect;
use super::kind::Kind;
use crate::cast;
use crate::world::World;

/// How long one order may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long he looks for drained nodes when the faults are over, and how often.
const TIDIES: Duration = Duration::from_secs(15);
const LOOKS: Duration = Duration::from_secs(1);

/// Whether an order was carried out, once that is known.
pub(super) type Done = Arc<Mutex<Option<Result<(), String>>>>;

/// What he may ask for.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// The lead of the shard is to go to the node, or to whoever is fit for it.
    Transfer {
        to_somebody: bool,
    },
    /// The node's replicas are to go elsewhere, or may stay.
    Drain {
        undo: bool,
    },
    /// The node is to vote for the shard, as one more if it has no replica of it.
    Promote,
    /// The node's replica of the shard is to go elsewhere.
    Replace,
    /// A coordinator is to fetch a snapshot of the shard, or to send it one.
    Pull,
    Push,
    /// The shard is to be mended where it can be without a loss.
    Recover,
}

const ORDERS: [Order; 12] = [
    Order::Transfer { to_somebody: true },
    Order::Transfer { to_somebody: false },
    Order::Transfer { to_somebody: false },
    Order::Drain { undo: false },
    Order::Drain { undo: false },
    Order::Drain { undo: true },
    Order::Promote,
    Order::Replace,
    Order::Replace,
    Order::Pull,
    Order::Push,
    Order::Recover,
];

/// An order with all that it says.
#[derive(Debug, Clone)]
struct Whole {
    order: Order,
    /// Whom he asks.
    coordinator: String,
    shard_id: u64,
    node: String,
}

impl Nemesis {
    /// Gives an order.
    pub(super) fn give_order(&mut self, world: &mut World) -> Effect {
        let order = self.dice.pick(&ORDERS).unwrap_or(Order::Pull);
        let shards = cast::shards().map(|shard| shard.0);
        let whole = Whole {
            order,
            coordinator: cast::coordinator_address(self.coordinator()),
            shard_id: self.dice.pick(&shards).unwrap_or_default(),
            node: cast::node_name(self.server()),
        };
        world.trace.note(world.now, &format!("an order: {whole:?}"));
        if matches!(order, Order::Promote) {
            world.replicas_max = cast::SHARD_SERVERS.len() + 1;
        }
        let Some(clients) = world.machine(cast::CLIENTS) else {
            return Effect::None;
        };
        Effect::Done(clients.spawn(|runtime| Box::pin(carry_out(runtime, whole))))
    }

    /// Has nodes taken back that are drained, for a while from now on.
    pub(super) fn tidy_up(&self, world: &mut World) {
        let endpoints = self.shape.endpoints();
        if self.kinds.contains(&Kind::Operator)
            && let Some(clients) = world.machine(cast::CLIENTS)
        {
            drop(clients.spawn(|runtime| Box::pin(take_back(runtime, endpoints))));
        }
    }
}

fn admin(runtime: &Runtime, address: &str) -> Result<ClusterAdminServiceClient<Channel>, String> {
    let channel = connect(runtime, address, &PoolConfig::default());
    let channel = channel.map_err(|error| error.to_string())?;
    Ok(ClusterAdminServiceClient::new(channel))
}

async fn carry_out(runtime: Runtime, whole: Whole) -> Result<(), String> {
    let mut admin = admin(&runtime, &whole.coordinator)?;
    let asked = Box::pin(ask(&mut admin, whole));
    let asked = runtime.timeout(PATIENCE, asked).await;
    let answer = asked.map_err(|_| "no answer".to_owned())?;
    answer.map_err(|status| status.message().to_owned())
}

async fn ask(
    admin: &mut ClusterAdminServiceClient<Channel>,
    whole: Whole,
) -> Result<(), tonic::Status> {
    let Whole {
        order,
        coordinator: _,
        shard_id,
        node,
    } = whole;
    match order {
        Order::Transfer { to_somebody } => {
            let to_node_id = if to_somebody {
                0
            } else {
                let status = admin
                    .get_status(request(GetStatusRequest::default()))
                    .await?;
                number_of(&status.into_inner(), &node)
            };
            let message = TransferLeaderRequest {
                shard_id,
                to_node_id,
            };
            admin.transfer_leader(request(message)).await.map(drop)
        }
        Order::Drain { undo } => {
            let message = DrainNodeRequest { node, undo };
            admin.drain_node(request(message)).await.map(drop)
        }
        Order::Promote => {
            let message = PromoteReplicaRequest {
                shard_id,
                node,
                ..PromoteReplicaRequest::default()
            };
            admin.promote_replica(request(message)).await.map(drop)
        }
        Order::Replace => {
            let message = ReplaceReplicaRequest {
                shard_id,
                node,
                with: String::new(),
            };
            admin.replace_replica(request(message)).await.map(drop)
        }
        Order::Pull => {
            let message = PullSnapshotRequest { shard_id };
            admin.pull_snapshot(request(message)).await.map(drop)
        }
        Order::Push => {
            let message = PushSnapshotRequest { shard_id };
            admin.push_snapshot(request(message)).await.map(drop)
        }
        Order::Recover => {
            let message = RecoverShardRequest {
                shard_id,
                ..RecoverShardRequest::default()
            };
            admin.recover_shard(request(message)).await.map(drop)
        }
    }
}

fn request<T>(message: T) -> tonic::Request<T> {
    rpc::request(message, PATIENCE)
}

/// The number of the newest node of a name, 0 for none.
fn number_of(status: &GetStatusResponse, name: &str) -> u64 {
    let named = status.nodes.iter().filter(|node| node.name == name);
    named.map(|node| node.node_id).max().unwrap_or_default()
}

/// Takes back whatever is drained, and looks again: an order that was given before may still be on its way.
async fn take_back(runtime: Runtime, coordinators: Vec<String>) {
    let end = runtime.now() + TIDIES;
    let mut addresses = coordinators.iter().cycle();
    while runtime.now() < end
        && let Some(address) = addresses.next()
    {
        let looked = runtime.timeout(PATIENCE, Box::pin(take_back_once(&runtime, address)));
        // Whoever does not answer is asked again.
        drop(looked.await);
        runtime.sleep(LOOKS).await;
    }
}

async fn take_back_once(runtime: &Runtime, address: &str) -> Result<(), String> {
    let mut admin = admin(runtime, address)?;
    let status = admin.get_status(request(GetStatusRequest::default())).await;
    let status = status.map_err(|error| error.to_string())?.into_inner();
    for node in status
        .nodes
        .iter()
        .filter(|node| node.draining && !node.lost)
    {
        let message = DrainNodeRequest {
            node: node.node_id.to_string(),
            undo: true,
        };
        let undone = admin.drain_node(request(message)).await;
        undone.map_err(|error| error.to_string())?;
    }
    Ok(())
}
