//! A registry with three shards: 1 ("" to "m") and 2 ("m" to "t") on the node under test, 3 (from "t") somewhere else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use api::admin::v1 as admin;
use api::registry::v1::registry_service_server::RegistryService;
use api::registry::v1::{
    Assignment, ClearNamespaceRequest, ClearNamespaceResponse, RegisterRequest, RegisterResponse,
    ResolveNamespaceRequest, ResolveNamespaceResponse, SyncRequest, SyncResponse,
};
use api::{ApiError, Reason};
use parking_lot::Mutex;
use runtime::{CancellationToken, Runtime};
use tonic::{Request, Response, Status};

pub(crate) const CLUSTER: [u8; 16] = [7; 16];
/// The node that owns shard 3 and does not exist.
pub(crate) const STRANGER: u64 = 99;

#[derive(Debug, Clone)]
pub(crate) struct Registry {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) address: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) map: admin::ShardMap,
    pub(crate) assignments: Vec<Assignment>,
    /// Instances and the identities they were given.
    pub(crate) instances: BTreeMap<Vec<u8>, u64>,
    /// The node that the assignments are for; the first that registers, unless a test says otherwise.
    pub(crate) host: Option<u64>,
    pub(crate) reports: BTreeMap<u64, SyncRequest>,
    pub(crate) is_away: bool,
    pub(crate) lost: Vec<u64>,
}

fn range(start: &str, shard_id: u64) -> admin::LayoutRange {
    admin::LayoutRange {
        start: start.to_owned(),
        shard_id,
    }
}

fn shard(shard_id: u64, node_id: u64) -> admin::ShardDescriptor {
    admin::ShardDescriptor {
        shard_id,
        incarnation: 1,
        replicas: vec![admin::ReplicaDescriptor {
            node_id,
            voter: true,
        }],
        lineage: Vec::new(),
    }
}

fn assignment(shard_id: u64) -> Assignment {
    Assignment {
        shard_id,
        incarnation: 1,
        bootstrap: true,
        ..Assignment::default()
    }
}

impl State {
    fn new() -> Self {
        let ranges = vec![range("", 1), range("m", 2), range("t", 3)];
        Self {
            map: admin::ShardMap {
                epoch: 1,
                template: Some(admin::Layout { ranges }),
                shards: vec![shard(1, 1), shard(2, 1), shard(3, STRANGER)],
                nodes: vec![admin::NodeDescriptor {
                    node_id: STRANGER,
                    name: "stranger".into(),
                    address: "stranger:50061".into(),
                    ..admin::NodeDescriptor::default()
                }],
                namespaces: Vec::new(),
            },
            assignments: [1, 2].map(assignment).to_vec(),
            instances: BTreeMap::new(),
            host: None,
            reports: BTreeMap::new(),
            is_away: false,
            lost: Vec::new(),
        }
    }

    pub(crate) fn change_map(&mut self, change: impl FnOnce(&mut admin::ShardMap)) {
        change(&mut self.map);
        self.map.epoch += 1;
    }

    /// Gives all terms to the node under test, divided into shards that begin at these starts and are numbered from 1.
    pub(crate) fn give_all(&mut self, starts: &[&str]) {
        let numbered = || (1..).zip(starts);
        let ranges = numbered().map(|(id, start)| range(start, id)).collect();
        self.assignments = numbered().map(|(id, _)| assignment(id)).collect();
        self.change_map(|map| {
            map.template = Some(admin::Layout { ranges });
            map.shards = numbered().map(|(id, _)| shard(id, 1)).collect();
        });
    }

    /// Raises the generation of a namespace.
    pub(crate) fn clear(&mut self, name: &str) -> u64 {
        let mut generation = 0;
        self.change_map(|map| {
            for namespace in map.namespaces.iter_mut().filter(|found| found.name == name) {
                namespace.generation += 1;
                generation = namespace.generation;
            }
        });
        generation
    }

    fn resolve(&mut self, name: &str, create: bool) -> Option<admin::NamespaceDescriptor> {
        let known = self.map.namespaces.iter().find(|found| found.name == name);
        if let Some(known) = known {
            return Some(known.clone());
        }
        if !create {
            return None;
        }
        let created = admin::NamespaceDescriptor {
            namespace_id: self.map.namespaces.len() as u32 + 1,
            name: name.to_owned(),
            generation: 1,
            normaliser_version: 1,
            layout: None,
        };
        self.change_map(|map| map.namespaces.push(created.clone()));
        Some(created)
    }
}

impl Registry {
    /// Starts a registry on a free port; it ends with the test's runtime.
    pub(crate) async fn start(runtime: &Runtime) -> Self {
        let listener = runtime.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let registry = Self {
            state: Arc::new(Mutex::new(State::new())),
            address: listener.local_addr(),
        };
        let server = rpc::Server::new(runtime, rpc::ServerConfig::internal())
            .with_service(rpc::services::registry(registry.clone()));
        let serve = server.serve(listener, CancellationToken::new());
        drop(runtime.spawn("test-registry", serve));
        registry
    }

    pub(crate) fn report(&self, node: u64) -> Option<SyncRequest> {
        self.state.lock().reports.get(&node).cloned()
    }

    fn here(&self) -> Result<parking_lot::MutexGuard<'_, State>, Status> {
        let state = self.state.lock();
        if state.is_away {
            return Err(ApiError::new(Reason::Starting, "away").into());
        }
        Ok(state)
    }
}

#[tonic::async_trait]
impl RegistryService for Registry {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let mut state = self.here()?;
        let request = request.into_inner();
        assert_eq!(request.instance_id.len(), 16);
        let next = state.instances.len() as u64 + 1;
        let node_id = *state
            .instances
            .entry(request.instance_id.to_vec())
            .or_insert(next);
        state.host.get_or_insert(node_id);
        Ok(Response::new(RegisterResponse {
            node_id,
            cluster_id: CLUSTER.to_vec().into(),
        }))
    }

    async fn sync(&self, request: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        let mut state = self.here()?;
        let request = request.into_inner();
        let node = request.node_id;
        if state.lost.contains(&node) {
            return Err(ApiError::new(Reason::NodeLost, "given up").into());
        }
        assert_eq!(request.cluster_id.as_ref(), CLUSTER);
        let known_epoch = request.known_epoch;
        state.reports.insert(node, request);
        let is_host = state.host == Some(node);
        Ok(Response::new(SyncResponse {
            assignments: if is_host {
                state.assignments.clone()
            } else {
                Vec::new()
            },
            map: (known_epoch < state.map.epoch).then(|| state.map.clone()),
            epoch: state.map.epoch,
            ..SyncResponse::default()
        }))
    }

    async fn resolve_namespace(
        &self,
        request: Request<ResolveNamespaceRequest>,
    ) -> Result<Response<ResolveNamespaceResponse>, Status> {
        let mut state = self.here()?;
        let request = request.into_inner();
        let namespace = state.resolve(&request.name, request.create);
        Ok(Response::new(ResolveNamespaceResponse {
            namespace,
            epoch: state.map.epoch,
        }))
    }

    async fn clear_namespace(
        &self,
        request: Request<ClearNamespaceRequest>,
    ) -> Result<Response<ClearNamespaceResponse>, Status> {
        let mut state = self.here()?;
        let request = request.into_inner();
        // Whoever asked: a second coordinator that hears of it must know it again.
        assert_eq!(request.client_id.len(), 16, "{request:?}");
        let generation = state.clear(&request.name);
        Ok(Response::new(ClearNamespaceResponse { generation }))
    }
}
