//! What is known of each method before a call reaches it.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// Which limit of calls in work a method counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// None. An overloaded server is alive, and shedding the traffic between replicas would make overload permanent; and what coordinators
    /// pass on was counted where it came in.
    Free,
    /// One that callers of the public interface have no part in. Reports of shard servers, turns of watchdogs and orders of operators
    /// are needed most when there is too much of everything else.
    Cluster,
    /// The one of everybody.
    Public,
}

/// The services that are not in [`Lane::Public`].
const LANES: [(&str, Lane); 6] = [
    ("grpc.health.v1.Health", Lane::Free),
    ("autocomplete.raft.v1.RaftService", Lane::Free),
    ("autocomplete.meta.v1.MetadataService", Lane::Free),
    ("autocomplete.registry.v1.RegistryService", Lane::Cluster),
    ("autocomplete.admin.v1.ClusterAdminService", Lane::Cluster),
    ("autocomplete.shard.v1.NodeService", Lane::Cluster),
];

/// What is known of a method.
#[derive(Debug, Clone)]
pub(crate) struct Method {
    /// `package.Service/Method`.
    pub(crate) name: Arc<str>,
    /// A stream on either side.
    pub(crate) streaming: bool,
    pub(crate) lane: Lane,
}

/// Every method of the interfaces that a server of ours may have.
#[derive(Debug)]
pub(crate) struct Methods {
    by_path: HashMap<String, Method>,
    unknown: Method,
}

impl Methods {
    /// Reads the compiled-in descriptors. One that does not decode (which the tests rule out) leaves its methods
    /// unknown: unary, and counted against the limit.
    pub(crate) fn new() -> Self {
        let sets = [
            api::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut by_path = HashMap::new();
        for set in sets {
            let files = FileDescriptorSet::decode(set).unwrap_or_default().file;
            for file in files {
                let package = file.package().to_owned();
                for service in &file.service {
                    let service_name = format!("{package}.{}", service.name());
                    let its = LANES.iter().find(|(name, _)| *name == service_name);
                    let lane = its.map_or(Lane::Public, |(_, lane)| *lane);
                    for method in &service.method {
                        let name = format!("{service_name}/{}", method.name());
                        let entry = Method {
                            name: name.as_str().into(),
                            streaming: method.client_streaming() || method.server_streaming(),
                            lane,
                        };
                        by_path.insert(format!("/{name}"), entry);
                    }
                }
            }
        }
        Self {
            by_path,
            unknown: Method {
                name: "unknown".into(),
                streaming: false,
                lane: Lane::Public,
            },
        }
    }

    /// The method of a request's path.
    pub(crate) fn of(&self, path: &str) -> &Method {
        self.by_path.get(path).unwrap_or(&self.unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_their_path() {
        let methods = Methods::new();
        let record = methods.of("/autocomplete.v1.AutocompleteService/Record");
        assert_eq!(&*record.name, "autocomplete.v1.AutocompleteService/Record");
        assert!(!record.streaming);
        assert_eq!(record.lane, Lane::Public);
        for path in [
            "/autocomplete.v1.AutocompleteService/TopKStream",
            "/autocomplete.shard.v1.NodeService/ReadSnapshot",
            "/autocomplete.shard.v1.NodeService/SendSnapshot",
            "/autocomplete.raft.v1.RaftService/Append",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ] {
            assert!(methods.of(path).streaming, "{path}");
        }
        for (path, lane) in [
            ("/grpc.health.v1.Health/Check", Lane::Free),
            ("/autocomplete.raft.v1.RaftService/Vote", Lane::Free),
            ("/autocomplete.meta.v1.MetadataService/Propose", Lane::Free),
            (
                "/autocomplete.registry.v1.RegistryService/Sync",
                Lane::Cluster,
            ),
            (
                "/autocomplete.admin.v1.ClusterAdminService/BeginRecovery",
                Lane::Cluster,
            ),
            (
                "/autocomplete.shard.v1.NodeService/TransferLeader",
                Lane::Cluster,
            ),
            ("/autocomplete.shard.v1.ShardService/Write", Lane::Public),
        ] {
            let method = methods.of(path);
            assert_eq!((method.lane, method.streaming), (lane, false), "{path}");
        }
        for (service, _) in LANES {
            let its = |path: &String| path.starts_with(&format!("/{service}/"));
            assert!(methods.by_path.keys().any(its), "{service}");
        }
        assert_eq!(&*methods.of("/made.up/Name").name, "unknown");
    }
}
