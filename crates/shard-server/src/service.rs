//! The services of a node: they decode, call, and map errors, and do nothing else.
//!
//! - `shard`: `ShardService`, for coordinators. `node`: `NodeService`, for coordinators and operators; `members`: its changes of members. `public`:
//!   `AutocompleteService`, for clients that come directly, about what this node owns. Beside them `RaftService`,
//!   from the moment on when the log is open.
//! - Errors are [`api::ApiError`] up to the last step; a status is built in one place, in `api`.
//! - A stream works on a bounded number of its requests at once; what is beyond waits in the transport.

mod convert;
pub(crate) mod members;
mod node;
mod public;
mod route;
pub(crate) mod shard;
pub(crate) mod snapshots;
mod streams;
pub(crate) mod writes;

use std::sync::Arc;

use api::ApiError;
use api::raft::v1::raft_service_server::RaftServiceServer;
use cluster::limits;
use replication::RaftServer;
use rpc::{Call, Deadline, Health, Late, Server, ServerConfig};
use tonic::Status;

use crate::node::Node;

/// Raft's service from the moment on when the log is open.
pub(crate) type LateRaft = Late<RaftServiceServer<RaftServer>>;

/// All services of a node. Clones share the node.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    node: Arc<Node>,
    hashes: Arc<snapshots::Hashes>,
}

impl Services {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            hashes: Arc::default(),
        }
    }

    /// The deadline of a message on a stream, from now on.
    fn message_deadline(&self) -> Deadline {
        Deadline::after(&self.node.runtime, limits::DEADLINE_DEFAULT)
    }
}

/// The server of a node, with all its services.
pub(crate) fn server(services: &Services, raft: &LateRaft, health: &Health) -> Server {
    let node = &services.node;
    let config = ServerConfig {
        calls_max: node.config.calls.calls_max,
        ..ServerConfig::internal()
    };
    let metrics = node.metrics.base().clone();
    let observer = move |call: Call<'_>| {
        let code = call.code_name();
        if call.streaming {
            metrics.rpc_stream_ended(call.method, code);
        } else {
            metrics.rpc_ended(call.method, code, call.took);
        }
    };
    Server::new(&node.runtime, config)
        .with_service(rpc::services::autocomplete(services.clone()))
        .with_service(rpc::services::shard(services.clone()))
        .with_service(rpc::services::node(services.clone()))
        .with_service(raft.clone())
        .with_health(health)
        .with_reflection()
        .with_grpc_web()
        .with_observer(Arc::new(observer))
}

/// What a call that reads ends with.
fn status(error: ApiError) -> Status {
    Status::from(error)
}

/// What a call that writes ends with: says what became of the write.
fn write_status(error: ApiError) -> Status {
    Status::from(error.for_write())
}
