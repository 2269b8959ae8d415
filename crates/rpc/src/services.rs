//! The services of `api`, each with the message limits that the contract gives its interface.
//!
//! A message above its limit is refused by the length that stands in front of it, before it is read.

use api::admin::v1::cluster_admin_service_server::{
    ClusterAdminService, ClusterAdminServiceServer,
};
use api::meta::v1::metadata_service_server::{MetadataService, MetadataServiceServer};
use api::raft::v1::raft_service_server::{RaftService, RaftServiceServer};
use api::registry::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use api::shard::v1::node_service_server::{NodeService, NodeServiceServer};
use api::shard::v1::shard_service_server::{ShardService, ShardServiceServer};
use api::shard::v1::{CountRequest, CountResponse, TopKRequest, TopKResponse, WriteResponse};
use api::v1::autocomplete_service_server::{AutocompleteService, AutocompleteServiceServer};
use cluster::limits::{MESSAGE_BYTES_MAX, RAFT_MESSAGE_BYTES_MAX};
use futures::stream::BoxStream;
use tonic::Status;
use tonic::codec::CompressionEncoding;

/// A shard server's part of [`shard`] as a coordinator in the same process calls it, without a socket, and what only a neighbour can do.
pub trait NearShard:
    ShardService<
        WriteStreamStream = BoxStream<'static, Result<WriteResponse, Status>>,
        TopKStreamStream = BoxStream<'static, Result<TopKResponse, Status>>,
    >
{
    /// What [`ShardService::top_k`] would answer, if nothing has to be waited for. `None` where something has, or where the answer is an
    /// error: that method says what.
    fn top_k_at_once(&self, request: TopKRequest) -> Option<TopKResponse>;

    /// The same of [`ShardService::count`].
    fn count_at_once(&self, request: CountRequest) -> Option<CountResponse>;
}

/// The public interface. Requests may be compressed with gzip; what they inflate to is bounded by the same limit.
pub fn autocomplete<T: AutocompleteService>(service: T) -> AutocompleteServiceServer<T> {
    AutocompleteServiceServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
}

/// Coordinator to shard. A public message can grow on its way here, because display forms and numbers are added.
pub fn shard<T: ShardService>(service: T) -> ShardServiceServer<T> {
    ShardServiceServer::new(service).max_decoding_message_size(RAFT_MESSAGE_BYTES_MAX)
}

/// A node as a whole.
pub fn node<T: NodeService>(service: T) -> NodeServiceServer<T> {
    NodeServiceServer::new(service).max_decoding_message_size(RAFT_MESSAGE_BYTES_MAX)
}

/// Replica to replica.
pub fn raft<T: RaftService>(service: T) -> RaftServiceServer<T> {
    RaftServiceServer::new(service).max_decoding_message_size(RAFT_MESSAGE_BYTES_MAX)
}

/// Shard server to coordinator.
pub fn registry<T: RegistryService>(service: T) -> RegistryServiceServer<T> {
    RegistryServiceServer::new(service).max_decoding_message_size(RAFT_MESSAGE_BYTES_MAX)
}

/// Operators and the watchdog to the coordinator.
pub fn admin<T: ClusterAdminService>(service: T) -> ClusterAdminServiceServer<T> {
    ClusterAdminServiceServer::new(service).max_decoding_message_size(RAFT_MESSAGE_BYTES_MAX)
}

/// Coordinator to coordinator.
pub fn metadata<T: MetadataService>(service: T) -> MetadataServiceServer<T> {
    MetadataServiceServer::new(service).max_decoding_message_size(RAFT_MESSAGE_BYTES_MAX)
}
