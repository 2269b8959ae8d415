//! What is known of each method before a call reaches it.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// The packages whose methods are not [`Method::shed`].
const UNSHED: [&str; 5] = [
    "grpc.health.v1",
    "autocomplete.raft.v1",
    "autocomplete.meta.v1",
    "autocomplete.registry.v1",
    "autocomplete.admin.v1",
];

/// What is known of a method.
#[derive(Debug, Clone)]
pub(crate) struct Method {
    /// `package.Service/Method`.
    pub(crate) name: Arc<str>,
    /// A stream on either side.
    pub(crate) streaming: bool,
    /// Counts against the limit of calls in work. Health, Raft and reports of shard servers do not: an overloaded server is alive, and
    /// shedding the traffic between servers would make overload permanent. Nor does what servers ask a coordinator for a caller's sake,
    /// and coordinators each other: it was counted where it came in. Nor what watchdogs and operators ask, who are needed most then.
    pub(crate) shed: bool,
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
                    for method in &service.method {
                        let name = format!("{package}.{}/{}", service.name(), method.name());
                        let entry = Method {
                            name: name.as_str().into(),
                            streaming: method.client_streaming() || method.server_streaming(),
                            shed: !UNSHED.contains(&package.as_str()),
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
                shed: true,
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
        assert!(!record.streaming && record.shed);
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
        for path in [
            "/grpc.health.v1.Health/Check",
            "/autocomplete.raft.v1.RaftService/Vote",
            "/autocomplete.meta.v1.MetadataService/Propose",
            "/autocomplete.registry.v1.RegistryService/Sync",
            "/autocomplete.admin.v1.ClusterAdminService/BeginRecovery",
        ] {
            let method = methods.of(path);
            assert!(!method.shed && !method.streaming, "{path}");
        }
        assert_eq!(&*methods.of("/made.up/Name").name, "unknown");
    }
}
